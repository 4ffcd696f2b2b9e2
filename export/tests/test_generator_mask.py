"""The graph that finds the person of a photo: equal to rembg's arithmetic around the published model."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import manifest, silent
from onnx import TensorProto, helper

from stellar_export import jobs
from stellar_export.checkpoints import MARKER
from stellar_export.errors import ExportError
from stellar_export.generator import export, tiny_mask
from stellar_export.generator.mask import ROLE, MaskModel
from stellar_export.nn import FP16
from stellar_export.onnx_graph import session
from stellar_export.pack import Builder, finish


@pytest.fixture(scope="module", params=[False, True], ids=["one-picture", "batches"])
def model(request, tmp_path_factory) -> MaskModel:
    path = tmp_path_factory.mktemp("mask") / "u2net.onnx"
    tiny_mask.make(path, batches=request.param)
    found = MaskModel.read(path, any_side=True)
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
    model = MaskModel.read(tmp_path / "u2net.onnx", any_side=True)
    onnx.save(model.graph(), str(tmp_path / "whole.onnx"))
    pixels = jobs.pictures(1, 16, 16, 3)
    mask = session(tmp_path / "whole.onnx").run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(mask, model.expected(pixels), atol=2e-5)


def published(path, given, made):
    """A file with the declared shapes of an input and an output; its mask is the first channel."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, made)
    index = onnx.numpy_helper.from_array(np.array([0], np.int64), "index")
    node = helper.make_node("Gather", ["x", "index"], ["y"], axis=1)
    onnx.save(helper.make_model(helper.make_graph([node], "other", [value], [out], [index])), str(path))
    return path


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(ExportError, match="not an ONNX file"):
        MaskModel.read(path)
    for given, made, problem in (
        ([1, 3, 320, 8], None, r"expected floats \[1, 3, side, side\]"),
        ([1, 1, 320, 320], None, "expected floats"),
        ([16], None, "expected floats"),
        ([2, 3, 320, 320], None, "it takes 2 pictures at a time"),
        ([1, 3, 1024, 1024], [1, 1, 1024, 1024], "the side of its input is 1024, expected 320"),
        ([1, 3, 320, 320], [1, 21, 320, 320], r"its first output is \[1, 21, 320, 320\], expected \[1, 1, 320, 320\]"),
        ([1, 3, 320, 320], [2, 1, 320, 320], "its first output is"),
        ([1, 3, 320, 320], [1, 1, 160, 160], "its first output is"),
        ([1, 3, 320, 320], [1, 320, 320], "its first output is"),
        (["batch", 3, 320, 320], ["batch", 2, 320, 320], r"its first output is \[None, 2, 320, 320\]"),
    ):
        named = problem + r".*: the models of rembg that are supported are u2net, u2netp, u2net_human_seg, silueta"
        with pytest.raises(ExportError, match=named):
            MaskModel.read(published(path, given, made))


@pytest.mark.parametrize("made", [None, [1, 1, 320, 320], ["n", 1, 320, 320], ["n", 1, "h", "w"]])
def test_outputs_of_another_declaration_are_taken(tmp_path, made):
    model = MaskModel.read(published(tmp_path / "u2net.onnx", [1, 3, 320, 320], made))
    assert (model.side, model.batches, model.job().official) == (320, False, True)


def test_only_a_demo_has_masks_of_another_side(tiny_base, tmp_path, monkeypatch):
    def stop(*_):
        raise ExportError("the mask model was taken")

    monkeypatch.setattr(export, "graphs", stop)
    path = tmp_path / "u2net.onnx"
    tiny_mask.make(path)
    options = export.Options(tiny_base, mask_model=path, goldens=False)
    with pytest.raises(ExportError, match="the mask model was taken"):
        export.build(options, tmp_path / "demo", "demo", silent)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base, ignore=shutil.ignore_patterns(MARKER))
    with pytest.raises(ExportError, match="the side of its input is 64, expected 320"):
        export.build(replace(options, base=base), tmp_path / "pack", "pack", silent)
    assert not (tmp_path / "pack").exists()
