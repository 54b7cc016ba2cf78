"""Writes tests/data/models/bert_*.onnx and bert_optimised.npz: a small BERT as ONNX Runtime's optimisers leave it.

    pip install torch==2.13.0 transformers==5.23.0 onnx==1.23.2 onnxruntime==1.31.1
    python optimised.py

`bert_packed` and `bert_heads` come from onnxruntime.transformers.optimizer (Attention with the projection in it, and
MultiHeadAttention behind it), `bert_session` from a session that saves what it optimised (FusedMatMul, FusedGemm,
BiasGelu, LayerNormalization at opset 14). The outputs beside the inputs are ONNX Runtime's of the model before all that.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import BertConfig, BertForSequenceClassification

FOLDER = Path(__file__).parent.parent / "data/models"
CONFIG = BertConfig(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=16,
    num_labels=3,
    attn_implementation="eager",
)
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


class Classifier(torch.nn.Module):
    """The logits, under the scopes of the model."""

    def __init__(self):
        super().__init__()
        model = BertForSequenceClassification(CONFIG)
        self.bert, self.classifier = model.bert, model.classifier

    def forward(self, input_ids, attention_mask, token_type_ids):
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self.classifier(out.pooler_output)


def export(path):
    """A classifier with random weights (also where they start as ones and zeros), and inputs with padding."""
    torch.manual_seed(0)
    model = Classifier().eval()
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=0.3)
    ids = torch.randint(0, CONFIG.vocab_size, (3, 7))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 4:] = 0
    types[:, 3:] = 1
    axes = {n: {0: "batch", 1: "seq"} for n in NAMES} | {"logits": {0: "batch"}}
    torch.onnx.export(model, (ids, mask, types), path, opset_version=14, dynamo=False, input_names=NAMES,
                      output_names=["logits"], dynamic_axes=axes)
    return dict(zip(NAMES, (t.numpy() for t in (ids, mask, types))))


def run(path, feeds, options=None):
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: feeds[i.name].astype("int32" if "32" in i.type else "int64")
                              for i in session.get_inputs()})[0]


def main():
    with TemporaryDirectory() as folder:
        plain = f"{folder}/bert.onnx"
        feeds = export(plain)
        for name, apart in (("packed", False), ("heads", True)):
            options = FusionOptions("bert")
            options.use_multi_head_attention = apart
            model = optimizer.optimize_model(plain, "bert", num_heads=CONFIG.num_attention_heads,
                                             hidden_size=CONFIG.hidden_size, optimization_options=options, opt_level=0)
            model.save_model_to_file(str(FOLDER / f"bert_{name}.onnx"))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(FOLDER / "bert_session.onnx")
        logits = run(plain, feeds, options)
    for name in ("packed", "heads", "session"):
        path = FOLDER / f"bert_{name}.onnx"
        print(path.name, sorted({n.op_type for n in onnx.load(path).graph.node if n.domain}), path.stat().st_size,
              np.abs(run(path, feeds) - logits).max())
    np.savez(FOLDER / "bert_optimised.npz", logits=logits, labels=np.array([2, 0, 1], np.int64), **feeds)


if __name__ == "__main__":
    main()
