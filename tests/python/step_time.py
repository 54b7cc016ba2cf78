"""What a training step costs in stock ONNX Runtime: MiniLM-L6 with LoRA, beside PyTorch with PEFT.

    step_time.py GRAFT FOLDER [ROUNDS]

MiniLM-L6's sizes with random weights, rank 8 on all 36 linears, 8 × 128 tokens, f32. PyTorch's step, ONNX Runtime's forward
pass, its gradients and its whole step take turns, each on one thread, so that processor time counts them even where the
machine has other work; what is printed are medians and their ratios to PyTorch's step. Losses of both agree.

What ONNX Runtime Training made of this model had 1390 nodes, without an optimiser, and ran on its own packages only. A graph of
gradients made by hand, without an optimiser too, took 304 ms on stock ONNX Runtime where PyTorch's step took 285: 1.07.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from transformers import BertConfig, BertModel

BATCH, LENGTH, RANK, RATE = 8, 128, 8, 1e-3
TARGETS = ["query", "key", "value", "dense"]
ORT_TRAINING_NODES, BY_HAND = 1390, 304 / 285


class Sentences(torch.nn.Module):
    """The mean of the last hidden states."""

    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
            max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        config._attn_implementation = "eager"
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids, attention_mask):
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.mean(1)


def write(model, feeds, path):
    names = {name: {0: "batch", 1: "seq"} for name in feeds} | {"sentence": {0: "batch"}}
    torch.onnx.export(
        model, tuple(feeds.values()), path, input_names=[*feeds], output_names=["sentence"], opset_version=17,
        dynamic_axes=names, dynamo=False)


def pytorch(model, feeds, label):
    """PyTorch's step as a function that returns the loss."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)

    def step():
        loss = torch.nn.functional.mse_loss(model(**feeds), label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_step(path, feeds):
    """A training graph's step as a function that returns the loss; without pairs of state, one that changes nothing."""
    graph, state, count = session(path), load_file(path.with_suffix(".state.safetensors")), 0
    pairs = json.loads(graph.get_modelmeta().custom_metadata_map.get("graft.state", "[]"))
    names, inputs = [o.name for o in graph.get_outputs()], {i.name for i in graph.get_inputs()}

    def step():
        nonlocal count
        count += 1
        fed = {**feeds, **state, "lr": np.array(RATE, np.float32), "step": np.array(count)}
        out = dict(zip(names, graph.run(names, {name: x for name, x in fed.items() if name in inputs})))
        state.update({now: out[after] for now, after in pairs})
        return float(out["loss"])

    return step


def main():
    binary, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Sentences().eval()
    feeds = {"input_ids": torch.randint(1, 30522, (BATCH, LENGTH)), "attention_mask": torch.ones(BATCH, LENGTH, dtype=torch.int64)}
    label = torch.randn(BATCH, 384)
    base = folder / "minilm.onnx"
    write(model, feeds, base)
    # What is exported is attention written out; PyTorch itself is faster with its own.
    model.bert.set_attn_implementation("sdpa")
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules=TARGETS))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.02)
    model.save_pretrained(folder / "init")

    arrays = {name: x.numpy() for name, x in feeds.items()}
    forward = session(base)
    steps = {"PyTorch and PEFT, a step": pytorch(model, feeds, label)}
    steps["ONNX Runtime, forward"] = lambda: forward.run(None, arrays) and None
    for form in ("portable", "functions"):
        for kind, flags in (("gradients", ["--with", "grads"]), ("a step", [])):
            out = folder / f"{form}-{kind[-4:]}.onnx"
            line = ["export", base, "--train", "--init", folder / "init", "--loss", "mse", "--form", form, *flags]
            done = subprocess.run([binary, "-q", *line, "-o", out, "--force", "--json"], check=True, capture_output=True)
            report, name = json.loads(done.stdout), f"ONNX Runtime, {form}, {kind}"
            ops = sorted(report["ops"].items(), key=lambda op: -op[1])
            print(f"{name}: {report['nodes']} nodes beside {ORT_TRAINING_NODES};", ", ".join(f"{op} {n}" for op, n in ops))
            steps[name] = onnx_step(out, {**arrays, "label": label.numpy()})
    times, losses = {name: [] for name in steps}, {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            begin = time.process_time()
            losses[name].append(step())
            times[name].append(1e3 * (time.process_time() - begin))
    reference = statistics.median(times["PyTorch and PEFT, a step"][1:])
    for name, measured in times.items():
        median = statistics.median(measured[1:])
        print(f"{name:40} {median:8.0f} ms {median / reference:6.2f} of PyTorch's step (by hand: {BY_HAND:.2f})")
    theirs = losses["PyTorch and PEFT, a step"]
    for name in (name for name in steps if name.endswith("a step")):
        worst = max(abs(a - b) / b for a, b in zip(losses[name], theirs))
        assert worst < 1e-4, f"{name}: a loss differs by {worst:.1e}"


if __name__ == "__main__":
    main()
