"""PyTorch module → ONNX file, and the check that both say the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

from .errors import ExportError
from .manifest import IoSpec

OPSET = 18

# Weights above this go to a file beside the graph: a protobuf ends at 2 GB, and a runtime can map a plain file.
EXTERNAL_ABOVE = 256 * 2**20

# Of a graph with such a file, tensors below this many bytes stay in the graph: norms, biases, lists of numbers.
KEPT_BELOW = 16 * 2**10

# Values from which half of a weight's bytes are more than the node that widens it.
COMPACT_FROM = 256

# Largest difference between PyTorch and ONNX Runtime on unit-length embeddings and unit-size scores.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 1e-1}


@dataclass(frozen=True)
class Probe:
    """Inputs on which a graph is exported or checked, by input name, with the batch dimension."""

    inputs: Mapping[str, np.ndarray]


# For each of PyTorch's outputs, which of its values a graph is held to: everything, or an array that is true there.
Settled = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray | bool]]


def to_onnx(module: nn.Module, inputs: Sequence[IoSpec], outputs: Sequence[IoSpec], example: Probe, shortest: int, longest: int | None, free: bool = False, opset: int = OPSET) -> ir.Model:
    """Traces the module with a dynamic batch, and dynamic lengths within these limits where an input's shape says -1.

    Inputs share the length of an axis. With `free` there are no limits, and what the tracer finds out about lengths on
    its way (that one is odd, or that a kernel takes batches of up to 63) is not held against them.
    """
    batch = torch.export.Dim.AUTO if free else torch.export.Dim("batch", min=1)
    axes = {i for spec in inputs for i, n in enumerate(spec.shape) if n == -1}
    lengths = {
        i: torch.export.Dim.AUTO if free else torch.export.Dim(f"length{i}" if i else "length", min=shortest, max=longest)
        for i in axes
    }
    shapes = tuple(
        {0: batch, **{i + 1: lengths[i] for i, n in enumerate(spec.shape) if n == -1}} for spec in inputs
    )
    arguments = tuple(torch.from_numpy(example.inputs[spec.name]) for spec in inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            verbose=False,
        )
    model = program.model
    anonymise(model)
    _free_names(model, {spec.name for spec in (*inputs, *outputs)})
    return model


def anonymise(model: ir.Model) -> None:
    """Drops what an exporter notes down about this machine and this run: stack traces, file names, versions."""
    model.producer_name, model.producer_version, model.doc_string = "stellar_export", None, None
    model.metadata_props.clear()
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in graph.inputs:
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def _free_names(model: ir.Model, public: set[str]) -> None:
    """Renames inner values that the exporter happened to call as an input or output is called."""
    ends = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.name in public and id(value) not in ends:
                value.name = f"inner.{value.name}"


def widen_softmax(model: ir.Model) -> None:
    """Has the softmax of torch's own attention computed in single precision, whatever its tensors are."""
    for node in model.graph:
        if node.op_type == "Attention":
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", int(ir.DataType.FLOAT))


def compact(model: ir.Model) -> None:
    """Makes the file smaller without a change of a number.

    float32 weights are stored as float16 where that loses nothing and saves something, and widened inside. Shapes of
    inner values are left out: a runtime infers them.
    """
    ends = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = value.type = None
    first = model.graph[0]
    for name, wide in list(model.graph.initializers.items()):
        if wide.dtype != ir.DataType.FLOAT or wide.const_value.size < COMPACT_FROM:
            continue
        values = wide.const_value.numpy()
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        stored = ir.Value(name=f"{name}.half", shape=wide.shape, type=ir.TensorType(ir.DataType.FLOAT16))
        stored.const_value = ir.tensor(half, name=stored.name)
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        widened = cast.outputs[0]
        widened.name = f"{name}.wide"
        model.graph.insert_before(first, cast)
        ir.convenience.replace_all_uses_with(wide, widened)
        del model.graph.initializers[name]
        model.graph.initializers[stored.name] = stored


def save(model: ir.Model, path: Path, external_above: int = EXTERNAL_ABOVE) -> list[Path]:
    """Writes the graph, tensor by tensor if its weights go to a file of their own; returns the files, graph first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values())
    if size <= external_above:
        ir.save(model, path)
        return [path]
    data = path.with_name(path.name + ".data")
    ir.save(model, path, external_data=data.name, size_threshold_bytes=KEPT_BELOW)
    return [path, data]


def release(model: ir.Model) -> None:
    """Lets go of a saved model's weights: the exporter's pattern matchers remember the nodes they saw last."""
    for value in model.graph.initializers.values():
        value.const_value = None


def run_torch(module: nn.Module, probe: Probe) -> list[np.ndarray]:
    """The module's outputs for a probe."""
    with torch.inference_mode():
        out = module(*(torch.from_numpy(a) for a in probe.inputs.values()))
    return [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]


def session(path: Path) -> ort.InferenceSession:
    """A CPU session on one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(
    path: Path,
    outputs: Sequence[IoSpec],
    probes: Sequence[Probe],
    expected: Sequence[Sequence[np.ndarray]],
    tolerance: float,
    settled: Settled | None = None,
) -> float:
    """Holds the file to what PyTorch gave; returns the largest difference, relative where values exceed one.

    `settled` tells which values of the outputs are to be compared, where not all are.
    """
    try:
        runtime = session(path)
    except Exception as error:  # onnxruntime's exception types are private
        raise ExportError(f"{path.name}: ONNX Runtime does not load it ({error})") from error
    worst = 0.0
    for probe, wanted in zip(probes, expected, strict=True):
        got = runtime.run([o.name for o in outputs], dict(probe.inputs))
        compared = settled(wanted) if settled else [True] * len(wanted)
        for spec, a, b, where in zip(outputs, got, wanted, compared, strict=True):
            if a.shape != b.shape or a.dtype != np.float32:
                raise ExportError(
                    f"{path.name}: output {spec.name} is {a.dtype}{list(a.shape)}, expected float32{list(b.shape)}"
                )
            if not np.isfinite(a).all():
                raise ExportError(f"{path.name}: output {spec.name} is not finite")
            worst = max(worst, float(np.max(where * np.abs(a - b) / np.maximum(1, np.abs(b)))))
    if worst > tolerance:
        raise ExportError(f"{path.name}: ONNX Runtime differs from PyTorch by {worst:.2g}, allowed is {tolerance:.0g}")
    return worst
