"""Judges the file tests by the official onnx package: it reads every graph in tests/files, before and after the passes,
checks it, and runs both in its reference implementation (calls through the bodies of their functions) on the same
random inputs and weights; a graph with ops of ONNX Runtime's own is run by that, and not checked where such an op
stands in ONNX's domain. Prints what it did and exits 1 if anything disagrees.

    python oracle.py [FILE…]
"""
import itertools, math, pathlib, re, sys, warnings, zlib

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import onnx.reference
import onnxruntime
from onnx import numpy_helper

FILES = pathlib.Path(__file__).parent.parent / "files"
# Constants are f32, and the reference computes in f32 too.
TOLERANCE = 2e-4


def read(path):
    """Directives, the text before, and the expected text; in the form that tests/case.rs describes."""
    lines = path.read_text().splitlines()
    end = max(i for i, line in enumerate(lines) if line and not line.startswith("#")) + 1
    expected = "".join(line.removeprefix("#").removeprefix(" ") + "\n" for line in lines[end:] if line)
    directives = dict(line[2:].split(":", 1) for line in itertools.takewhile(lambda l: l.startswith("# "), lines)
                      if ":" in line)
    # What the passes said is no part of the graph.
    graph = "".join(line + "\n" for line in expected.splitlines() if not line.startswith("says: "))
    return directives, "\n".join(lines[:end]) + "\n", graph


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def size(text):
    """A polynomial over sizes; each symbol stands for 2 to 5, by its name."""
    symbol = lambda m: str(2 + zlib.crc32(m.group().encode()) % 4)
    text = re.sub(r"[A-Za-z_][A-Za-z0-9_.:/]*", symbol, text)
    return eval(text) if re.fullmatch(r"[-+*0-9 ()]+", text) else 2 + zlib.crc32(text.encode()) % 4


def sizes(value_info):
    dims = value_info.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else size(d.dim_param) if d.dim_param else 3 for d in dims]


def draw(value_info, feeds):
    """An input or elided weight: floats in -1..1, integers 0 or 1, or what `# feeds:` says."""
    name = value_info.name
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value_info.type.tensor_type.elem_type)
    rng, shape = generator(name), sizes(value_info)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        low, high = feeds.get(name, (0, 2))
        return rng.integers(int(low), int(high), shape).astype(dtype)
    low, high = feeds.get(name, (-1, 1))
    return rng.uniform(low, high, shape).astype(dtype)


def ranges(text):
    pairs = (item.split("=") for item in text.split(",")) if text.strip() else ()
    return {name.strip().strip('"'): tuple(map(float, span.split(".."))) for name, span in pairs}


def elided(model):
    """Weights whose data the text leaves out: the parser takes them for mere types of values."""
    known = {t.name for t in model.graph.initializer} | {o for n in model.graph.node for o in n.output}
    return [v for v in model.graph.value_info if v.name not in known]


def fill(model, values, feeds, fresh):
    """Gives every elided weight data: that in `values`, or what `fresh` draws; and elided constants random data."""
    names = {i.name for i in model.graph.input}
    for info in elided(model):
        if info.name not in values:
            values[info.name] = fresh(info, feeds)
        if info.name not in names or info.name in values:
            model.graph.initializer.append(numpy_helper.from_array(values[info.name], info.name))
        model.graph.value_info.remove(info)
    nodes = list(model.graph.node) + [n for f in model.functions for n in f.node]
    for node, attribute in ((n, a) for n in nodes for a in n.attribute if a.type == onnx.AttributeProto.TENSOR):
        tensor = attribute.t
        fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data,
                  tensor.string_data)
        if math.prod(tensor.dims) and not any(map(len, fields)) and not tensor.raw_data:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            data = generator(node.output[0]).uniform(-1, 1, list(tensor.dims)).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))


def sort_functions(model):
    """The reference implementation wants functions before those that call them; ONNX asks for no order."""
    waiting = {(f.domain, f.name): f for f in model.functions}
    del model.functions[:]
    while waiting:
        calls = lambda f: {(n.domain, n.op_type) for n in f.node} & waiting.keys()
        ready = [key for key, f in waiting.items() if not calls(f)]
        model.functions.extend(waiting.pop(key) for key in ready)


# Ops that ONNX Runtime adds to ONNX's own domain.
ADDED = {"SimplifiedLayerNormalization"}


def is_of_runtime(model):
    """Whether it has ops that only ONNX Runtime knows."""
    return any(n.domain == "com.microsoft" or n.op_type in ADDED for n in model.graph.node)


def trained(text):
    """Names of the inputs and weights that notes call trainable."""
    pattern = r'^\s*\w+(?:\[[^\]]*\])? (?:"([^"]+)"|(\w+)),?\s+#!.*graft\.trainable'
    return {quoted or plain for quoted, plain in re.findall(pattern, text, re.MULTILINE)}


def run(model, values, feeds):
    """All outputs by name; inputs that are weights too keep their defaults."""
    sort_functions(model)
    weights = {t.name for t in model.graph.initializer}
    for info in model.graph.input:
        if info.name not in values and info.name not in weights:
            values[info.name] = draw(info, feeds)
    fed = {i.name: values[i.name] for i in model.graph.input if i.name not in weights}
    if is_of_runtime(model):
        options = onnxruntime.SessionOptions()
        # As the graph is written: nothing may be fused or taken apart before it runs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        outputs = session.run(None, fed)
    else:
        outputs = onnx.reference.ReferenceEvaluator(model).run(None, fed)
    return dict(zip((o.name for o in model.graph.output), outputs))


def compare(before, after):
    """The largest relative difference over the outputs that both have."""
    shared = before.keys() & after.keys()
    if not shared:
        raise ValueError("no output is there before and after")
    worst = 0.0
    for name in shared:
        a, b = np.asarray(before[name]), np.asarray(after[name])
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"output {name}: {a.dtype}{a.shape} before, {b.dtype}{b.shape} after")
        if a.dtype.kind == "f" and a.size:
            difference = np.max(np.abs(a.astype(float) - b.astype(float)))
            worst = max(worst, difference / max(1.0, np.max(np.abs(a.astype(float)))))
        elif not np.array_equal(a, b):
            raise ValueError(f"output {name} differs")
    return worst


def is_outdated(model):
    """Whether an op means something that the reference implementation, which knows one meaning of it, does not know."""
    old = any(o.domain in ("", "ai.onnx") and o.version < 13 for o in model.opset_import)
    return old and any(n.op_type in ("Softmax", "LogSoftmax") for n in model.graph.node)


def judge(path):
    """What was done: `refused` for graphs that must not load or run, `checked`, or `run`."""
    directives, source, expected = read(path)
    if re.search("^error: ", expected, re.MULTILINE):
        return "refused"
    feeds, values = ranges(directives.get("feeds", "")), {}
    before = onnx.parser.parse_model(source)
    if expected.strip() == "unchanged":
        expected = source
    after = onnx.parser.parse_model(expected)
    # Data that the text gives is what the other graph uses too, where it has it as an input.
    for model in (before, after):
        values.update({t.name: numpy_helper.to_array(t) for t in before.graph.initializer})
    fill(before, values, feeds, draw)
    # A weight that is new was made by a pass. Its elided data is not in the text: zero is where adapters start.
    fill(after, values, feeds, lambda info, _: np.zeros_like(draw(info, feeds)))
    # The same holds where the optimiser has made it an input.
    for info in after.graph.input:
        if info.name in trained(expected) and info.name not in values:
            values[info.name] = np.zeros_like(draw(info, feeds))
    for model in (before, after):
        if not any(n.op_type in ADDED for n in model.graph.node):
            onnx.checker.check_model(model)
    if "not run" in directives or is_outdated(before):
        return "checked"
    difference = compare(run(before, values, feeds), run(after, values, feeds))
    if not difference <= TOLERANCE:
        raise ValueError(f"outputs differ by {difference:.3g}")
    return "run"


def main():
    warnings.simplefilter("ignore")
    paths = [pathlib.Path(p) for p in sys.argv[1:]] or sorted(FILES.glob("**/*.onnxtxt"))
    counts, failures = {"run": 0, "checked": 0, "refused": 0}, 0
    for path in paths:
        try:
            counts[judge(path)] += 1
        except Exception as error:
            failures += 1
            print(f"FAILED {path.relative_to(FILES.parent.parent.resolve()) if path.is_absolute() else path}: "
                  f"{type(error).__name__}: {str(error)[:600]}")
    print(f"{len(paths)} files: {counts['run']} run before and after, {counts['checked']} read and checked, "
          f"{counts['refused']} refused by graft and skipped, {failures} failed")
    sys.exit(1 if failures or not paths else 0)


if __name__ == "__main__":
    main()
