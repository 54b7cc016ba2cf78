"""The ONNX node tests, made at test time from the onnx package, and handed to the Rust test `conformance`.

    python conformance.py FOLDER

Writes into FOLDER for each case the model and, as the weights of a second model, what goes in and must come out; and
`cases.json`, which lists them. A case keeps the opset that it was made for, or 24 where that is newer and the checker
accepts it there. Cases of one op are written once more for each older meaning of the op down to opset 11, with operands
as the attributes that they were then, where ONNX Runtime confirms that the expected results are still those.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = 11, 24


def opset(model):
    """The version of ONNX's own domain; None where another domain is needed."""
    if any(o.domain not in ("", "ai.onnx") for o in model.opset_import):
        return None
    return next((o.version for o in model.opset_import), None)


def tensors(declared, values):
    """Pairs (value_info, array); an exception for sequences and optional values."""
    values = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]
    if len(values) != len(declared) or not all(isinstance(v, (np.ndarray, np.generic)) for v in values):
        raise TypeError("not a list of tensors")
    return [(info, np.asarray(value)) for info, value in zip(declared, values)]


class Case:
    """One model with its inputs and expected outputs."""

    def __init__(self, name, model, inputs, outputs, rtol, atol):
        self.name, self.model, self.inputs, self.outputs = name, model, inputs, outputs
        self.rtol, self.atol = rtol, atol

    def is_accepted(self):
        try:
            onnx.checker.check_model(self.model, full_check=True)
            return True
        except Exception:  # The checker and shape inference raise many kinds.
            return False

    def is_confirmed(self):
        """Whether ONNX Runtime gives the expected results."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(
                self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            found = session.run(None, {info.name: value for info, value in self.inputs})
        except Exception:  # Ops and types that it lacks.
            return False
        wanted = [value for _, value in self.outputs]
        same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(
            a, b, rtol=self.rtol, atol=self.atol, equal_nan=True)
        return all(same(np.asarray(a), b) for a, b in zip(found, wanted))

    def at(self, version):
        """The same for another opset: what was an attribute there and is an operand here becomes one."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        node, inputs = model.graph.node[0], list(self.inputs)
        new = onnx.defs.get_schema(node.op_type, opset(model))
        old = onnx.defs.get_schema(node.op_type, version)
        there = {i.name for i in old.inputs}
        for i in reversed(range(len(node.input))):
            name = new.inputs[min(i, len(new.inputs) - 1)].name
            if name not in old.attributes or name in there:
                continue
            value = next((v for info, v in inputs if info.name == node.input[i]), None)
            inputs = [(info, v) for info, v in inputs if info.name != node.input[i]]
            if value is not None:
                node.attribute.append(helper.make_attribute(name, value.tolist()))
            node.input[i] = ""
        while node.input and not node.input[-1]:
            node.input.pop()
        del model.graph.input[:]
        model.graph.input.extend(info for info, _ in inputs)
        model.opset_import[0].version = version
        return Case(f"{self.name}@{version}", model, inputs, self.outputs, self.rtol, self.atol)

    def write(self, folder):
        """The model and its data; returns the line of the list."""
        onnx.save(self.model, folder / f"{self.name}.onnx")
        parts = [("in", self.inputs), ("out", self.outputs)]
        data = [numpy_helper.from_array(value, f"{part}.{info.name}") for part, all in parts for info, value in all]
        graph = helper.make_graph([], "data", [], [], initializer=data)
        (folder / f"{self.name}.data").write_bytes(helper.make_model(graph).SerializeToString())
        return {"name": self.name, "opset": opset(self.model), "rtol": self.rtol, "atol": self.atol}


def versions(case, current):
    """Older opsets at which the case's op has another definition."""
    if len(case.model.graph.node) != 1:
        return []
    op = case.model.graph.node[0].op_type
    history = {s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""}
    oldest = max((v for v in history if v <= OLDEST), default=None)
    there = {OLDEST if v == oldest else v for v in history if oldest is None or v >= oldest}
    return sorted((v for v in there if v < current and onnx.defs.get_schema(op, v).since_version < current), reverse=True)


def cases():
    """Every case that is a function from tensors to tensors, at each opset at which it holds."""
    from onnx.backend.test.case.node import collect_testcases

    for test in collect_testcases(None):
        version = opset(test.model)
        if version is None:
            continue
        name = test.name.removeprefix("test_")
        try:
            (inputs, outputs), = test.data_sets
            graph = test.model.graph
            case = Case(name, test.model, tensors(graph.input, inputs), tensors(graph.output, outputs),
                        test.rtol, test.atol)
        except (TypeError, ValueError):
            continue
        if version > NEWEST:
            case.model.opset_import[0].version = version = NEWEST
            if not case.is_accepted():
                continue
        if version >= OLDEST:
            yield case
        else:
            # Made for a version before ours, with the op unchanged since: it holds for ours as well.
            case.model.opset_import[0].version = version = OLDEST
            if case.is_accepted():
                yield case
        for older in versions(case, version):
            try:
                candidate = case.at(older)
            except Exception:  # The op is not there yet.
                continue
            if candidate.is_accepted() and candidate.is_confirmed():
                yield candidate


def main():
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = [case.write(folder) for case in cases()]
    (folder / "cases.json").write_text(json.dumps(listed))
    print(f"{len(listed)} cases written", flush=True)
    command = ["cargo", "test", "--release", "--quiet", "-p", "graft-tests", "--test", "conformance", "--", "--nocapture"]
    environment = {**os.environ, "GRAFT_CONFORMANCE": str(folder)}
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()
