"""The examples that train MiniLM-L3 on sentences from a file of `graft export --train`, in Python and in Rust.

    examples.py GRAFT EXAMPLE FOLDER

EXAMPLE is what cargo makes of `crates/cli/examples/train.rs`; FOLDER is that of `minilm.py`, whose files are used. Each
example trains from the same state, on 640 sentences; `graft merge --verify` reads the adapter and the head that it leaves,
and the merged model has to tell more of the 600 other sentences right, in ONNX Runtime, than chance would.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from minilm import FILES, Suite, Unavailable, download
from safetensors.numpy import load_file

PYTHON = Path(__file__).parents[2] / "crates/cli/examples/train.py"
EXPORT = ["--rank", 16, "--alpha", 32, "--head", "classify:2,pool=none,from=461", "--loss", "cross-entropy"]
ROWS = 640
# In percent. Measured: 88.67 in both; an untrained head is at 50.
LEAST_RIGHT = 80


def prepare(suite, folder):
    """The training graph, and every fourth sentence."""
    out = folder / "train.onnx"
    suite.graft("export", suite.model, "--train", *EXPORT, "--with", "adapter", "-o", out, "--force")
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    few = folder / "few.jsonl"
    few.write_text("".join(lines[:: len(lines) // ROWS][:ROWS]))
    return [out, folder / FILES[1], few]


def losses(command):
    done = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    return [float(line.split()[-1]) for line in done.stdout.splitlines()]


def right(suite, folder):
    """What share of the sentences the merged model tells right, in percent."""
    merged = folder / "trained.onnx"
    suite.graft("merge", suite.model, "--adapter", folder / "train.adapter", "-o", merged, "--verify", "--force")
    feeds, labels = suite.batch()
    session = ort.InferenceSession(merged, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {i.name: feeds[i.name] for i in session.get_inputs()})[0]
    return 100 * np.mean(logits.argmax(-1) == labels)


def main():
    binary, example, folder = (Path(argument).resolve() for argument in sys.argv[1:4])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        download(folder)
    except Unavailable as reason:
        print(f"SKIPPED: the examples: {reason}")
        return
    suite = Suite(str(binary), folder)
    files = prepare(suite, folder)
    adapter = folder / "train.adapter"
    untrained = folder / "untrained"
    shutil.rmtree(untrained, ignore_errors=True)
    shutil.copytree(adapter, untrained)
    for name, command in [("train.py", [sys.executable, PYTHON]), ("train.rs", [example])]:
        shutil.copytree(untrained, adapter, dirs_exist_ok=True)
        begin = time.perf_counter()
        found = losses([*command, *files])
        seconds = time.perf_counter() - begin
        for file in ("adapter_model.safetensors", "head.safetensors"):
            before, after = load_file(untrained / file), load_file(adapter / file)
            assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}, file
            assert all(not np.array_equal(before[k], after[k]) for k in before), f"{name}: {file} is as before"
        share, first, last = right(suite, folder), np.mean(found[:5]), np.mean(found[-5:])
        print(f"{name}: {len(found)} steps in {seconds:.1f} s, loss {first:.3f} → {last:.3f}, {share:.2f} % right")
        assert share >= LEAST_RIGHT and last < first / 1.5, name


if __name__ == "__main__":
    main()
