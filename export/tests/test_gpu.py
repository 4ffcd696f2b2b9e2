"""The form of graphs that is fast on GPUs: the same numbers, attention as one node, and nothing that a GPU lacks."""

import numpy as np
import onnx
import pytest
import torch
from conftest import REPO, Mean, build, manifest, request

from stellar_export import cli, demo, egtr, flops, preprocess, random_checkpoints
from stellar_export.errors import ExportError
from stellar_export.families import FAMILIES
from stellar_export.jobs import embedding_image_job
from stellar_export.manifest import Source
from stellar_export.nn import ATTENTION_OPSET, FP16, FP32, AttentionForm, Embedding, attentive, split_products
from stellar_export.onnx_graph import TOLERANCE, check, run_torch, save, session, to_onnx
from stellar_export.published_sizes import BIG_G, published
from stellar_export.random_specs import hf_clip_spec

BUILT = ("image_reward", "owlvit")

# Attention nodes of the graphs of `BUILT` at the demo pack's two layers; BERT's layers have two attentions each.
ATTENTIONS = {
    "image_reward.image": 2,
    "image_reward.score": 4,
    "owlvit.text": 2,
    "owlvit.image": 2,
}

# From which opset on ONNX Runtime 1.27 has the operator on a GPU, by its docs/OperatorKernels.md; a later version of an operator
# than is there runs on the processor, silently.
ON_CUDA = {
    "Add": {14}, "ArgMax": {13}, "Attention": {23}, "Cast": {13, 23}, "Concat": {13}, "Conv": {11, 22}, "Cos": {7}, "Div": {14},
    "Exp": {13}, "Expand": {13}, "Gather": {13}, "GatherND": {13}, "Gelu": {20}, "GridSample": {16}, "InstanceNormalization": {6},
    "LayerNormalization": {17}, "MatMul": {13}, "MaxPool": {12}, "Min": {13}, "Mul": {14}, "Range": {11}, "ReduceL2": {18},
    "ReduceMean": {18}, "ReduceSum": {13}, "Relu": {14}, "Reshape": {14, 23}, "Shape": {15, 23}, "Sigmoid": {13}, "Sin": {7},
    "Slice": {13}, "Softmax": {13}, "Split": {18}, "Squeeze": {13, 23}, "Sub": {14}, "Transpose": {13, 23}, "Unsqueeze": {13, 23},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The demo pack's checkpoints."""
    path = tmp_path_factory.mktemp("gpu") / "root"
    demo.make_checkpoints(path, demo.MODELS)
    return path


@pytest.fixture(scope="module")
def jobs(root):
    """Of the graphs that are built: their probes outlive the building."""
    return {j.roles[0]: j for model in BUILT for j in FAMILIES[model](request(root, BUILT, gpu=True))}


@pytest.fixture(scope="module")
def gpu_pack(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("gpu") / "pack", BUILT, gpu=True, flops=True)


def test_one_product_and_three_give_the_same(root):
    with_attention = set()
    for model in demo.MODELS:
        for job in FAMILIES[model](request(root, demo.MODELS)):
            if not attentive(job.module):
                continue
            with_attention.add(model)
            one = run_torch(job.module, job.probes[-1])
            split_products(job.module)
            for spec, a, b in zip(job.outputs, one, run_torch(job.module, job.probes[-1]), strict=True):
                assert np.abs(a - b).max() < 2e-5 * max(1, np.abs(a).max()), (job.roles, spec.name)
    assert with_attention == set(demo.MODELS) - {"faces", "egtr"}


@pytest.mark.parametrize("role", ATTENTIONS)
def test_graphs_of_both_forms_give_the_same_one_by_one_and_together(gpu_pack, jobs, role):
    """Against the committed demo pack: the form for processors, of the same checkpoints."""
    ours, theirs = session(gpu_pack / f"graphs/{role}.onnx"), session(REPO / f"packs/demo/graphs/{role}.onnx")
    job = jobs[role]
    for probe in job.probes:
        inputs = dict(probe.inputs)
        together = ours.run(None, inputs)
        for a, b in zip(together, theirs.run(None, inputs), strict=True):
            assert np.abs(a - b).max() < 1e-5 * job.looseness * max(1, np.abs(b).max())
        for i in range(len(next(iter(inputs.values())))):
            alone = ours.run(None, {name: value[i : i + 1] for name, value in inputs.items()})
            for a, b in zip(alone, together, strict=True):
                assert np.abs(a[0] - b[i]).max() < 1e-5 * job.looseness


@pytest.mark.parametrize(("role", "count"), ATTENTIONS.items())
def test_each_attention_is_one_node(gpu_pack, role, count):
    model = onnx.load(gpu_pack / f"graphs/{role}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == ATTENTION_OPSET and len(model.opset_import) == 1
    nodes = [n for n in model.graph.node if n.op_type == "Attention"]
    causal = [n for n in nodes if any(a.name == "is_causal" and a.i for a in n.attribute)]
    masked = [n for n in nodes if len(n.input) > 3]
    assert len(nodes) == count
    assert len(causal) == (count if role.endswith(".text") else 0)
    assert len(masked) == (count // 2 if role.endswith(".score") else 0)
    # What is left of attention in its parts would be a softmax, or a product of two things that were computed.
    weights = {i.name for i in model.graph.initializer} | {n.output[0] for n in model.graph.node if n.op_type == "Cast"}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and not set(n.input) & weights]
    assert not any(n.op_type == "Softmax" for n in model.graph.node)
    assert len(products) == (1 if role == "owlvit.image" else 0), "queries meet patches"


def test_a_gpu_has_every_operator(gpu_pack):
    graphs = [*(gpu_pack / "graphs").iterdir(), REPO / "packs/demo/graphs/relations.onnx"]
    for path in graphs:
        model = onnx.load(path)
        opset = model.opset_import[0].version
        for node in model.graph.node:
            since = onnx.defs.get_schema(node.op_type, opset).since_version
            assert since in ON_CUDA[node.op_type], (path.name, node.op_type, since)


def test_half_precision_of_the_form_is_pytorchs(root, tmp_path):
    """Masked and crossing attention. Softmax stays in single precision."""
    _, job = FAMILIES["image_reward"](request(root, ("image_reward",), "fp16", gpu=True))
    for part in attentive(job.module):
        part.form = AttentionForm.NODE
    expected = [run_torch(job.module, probe) for probe in job.probes]
    model = to_onnx(job.module, job.inputs, job.outputs, job.example, job.shortest, job.longest, opset=ATTENTION_OPSET)
    (path,) = save(model, tmp_path / "score.onnx")
    assert check(path, job.outputs, job.probes, expected, job.looseness * TOLERANCE["fp16"]) > 0
    nodes = [n for n in onnx.load(path).graph.node if n.op_type == "Attention"]
    single = [a.i for n in nodes for a in n.attribute if a.name == "softmax_precision"]
    assert single == [onnx.TensorProto.FLOAT] * 4


def test_what_stays_in_single_precision_on_a_gpu(root):
    asked = request(root, ("faces", "egtr"), "fp16", gpu=True)
    found = {job.roles[0]: job for model in asked.models for job in FAMILIES[model](asked)}
    cascade = ("faces.pnet", "faces.rnet", "faces.onet")
    assert all(found[role].precision == FP32 for role in cascade)
    assert all(p.dtype == torch.float32 for role in cascade for p in found[role].module.parameters())
    relations = found["relations"]
    halves = {name for name, p in relations.module.named_parameters() if p.dtype == torch.float16 and p.numel() < 1024}
    assert relations.precision == FP16 and halves and all(name.startswith("detector.trunk.") for name in halves)
    assert not attentive(relations.module), "its operators end before ATTENTION_OPSET"
    plain = next(FAMILIES["egtr"](request(root, ("egtr",), "fp16")))
    assert plain.precision == FP32 and plain.settled is None
    half, single = (run_torch(j.module, j.probes[2]) for j in (relations, plain))
    for a, b, where in zip(half, single, relations.settled(single), strict=True):
        assert 0 < (where * np.abs(a - b)).max() < 2e-2
    assert 0.2 < relations.settled(single)[2].mean() < 1, "some pairs are in doubt"


def test_pairs_of_doubtful_classes_are_not_compared(tmp_path):
    classes = np.zeros((1, 3, 4), np.float32)
    classes[0, :, 0], classes[0, :, 1] = 0.5, (0.1, 0.2, 0.499)
    _, _, pairs, _ = egtr.settled([classes])
    assert pairs[0, ..., 0].tolist() == [[True, True, False], [True, True, False], [False] * 3]
    job = embedding_image_job(["x.image"], Mean(), 3, preprocess.exact(8, 8, "bilinear"), Source("x", "local", "x", "0"), True)
    (path,) = save(to_onnx(job.module, job.inputs, job.outputs, job.example, 1, None), tmp_path / "x.onnx")
    right = [run_torch(job.module, probe) for probe in job.probes]
    wrong = [[out + np.float32([0, 0, 1])] for (out,) in right]
    assert check(path, job.outputs, job.probes, right, TOLERANCE["fp32"]) < 1e-6
    assert check(path, job.outputs, job.probes, wrong, TOLERANCE["fp32"], lambda _: [np.array([True, True, False])]) < 1e-6
    with pytest.raises(ExportError, match=r"differs from PyTorch by 0\.\d"):
        check(path, job.outputs, job.probes, wrong, TOLERANCE["fp32"], lambda _: [np.array([True, False, True])])


# ---- how much arithmetic a graph is


def test_flops_are_those_of_the_formula(root, gpu_pack):
    listed = {g["role"]: g["flops"] for g in manifest(gpu_pack)["graph"]}
    s = demo.SIZES

    def layers(length: int, width: int, count: int) -> int:
        return count * (2 * length * width * 12 * width + 4 * length**2 * width)

    patches = 14 * 14
    image = 2 * patches * s.vision_width * 3 * 16**2 + layers(patches + 1, s.vision_width, 2)
    assert listed["image_reward.image"] == image
    # Of the last layer only the end of the text is projected.
    last = 2 * 16 * s.text_width * 3 * s.text_width + 4 * 16**2 * s.text_width + 2 * s.text_width * 9 * s.text_width
    assert listed["owlvit.text"] == layers(16, s.text_width, 1) + last + 2 * s.text_width**2
    for job in FAMILIES["owlvit"](request(root, ("owlvit",))):
        assert flops.count(job.module, job) == listed[job.roles[0]]


def test_an_item_is_of_the_shape_that_the_benchmark_gives_it(root):
    shapes = {j.roles[0]: flops.item_shapes(j) for m in ("owlvit", "egtr", "faces") for j in FAMILIES[m](request(root, (m,)))}
    assert shapes["owlvit.text"] == [(16,)]
    assert shapes["owlvit.image"] == [(840, 840, 3), (8, 32)]
    assert shapes["relations"] == [(160, 266, 3)]
    assert shapes["faces.pnet"] == [(64, 64, 3)]
    assert shapes["faces.onet"] == [(48, 48, 3)]


# ---- skeletons


def test_published_sizes_are_the_published_models():
    """Parameters as in this package's README."""
    count = sum(int(np.prod(shape)) for shape in hf_clip_spec(BIG_G, 14, BIG_G.projection).values())
    assert count == 2_539_567_105
    sizes = published(["clip", "hpsv2", "dino"], "openai/clip-vit-large-patch14")
    assert sum(int(np.prod(v)) for v in hf_clip_spec(sizes["clip"], 14, 768).values()) == 427_616_513
    assert (sizes["dino"].vision_width, sizes["hpsv2"].vision_layers) == (384, 32)
    with pytest.raises(ExportError, match="sizes of someone/else are not known"):
        published(["clip"], "someone/else")


def test_constant_checkpoints_are_small_and_of_their_whole_size(tmp_path):
    path = tmp_path / "root"
    random_checkpoints.make(path, 0, published(["dino", "aesthetic"], ""), ["dino", "aesthetic"], constant=True)
    weights = [p for p in path.rglob("*") if p.suffix in (".bin", ".pth", ".pt", ".safetensors")]
    assert sum(p.stat().st_size for p in weights) < 4e6
    (job,) = FAMILIES["dino"](request(path, ("dino",), "fp16", gpu=True))
    assert job.official and sum(p.numel() for p in job.module.parameters()) == 21_665_664
    assert job.module.body.blocks[0].fc1.weight.is_contiguous()


def test_no_row_of_a_constant_table_stands_for_another(tmp_path):
    """A skeleton's weights are filled up with noise, which would be no numbers of rows."""
    path, models = tmp_path / "root", ("hpsv2", "image_reward", "egtr")
    random_checkpoints.make(path, 0, random_checkpoints.Sizes(), models, constant=True)
    jobs = [job for model in models for job in FAMILIES[model](request(path, models, "fp16", gpu=True))]
    tables = [part for job in jobs for part in job.module.modules() if isinstance(part, Embedding)]
    assert len(tables) == 3 and all(table.row is None for table in tables)


def test_the_command_line_makes_a_pack_for_gpus(tmp_path, capsys):
    options = ["--random", "--only", "dino", "--for", "gpu", "--constant-weights", "--external-above", "0", "--flops"]
    assert cli.main(["build", "--out", str(tmp_path / "pack"), *options]) == 1
    assert "give --no-goldens as well" in capsys.readouterr().err
    assert cli.main(["build", "--out", str(tmp_path / "pack"), *options, "--no-goldens"]) == 0
    assert "not held to PyTorch" in capsys.readouterr().out
    (graph,) = manifest(tmp_path / "pack")["graph"]
    assert [f["path"] for f in graph["files"]] == ["graphs/dino.image.onnx", "graphs/dino.image.onnx.data"]
    assert graph["flops"] > 0 and graph["precision"] == "fp32"
    assert onnx.load(tmp_path / "pack/graphs/dino.image.onnx", load_external_data=False).opset_import[0].version == 23
    for wrong, says in (
        (["--constant-weights"], "give --random as well"),
        (["--random", "--published-sizes", "--vision-width", "64"], "leave out the options that set single sizes"),
    ):
        assert cli.main(["build", "--out", str(tmp_path / "other"), "--no-goldens", *wrong]) == 1
        assert says in capsys.readouterr().err
