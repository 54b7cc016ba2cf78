"""Writes tests/data/exports: four kinds of model through both of PyTorch's exporters, and what PyTorch makes of them.

    pip install -r requirements.txt -r requirements-torch.txt
    python exports.py

The models are small and all their parameters random. Each folder, `gpt2`, `llama`, `vit` and `albert`, receives
 - `torchscript.onnx` (opset 14 or 17) and `dynamo.onnx` (opset 18 to 23), with dynamic batch and sequence;
 - `inputs.npz`, and `outputs.npz`: the logits of PyTorch and of ONNX Runtime on both files for them, and those of
   PyTorch with the adapter;
 - `init/`: a LoRA adapter for PEFT's `all-linear` as PEFT saves it, with random A and B;
 - `train.npz`, and `run.json`: the modules that PEFT adapts, and the losses of a training with PEFT in double precision.

The tests read the committed files, so that they need no PyTorch.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import onnxruntime
import peft
import torch
import torch.nn.functional as F
import transformers
from transformers import AlbertConfig, AlbertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import ViTConfig, ViTForImageClassification

FOLDER = Path(__file__).parent.parent / "data/exports"
VOCABULARY = 97
# One batch to run, and ten to train on; they are gone through twice.
ROWS, BATCH, BATCHES, EPOCHS = 2, 4, 10, 2
LENGTH = 11
RANK, ALPHA = 4, 8
LR, WEIGHT_DECAY, CLIP = 1e-2, 0.01, 1.0
IGNORED = -100


class Logits(torch.nn.Module):
    """A language model as a function of ids and mask alone. Its modules keep the paths that they have in it."""

    def __init__(self, model):
        super().__init__()
        # The children themselves, so that no scope comes before their own.
        for name, child in model.named_children():
            setattr(self, name, child)
        self.call = model.forward
        self.options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, input_ids, attention_mask):
        return self.call(input_ids=input_ids, attention_mask=attention_mask, **self.options).logits


class Scores(torch.nn.Module):
    """An image classifier as a function of its pixels."""

    def __init__(self, model):
        super().__init__()
        for name, child in model.named_children():
            setattr(self, name, child)
        self.call = model.forward

    def forward(self, pixel_values):
        return self.call(pixel_values=pixel_values).logits


@dataclass
class Kind:
    """One kind of model."""

    make: Callable
    wrapper: type
    # What PEFT is told of it: with `SEQ_CLS` it leaves the classifier out.
    task: str | None
    opsets: dict
    ties: bool = False
    # How the dynamo exporter is told of a dynamic size: with a name, or (each input has its own then) without.
    dim: Callable = lambda name: torch.export.Dim.DYNAMIC


def gpt2(attention):
    """Its linears are `Conv1D`, which hold (in, out); the head shares the embedding's weight."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=4, attn_implementation=attention
    )
    return GPT2LMHeadModel(config)


def llama(attention):
    """Grouped queries, rotary positions, RMS norms, a head of its own."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config)


def vit(attention):
    """Patches are embedded by a convolution."""
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_labels=5,
        attn_implementation=attention,
    )
    return ViTForImageClassification(config)


def albert(attention):
    """All its layers are one module; its head is trained to predict the next token here, as any head can be."""
    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=16,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
        attn_implementation=attention,
    )
    return AlbertForMaskedLM(config)


KINDS = {
    "gpt2": Kind(gpt2, Logits, "CAUSAL_LM", {"torchscript": 14, "dynamo": 18}, ties=True),
    "llama": Kind(llama, Logits, "CAUSAL_LM", {"torchscript": 17, "dynamo": 20}, dim=torch.export.Dim),
    "vit": Kind(vit, Scores, "SEQ_CLS", {"torchscript": 17, "dynamo": 23}),
    "albert": Kind(albert, Logits, None, {"torchscript": 14, "dynamo": 18}, dim=torch.export.Dim),
}
EXPORTERS = {"torchscript": "eager", "dynamo": "sdpa"}


def randomised(model):
    """Norms and biases start as ones and zeros; random ones show mistakes that those would hide."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.2)
    return model.eval()


def tokens(rows):
    """Rows of ids with their masks; low ids are frequent, so that there is something to learn. Every second row is
    padded, each to another length."""
    ids = (torch.rand(rows, LENGTH) ** 3 * VOCABULARY).long()
    mask = torch.ones_like(ids)
    for row in range(1, rows, 2):
        mask[row, LENGTH - 1 - row % 5 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def pixels(rows):
    return {"pixel_values": torch.randn(rows, 3, 16, 16)}


def batch_of(kind, rows):
    return tokens(rows) if kind.wrapper is Logits else pixels(rows)


def export(kind, model, exporter, path):
    wrapper = kind.wrapper(model)
    example = batch_of(kind, ROWS)
    axes = {name: {0: "batch", 1: "seq"} if kind.wrapper is Logits else {0: "batch"} for name in example}
    shared = {"input_names": list(example), "output_names": ["logits"], "opset_version": kind.opsets[exporter]}
    if exporter == "torchscript":
        # Without folding, a head that shares the embedding's weight reads it through a Transpose.
        shared |= {"dynamo": False, "do_constant_folding": not kind.ties}
        shared |= {"dynamic_axes": axes | {"logits": dict(next(iter(axes.values())))}}
    else:
        dynamic = {n: {i: kind.dim(name) for i, name in dims.items()} for n, dims in axes.items()}
        shared |= {"dynamo": True, "dynamic_shapes": dynamic, "external_data": False}
    torch.onnx.export(wrapper, tuple(example.values()), str(path), **shared)
    without_traces(path)


def without_traces(path):
    """The dynamo exporter notes the Python stack of every node: paths of one machine, and most of the file."""
    model = onnx.load(path)
    for node in [*model.graph.node, *(n for f in model.functions for n in f.node)]:
        kept = [p for p in node.metadata_props if not p.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def loss_of(kind, model, batch):
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    if kind.wrapper is Scores:
        return F.cross_entropy(logits, batch["labels"])
    targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)[:, 1:]
    return F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY), targets.reshape(-1), ignore_index=IGNORED)


def adapted(kind, model):
    """The model with PEFT's `all-linear` adapter on it, whose A and B are random."""
    config = peft.LoraConfig(task_type=kind.task, r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    # The class for the task would train the classifier as well, so this is the one for any model.
    model = peft.PeftModel(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def save(model, folder):
    """As PEFT saves it, but for the order of the targets, which are a set."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def modules(model):
    suffix = ".lora_A.default"
    return [name.removeprefix("base_model.model.")[: -len(suffix)] for name, _ in model.named_modules() if name.endswith(suffix)]


def train(kind, model, data):
    """The loss of each batch before its update, in double precision."""
    model = model.double()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=WEIGHT_DECAY)
    losses = []
    for i in list(range(BATCHES)) * EPOCHS:
        batch = {k: v[i * BATCH : (i + 1) * BATCH] for k, v in data.items()}
        batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
        loss = loss_of(kind, model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def numpy(tensors):
    return {k: v.detach().numpy() for k, v in tensors.items()}


def write(name, kind):
    torch.manual_seed(0)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reference = randomised(kind.make("eager"))
    inputs = batch_of(kind, ROWS)
    outputs = {"pytorch": reference(**inputs).logits.detach().numpy()}
    for exporter, attention in EXPORTERS.items():
        model = kind.make(attention).eval()
        model.load_state_dict(reference.state_dict())
        path = folder / f"{exporter}.onnx"
        export(kind, model, exporter, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs[f"onnxruntime_{exporter}"] = session.run(["logits"], numpy(inputs))[0]

    data = batch_of(kind, BATCH * BATCHES)
    if kind.wrapper is Scores:
        data["labels"] = torch.randint(0, 5, (BATCH * BATCHES,))
    model = adapted(kind, reference)
    outputs["adapted"] = model(**inputs).logits.detach().numpy()
    save(model, folder / "init")
    np.savez_compressed(folder / "inputs.npz", **numpy(inputs))
    np.savez_compressed(folder / "outputs.npz", **outputs)
    np.savez_compressed(folder / "train.npz", **numpy(data))
    facts = {package.__name__: str(package.__version__) for package in [torch, transformers, peft]}
    facts |= {"modules": modules(model), "batch": BATCH, "epochs": EPOCHS, "lr": LR, "weight_decay": WEIGHT_DECAY}
    facts |= {"clip": CLIP, "losses": train(kind, model, data)}
    (folder / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    report(name, outputs, facts, folder)


def report(name, outputs, facts, folder):
    for other in ["onnxruntime_torchscript", "onnxruntime_dynamo", "adapted"]:
        far = np.abs(outputs[other] - outputs["pytorch"]).max() / np.abs(outputs["pytorch"]).max()
        print(f"{name}: {other} differs from PyTorch by {far:.1e}")
    sizes = ", ".join(f"{p.name} {p.stat().st_size / 1000:.0f} kB" for p in sorted(folder.glob("*.onnx")))
    print(f"{name}: {len(facts['modules'])} modules; {sizes}; losses {facts['losses'][0]:.4f} … {facts['losses'][-1]:.4f}")


def main():
    for name, kind in KINDS.items():
        write(name, kind)


if __name__ == "__main__":
    main()
