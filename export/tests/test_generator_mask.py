"""The graph that finds the person of a photo: equal to rembg's arithmetic around the published model."""

import numpy as np
import onnx
import pytest
from conftest import manifest
from onnx import TensorProto, helper

from stellar_export import jobs
from stellar_export.errors import ExportError
from stellar_export.generator import tiny_mask
from stellar_export.generator.mask import ROLE, MaskModel
from stellar_export.nn import FP16
from stellar_export.onnx_graph import session
from stellar_export.pack import Builder, finish


@pytest.fixture(scope="module", params=[False, True], ids=["one-picture", "batches"])
def model(request, tmp_path_factory) -> MaskModel:
    path = tmp_path_factory.mktemp("mask") / "u2net.onnx"
    tiny_mask.make(path, batches=request.param)
    found = MaskModel.read(path)
    assert (found.side, found.batches) == (tiny_mask.SIDE, request.param)
    return found


def test_a_pack_has_the_graph_and_it_equals_the_model(model, tmp_path):
    builder = Builder(tmp_path, FP16, 1 << 30, lambda _: None)
    job = model.job()
    builder.add_model(job, model.graph(), [[model.expected(probe.inputs["pixels"])] for probe in job.probes])
    finish(tmp_path, builder.manifest("masks", demo=False), None)
    written = manifest(tmp_path)
    assert written["weights"] == "demo", "it is smaller than the published models"
    (graph,) = written["graph"]
    side = tiny_mask.SIDE
    assert (graph["role"], graph["precision"], graph["max_batch"]) == (ROLE, "fp32", 16 if model.batches else 1)
    assert graph["inputs"][0]["shape"] == [side, side, 3] and graph["outputs"][0]["shape"] == [side, side]
    assert graph["geometry"]["filter"] == "lanczos"
    made = session(tmp_path / graph["files"][0]["path"])
    for pixels in (jobs.pictures(1, side, side, 7), np.zeros((1, side, side, 3), np.uint8)):
        mask = made.run(None, {"pixels": pixels})[0]
        assert np.isfinite(mask).all() and mask.min() == 0 and mask.max() <= 1
        np.testing.assert_allclose(mask, model.expected(pixels), atol=2e-5)


def test_nothing_of_this_machine_is_in_the_graph(model, tmp_path):
    builder = Builder(tmp_path, FP16, 1 << 30, lambda _: None)
    job = model.job()
    builder.add_model(job, model.graph(), [[model.expected(probe.inputs["pixels"])] for probe in job.probes])
    content = (tmp_path / "graphs" / f"{ROLE}.onnx").read_bytes()
    assert b".py" not in content and b"site-packages" not in content


@pytest.mark.parametrize("opset", [11, 18])
def test_models_of_older_and_newer_operators_are_wrapped(tmp_path, opset):
    """rembg's files are of opset 11, in which the axes of a reduction are attributes."""
    shape = [1, 3, 16, 16]
    nodes = [helper.make_node("Conv", ["input.1", "weight"], ["d0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    weight = np.random.default_rng(0).standard_normal((1, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "published",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("d0", TensorProto.FLOAT, [1, 1, 16, 16])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    onnx.save(made, str(tmp_path / "u2net.onnx"))
    model = MaskModel.read(tmp_path / "u2net.onnx")
    onnx.save(model.graph(), str(tmp_path / "whole.onnx"))
    pixels = jobs.pictures(1, 16, 16, 3)
    mask = session(tmp_path / "whole.onnx").run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(mask, model.expected(pixels), atol=2e-5)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ExportError, match="not an ONNX file"):
        MaskModel.read(tmp_path / "junk.onnx")
    for shape, words in (([1, 3, 16, 8], "expected floats"), ([1, 1, 16, 16], "expected floats"), ([16], "expected floats")):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [value], [out])
        onnx.save(helper.make_model(graph), str(tmp_path / "other.onnx"))
        with pytest.raises(ExportError, match=words):
            MaskModel.read(tmp_path / "other.onnx")
