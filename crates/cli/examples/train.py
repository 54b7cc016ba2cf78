"""Trains an adapter with stock ONNX Runtime alone: no graft, no PyTorch.

    graft export MODEL.onnx --train --head classify:2 --loss cross-entropy --with adapter -o train.onnx
    pip install onnxruntime safetensors tokenizers
    python train.py train.onnx tokenizer.json train.jsonl [EPOCHS]

reads lines {"text": …, "label": …}. `graft merge` and PEFT read the adapter, which then lies in `train.adapter`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

path, tokenizer, data = map(Path, sys.argv[1:4])
epochs = int(sys.argv[4]) if len(sys.argv) > 4 else 2
rng, rate, size = np.random.default_rng(0), 1e-3, 32

# Every step reads the state `now` and writes `after`, both of which stay with ONNX Runtime.
session, state = ort.InferenceSession(path), load_file(path.with_suffix(".state.safetensors"))
pairs = json.loads(session.get_modelmeta().custom_metadata_map["graft.state"])
now, after = ({name: ort.OrtValue.ortvalue_from_numpy(state[name].copy()) for name, _ in pairs} for _ in "ab")
inputs = {i.name for i in session.get_inputs()}

tokenizer = Tokenizer.from_file(str(tokenizer))
tokenizer.enable_truncation(128)
tokenizer.enable_padding()
rows = [json.loads(line) for line in data.read_text().splitlines()]
order = np.concatenate([rng.permutation(len(rows)) for _ in range(epochs)])
steps = -(-len(order) // size)

for step in range(1, steps + 1):
    batch = [rows[i] for i in order[(step - 1) * size : step * size]]
    texts = tokenizer.encode_batch([row["text"] for row in batch])
    feeds = {"input_ids": [t.ids for t in texts], "attention_mask": [t.attention_mask for t in texts]}
    feeds |= {"token_type_ids": [t.type_ids for t in texts], "label": [row["label"] for row in batch], "step": step}
    feeds = {name: np.array(value) for name, value in feeds.items() if name in inputs}
    feeds["lr"] = np.array(rate * min(10 * step / steps, (1 - step / (steps + 1)) / 0.9), np.float32)
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for name, following in pairs:
        binding.bind_ortvalue_input(name, now[name])
        binding.bind_ortvalue_output(following, after[name])
    binding.bind_output("loss")
    session.run_with_iobinding(binding)
    now, after = after, now
    print(f"step {step} loss {binding.get_outputs()[-1].numpy():.6f}")

folder, adapter = path.with_suffix(".adapter"), ort.InferenceSession(path.with_suffix(".adapter.onnx"))
names = [output.name for output in adapter.get_outputs()]
tensors = adapter.run(names, {i.name: now[i.name].numpy() for i in adapter.get_inputs()})
save_file(dict(zip(names, tensors)), folder / "adapter_model.safetensors", {"format": "pt"})
if (head := folder / "head.safetensors").exists():
    save_file({name: now[name].numpy() for name in load_file(head)}, head)
