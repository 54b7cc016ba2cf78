"""What a training step of each method costs on a real model, over LoRA's, and with every function written out over fused.

    python cost.py GRAFT FOLDER

GRAFT is the binary; FOLDER holds the model, or receives it. Prints one Markdown table. In each of `ROUNDS` rounds every
method is measured once, fused and inlined right after each other, and compared with LoRA in the same round: what is
printed are medians of ratios, since times come and go with the machine. Takes minutes, and wants a quiet machine, so
`.ci/run` does not call it.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import minilm

ROUNDS = 3
# All of about the same number of trainable parameters, 165,888 in 18 linears.
METHODS = [
    ["lora", "--rank", "8"],
    ["lora", "--rank", "8", "--set", "dora=true"],
    ["adalora", "--rank", "8", "--set", "target_rank=8"],
    ["tri", "--rank", "8"],
    ["salora", "--rank", "8"],
    ["hydra", "--rank", "3", "--set", "experts=3"],
    ["bone", "--rank", "16"],
    ["bone", "--rank", "16", "--set", "mini=24"],
    ["bat", "--rank", "16"],
    ["bat", "--rank", "16", "--set", "layout=row"],
    ["bat", "--rank", "16", "--set", "layout=left"],
]
STEP = ["--train", "--from", "461", "--batch", "8", "--seq", "64", "--steps", "10", "--json"]


def measure(graft, model, method, *flags):
    command = [str(graft), "bench", str(model), *STEP, "--method", *method, *flags]
    bench = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return bench["step_ms"]["median"], bench["rss_mb"]


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    minilm.download(folder)
    model = folder / minilm.FILES[0]
    rounds = [
        [(measure(graft, model, method), measure(graft, model, method, "--inlined")) for method in METHODS]
        for _ in range(ROUNDS)
    ]
    print("| method | ms a step | over LoRA | inlined over fused | peak MB |\n|---|---|---|---|---|")
    for i, method in enumerate(METHODS):
        median = lambda value: statistics.median(value(row[i], row[0]) for row in rounds)
        step = median(lambda own, _: own[0][0])
        over = median(lambda own, lora: own[0][0] / lora[0][0])
        inlined = median(lambda own, _: own[1][0] / own[0][0])
        peak = median(lambda own, _: own[0][1])
        label = " ".join([method[0], *method[2:]]).replace(" --set ", " ")
        print(f"| `{label}` | {step:.1f} | {over:.2f} | {inlined:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
