"""The graph that finds the person of a photo: a published U²-Net with rembg's arithmetic around it.

rembg's models of this kind (u2net, u2netp, u2net_human_seg, silueta) take one picture, resized with Lanczos, divided by
its largest level and normalised with ImageNet's numbers. The first of their outputs, stretched to 0 … 1, is the mask.
All of it but the resize becomes a part of the graph.

Only u2net_human_seg is trained for people. The others find whatever stands out in a photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, compose, helper, numpy_helper

from .. import jobs, preprocess
from ..checkpoints import Folder
from ..errors import ExportError
from ..jobs import GraphJob
from ..manifest import IoSpec
from ..nn import FP32
from ..preprocess import IMAGENET_MEAN, IMAGENET_STD

ROLE = "generator.mask"
SUPPORTED = ("u2net", "u2netp", "u2net_human_seg", "silueta")
# Side of the published models' input.
PUBLISHED_SIDE = 320
# rembg's lower bound of the largest level, so that a black photo is not divided by 0.
SMALLEST = 1e-6
PREFIX = "model/"
# From this opset on, the axes of a reduction are an input.
AXES_AS_INPUT = 18


@dataclass(frozen=True)
class MaskModel:
    """A segmentation model as it was published."""

    path: Path
    model: onnx.ModelProto
    side: int
    batches: bool
    """Whether it takes several pictures at a time."""

    @staticmethod
    def read(path: Path, any_side: bool = False) -> MaskModel:
        """Reads the file and checks that it is of this kind.

        Other models have another side and another arithmetic, so only made-up ones may have `any_side`.
        """
        try:
            model = onnx.load(str(path))
        except Exception as error:  # onnx raises the exceptions of protobuf
            raise ExportError(f"{path}: it is not an ONNX file ({error})") from error
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in stored]
        if len(inputs) != 1 or not model.graph.output:
            raise _other(path, f"it has {len(inputs)} inputs, expected one picture, and {len(model.graph.output)} outputs")
        shape = _shape(inputs[0]) or []
        is_float = inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
        if not is_float or len(shape) != 4 or shape[1] != 3 or not shape[2] or shape[2] != shape[3]:
            raise _other(path, f"its input is {shape}, expected floats [1, 3, side, side]")
        batch, _, side, _ = shape
        if batch not in (None, 1):
            raise _other(path, f"it takes {batch} pictures at a time, expected one or any number")
        if side != PUBLISHED_SIDE and not any_side:
            raise _other(path, f"the side of its input is {side}, expected {PUBLISHED_SIDE}")
        mask = _shape(model.graph.output[0])
        wanted = (1, 1, side, side)
        if mask is not None and (len(mask) != 4 or any(n not in (None, w) for n, w in zip(mask, wanted, strict=True))):
            raise _other(path, f"its first output is {mask}, expected [1, 1, {side}, {side}]")
        return MaskModel(path, model, side, batch is None)

    def job(self) -> GraphJob:
        """What the manifest says of the graph, and the pictures that it is checked with."""
        side = self.side
        job = jobs.image_job(
            [ROLE],
            None,
            [IoSpec("foreground", "f32", (side, side))],
            preprocess.exact(side, side, "lanczos"),
            Folder(self.path.stem, self.path.parent, "local").source([self.path]),
            side == PUBLISHED_SIDE,
        )
        job.precision = FP32
        if not self.batches:
            job.max_batch = 1
            job.probes = [jobs.picture_probe(1, side, side, seed) for seed in (1, 2)]
        return job

    def expected(self, pixels: np.ndarray) -> np.ndarray:
        """The masks of pictures [N, side, side, 3] as rembg computes them, before the resize to the photo."""
        session = ort.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = []
        for picture in pixels:
            levels = picture / max(np.max(picture), SMALLEST)
            normal = ((levels - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)[None].astype(np.float32)
            mask = session.run(None, {session.get_inputs()[0].name: normal})[0][0, 0]
            found.append((mask - mask.min()) / (mask.max() - mask.min()))
        return np.stack(found)

    def graph(self) -> onnx.ModelProto:
        """The model from bytes [N, side, side, 3] to the mask [N, side, side], 0 to 1."""
        opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        inner = compose.add_prefix(self.model, PREFIX)
        stored = {tensor.name for tensor in inner.graph.initializer}
        picture = next(value for value in inner.graph.input if value.name not in stored)
        mask = inner.graph.output[0].name
        side, batch, graph = self.side, "batch" if self.batches else 1, inner.graph
        before = [
            helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
            *_reduce("ReduceMax", "levels", "largest", opset),
            helper.make_node("Max", ["largest", "smallest"], ["divisor"]),
            helper.make_node("Div", ["levels", "divisor"], ["shares"]),
            helper.make_node("Sub", ["shares", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "deviation"], ["normal"]),
            helper.make_node("Transpose", ["normal"], [picture.name], perm=[0, 3, 1, 2]),
        ]
        after = [
            *_reduce("ReduceMin", mask, "low", opset),
            *_reduce("ReduceMax", mask, "high", opset),
            helper.make_node("Sub", [mask, "low"], ["above"]),
            helper.make_node("Sub", ["high", "low"], ["range"]),
            # A mask of one level has no foreground, rather than no numbers.
            helper.make_node("Max", ["range", "smallest"], ["spread"]),
            helper.make_node("Div", ["above", "spread"], ["stretched"]),
            helper.make_node("Reshape", ["stretched", "shape"], ["foreground"]),
        ]
        constants = {
            "smallest": np.float32(SMALLEST),
            "mean": np.array(IMAGENET_MEAN, np.float32),
            "deviation": np.array(IMAGENET_STD, np.float32),
            "axes": np.array([1, 2, 3], np.int64),
            "shape": np.array([-1, side, side], np.int64),
        }
        if opset < AXES_AS_INPUT:
            del constants["axes"]
        initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        whole = helper.make_graph(
            [*before, *graph.node, *after],
            "mask",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, side, side, 3])],
            [helper.make_tensor_value_info("foreground", TensorProto.FLOAT, [batch, side, side])],
            [*graph.initializer, *initializers],
        )
        made = helper.make_model(whole, opset_imports=list(self.model.opset_import), producer_name="stellar_export")
        made.ir_version = self.model.ir_version
        made.functions.extend(inner.functions)
        onnx.checker.check_model(made)
        return made


def _shape(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """The declared dimensions, None where any size fits; None if no shape is declared."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]


def _other(path: Path, problem: str) -> ExportError:
    return ExportError(f"{path}: {problem}: the models of rembg that are supported are {', '.join(SUPPORTED)}")


def _reduce(kind: str, value: str, name: str, opset: int) -> list[onnx.NodeProto]:
    """The node of a reduction over a whole picture."""
    if opset < AXES_AS_INPUT:
        return [helper.make_node(kind, [value], [name], axes=[1, 2, 3], keepdims=1)]
    return [helper.make_node(kind, [value, "axes"], [name], keepdims=1)]
