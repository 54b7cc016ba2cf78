"""Training graphs that leave home: stock ONNX Runtime steps what `graft export --train` writes.

    portable.py GRAFT WORK

For every run of tests/data/parity and both exporters' files, the forms `portable` and `functions` reproduce PyTorch's
50 losses within 1e-5, and between two steps one with another batch size and length runs, whose state is thrown away.
The official checker (full) and strict shape inference accept every file, and the reference evaluator gives all outputs that
ONNX Runtime does: of steps, evaluations, gradients, sums and adapters. No portable file has an op that ONNX Runtime lacks.
"""

import collections
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as runtime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).parents[2]
DATA, STOCK = ROOT / "tests/data/parity", ROOT / "crates/train/src/stock_ops.txt"
SETTINGS = {"tri": ["growth=none"], "salora": ["draw=0.3:0.6:0.45:0.8", "penalty=0"]}
METHODS = ["lora", "rslora", "dora", "bone", "bat", "hydra", "tri", "salora"]
TOLERANCE = 1e-5
# Bytes that a node, an input or an output may add to a file, beside the weights.
PER_NODE = 1000

# It warns of every initialiser that can be fed.
quiet = ort.SessionOptions()
quiet.log_severity_level = 3


def graft(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


def export(binary, base, method, form, out, *more):
    flags = [f for s in SETTINGS.get(method, []) for f in ("--set", s)]
    line = ["export", base, "--train", "--init", DATA / method / "init", "--loss", "cross-entropy"]
    line += ["--logits", "logits", "--label", "labels", "--form", form, "-o", out, "--force", "--json"]
    return json.loads(graft(binary, *line, *flags, *more))


class GatherElements(OpRun):
    """The reference's own chooses among 64 slices at most; the model that torch exports gathers from more."""

    def _run(self, data, indices, axis=0):
        return (np.take_along_axis(data, indices, axis),)


class Steps:
    """A training graph in ONNX Runtime: feeds, outputs by name, state carried by `graft.state`."""

    def __init__(self, path):
        self.session = ort.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
        notes = self.session.get_modelmeta().custom_metadata_map
        self.roles, self.pairs = json.loads(notes["graft.io"]), json.loads(notes.get("graft.state", "[]"))
        self.names = [o.name for o in self.session.get_outputs()]
        self.inputs = {i.name for i in self.session.get_inputs()}
        self.state = load_file(path.with_suffix(".state.safetensors"))

    def feeds(self, batch, lr, step, seed=0):
        scalars = {"lr": np.float32(lr), "step": np.int64(step), "seed": np.int64(seed)}
        scalars = {self.roles[role]: np.array(x) for role, x in scalars.items() if role in self.roles}
        return {**batch, **scalars, **self.state}

    def run(self, batch, lr, step, keep=True):
        out = dict(zip(self.names, self.session.run(None, self.feeds(batch, lr, step))))
        if keep:
            self.state.update({now: out[after] for now, after in self.pairs})
        return out


def makes_the_file(path):
    """The graph beside a training graph makes, of the initial state, the adapter that lies beside it."""
    session = ort.InferenceSession(path.with_suffix(".adapter.onnx"), quiet, providers=["CPUExecutionProvider"])
    state = load_file(path.with_suffix(".state.safetensors"))
    names = [o.name for o in session.get_outputs()]
    made = dict(zip(names, session.run(names, {i.name: state[i.name] for i in session.get_inputs()})))
    wanted = load_file(path.with_suffix(".adapter") / "adapter_model.safetensors")
    assert made.keys() == wanted.keys(), path.name
    assert all(made[k].dtype == v.dtype and np.array_equal(made[k], v) for k, v in wanted.items()), path.name


def judge(path, base_bytes, state):
    """What the official package says of a file; `state` is what lies beside it."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    nodes = len(model.graph.node) + sum(len(f.node) for f in model.functions)
    limit = base_bytes + state.stat().st_size + PER_NODE * (nodes + len(model.graph.input) + len(model.graph.output))
    assert path.stat().st_size <= limit, f"{path.name}: {path.stat().st_size} bytes, more than {limit}"
    return model


def agree(path, model, values):
    """The reference evaluator computes from `values` every output that ONNX Runtime does."""
    session = ort.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    names, feeds = [o.name for o in session.get_outputs()], {i.name: values[i.name] for i in session.get_inputs()}
    reference = ReferenceEvaluator(model, new_ops=[GatherElements]).run(names, feeds)
    for name, ours, theirs in zip(names, reference, session.run(names, feeds)):
        assert np.shape(ours) == np.shape(theirs), f"{path.name}: {name}"
        worst = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-9)
        assert worst <= 1e-4, f"{path.name}: {name} differs by {worst:.1e}"
    return len(names)


def batches(n):
    data = np.load(DATA / "train.npz")
    return [{k: data[k][8 * i : 8 * i + 8] for k in data.files} for i in range(n)]


def reproduces(binary, base, method, form, out):
    """Exports, judges, steps and compares one file; returns its line of the table."""
    report = export(binary, base, method, form, out, "--with", "adapter")
    model = judge(out, base.stat().st_size, out.with_suffix(".state.safetensors"))
    makes_the_file(out)
    expected = json.loads((DATA / "losses.json").read_text())["methods"][method]
    steps, rng = Steps(out), np.random.default_rng(0)
    worst, times = 0.0, []
    for step, (batch, loss) in enumerate(zip(batches(50), expected["losses"], strict=True), 1):
        if step % 10 == 0:  # its state is thrown away
            ids = rng.integers(1, 100, (3, 7 + step % 4))
            other = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": np.array([0, 1, 1])}
            assert np.isfinite(steps.run(other, 1.0, step, keep=False)["loss"])
        begin = time.perf_counter()
        found = float(steps.run(batch, expected["lr"], step)["loss"])
        times.append(time.perf_counter() - begin)
        worst = max(worst, abs(found - loss) / abs(loss))
    assert worst <= TOLERANCE, f"{out.name}: a loss differs by {worst:.1e}"
    if form == "portable":
        assert not model.functions and {o.domain for o in model.opset_import} == {""}, out.name
    size = out.stat().st_size / base.stat().st_size
    print(f"{out.stem:32} {report['nodes']:6} nodes {len(report['ops']):4} ops {size:5.2f} x base "
          f"{1e3 * statistics.median(times):7.2f} ms a step, losses within {worst:.1e}")
    return model


def stock_ops():
    """The ops of ONNX's own domain that this ONNX Runtime runs on the processor: by kernels, or by ONNX's bodies."""
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    kernels = [k for k in runtime.get_all_opkernel_def() if k.domain == "" and k.provider == "CPUExecutionProvider"]
    known = {s.name for s in runtime.get_all_operator_schema() if s.domain == ""}
    bodies = known & {s.name for s in schemas if s.has_function or s.has_context_dependent_function}
    return {s.name for s in schemas} & ({k.op_name for k in kernels} | bodies | {"Constant"})


def list_of_ops(binary, work):
    """What `--form portable` takes for stock is."""
    table, stock = STOCK.read_text().split(), stock_ops()
    assert table == sorted(stock), f"only in the table: {set(table) - stock}; not in it: {stock - set(table)}"
    print(f"{len(table)} ops of stock ONNX Runtime {ort.__version__}: the table is right")


def every_method(binary, work):
    used = collections.Counter()
    for name in ("base", "base_dynamo"):
        for method in METHODS:
            for form in ("portable", "functions"):
                out = work / f"{name}-{method}-{form}.onnx"
                model = reproduces(binary, DATA / f"{name}.onnx", method, form, out)
                if form == "portable":
                    used.update(n.op_type for n in model.graph.node)
    assert used.keys() <= stock_ops()
    print("ops of the portable graphs:", ", ".join(sorted(used)))


# What else is exported for a method, by the flags that ask for it.
FILES = {"step": ["--with", "eval", "--with", "adapter"], "grads": ["--with", "grads"], "sums": ["--accumulate"]}


def values(stem, batch, rng):
    """Something to feed to every input of the files of one export; the state is random."""
    state = load_file(stem.with_suffix(".state.safetensors"))
    fed = {name: (x + rng.uniform(0.02, 0.1, x.shape)).astype(x.dtype) for name, x in state.items()}
    fed |= {"lr": np.array(1e-2, np.float32), "step": np.array(3), "seed": np.array(5), "batches": np.array(2)}
    return fed | batch


def every_file(binary, work):
    """All files of every method, before the official judges: those of each graph, in both forms."""
    base, rng, seen = DATA / "base.onnx", np.random.default_rng(1), collections.Counter()
    batch = batches(1)[0]
    for method in METHODS:
        for form in ("portable", "functions"):
            for kind, flags in FILES.items():
                out = work / f"{method}-{form}-{kind}.onnx"
                export(binary, base, method, form, out, *flags)
                fed = values(out, batch, rng)
                for path in sorted({out, *work.glob(f"{out.stem}.*.onnx")}):
                    model = judge(path, base.stat().st_size, out.with_suffix(".state.safetensors"))
                    seen.update(files=1, outputs=agree(path, model, fed))
    print(f"{seen['files']} files, {seen['outputs']} outputs: the reference evaluator agrees with ONNX Runtime")


def fresh(binary, base, out, *flags):
    """An untrained adapter with random first factors, exported; returns its steps."""
    line = ["export", base, "--train", "--loss", "cross-entropy", "--logits", "logits", "--label", "labels"]
    graft(binary, *line, "--rank", 4, "--targets", "query,key,value,dense", "-o", out, "--force", "--json", *flags)
    return Steps(out)


def shared_and_embedded(binary, work):
    """Weights stay in the base model's file; the state stands in the graph, bound as ONNX says."""
    base = work / "base.onnx"
    base.write_bytes((DATA / "base.onnx").read_bytes())
    steps = fresh(binary, base, work / "shared.onnx", "--share-weights", "--embed-state", "--with", "eval")
    model = onnx.load(work / "shared.onnx", load_external_data=False)
    places = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {"base.onnx"}, places
    onnx.checker.check_model(str(work / "shared.onnx"), full_check=True)
    bound = {b.key: b.value for b in model.training_info[0].update_binding}
    assert bound == dict(steps.pairs) and bound.keys() <= {t.name for t in model.graph.initializer}
    assert set(bound.values()) <= {o.name for o in model.graph.output}
    batch = batches(1)[0]
    fed = steps.run(batch, 0.0, 1, keep=False)
    state, steps.state = steps.state, {}
    assert all(np.array_equal(fed[k], v) for k, v in steps.run(batch, 0.0, 1, keep=False).items())
    evaluation = ort.InferenceSession(work / "shared.eval.onnx", quiet, providers=["CPUExecutionProvider"])
    weights = {k: v for k, v in state.items() if k in {i.name for i in evaluation.get_overridable_initializers()}}
    assert len(weights) == 26
    loss, logits = evaluation.run(["loss", "logits"], {**batch, **weights})
    assert abs(loss - fed["loss"]) < 1e-6 and np.allclose(logits, fed["logits"], atol=1e-6)
    print(f"shared weights: {(work / 'shared.onnx').stat().st_size} bytes beside {base.stat().st_size}")


def gradients_and_sums(binary, work):
    """`--with grads` returns what AdamW takes in; two half batches, summed up, are one."""
    base, batch = DATA / "base.onnx", batches(1)[0]
    whole = fresh(binary, base, work / "whole.onnx", "--clip", 0)
    after = whole.run(batch, 1e-3, 1, keep=False)
    grads = fresh(binary, base, work / "grads.onnx", "--clip", 0, "--with", "grads")
    assert not grads.pairs and set(grads.state) == {k for k in whole.state if k[-2:] not in (".m", ".v")}
    found = grads.run(batch, 0.0, 1)
    for name in grads.state:
        assert np.allclose(0.1 * found[f"{name}.grad"], after[f"{name}.m.next"], atol=1e-8), name

    update = fresh(binary, base, work / "sums.onnx", "--clip", 0, "--accumulate")
    path = work / "sums.accumulate.onnx"
    path.with_suffix(".state.safetensors").write_bytes((work / "sums.state.safetensors").read_bytes())
    sums = Steps(path)
    sums.state = {k: v for k, v in sums.state.items() if k in sums.inputs}
    for rows in (slice(0, 4), slice(4, 8)):
        sums.run({k: v[rows] for k, v in batch.items()}, 0.0, 1)
    update.state.update({k: v for k, v in sums.state.items() if k.endswith(".sum")})
    out = update.run({update.roles["batches"]: np.array(2)}, 1e-3, 1)
    for _, name in whole.pairs:
        assert np.allclose(out[name], after[name], rtol=1e-3, atol=1e-7), name
    print("gradients and sums: ok")


def drawn_and_masked(binary, work):
    """Random numbers come from `seed`; masks are inputs, statistics outputs."""
    base, batch = DATA / "base.onnx", batches(1)[0]
    steps = fresh(binary, base, work / "dropout.onnx", "--set", "dropout=0.3")
    norm = lambda seed, step: steps.session.run(["grad_norm"], steps.feeds(batch, 0.0, step, seed))[0]
    assert norm(0, 1) == norm(0, 1) and len({float(norm(*at)) for at in ((0, 1), (1, 1), (0, 2))}) == 3

    flags = ["--method", "tri", "--set", "growth=topk", "--set", "interval=1"]
    steps = fresh(binary, base, work / "growth.onnx", *flags)
    out = steps.run(batch, 1e-2, 1, keep=False)
    masks = {k.removeprefix("rank_mask."): v for k, v in steps.state.items() if k.startswith("rank_mask.")}
    assert len(masks) == 13 and {f"stats.{target}" for target in masks} <= out.keys()
    for target, mask in masks.items():
        name = f"{target}.tri_b"
        moved = (out[f"{name}.next"] != steps.state[name]).any(axis=1)
        assert np.array_equal(moved, mask != 0) and 0 < mask.sum() < len(mask), target
    print("seed and masks: ok")


VECTORS = [((0, 1, 0), 0, 0x82D94F3A), ((0, 1, 0), 1, 0x40176816), ((0, 1, 3), 7, 0xFAA43493)]


def same_bits(binary, work):
    """`graft.Uniform`'s body, taken from an exported file, gives the bits that graft computes."""
    fresh(binary, DATA / "base.onnx", work / "gates.onnx", "--method", "salora", "--form", "functions")
    exported = onnx.load(work / "gates.onnx")
    functions = [f for f in exported.functions if f.name in ("Bits", "Uniform")]
    assert len(functions) == 2
    scalars = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.INT64, []) for n in ("seed", "step", "tensor")]
    shape = onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, [1])
    out = onnx.helper.make_tensor_value_info("u", onnx.TensorProto.FLOAT, ["n"])
    node = onnx.helper.make_node("Uniform", ["seed", "step", "tensor", "shape"], ["u"], domain="graft")
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "uniform", [*scalars, shape], [out]), functions=functions,
        opset_imports=exported.opset_import, ir_version=exported.ir_version)
    onnx.save(model, work / "uniform.onnx")
    session = ort.InferenceSession(work / "uniform.onnx", providers=["CPUExecutionProvider"])
    for (seed, step, tensor), index, bits in VECTORS:
        feeds = {"seed": seed, "step": step, "tensor": tensor, "shape": [1000]}
        feeds = {k: np.array(v, np.int64) for k, v in feeds.items()}
        np.savez(work / "uniform.npz", **feeds)
        graft(binary, "run", work / "uniform.onnx", "--inputs", work / "uniform.npz", "-o", work / "u.npz", "--force")
        theirs, ours = session.run(None, feeds)[0], np.load(work / "u.npz")["u"]
        assert theirs.tobytes() == ours.tobytes()
        assert theirs[index] == np.float32(((bits >> 9) + 0.5) * 2.0**-23)
    print("uniform draws: the same bits")


def own_executor(binary, work):
    """Our executor runs the file of each form to the loss of stock ONNX Runtime; every opset that is asked for is."""
    batch = batches(1)[0]
    for form in ("portable", "functions", "fused"):
        for opset in (17, 18, 21):
            steps = fresh(binary, DATA / "base.onnx", work / "own.onnx", "--form", form, "--opset", opset)
            state = work / "own.state.safetensors"
            model = judge(work / "own.onnx", (DATA / "base.onnx").stat().st_size, state)
            assert model.opset_import[0].version == opset
            feeds = steps.feeds(batch, 1e-3, 1)
            np.savez(work / "own.npz", **feeds)
            graft(binary, "run", work / "own.onnx", "--inputs", work / "own.npz", "-o", work / "out.npz", "--force")
            ours, theirs = np.load(work / "out.npz"), steps.run(batch, 1e-3, 1)
            worst = max(np.abs(ours[k] - theirs[k]).max() for k in steps.names if not k.endswith(".next"))
            assert worst < 1e-5, f"{form} at opset {opset}: {worst:.1e}"
    print("our executor agrees, at opsets 17, 18 and 21")


def main():
    binary, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    for suite in (list_of_ops, every_method, every_file, shared_and_embedded, gradients_and_sums, drawn_and_masked, same_bits, own_executor):
        suite(binary, work)
    print(f"portable: ok ({time.time() - begin:.0f} s)")


if __name__ == "__main__":
    main()
