"""OWL-ViT's graphs against transformers' OwlViTForObjectDetection; and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import build, make, request
from safetensors.torch import load_file, save_file

from stellar_export import owlvit, random_checkpoints
from stellar_export.errors import ExportError
from stellar_export.jobs import pictures
from stellar_export.onnx_graph import session
from stellar_export.preprocess import CLIP_MEAN, CLIP_STD
from stellar_export.reference.owlvit import labels_of

# 900 patches: attention of more tokens than a kernel's block.
SIZES = dict(vision_width=48, vision_heads=3, vision_layers=2, text_width=64, text_layers=2, owl_patch=28)
WORDS = ["skis", "a cup of coffee", "dog", "café", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owlvit")
    make(folder / "root", ("owlvit",), seed=5, **SIZES)
    build(folder / "root", folder / "pack", ("owlvit",))
    return folder


@pytest.fixture(scope="module")
def original(folder):
    from transformers import CLIPTokenizerFast, OwlViTForObjectDetection

    path = folder / "root" / "hub" / owlvit.HUB_ID
    return OwlViTForObjectDetection.from_pretrained(path).eval(), CLIPTokenizerFast.from_pretrained(path)


@pytest.fixture(scope="module")
def graphs(folder):
    return {kind: session(folder / f"pack/graphs/owlvit.{kind}.onnx") for kind in ("text", "image")}


def standardised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in (CLIP_MEAN, CLIP_STD))
    return ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def embeddings(graphs, tokenizer, words) -> np.ndarray:
    """By the text graph, each word at its own length."""
    cut = dict(truncation=True, max_length=16)
    return np.concatenate(
        [graphs["text"].run(None, {"input_ids": np.array([tokenizer(w, **cut)["input_ids"]])})[0] for w in words]
    )


def test_logits_and_boxes_are_the_originals(graphs, original):
    model, tokenizer = original
    pixels = pictures(2, 840, 840, seed=3)
    # Words padded to 16 tokens, as the original's processor makes them.
    words = tokenizer(WORDS * 2, padding="max_length", max_length=16, return_tensors="pt")
    with torch.inference_mode():
        expected = model(pixel_values=standardised(pixels), **words)
    queries = embeddings(graphs, tokenizer, WORDS)
    logits, boxes = graphs["image"].run(["logits", "boxes"], {"pixels": pixels, "queries": np.stack([queries] * 2)})
    assert logits.shape == (2, 900, 5) and boxes.shape == (2, 900, 4)
    assert expected.logits.numpy().std() > 0.5, "random logits spread"
    np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(boxes, expected.pred_boxes.numpy(), atol=1e-5)


def test_a_word_of_more_than_sixteen_tokens_is_cut_with_its_end_token(graphs, original):
    model, tokenizer = original
    long = "a very long word for a thing that nobody would ever call by such a name"
    ids = tokenizer(long, truncation=True, max_length=16, return_tensors="pt")
    assert ids["input_ids"].shape == (1, 16) and ids["input_ids"][0, -1] == 49407
    with torch.inference_mode():
        expected = model.owlvit.get_text_features(**ids)[0].numpy()
    got = embeddings(graphs, tokenizer, [long])[0]
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected), atol=1e-5)


def test_other_pictures_and_other_queries_change_nothing(graphs):
    rng = np.random.default_rng(0)
    pixels = pictures(3, 840, 840, seed=9)
    queries = rng.standard_normal((3, 4, 64)).astype(np.float32)
    together = graphs["image"].run(None, {"pixels": pixels, "queries": queries})
    for i in range(3):
        alone = graphs["image"].run(None, {"pixels": pixels[i : i + 1], "queries": queries[i : i + 1, :2]})
        np.testing.assert_allclose(alone[0][0], together[0][i, :, :2], atol=1e-5)
        np.testing.assert_allclose(alone[1][0], together[1][i], atol=1e-6)


def test_the_random_layout_is_the_packages(original):
    model, _ = original
    spec = random_checkpoints.owlvit_spec(random_checkpoints.Sizes(**SIZES))
    assert spec == {k: tuple(v.shape) for k, v in model.state_dict().items()}


def own_copy(folder, tmp_path):
    return shutil.copytree(folder / "root", tmp_path / "root"), tmp_path / "root" / "hub" / owlvit.HUB_ID


def load(root) -> list:
    return list(owlvit.graphs(request(root, ("owlvit",))))


def test_a_missing_or_unexpected_key_is_named(folder, tmp_path):
    root, path = own_copy(folder, tmp_path)
    state = load_file(path / "model.safetensors")
    save_file(state | {"box_head.dense3.bias": torch.zeros(4)}, path / "model.safetensors")
    with pytest.raises(ExportError, match=r"unexpected key box_head\.dense3\.bias"):
        load(root)
    key = "class_head.logit_shift.bias"
    save_file({k: v for k, v in state.items() if k != key}, path / "model.safetensors")
    with pytest.raises(ExportError, match=f"key {key} is missing"):
        load(root)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("config.json", {"projection_dim": 32}, "queries of 32 values"),
        ("config.json", {"model_type": "owlv2"}, "expected 'owlvit'"),
        ("preprocessor_config.json", {"size": [768, 768]}, "pictures of 768×768"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder, tmp_path, file, change, says):
    root, path = own_copy(folder, tmp_path)
    (path / file).write_text(json.dumps(json.loads((path / file).read_text()) | change))
    with pytest.raises(ExportError, match=says):
        load(root)


def test_of_the_published_sizes_a_pack_is_official():
    tower = lambda width, layers: owlvit.clip.Tower(width, 4 * width, layers, width // 64, "quick_gelu", 1e-5)  # noqa: E731
    config = owlvit.Config(tower(1024, 24), 840, 14, tower(768, 12), 49408, 16, 768)
    assert config.official and config.side**2 == 3600


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["skis", "Clown", "SUMO  fighter"], ["skis"]),
        (["cup", " cup ", "Cup", "a cup"], ["cup", "a cup"]),
        (["", "  ", "pope"], []),
    ],
)
def test_roles_and_repeated_words_are_left_out(given, kept):
    assert labels_of(given) == kept
