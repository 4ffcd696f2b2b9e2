"""The drawn world: weights as they are kept, layouts rewritten and back, trainers that change what they say they do."""

import json

import numpy as np
import pytest
import torch
from conftest import needs_reference_packages
from PIL import Image

from stellar_export import demo, dino, hps, random_checkpoints
from stellar_export.drawn_world import clips, drawings, evaluate, likeness, people, preferences, text, train, weights
from stellar_export.errors import ExportError


def test_kept_weights_give_the_trained_state_again(tmp_path):
    before = {"a": torch.randn(4, 3), "table": torch.randn(100, 2), "scalar": torch.tensor(1.0), "same": torch.ones(2)}
    after = {k: v.clone() for k, v in before.items()}
    after["a"] += 1
    after["table"][[3, 50]] += 1
    after["scalar"] = torch.tensor(2.0)
    kept = weights.changes(before, after)
    assert set(kept) == {"a", "table#rows", "table#values", "scalar"}
    assert kept["table#rows"].tolist() == [3, 50]
    weights.write(tmp_path / "model.safetensors", {"part:of/it": kept})
    again = weights.Trained.of(tmp_path).over("part:of/it", dict(before))
    for name, value in again.items():
        torch.testing.assert_close(value, after[name], rtol=1e-3, atol=1e-3)
    assert weights.Trained.of(tmp_path).over("another", before) is before


def test_weights_of_another_size_are_refused(tmp_path):
    kept = weights.changes({"a": torch.zeros(4, 3)}, {"a": torch.ones(4, 3)})
    weights.write(tmp_path / "model.safetensors", {"part": kept})
    with pytest.raises(ExportError, match="part: a was trained at"):
        weights.Trained.of(tmp_path).over("part", {"a": torch.zeros(5, 3)})
    with pytest.raises(ExportError, match="which its layout has not"):
        weights.Trained.of(tmp_path).over("part", {"b": torch.zeros(4, 3)})


def test_values_beyond_half_precision_are_refused():
    with pytest.raises(ExportError, match="half precision"):
        weights.changes({"a": torch.zeros(2)}, {"a": torch.tensor([1e6, 0.0])})


def test_every_trained_weight_has_its_place_and_the_relations_stay_random(tmp_path):
    kept = weights.Trained.of(weights.FOLDER)
    assert kept.parts, "the weights are in the repository"
    ours, theirs = tmp_path / "trained", tmp_path / "random"
    demo.make_checkpoints(ours)
    demo.make_checkpoints(theirs, trained=False)
    files = [path.relative_to(ours) for path in sorted(ours.rglob("*")) if path.is_file()]
    same = [path for path in files if (ours / path).read_bytes() == (theirs / path).read_bytes()]
    assert any("egtr" in str(path) for path in same)
    assert not any(path.name == "model.safetensors" for path in same), "all of transformers' layout are trained"


def test_layouts_are_rewritten_and_back(tmp_path):
    random_checkpoints.make(tmp_path, 3, demo.SIZES, ["hpsv1", "hpsv2", "dino"])
    for file in (hps.HPSV1, hps.HPSV2_FILES["v2.0"]):
        state = torch.load(tmp_path / "files" / file, weights_only=True)["state_dict"]
        again = preferences.to_openai(preferences.to_transformers(state), state)
        assert all(torch.equal(again[k], v.float()) for k, v in state.items()) and set(again) == set(state)
    state = train.own_state(tmp_path / "hub" / dino.HUB_ID)
    again = likeness.from_timm(likeness.to_timm(state), state)
    assert all(torch.equal(again[k], v) for k, v in state.items()) and set(again) == set(state)


def test_unknown_words_have_rows_that_are_not_trained():
    table = torch.randn(1000, 4)
    rows = text.Rows(table, [5, 900, 999], seed=0)
    ids = torch.tensor([[999, 5, int(rows.strangers[0])]])
    assert torch.equal(rows(ids), table[ids])
    rows(ids).sum().backward()
    assert rows.trained.grad.abs().sum(1).tolist() == [4, 0, 4]


def test_the_area_is_that_of_pairs():
    assert evaluate.area([3, 4], [1, 2]) == 1
    assert evaluate.area([1, 2], [1, 2]) == 0.5
    assert evaluate.area([0, 3], [1, 2]) == 0.5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Coloured squares in place of drawings: one colour a scene, one grey a person."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir()
        lines = []
        # Two drawings of each scene, and photos.
        for n in range(2 * 128 + 1 + 24 * 3):
            person, scene = n % 24, n % 128 if n < 2 * 128 else 128
            kind = "photo" if scene == 128 else "typed" if scene < 64 else "written"
            pixels = np.full((32, 32, 3), 8 * person, np.uint8)
            pixels[:20] = rng.integers(0, 256, 3) if scene == 128 else (scene * 2, 255 - scene, 40)
            Image.fromarray(pixels).save(folder / split / f"{n}.png")
            lines.append(
                dict(
                    file=f"{split}/{n}.png",
                    person=person,
                    attributes=[bool(person >> bit & 1) for bit in range(8)],
                    quality=float(rng.uniform(0.2, 1)),
                    kind=kind,
                    scene=[scene % 64 // 8, scene % 8],
                    prompt=f"{{}} in scene {scene}",
                    objects=[[f"thing {scene % 3}", [0.1, 0.1, 0.6, 0.6]]] if kind == "typed" else [],
                    face=[0.2, 0.2, 0.8, 0.8],
                )
            )
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def test_a_missing_folder_of_drawings_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(ExportError, match="--example drawings"):
        drawings.Drawings(tmp_path, "train")


def test_patches_are_those_of_the_convolution(drawn):
    of = drawings.Drawings(drawn, "test")
    cut = torch.from_numpy(np.array(of.patches(28)[:2]))
    whole = torch.from_numpy(of.pictures[:2].copy()).permute(0, 3, 1, 2).float()
    squares = torch.nn.functional.unfold(whole, 28, stride=28).transpose(1, 2)
    assert torch.equal(cut.float(), squares)


@pytest.mark.parametrize("model", [m for m in train.TRAINERS if m not in ("pick_score", "hpsv2", "aesthetic")])
def test_a_step_of_training_changes_the_model_and_stays_finite(drawn, tmp_path, model, monkeypatch):
    needs_reference_packages()
    # The drawings of these tests show fewer people than a real batch has.
    for trainer in (clips, likeness, people):
        monkeypatch.setattr(trainer, "PAIRS", 4)
    monkeypatch.setattr(preferences, "SHOWN", 4)
    train.train(drawn, tmp_path, [model], lambda _: None, {model: 1})
    kept = weights.Trained.of(tmp_path)
    tensors = [t for part in kept.parts.values() for t in part.values()]
    assert tensors and all(t.float().isfinite().all() for t in tensors)


def test_models_that_go_on_from_clip_say_that_it_is_missing(drawn, tmp_path):
    with pytest.raises(ExportError, match="train clip first"):
        train.train(drawn, tmp_path, ["pick_score"], lambda _: None)
