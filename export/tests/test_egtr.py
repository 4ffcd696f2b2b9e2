"""EGTR against transformers' Deformable DETR and the definition of its relations; and what is refused.

The graph is that of the demo pack, which `test_demo_pack.py` holds to what this code makes: tracing one takes a minute.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import REPO, make, needs_reference_packages, request
from PIL import Image
from pipeline import bounded

from stellar_export import demo, egtr, goldens, random_checkpoints, random_egtr
from stellar_export.checkpoints import Folder
from stellar_export.deformable_detr import DeformableAttention, position_maps
from stellar_export.errors import ExportError
from stellar_export.jobs import pictures
from stellar_export.nn import FP32
from stellar_export.onnx_graph import Probe, run_torch, session
from stellar_export.preprocess import IMAGENET_MEAN, IMAGENET_STD
from stellar_export.reference.egtr import Original
from stellar_export.reference.relations import TABLES, Words, overlap, score
from stellar_export.resnet import RESNET_50
from stellar_export.weights import of_state_dict

OUTPUTS = ("classes", "boxes", "relation", "connectivity")

# Larger than the pictures of the model's sizes, of odd sides, and so small that a level is one place. There the random layers
# amplify rounding: the original itself differs by 2e-5 from one set of processor instructions to another.
SHAPES = {(160, 213): 3e-5, (266, 120): 3e-5, (97, 171): 3e-5, (33, 70): 2e-4}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("egtr") / "root"
    demo.make_checkpoints(path, ["egtr"])
    return path


@pytest.fixture(scope="module")
def job(root):
    return load(root)


@pytest.fixture(scope="module")
def original(root):
    needs_reference_packages()
    return Original(root / "files" / "egtr")


def load(root):
    return next(egtr.graphs(request(root, ("egtr",))))


def standardised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("shape", "tolerance"), SHAPES.items())
def test_the_graph_and_the_module_are_the_original(job, original, shape, tolerance):
    pixels = pictures(1, *shape, seed=sum(shape))
    expected = original(standardised(pixels))
    ours = run_torch(job.module, Probe({"pixels": pixels}))
    graph = session(REPO / "packs/demo/graphs/relations.onnx").run(OUTPUTS, {"pixels": pixels})
    assert expected.relation.std() > 0.1 and expected.boxes.std() > 0.1, "random outputs spread"
    for name, a, b in zip(OUTPUTS, ours, graph, strict=True):
        np.testing.assert_allclose(a[0], getattr(expected, name), atol=tolerance, err_msg=name)
        np.testing.assert_allclose(b[0], getattr(expected, name), atol=tolerance, err_msg=name)


def test_other_pictures_of_a_batch_change_nothing(job):
    pixels = pictures(3, 64, 97, seed=4)
    graph = session(REPO / "packs/demo/graphs/relations.onnx")
    together = graph.run(OUTPUTS, {"pixels": pixels})
    for i in range(3):
        for a, b in zip(graph.run(OUTPUTS, {"pixels": pixels[i : i + 1]}), together, strict=True):
            np.testing.assert_allclose(a[0], b[i], atol=1e-5)


def test_the_random_layout_is_the_packages(original, root):
    state = torch.load(next((root / "files/egtr/checkpoints").iterdir()), weights_only=True)["state_dict"]
    assert {k: tuple(v.shape) for k, v in state.items()} == random_egtr.spec(demo.SIZES)
    theirs = {k: tuple(v.shape) for k, v in original.detector.state_dict().items()}
    ours = {k.removeprefix("model.model."): tuple(v.shape) for k, v in state.items() if k.startswith("model.model.")}
    # The package freezes the batch norms that the original forgets, so it has no counters for them.
    assert {k: v for k, v in ours.items() if "num_batches_tracked" not in k} == theirs
    assert sum("num_batches_tracked" in k for k in ours) == 4


def test_attention_looks_where_the_offsets_say():
    """One head, one level, one point: the value half a place to the right of the second of three places."""
    eye, zero = torch.eye(4), torch.zeros(4, 4)
    state = {
        "a.sampling_offsets.weight": zero[:2],
        "a.sampling_offsets.bias": torch.tensor([0.5, 0.0]),
        "a.attention_weights.weight": zero[:1],
        "a.attention_weights.bias": torch.zeros(1),
        "a.value_proj.weight": eye,
        "a.value_proj.bias": torch.zeros(4),
        "a.output_proj.weight": eye,
        "a.output_proj.bias": torch.zeros(4),
    }
    attention = DeformableAttention(of_state_dict("test", state), "a", 4, 1, 1, 1, FP32)
    tokens = torch.arange(12.0).reshape(1, 3, 4)
    seen = attention(tokens[:, 1:2], tokens, torch.tensor([[[0.5, 0.5]]]), [(1, 3)])
    torch.testing.assert_close(seen[0, 0], (tokens[0, 1] + tokens[0, 2]) / 2)


def test_positions_are_the_packages():
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrSinePositionEmbedding

    theirs = DeformableDetrSinePositionEmbedding(16, normalize=True)
    for side in ((7, 12), (1, 1), (1, 30)):
        expected = theirs(torch.zeros(1, 1, *side), torch.ones(1, *side))[0].flatten(1).T
        torch.testing.assert_close(position_maps(*side, 32), expected, atol=1e-6, rtol=0)


# ---- the sizes and pixels of pictures


@pytest.mark.parametrize("picture", ["astronaut.jpg", "chelsea.webp", "stripes-3000x100.png", "tiny-5x3.png"])
def test_pixels_are_those_of_pillows_bilinear_filter(root, picture):
    image = Image.open(goldens.PICTURES / picture).convert("RGB")
    pixels = bounded(image, root / "files/egtr")
    rows, columns = pixels.shape[:2]
    # As the service does it: `tests/vision` holds its sizes and pixels to the same processor's.
    np.testing.assert_array_equal(pixels, np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR)))


# ---- what is refused


def own_copy(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "root") / "files" / "egtr"
    return tmp_path / "root", folder, next((folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"model.rel_extra.weight": torch.zeros(1)}, r"unexpected key model\.rel_extra\.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "model.rel_dist"}, r"key model\.rel_dist is missing"),
        (lambda s: s | {"model.rel_dist": torch.zeros(51)}, r"model\.rel_dist has shape \[51\]"),
        (lambda s: {k: v for k, v in s.items() if "rel" not in k}, "the trained EGTR is another file"),
        (lambda s: {k.removeprefix("model."): v for k, v in s.items()}, "not EGTR's weights"),
    ],
)
def test_damaged_weights_are_refused_by_name(root, tmp_path, change, says):
    own, _, path = own_copy(root, tmp_path)
    file = torch.load(path, weights_only=True)
    torch.save(file | {"state_dict": change(file["state_dict"])}, path)
    with pytest.raises(ExportError, match=says):
        load(own)


def test_a_file_that_lightning_did_not_write_is_refused(root, tmp_path):
    own, _, path = own_copy(root, tmp_path)
    torch.save({"model": {}}, path)
    with pytest.raises(ExportError, match="no 'state_dict' in the file"):
        load(own)


def test_a_file_with_objects_says_how_to_get_its_tensors(root, tmp_path):
    own, _, path = own_copy(root, tmp_path)
    file = torch.load(path, weights_only=True)
    torch.save(file | {"hyper_parameters": Folder("egtr", tmp_path, "local")}, path)
    with pytest.raises(ExportError, match="save it again"):
        load(own)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(two_stage=True), "two_stage is True, only False"),
        (dict(activation_function="gelu"), "only 'relu' is supported"),
        (dict(num_rel_labels=None), "of a detector and not of EGTR"),
        (dict(d_model=48), "d_model 48 is no multiple of 32"),
        (dict(decoder_attention_heads=2), "differ"),
        (dict(num_queries="many"), "num_queries is 'many'"),
        (dict(num_rel_labels=30), "needs labels.json"),
        (dict(num_queries=21), "query_position_embeddings"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(root, tmp_path, change, says):
    own, folder, _ = own_copy(root, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ExportError, match=says):
        load(own)


def test_of_several_files_the_last_epochs_is_taken(root, tmp_path):
    _, folder, path = own_copy(root, tmp_path)
    later = path.with_name("epoch=103-validation_loss=0.00.ckpt")
    shutil.copy(path, later)
    assert egtr.checkpoint_file(folder) == later
    path.rename(path.with_name("last.ckpt"))
    with pytest.raises(ExportError, match="leave the one to use"):
        egtr.checkpoint_file(folder)


def test_a_missing_folder_says_where_the_files_are_published(tmp_path):
    with pytest.raises(ExportError, match="README of naver-ai/egtr links it"):
        load(make(tmp_path / "root", ("dino",)))


def test_own_labels_and_sizes_are_taken(root, tmp_path):
    own, folder, _ = own_copy(root, tmp_path)
    names = dict(classes=[f"c{i}" for i in range(150)], predicates=[f"p{i}" for i in range(50)])
    (folder / "labels.json").write_text(json.dumps(names))
    (folder / "preprocessor_config.json").unlink()
    job = load(own)
    assert job.labels == names
    assert job.geometry == dict(resize="bounded", shortest=800, longest=1333, filter="bilinear", crop="none", dtype="u8")
    (folder / "labels.json").write_text(json.dumps(names | dict(predicates=["one"])))
    with pytest.raises(ExportError, match="1 predicates"):
        load(own)


def test_the_configuration_of_the_published_model_is_read_as_official(job, tmp_path):
    """What training writes: values that are the package's defaults may be absent."""
    names = {str(i): f"LABEL_{i}" for i in range(150)}
    config = dict(model_type="deformable_detr", num_queries=200, id2label=names, num_rel_labels=50, use_freq_bias=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = egtr.read_config(Folder("egtr", tmp_path, "local"))
    assert (read.detector, read.predicates, read.frequency_bias) == (egtr.PUBLISHED, 50, True)
    assert egtr.is_official(read, RESNET_50)
    assert not egtr.is_official(read, job.module.detector.trunk.sizes) and not job.official


# ---- the reference of rfs


def test_boxes_overlap():
    assert overlap([0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]) == pytest.approx(1)
    assert overlap([0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]) == pytest.approx(0.5)
    assert overlap([0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]) == 0
    assert overlap([0.1, 0.1, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0]) == 0


def test_words_are_found_whole_then_by_verb_then_by_preposition():
    assert TABLES.is_dir()
    words = Words.read(json.loads(egtr.LABELS.read_text()))
    meant = lambda *of: [words.predicates[i] for i in words.meant(*of)]  # noqa: E731
    assert meant("sitting on", "sofa") == ["sitting on"]
    assert meant("gazing upon", "space") == ["looking at", "watching"]
    assert meant("in", "cowboy boots") == ["wearing", "wears", "in"]
    assert meant("in", "garden") == ["in"]
    assert meant("whistling", "song") == []
    assert [words.classes[i] for i in words.things("vintage cars")] == ["car", "vehicle"]
    assert words.is_location("next to") and not words.is_location("sitting at")
