"""Adapters in other formats: ONNX Runtime drives graft's models with them, and other tools read what graft writes.

    pip install -r requirements.txt
    python adapters.py GRAFT FOLDER

GRAFT is the binary; FOLDER receives what is made. On tests/data/parity/base.onnx, for every method with random weights,
checks, and prints:
 - `graft inject --inputs` makes a model that gives, in ONNX Runtime without an adapter, what the base model gives;
 - with the `.onnx_adapter` that `graft convert` makes of the method's folder, active by `add_active_adapter`, it gives what
   the merged (for HydraLoRA: adapted) model gives; ONNX Runtime reads the same tensors from the file, and a file that
   ONNX Runtime wrote of them converts back to the same adapter;
 - LoRAs of other ranks drive the same model, and a fed scale of one half gives half the change;
 - every format, back to PEFT's: the same bits where it can hold them, else how far off.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from binary import Binary
from safetensors.numpy import load_file, save_file

DATA = Path(__file__).parent.parent / "data/parity"
# max|a−b| / max|a| between ONNX Runtime's results for two graphs of the same function in float32.
TOLERANCE = 1e-5

METHODS = {
    "lora": ["lora", "--rank", "4", "--alpha", "6"],
    "rslora": ["lora", "--rank", "4", "--alpha", "6", "--set", "rslora=true"],
    "dora": ["lora", "--rank", "4", "--alpha", "6", "--set", "dora=true"],
    "encoder": ["lora", "--rank", "4", "--alpha", "6", "--targets", "re:.*encoder.*"],
    "patterns": ["lora", "--rank", "4", "--rank-pattern", "query=2", "--alpha-pattern", "query=5"],
    "adalora": ["adalora", "--rank", "6", "--set", "target_rank=4"],
    "bone": ["bone", "--rank", "8"],
    "mini": ["bone", "--rank", "8", "--set", "mini=4"],
    "bat": ["bat", "--rank", "4"],
    "bat_row": ["bat", "--rank", "4", "--set", "layout=row"],
    "bat_left": ["bat", "--rank", "4", "--set", "layout=left"],
    "hydra": ["hydra", "--rank", "4", "--set", "experts=2"],
    "salora": ["salora", "--rank", "4"],
    "tri": ["tri", "--rank", "4"],
}


class Suite(Binary):
    def __init__(self, binary, folder):
        super().__init__(binary, folder)
        self.base = DATA / "base.onnx"
        rows = dict(np.load(DATA / "train.npz"))
        names = [i.name for i in session(self.base).get_inputs()]
        self.feeds = {name: rows[name][:4] for name in names}

    def outputs(self, model, *adapters, **more):
        """ONNX Runtime's outputs, with these adapters active."""
        options = onnxruntime.RunOptions()
        loaded = []
        for path in adapters:
            loaded.append(onnxruntime.LoraAdapter())
            loaded[-1].Load(str(path))
            options.add_active_adapter(loaded[-1])
        return session(model).run(None, {**self.feeds, **more}, options)

    def method(self, name, flags):
        """Checks a method; returns the folder of its adapter."""
        path = lambda end: self.folder / f"{name}{end}"
        adapted, adapter, merged, fed = path("-adapted.onnx"), path(""), path("-merged.onnx"), path("-inputs.onnx")
        self.graft("inject", self.base, "--method", *flags, "-o", adapted, "--force")
        self.graft("extract", adapted, "-o", adapter, "--force")
        randomise(adapter / "adapter_model.safetensors")
        if name == "hydra":
            self.graft("inject", self.base, "--adapter", adapter, "-o", merged, "--force")
        else:
            self.graft("merge", self.base, "--adapter", adapter, "-o", merged, "--force")
        self.graft("inject", self.base, "--method", *flags, "--inputs", "-o", fed, "--force")
        file = path(".onnx_adapter")
        self.graft("convert", adapter, file, "--model", fed, "--force")
        before, wanted = self.outputs(self.base), self.outputs(merged)
        bare, driven = difference(before, self.outputs(fed)), difference(wanted, self.outputs(fed, file))
        moved = difference(before, wanted)
        assert bare <= TOLERANCE and driven <= TOLERANCE and moved > 0.01, (name, bare, driven, moved)
        back = self.again(file, path("-again"))
        print(f"{name}: ONNX Runtime without an adapter {bare:.1e} from the base model, with it {driven:.1e} from the merged one "
              f"(≤ {TOLERANCE:.0e}), moved by {moved:.2f}; back in PEFT's folder {back}")
        return adapter

    def again(self, file, folder):
        """What ONNX Runtime reads from a file and writes again is the same adapter to graft."""
        read = onnxruntime.AdapterFormat.read_adapter(str(file))
        values = {key: value.numpy() for key, value in read.get_parameters().items()}
        theirs = onnxruntime.AdapterFormat()
        theirs.set_adapter_version(0)
        theirs.set_model_version(0)
        theirs.set_parameters({key: onnxruntime.OrtValue.ortvalue_from_numpy(v) for key, v in values.items()})
        rewritten = file.with_suffix(".by_ort.onnx_adapter")
        theirs.export_adapter(str(rewritten))
        self.graft("convert", rewritten, folder, "--force")
        once = self.folder / "once.onnx_adapter"
        self.graft("convert", folder, once, "--force")
        assert once.read_bytes() == file.read_bytes(), f"{file}: not the same adapter after a round trip"
        return "and again the same bytes"

    def one_model_for_all_ranks(self):
        fed, half = self.folder / "lora-inputs.onnx", self.folder / "lora-scale.onnx"
        for name in ["patterns", "rslora"]:
            file = self.folder / f"{name}-any.onnx_adapter"
            self.graft("convert", self.folder / name, file, "--model", fed, "--force")
            worst = difference(self.outputs(self.folder / f"{name}-merged.onnx"), self.outputs(fed, file))
            print(f"{name} on the model of lora: {worst:.1e}")
            assert worst <= TOLERANCE
        self.graft("inject", self.base, "--method", "lora", "--inputs=scale", "-o", half, "--force")
        scales = [i.name for i in session(half).get_overridable_initializers() if i.name.endswith(".scale")]
        assert len(scales) == 13, scales
        merged, file = self.folder / "lora-half.onnx", self.folder / "lora.onnx_adapter"
        self.graft("merge", self.base, "--adapter", f"{self.folder / 'lora'}=0.5", "-o", merged, "--force")
        fed = {name: np.array(0.5, np.float32) for name in scales}
        worst = difference(self.outputs(merged), self.outputs(half, file, **fed))
        print(f"a scale of one half, fed: {worst:.1e}")
        assert worst <= TOLERANCE

    def formats(self, adapter):
        """Through every format and back to PEFT's."""
        before = load_file(adapter / "adapter_model.safetensors")
        trips = {"npz": [], "kohya": ["--model", self.base], "diffusers": [], "gguf": [], "onnx_adapter": []}
        for name, flags in trips.items():
            file, back = self.folder / f"trip.{name}", self.folder / f"trip-{name}"
            self.graft("convert", adapter, file, "--to", name, *flags, "--force")
            self.graft("convert", file, back, "--to", "peft", "--model", self.base, "--force")
            after = load_file(back / "adapter_model.safetensors")
            assert before.keys() == after.keys(), name
            scales = [scale(folder) for folder in [adapter, back]]
            pairs = [key for key in before if key.endswith("lora_A.weight")]
            product = lambda tensors, key, s: s * tensors[key.replace("_A", "_B")].astype(float) @ tensors[key].astype(float)
            worst = max(difference([product(before, k, scales[0])], [product(after, k, scales[1])]) for k in pairs)
            same = all(np.array_equal(before[key], after[key]) for key in before) and scales[0] == scales[1]
            print(f"{adapter.name} → {name} → PEFT: {'the same bits' if same else f'{worst:.1e} from it'}")
            assert same or (name == "onnx_adapter" and worst < 1e-7)


def scale(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    return config["lora_alpha"] / config["r"]


def randomise(path):
    """Every weight random, since zeros hide mistakes; magnitudes near what they are."""
    random = np.random.default_rng(0)
    tensors = {}
    for key, value in load_file(path).items():
        noise = random.standard_normal(value.shape) * 0.2
        tensors[key] = (value * (1 + noise) if key.endswith("magnitude_vector") else noise).astype(np.float32)
    save_file(tensors, path, metadata={"format": "pt"})


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def difference(ones, others):
    """The largest max|a−b| / max|a|."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(ones, others, strict=True)]
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)


def main():
    sys.stdout.reconfigure(line_buffering=True)
    binary, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    suite = Suite(str(binary), folder)
    folders = {name: suite.method(name, flags) for name, flags in METHODS.items()}
    suite.one_model_for_all_ranks()
    suite.formats(folders["encoder"])


if __name__ == "__main__":
    main()
