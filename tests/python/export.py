"""Writes tests/data/models/tiny_bert_ts14.onnx: all-MiniLM-L6-v2's architecture, made small, with random weights.

    pip install torch==2.13.0 transformers==5.23.0 onnx==1.23.2
    python export.py

It stands for what torch's TorchScript exporter writes at opset 14, where LayerNorm and GELU are decomposed; the tests
read the committed file, so that they need no PyTorch.
"""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel

FILE = Path(__file__).parent.parent / "data/models/tiny_bert_ts14.onnx"
CONFIG = BertConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    attn_implementation="eager",
)


class Encoder(torch.nn.Module):
    """The encoder without its pooler, under the scope `bert`."""

    def __init__(self):
        super().__init__()
        self.bert = BertModel(CONFIG, add_pooling_layer=False)

    def forward(self, input_ids, attention_mask, token_type_ids):
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return out.last_hidden_state


def main():
    torch.manual_seed(0)
    encoder = Encoder().eval()
    # LayerNorms and biases start as ones and zeros; random ones show mistakes that those would hide.
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.2)
    ids = torch.randint(0, CONFIG.vocab_size, (2, 9))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        encoder,
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        FILE,
        opset_version=14,
        dynamo=False,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={n: {0: "batch", 1: "seq"} for n in names + ["last_hidden_state"]},
    )


if __name__ == "__main__":
    main()
