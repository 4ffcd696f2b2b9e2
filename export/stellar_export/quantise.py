"""Eight-bit weights and products for processors: the form that `--precision int8` gives a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience

# ONNX Runtime's own operators.
DOMAIN = "com.microsoft"

# Narrower products are heads of a few values, whose errors nothing averages out.
COLUMNS_FROM = 16


def quantise(model: ir.Model) -> int:
    """Turns products of tokens with weights into ONNX Runtime's DynamicQuantizeMatMul; returns how many.

    Weights get a scale for each column, without a zero point. The tokens' scale is found anew in each run: it is as fast
    as one that is fixed beforehand and needs no pictures to be fixed by. Products of single vectors, which are the last
    ones before an embedding, stay as they are: they cost nothing, and their errors would be those of the result.

    This is what `onnxruntime.quantization.quantize_dynamic` makes and the runtime then joins to this node, done tensor by
    tensor: that one has a model in memory three times, 22 GB for the largest tower.
    """
    found = 0
    for node in list(model.graph):
        if node.op_type != "MatMul":
            continue
        tokens, weight = node.inputs
        if weight.const_value is None or len(weight.shape) != 2 or len(tokens.shape) != 3 or weight.shape[1] < COLUMNS_FROM:
            continue
        values = weight.const_value.numpy()
        scale = np.abs(values).max(axis=0) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        rounded = np.rint(values / scale).astype(np.int8)
        result, last = node.outputs[0], node
        bias = None
        uses = list(result.uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            add = uses[0].node
            other = add.inputs[1 - uses[0].idx]
            if other.const_value is not None and other.shape == ir.Shape((len(scale),)):
                bias, last = other, add
        held = [_initializer(model, f"{weight.name}.{name}", a) for name, a in (("int8", rounded), ("scale", scale))]
        joined = ir.node("DynamicQuantizeMatMul", [tokens, *held, None, bias], domain=DOMAIN)
        out = joined.outputs[0]
        out.name, out.shape, out.type = last.outputs[0].name, last.outputs[0].shape, last.outputs[0].type
        convenience.replace_nodes_and_values(
            model.graph, last, [node] if last is node else [node, last], [joined], last.outputs, joined.outputs
        )
        if not list(weight.uses()):
            del model.graph.initializers[weight.name]
        found += 1
    if found:
        model.opset_imports[DOMAIN] = 1
    return found


def _initializer(model: ir.Model, name: str, values: np.ndarray) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(values, name=name))
    model.graph.register_initializer(value)
    return value
