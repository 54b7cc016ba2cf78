"""PyTorch as the interpreter of an ONNX file: its gradients judge those of graft where the model's source is gone.

Knows the ops of the models in `interchange.py`, and refuses others by their names.
"""

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F


def ints(x):
    return [int(n) for n in x.reshape(-1)]


def sliced(x, starts, ends, axes=None, steps=None):
    axes = ints(axes) if axes is not None else list(range(len(starts)))
    assert steps is None or set(ints(steps)) == {1}
    for axis, start, end in zip(axes, ints(starts), ints(ends)):
        index = [slice(None)] * x.ndim
        index[axis] = slice(start, end)
        x = x[tuple(index)]
    return x


def gathered(x, index, axis=0):
    axis, flat = axis % x.ndim, index.reshape(-1)
    taken = torch.index_select(x, axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return taken.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1:]])


def unsqueezed(x, axes):
    for axis in sorted(ints(axes)):
        x = x.unsqueeze(axis)
    return x


def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0):
    y = alpha * (a.T if transA else a) @ (b.T if transB else b)
    return y if c is None else y + beta * c


def divided(a, b):
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def filled(shape, value):
    return torch.full(ints(shape), value.reshape(-1)[0].item(), dtype=value.dtype)


def reshaped(x, shape, allowzero=0):
    assert not allowzero
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(ints(shape))])


def cast(x, to):
    return x.to(torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(to))).dtype)


OPS = {
    "Add": torch.add,
    "Cast": cast,
    "Clip": lambda x, low=None, high=None: torch.clamp(x, low, high),
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Constant": lambda value: value,
    "ConstantOfShape": filled,
    "Div": divided,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, ints(shape))),
    "Gather": gathered,
    "Gemm": gemm,
    "Identity": lambda x: x,
    "LayerNormalization": lambda x, w, b, axis=-1, epsilon=1e-5: F.layer_norm(x, w.shape, w, b, epsilon),
    "LogSoftmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "ReduceSum": lambda x, axes, keepdims=1: x.sum(ints(axes), bool(keepdims)),
    "Reshape": reshaped,
    "Shape": lambda x: torch.tensor(x.shape),
    "Sigmoid": torch.sigmoid,
    "Slice": sliced,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm: x.permute(perm),
    "Unsqueeze": unsqueezed,
    "Where": torch.where,
}


class Interpreted:
    """A model whose linear nodes may have adapters, in double precision."""

    def __init__(self, path):
        self.graph = onnx.load(path).graph
        self.weights = {i.name: tensor(i) for i in self.graph.initializer}
        self.steps = [(node, {a.name: attribute(a) for a in node.attribute}) for node in self.graph.node]
        missing = {node.op_type for node, _ in self.steps} - OPS.keys()
        assert not missing, f"{path}: {sorted(missing)}"

    def __call__(self, feeds, output, adapters):
        """One output; `adapters` gives (a, b, scale) for names of nodes: y = x·w + scale·(x·a)·b before the bias."""
        values = {"": None, **self.weights, **feeds}
        for node, attributes in self.steps:
            operands = [values[name] for name in node.input]
            y = OPS[node.op_type](*operands, **attributes)
            if node.name in adapters:
                a, b, scale = adapters[node.name]
                y = y + scale * (operands[0] @ a) @ b
            values[node.output[0]] = y
        return values[output]


def tensor(proto):
    """Floats in double precision."""
    array = numpy_helper.to_array(proto)
    return torch.from_numpy(array.astype(np.float64) if array.dtype == np.float32 else array.copy())


def attribute(proto):
    if proto.type == onnx.AttributeProto.TENSOR:
        return tensor(proto.t)
    # What is cast to float is computed in double precision as the rest is.
    if proto.name == "to" and proto.i == onnx.TensorProto.FLOAT:
        return onnx.TensorProto.DOUBLE
    return onnx.helper.get_attribute_value(proto)
