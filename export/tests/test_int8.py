"""Packs of eight-bit products: what is quantised and what is not, against ONNX Runtime's own quantiser."""

import numpy as np
import onnx
import pytest
from conftest import REPO, build, manifest, request
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from stellar_export import cli, demo, goldens
from stellar_export.families import FAMILIES
from stellar_export.nn import FP32, GELU_OPSET
from stellar_export.onnx_graph import save, session, to_onnx

BUILT = ("clip", "image_reward")
ROLES = ("clip.image", "clip.text", "image_reward.image", "image_reward.score")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The demo pack's checkpoints of these models."""
    path = tmp_path_factory.mktemp("int8") / "root"
    demo.make_checkpoints(path, BUILT)
    return path


@pytest.fixture(scope="module")
def int8_pack(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("int8") / "pack", BUILT, "int8")


def nodes_of(path, kind: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type == kind]


@pytest.mark.parametrize("role", ROLES)
def test_products_with_weights_are_of_eight_bits_and_the_rest_is_not(int8_pack, role):
    model = onnx.load(int8_pack / f"graphs/{role}.onnx")
    assert {o.domain: o.version for o in model.opset_import} == {"": GELU_OPSET, "com.microsoft": 1}
    held = {i.name: i for i in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "DynamicQuantizeMatMul"]
    attentions = [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]
    # Two layers: of a tower's, four products and an attention, but one product in the last layer of a tower with one embedding;
    # of BERT's, eight products, two of them with image tokens, and two attentions.
    single = role.startswith("clip")
    assert (len(products), len(attentions)) == ((16, 4) if role.endswith(".score") else (5 if single else 8, 2))
    for node in products:
        _, weight, scale, zero, bias = node.input
        assert held[weight].data_type == onnx.TensorProto.INT8 and held[scale].dims == held[weight].dims[1:]
        assert zero == "" and bias in held, "the bias is added in the same node"
        assert np.abs(numpy_helper.to_array(held[weight])).max() == 127
    left = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(left) == (4 if single else 0), "the last layer of one vector, and its projection"
    assert {g["role"]: g["precision"] for g in manifest(int8_pack)["graph"]}[role] == "int8"


def test_it_is_what_onnxruntimes_quantiser_makes(root, int8_pack, tmp_path):
    job = next(FAMILIES["clip"](request(root, ("clip",), "int8")))
    model = to_onnx(job.module, job.inputs, job.outputs, job.example, job.shortest, job.longest)
    (plain,) = save(model, tmp_path / "plain.onnx")
    theirs = tmp_path / "theirs.onnx"
    single = [node.name for node in nodes_of(plain, "MatMul")[-4:]]
    quantize_dynamic(
        plain,
        theirs,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=single,
        extra_options={"MatMulConstBOnly": True},
    )
    ours = int8_pack / "graphs/clip.image.onnx"
    weights = [
        sorted(
            (t.tobytes() for i in onnx.load(path).graph.initializer if (t := numpy_helper.to_array(i)).dtype == np.int8 and t.ndim == 2),
        )
        for path in (ours, theirs)
    ]
    assert weights[0] == weights[1] and len(weights[0]) == 5
    for probe in job.probes:
        a, b = (session(path).run(None, dict(probe.inputs))[0] for path in (ours, theirs))
        # Values that lie between two steps of the scale fall to either side.
        np.testing.assert_allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("role", ROLES)
def test_results_point_where_those_of_single_precision_do(root, int8_pack, role):
    jobs = {j.roles[0]: j for model in BUILT for j in FAMILIES[model](request(root, BUILT))}
    ours, theirs = (session(p / f"graphs/{role}.onnx") for p in (int8_pack, REPO / "packs/demo"))
    for probe in jobs[role].probes:
        a, b = (s.run(None, dict(probe.inputs))[0] for s in (ours, theirs))
        if role.endswith(".score"):
            # Rewards are no cosines: those of the demo pack reach five and more.
            assert np.abs(a - b).max() < 0.1 * max(1, np.abs(b).max())
            continue
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert 0.98 < cosine.min() < 0.999999, "near, and not the same graph"


def test_convolutions_and_relations_stay_in_single_precision(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "convolutions"
    demo.make_checkpoints(path, ("faces", "egtr"))
    for model in ("faces", "egtr"):
        assert all(job.precision == FP32 for job in FAMILIES[model](request(path, (model,), "int8")))


def test_goldens_of_what_stays_in_single_precision_are_held_as_closely():
    models = goldens.TOLERANCE.keys()
    assert {m for m in models if goldens.tolerance(m, "int8") == goldens.tolerance(m, "fp32")} == {
        "ips", "sis", "rfs", "rfs_strict", "rfs_interaction", "rfs_location"
    }  # fmt: skip


def test_eight_bits_are_for_processors(tmp_path, capsys):
    assert cli.main(["build", "--out", str(tmp_path / "p"), "--precision", "int8", "--for", "gpu"]) == 1
    assert "int8 is for processors: for GPUs build with fp16" in capsys.readouterr().err
