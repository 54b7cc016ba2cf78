"""What a training step takes on a GPU: an encoder of BERT's kind with LoRA, beside PyTorch with PEFT.

    gpu.py GRAFT FOLDER [--device cpu] [--layers 2] [--hidden 2048] [--batch 8] [--length 512] [--rounds 3]

Random weights, LoRA on all linears, two classes, cross-entropy, AdamW and clipping, in bfloat16. graft first does large
products as the committed table or its model of the card says, then as `graft bench --tune` measured to be the fastest;
PyTorch's steps, eager, take turns with those. What is printed are medians. No part of CI: it needs a GPU, and torch,
transformers, PEFT and onnx there. `GRAFT_NVRTC` and `GRAFT_CUBLASLT` name the folders of NVIDIA's libraries.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

RANK, WORDS, STEPS, HEAD = 16, 8192, 20, 128


class Network:
    """The encoder as ONNX ops, with random weights."""

    def __init__(self, hidden):
        self.hidden, self.nodes, self.weights = hidden, [], []
        self.random = np.random.default_rng(0)

    def constant(self, name, value):
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name, *sizes):
        return self.constant(name, self.random.standard_normal(sizes, dtype=np.float32) * 0.02)

    def op(self, name, op, *inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name="/" + name, **attributes))
        return name

    def linear(self, path, x, n_in, n_out):
        product = self.op(path + ".product", "MatMul", x, self.weight(path + ".weight", n_in, n_out))
        return self.op(path, "Add", product, self.weight(path + ".bias", n_out))

    def norm(self, path, x):
        scale = self.constant(path + ".weight", np.ones(self.hidden, np.float32))
        return self.op(path, "LayerNormalization", x, scale, self.weight(path + ".bias", self.hidden), axis=-1)

    def attention(self, path, x):
        split = self.constant(path + ".split", np.array([0, 0, self.hidden // HEAD, HEAD], np.int64))
        joined = self.constant(path + ".joined", np.array([0, 0, self.hidden], np.int64))
        scale = self.constant(path + ".scale", np.array(HEAD**-0.5, np.float32))
        heads = {}
        for name, order in [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])]:
            rows = self.linear(f"{path}.{name}", x, self.hidden, self.hidden)
            rows = self.op(f"{path}.{name}.heads", "Reshape", rows, split)
            heads[name] = self.op(f"{path}.{name}.turned", "Transpose", rows, perm=order)
        scores = self.op(path + ".scores", "MatMul", heads["query"], heads["key"])
        scores = self.op(path + ".scaled", "Mul", scores, scale)
        shares = self.op(path + ".shares", "Softmax", scores, axis=-1)
        mixed = self.op(path + ".mixed", "MatMul", shares, heads["value"])
        mixed = self.op(path + ".back", "Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(path + ".out", self.op(path + ".rows", "Reshape", mixed, joined), self.hidden, self.hidden)

    def gelu(self, path, x):
        half, one, root = (
            self.constant(f"{path}.{name}", np.array(value, np.float32))
            for name, value in [("half", 0.5), ("one", 1.0), ("root", 2**0.5)]
        )
        erf = self.op(path + ".erf", "Erf", self.op(path + ".divided", "Div", x, root))
        twice = self.op(path + ".twice", "Mul", x, self.op(path + ".sum", "Add", erf, one))
        return self.op(path, "Mul", twice, half)

    def layer(self, path, x):
        mixed = self.attention(path + ".attention", x)
        x = self.norm(path + ".attention.norm", self.op(path + ".first", "Add", mixed, x))
        wide = self.gelu(path + ".gelu", self.linear(path + ".up", x, self.hidden, 4 * self.hidden))
        narrow = self.linear(path + ".down", wide, 4 * self.hidden, self.hidden)
        return self.norm(path + ".norm", self.op(path + ".second", "Add", narrow, x))

    def save(self, path, layers):
        words = self.weight("embeddings.word.weight", WORDS, self.hidden)
        x = self.norm("embeddings.norm", self.op("embeddings.rows", "Gather", words, "input_ids"))
        for i in range(layers):
            x = self.layer(f"encoder.layer.{i}", x)
        self.op("last_hidden_state", "Identity", x)
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
        out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", self.hidden])
        graph = helper.make_graph(self.nodes, "encoder", [ids], [out], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Peer:
    """The same network in PyTorch with PEFT."""

    def __init__(self, options):
        config = BertConfig(
            vocab_size=WORDS, hidden_size=options.hidden, num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // HEAD, intermediate_size=4 * options.hidden, num_labels=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=options.length,
        )  # fmt: skip
        base = BertForSequenceClassification(config).to(options.device, torch.bfloat16)
        adapter = LoraConfig(
            r=RANK, lora_alpha=RANK, target_modules=["query", "key", "value", "dense"], modules_to_save=["classifier"]
        )
        self.model, self.is_cuda = get_peft_model(base, adapter).train(), options.device == "cuda"
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=self.is_cuda)
        self.ids = torch.randint(0, WORDS, (options.batch, options.length), device=options.device)
        self.labels = torch.randint(0, 2, (options.batch,), device=options.device)

    def step(self):
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.model(input_ids=self.ids, labels=self.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        if self.is_cuda:
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    def median(self):
        for _ in range(5):
            self.step()
        return statistics.median(self.step() for _ in range(STEPS))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("graft")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    for name, value in [("layers", 2), ("hidden", 2048), ("batch", 8), ("length", 512), ("rounds", 3)]:
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = options.folder / "encoder.onnx"
    Network(options.hidden).save(model, options.layers)
    peer = Peer(options)

    def graft(*more):
        sizes = ["--batch", options.batch, "--seq", options.length, "--rank", RANK, "--steps", STEPS]
        short = ["--precision", "bf16"] if options.device == "cuda" else []
        command = [options.graft, "bench", model, "--train", "--device", options.device, *sizes, *short, *more]
        # Tiles that were measured before are not to count.
        environment = os.environ | {"GRAFT_CACHE": str(options.folder / "cache")}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"FAILED: {command}\n{done.stderr}")
        return done.stdout

    def report(what):
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(json.loads(graft("--json"))["step_ms"]["median"])
            theirs.append(peer.median())
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        print(f"{what}: graft {ours:.2f} ms, PyTorch with PEFT {theirs:.2f} ms: {theirs / ours:.2f} times as long", flush=True)

    report("by the tiles of the table and the model")
    if options.device == "cuda":
        print(graft("--tune"), end="")
        report("by what was measured")


if __name__ == "__main__":
    main()
