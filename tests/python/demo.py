"""What `graft demo` leaves, judged by stock ONNX Runtime: it must compute what `graft run` computes, on every model.

    python demo.py GRAFT FOLDER

runs `GRAFT demo` into FOLDER, then base, adapted and merged model on rows of text that were held out.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file, save_file

# Relative to the largest logit: both compute in float32.
TOLERANCE = 1e-5


def logits(model, rows):
    onnx.checker.check_model(str(model), full_check=True)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": rows})[0]


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    subprocess.run([graft, "demo", "--steps", "20", "--force", "--out", folder], check=True, stdout=subprocess.DEVNULL)
    rows = load_file(folder / "held-out.safetensors")["input_ids"]
    # Sizes other than those of the training.
    inputs = {"whole": rows[:3], "short": rows[5:7, :17].copy()}
    failed, reference = False, {}
    for name in ["whale", "adapted", "merged"]:
        for size, ids in inputs.items():
            save_file({"input_ids": ids}, folder / "ids.safetensors")
            command = [graft, "run", folder / f"{name}.onnx", "--inputs", folder / "ids.safetensors"]
            subprocess.run([*command, "-o", folder / "logits.npz", "--force"], check=True, capture_output=True)
            ours, theirs = np.load(folder / "logits.npz")["logits"], logits(folder / f"{name}.onnx", ids)
            reference[name, size] = theirs
            assert ours.shape == theirs.shape == (*ids.shape, 128), (ours.shape, theirs.shape)
            far = np.abs(ours - theirs).max() / np.abs(theirs).max()
            failed |= not far <= TOLERANCE
            print(f"{'ok  ' if far <= TOLERANCE else 'FAIL'} {name}.onnx, {size} rows: {far:.1e} from ONNX Runtime")
    for size in inputs:
        base, adapted, merged = (reference[name, size] for name in ["whale", "adapted", "merged"])
        apart, moved = (np.abs(x - adapted).max() / np.abs(adapted).max() for x in [merged, base])
        good = apart <= 1e-4 and moved > 1e-2
        failed |= not good
        print(f"{'ok  ' if good else 'FAIL'} {size} rows: merged is {apart:.1e} from adapted, the base {moved:.1e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
