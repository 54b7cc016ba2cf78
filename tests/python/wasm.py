"""Every method's portable training graph in WebAssembly: a step in onnxruntime-web is that of ONNX Runtime's processor.

    wasm.py GRAFT FOLDER

FOLDER is that of `browser.py`, whose onnxruntime-web Node runs. Dropout and SaLoRA's gates draw their random numbers in the graph,
from 64-bit integers: another draw would give another loss.
"""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from browser import runtime
from portable import DATA, Steps, batches, graft

SCRIPT = Path(__file__).with_name("wasm.mjs")
METHODS = [
    ["lora"], ["lora", "--set", "rslora=true"], ["lora", "--set", "dora=true"], ["lora", "--set", "dropout=0.3"], ["bone"],
    ["bone", "--set", "mini=2"], ["bat"], ["bat", "--set", "layout=row"], ["bat", "--set", "layout=left"],
    ["hydra", "--set", "balance=0.1"], ["tri", "--set", "growth=topk", "--set", "reg=0.1"], ["adalora", "--set", "reg=0.1"],
    ["salora", "--set", "target_rank=2"],
]
TOLERANCE = 1e-5


def main():
    binary, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if shutil.which("npm") is None or shutil.which("node") is None:
        print("SKIPPED: no Node: nothing is stepped in WebAssembly")
        return
    folder.mkdir(parents=True, exist_ok=True)
    batch, rng, feeds, native = batches(1)[0], np.random.default_rng(2), {}, {}
    for number, method in enumerate(METHODS):
        out = folder / f"method{number}.onnx"
        line = ["export", DATA / "base.onnx", "--train", "--loss", "cross-entropy", "--logits", "logits", "--label", "labels"]
        graft(binary, *line, "--method", *method, "--rank", 4, "-o", out, "--force")
        steps = Steps(out)
        weights = {name for name, _ in steps.pairs if name.rsplit(".", 1)[-1] not in ("m", "v")}
        for name in sorted(weights & steps.state.keys()):
            x = steps.state[name]
            steps.state[name] = (x + rng.normal(0, 0.05, x.shape)).astype(x.dtype)
        fed = steps.feeds(batch, 1e-3, 3, seed=7)
        out_names = ["loss", "grad_norm"]
        native[str(out)] = dict(zip(out_names, map(float, steps.session.run(out_names, fed))))
        feeds[str(out)] = {
            name: [x.dtype.name, x.shape, base64.b64encode(np.ascontiguousarray(x)).decode()] for name, x in fed.items()}
    module = runtime(folder) / "dist/ort.wasm.bundle.min.mjs"
    done = subprocess.run(["node", SCRIPT, module], input=json.dumps(feeds), check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    for method, (path, wanted) in zip(METHODS, native.items()):
        worst = max(abs(found[path][name] - x) / abs(x) for name, x in wanted.items())
        print(f"{' '.join(method):40} loss {found[path]['loss']:.6f} in WebAssembly, within {worst:.1e}")
        assert worst <= TOLERANCE


if __name__ == "__main__":
    main()
