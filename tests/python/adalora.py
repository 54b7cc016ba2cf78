"""AdaLoRA's training graph, stepped by stock ONNX Runtime, beside PEFT's AdaLoRA in double precision.

    adalora.py GRAFT FOLDER

PEFT trains a small network with its own choice of ranks and its own penalty. `graft export --train --init` starts from
the adapter that PEFT saved before the first step; ONNX Runtime makes the steps, and what the schedule decides is decided here
by the graph's `stats.…` alone. Every loss is PEFT's, and so are the ranks that are left.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.numpy import load_file

STEPS, TINIT, TFINAL, DELTA, RANK, TARGET, REG = 40, 5, 10, 3, 6, 2, 0.1
LINEARS = ["up", "down", "last"]
RATE, TOLERANCE = 5e-3, 1e-5


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.last = torch.nn.Linear(24, 32), torch.nn.Linear(32, 16), torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.relu(self.down(torch.tanh(self.up(x)))))


def adalora(network):
    config = AdaLoraConfig(
        init_r=RANK, target_r=TARGET, tinit=TINIT, tfinal=TFINAL, deltaT=DELTA, total_step=STEPS, lora_alpha=9,
        orth_reg_weight=REG, target_modules=LINEARS)
    return get_peft_model(network, config)


def penalty(model):
    """What PEFT's model adds to a loss that it computes itself."""
    weights = [p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name]
    covariances = [p @ p.T if p.shape[0] == RANK else p.T @ p for p in weights]
    return REG * sum(torch.norm(c - torch.eye(RANK, dtype=c.dtype)) for c in covariances) / len(covariances)


def peft(model, batches):
    """PEFT's losses, without the penalty, and the ranks that are left."""
    model = model.double()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    losses = []
    for step, (x, y) in enumerate(batches, 1):
        loss = torch.nn.functional.mse_loss(model(x.double()), y.double())
        (loss + penalty(model)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    left = {name: int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name}
    return losses, [left[f"base_model.model.{path}.lora_E.default"] for path in LINEARS]


def budget(step):
    """The ranks that are left after a step, and whether they are chosen then."""
    all_ranks, target, last = RANK * len(LINEARS), TARGET * len(LINEARS), STEPS - TFINAL
    if step <= TINIT:
        return all_ranks, False
    if step >= last:
        return target, step == last
    left = 1 - (step - TINIT) / (last - TINIT)
    return int((all_ranks - target) * left**3 + target), step % DELTA == 0


def exported(path, batches):
    """The same of the training graph in ONNX Runtime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    pairs = json.loads(session.get_modelmeta().custom_metadata_map["graft.state"])
    names, state = [o.name for o in session.get_outputs()], load_file(path.with_suffix(".state.safetensors"))
    scale = {"lr": np.array(RATE, np.float32)}
    losses, masks = [], None
    for step, (x, y) in enumerate(batches, 1):
        feeds = {"x": x.numpy(), "label": y.numpy(), "step": np.array(step), **scale, **state}
        out = dict(zip(names, session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()})))
        state.update({now: out[after] for now, after in pairs})
        losses.append(float(out["loss"]))
        (left, chooses), scores = budget(step), [out[f"stats.{path}"].reshape(-1) for path in LINEARS]
        excess = RANK * len(LINEARS) - left
        if chooses and excess:
            threshold = np.sort(np.concatenate(scores))[excess - 1]
            masks = [score > threshold for score in scores]
        if (chooses and excess) or step > STEPS - TFINAL:
            state.update({f"{path}.adalora_e": state[f"{path}.adalora_e"] * mask for path, mask in zip(LINEARS, masks)})
    return losses, [int((state[f"{path}.adalora_e"] != 0).sum()) for path in LINEARS]


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network, x = Network(), torch.randn(16, 24)
    base, out = folder / "network.onnx", folder / "train.onnx"
    torch.onnx.export(
        network, (x,), base, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False,
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    model = adalora(network)
    # Singular values of 0, as PEFT begins with, would keep the adapter from doing anything at first.
    for name, p in model.named_parameters():
        if "lora_E" in name:
            torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder / "init")
    batches = [(torch.randn(16, 24), torch.randn(16, 4)) for _ in range(STEPS)]
    theirs, kept = peft(model, batches)
    for form in ("portable", "functions"):
        line = ["export", base, "--train", "--init", folder / "init", "--loss", "mse", "--logits", "y", "--form", form]
        subprocess.run([graft, "-q", *line, "-o", out, "--force"], check=True, stdout=subprocess.DEVNULL)
        ours, left = exported(out, batches)
        worst = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
        print(f"AdaLoRA, {form}: {STEPS} losses within {worst:.1e} of PEFT's; ranks {left}, PEFT's {kept}")
        assert worst <= TOLERANCE and left == kept and sum(left) == TARGET * len(LINEARS)


if __name__ == "__main__":
    main()
