"""CLIP checkpoints: graphs against transformers' CLIPModel, and what is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import build, request
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from stellar_export import clip_models, preprocess, vocabulary
from stellar_export.checkpoints import Folder
from stellar_export.clip_models import DEFAULT_CLIP
from stellar_export.errors import ExportError
from stellar_export.jobs import clip_ids, picture_probe
from stellar_export.nn import normalised
from stellar_export.onnx_graph import session
from stellar_export.weights import load_folder

MODELS = [
    dict(seed=0, patch=14, act="gelu", vision_width=64, vision_heads=4, text_width=48, text_heads=3, vision_layers=2),
    dict(seed=1, patch=16, act="quick_gelu", vision_layers=3, text_layers=2, projection=24),
    dict(seed=2, patch=32, act="quick_gelu", vision_width=96, vision_heads=3, text_layers=2, distinct_tokens=0),
]


def pixels_of(u8: np.ndarray) -> torch.Tensor:
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    x = (u8.astype(np.float64) * (1 / 255)).astype(np.float32)
    return torch.from_numpy(((x - mean.astype(np.float32)) / std.astype(np.float32)).transpose(0, 3, 1, 2))


def distance(graph, name: str, value: np.ndarray, expected: torch.Tensor) -> float:
    return float(np.abs(graph.run(["embedding"], {name: value})[0] - expected.numpy()).max())


@pytest.mark.parametrize("sizes", MODELS, ids=lambda s: f"patch{s['patch']}-{s['act']}-seed{s['seed']}")
def test_graphs_equal_transformers_at_any_batch_and_length(make_root, tmp_path, sizes):
    root = make_root(**sizes)
    out = build(root, tmp_path / "pack")
    model = CLIPModel.from_pretrained(root / "hub" / DEFAULT_CLIP).eval()
    image, text = session(out / "graphs/clip.image.onnx"), session(out / "graphs/clip.text.onnx")
    with torch.inference_mode():
        for batch in (1, 3):
            u8 = picture_probe(batch, 224, 224, seed=batch).inputs["pixels"]
            expected = normalised(model.get_image_features(pixels_of(u8)))
            assert distance(image, "pixels", u8, expected) < 1e-5
        for batch, length in ((1, 3), (3, 3), (1, 16), (3, 16), (1, 77), (3, 77)):
            ids = clip_ids(batch, length, 77, seed=length).inputs["input_ids"]
            expected = normalised(model.get_text_features(torch.from_numpy(ids)))
            assert distance(text, "input_ids", ids, expected) < 1e-5


def test_padding_and_neighbours_do_not_change_a_text_embedding(shared_pack):
    graph = session(shared_pack / "graphs/clip.text.onnx")
    alone = np.array([[49406, 320, 2533, 49407]], dtype=np.int64)
    padded = np.full((3, 40), 49407, dtype=np.int64)
    padded[0, :4], padded[1, :30], padded[2, :2] = alone[0], np.arange(1000, 1030), (49406, 49407)
    one, three = (graph.run(None, {"input_ids": ids})[0][0] for ids in (alone, padded))
    np.testing.assert_allclose(three, one, atol=1e-6)


def test_embeddings_have_unit_length(shared_pack):
    graph = session(shared_pack / "graphs/clip.image.onnx")
    embedding = graph.run(None, dict(picture_probe(2, 224, 224).inputs))[0]
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("form", ["shards", "bin", "bin-shards", "half"])
def test_every_form_of_weight_file_holds_the_same_tensors(own_root, form):
    folder = own_root / "hub" / DEFAULT_CLIP
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = [dict(list(state.items())[::2]), dict(list(state.items())[1::2])]
    if form == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    elif form == "half":  # the values are float16 numbers already
        save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors")
    else:
        stem, end = ("model", "safetensors") if form == "shards" else ("pytorch_model", "bin")
        index = {}
        for i, part in enumerate(halves):
            name = f"{stem}-{i + 1:05}-of-00002.{end}"
            index |= dict.fromkeys(part, name)
            save_file(part, folder / name) if form == "shards" else torch.save(part, folder / name)
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": index}))
    weights = load_folder(folder)
    assert set(weights.names()) == set(state)
    for name, tensor in state.items():
        assert torch.equal(weights.take(name, *tensor.shape), tensor)


def test_a_shard_that_is_absent_is_named(own_root):
    folder = own_root / "hub" / DEFAULT_CLIP
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ExportError, match=r"model-00001-of-00001\.safetensors, which is not there"):
        load_folder(folder)


def first_job(root, models=("clip",)):
    """Loads the first graph's module, which checks the whole checkpoint."""
    from stellar_export.families import FAMILIES

    return next(iter(FAMILIES[models[0]](request(root, models))))


def edit(folder, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_a_missing_key_is_named(own_root):
    edit(own_root / "hub" / DEFAULT_CLIP, lambda s: s.pop("vision_model.encoder.layers.0.mlp.fc2.bias"))
    with pytest.raises(ExportError, match=r"key vision_model\.encoder\.layers\.0\.mlp\.fc2\.bias is missing"):
        first_job(own_root)


def test_a_missing_key_of_the_tower_that_a_graph_leaves_out_is_named(own_root):
    edit(own_root / "hub" / clip_models.CLIP_L, lambda s: s.pop("text_model.final_layer_norm.bias"))
    with pytest.raises(ExportError, match=r"key text_model\.final_layer_norm\.bias is missing"):
        first_job(own_root, ("aesthetic",))


def test_an_unexpected_key_is_named(own_root):
    edit(own_root / "hub" / DEFAULT_CLIP, lambda s: s.update({"text_model.extra.weight": torch.zeros(3)}))
    with pytest.raises(ExportError, match=r"unexpected key text_model\.extra\.weight"):
        first_job(own_root)


def test_saved_position_ids_are_no_unexpected_keys(own_root):
    ids = {f"{m}_model.embeddings.position_ids": torch.arange(n)[None] for m, n in (("text", 77), ("vision", 257))}
    edit(own_root / "hub" / DEFAULT_CLIP, lambda s: s.update(ids))
    assert first_job(own_root).roles == ["clip.image"]


def rewrite(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_configuration_that_disagrees_with_the_tensors_is_named(own_root):
    rewrite(own_root / "hub" / DEFAULT_CLIP / "config.json", lambda c: c["vision_config"].update(intermediate_size=100))
    with pytest.raises(
        ExportError, match=r"mlp\.fc1\.weight has shape \[128, 32\], the configuration implies \[100, 32\]"
    ):
        first_job(own_root)


def test_an_activation_that_is_not_known_is_named(own_root):
    rewrite(own_root / "hub" / DEFAULT_CLIP / "config.json", lambda c: c["text_config"].update(hidden_act="relu"))
    with pytest.raises(ExportError, match="hidden_act 'relu' is not one of gelu, quick_gelu"):
        first_job(own_root)


def test_what_config_json_leaves_out_is_what_transformers_assumes(tmp_path):
    from transformers import CLIPConfig

    from stellar_export.clip import read_config

    for content in ({}, {"text_config": {"hidden_size": 64}, "text_config_dict": {"num_hidden_layers": 3}}):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"} | content))
        ours = read_config(Folder("x", tmp_path, "local"))
        theirs = CLIPConfig.from_pretrained(tmp_path)
        for mine, other in ((ours.text, theirs.text_config), (ours.vision, theirs.vision_config)):
            assert mine.width == other.hidden_size and mine.mlp == other.intermediate_size
            assert mine.layers == other.num_hidden_layers and mine.heads == other.num_attention_heads
            assert mine.act == other.hidden_act and mine.eps == other.layer_norm_eps
        assert ours.projection == theirs.projection_dim and ours.vocabulary == theirs.text_config.vocab_size
        assert (ours.image, ours.patch) == (theirs.vision_config.image_size, theirs.vision_config.patch_size)


def test_a_preprocessor_of_another_size_is_refused(own_root):
    path = own_root / "hub" / DEFAULT_CLIP / "preprocessor_config.json"
    rewrite(path, lambda c: c.update(size=336, crop_size=336))
    with pytest.raises(ExportError, match="336×336 for a tower of 224×224"):
        first_job(own_root)


def test_the_newer_form_of_a_preprocessor_file_means_the_same(own_root):
    folder = Folder("x", own_root / "hub" / DEFAULT_CLIP, "local")
    before = preprocess.read(folder)
    newer = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "rescale_factor": 1 / 255}
    rewrite(folder.path / "preprocessor_config.json", lambda c: c.update(newer))
    assert preprocess.read(folder) == before
    assert before.geometry == preprocess.shortest_edge(224)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"resample": 1}, "resample 1 is neither"),
        ({"do_normalize": False}, "not resized, rescaled and normalised"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0 is not 1/255"),
        ({"crop_size": 200}, "only a square of the shortest edge"),
    ],
    ids=["resample", "normalize", "rescale", "crop"],
)
def test_a_preprocessor_that_is_not_reproduced_is_refused(own_root, change, reason):
    folder = Folder("x", own_root / "hub" / DEFAULT_CLIP, "local")
    rewrite(folder.path / "preprocessor_config.json", lambda c: c.update(change))
    with pytest.raises(ExportError, match=reason):
        preprocess.read(folder)


def test_another_vocabulary_is_refused(own_root):
    folder = Folder("x", own_root / "hub" / DEFAULT_CLIP, "local")
    path = folder.path / "vocab.json"
    words = json.loads(path.read_text())
    words["cat</w>"], words["dog</w>"] = words["dog</w>"], words["cat</w>"]
    path.write_text(json.dumps(words))
    with pytest.raises(ExportError, match="CLIP's standard vocabulary has"):
        vocabulary.clip_merges_of(folder)


def test_a_vocabulary_in_tokenizer_json_alone_is_read(own_root):
    folder = Folder("x", own_root / "hub" / DEFAULT_CLIP, "local")
    merges = vocabulary.clip_merges_of(folder)
    assert len(merges) == 48894
    model = dict(vocab=json.loads((folder.path / "vocab.json").read_text()), merges=[m.split(" ") for m in merges])
    (folder.path / "tokenizer.json").write_text(json.dumps(dict(model=model)))
    for name in ("merges.txt", "vocab.json"):
        (folder.path / name).unlink()
    assert vocabulary.clip_merges_of(folder) == merges
