"""What training data are refused for, and what becomes of photos and masks."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from training import make_data

from stellar_train import data, pictures
from stellar_train.errors import TrainError


def edited(folder, change):
    path = folder / "training.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path):
    return make_data(tmp_path / "data", 4)


def test_a_training_folder_is_read_and_split_by_identity(tmp_path):
    found = data.read(make_data(tmp_path / "data", 4, photos=3))
    assert len(found.items) == 12
    assert found.excluded == 2
    train, held_out = found.split(2)
    assert (len(train), len(held_out)) == (6, 6)
    assert not {item.identity for item in train} & {item.identity for item in held_out}
    with pytest.raises(TrainError, match="4 identities"):
        found.split(4)


def test_a_folder_without_its_manifest_is_refused(folder):
    (folder / "training.json").unlink()
    with pytest.raises(TrainError, match="dataset prepare --training"):
        data.read(folder)


def test_an_evaluation_identity_is_refused_with_its_file(folder):
    edited(folder, lambda m: m["files"][2].update(identity=m["excluded"][0]))
    with pytest.raises(TrainError, match=r"images/2\.jpg shows identity 0, which is kept for evaluation"):
        data.read(folder)


@pytest.mark.parametrize("name", data.PROMPT_FILES)
def test_prompt_files_of_the_evaluation_are_refused(folder, name):
    (folder / name).write_text("[]")
    with pytest.raises(TrainError, match="prompts of the evaluation"):
        data.read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(prompts=["{} as a clown skiing"]),
        lambda m: m["files"][0].update(prompt="{} as a clown skiing"),
    ],
)
def test_prompts_in_the_manifest_are_refused(folder, change):
    edited(folder, change)
    with pytest.raises(TrainError, match="own templates"):
        data.read(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.pop("files"), "not a manifest"),
        (lambda m: m.update(kind="evaluation"), "not known"),
        (lambda m: m.update(excluded=[]), "does not list"),
        (lambda m: m.update(excluded_identities=400), "does not list"),
        (lambda m: m.update(images=99), "99"),
        (lambda m: m["files"][0].pop("mask"), "keys image, mask and identity"),
        (lambda m: m["files"][0].update(image="../0.jpg"), "not below the folder"),
        (lambda m: m["files"][0].update(image="images/none.jpg"), "no file"),
        (lambda m: m["files"][0].update(image=m["files"][1]["image"]), "same name"),
        (lambda m: m.update(files=[], images=0), "no files"),
    ],
)
def test_a_broken_manifest_says_what_is_wrong(folder, change, problem):
    edited(folder, change)
    with pytest.raises(TrainError, match=problem):
        data.read(folder)


def test_a_picture_that_was_changed_is_refused(folder):
    item = data.read(folder).items[0]
    assert item.content() == data.read(folder).items[0].content()
    item.mask.write_bytes(item.image.read_bytes())
    with pytest.raises(TrainError, match=r"masks/0\.png has changed"):
        data.read(folder).items[0].content()


def test_hashes_that_are_not_those_of_the_manifest_are_refused(folder):
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("images/1.jpg", "images/9.jpg"))
    with pytest.raises(TrainError, match="as its digest"):
        data.read(folder)
    edited(folder, lambda m: m.update(digest=hashlib.sha256(sums.read_bytes()).hexdigest()))
    with pytest.raises(TrainError, match=r"does not list images/1\.jpg"):
        data.read(folder)
    sums.unlink()
    with pytest.raises(TrainError, match="has no SHA256SUMS"):
        data.read(folder)


def test_no_template_is_a_prompt_with_a_scene():
    for template in data.TEMPLATES:
        assert template.count("{}") == 1
        # The prompts of the benchmark begin with the person and say what the person does.
        assert template.endswith("{}")


def test_every_colour_of_a_mask_is_foreground(tmp_path):
    # CelebAMask's palette has parts without red, which a threshold on one channel would lose.
    mask = np.zeros((2, 4, 3), np.uint8)
    mask[0, 0], mask[0, 1], mask[0, 2] = (204, 0, 0), (0, 204, 0), (0, 0, 204)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = np.asarray(pictures.foreground(tmp_path / "mask.png", (4, 2)))
    assert (found > 0).tolist() == [[True, True, True, False], [False] * 4]


def test_a_black_mask_is_an_error(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(TrainError, match="black everywhere: it must have another colour where the person is"):
        pictures.foreground(tmp_path / "mask.png", (4, 4))


def test_the_mask_of_latents_has_every_cell_with_foreground():
    mask = np.zeros((32, 32), np.uint8)
    mask[9, 17] = 255
    found = pictures.latent_mask(Image.fromarray(mask), 32, 8)
    assert found.shape == (1, 4, 4)
    assert found.nonzero().tolist() == [[0, 1, 2]]


def test_the_background_of_the_mappers_input_is_black():
    photo = Image.new("RGB", (8, 8), (200, 100, 50))
    mask = Image.new("L", (8, 8), 0)
    mask.paste(255, (0, 0, 4, 8))
    shown = np.asarray(pictures.on_black(photo, mask))
    assert (shown[:, :4] == (200, 100, 50)).all()
    assert (shown[:, 4:] == 0).all()


def test_a_photo_that_is_not_square_is_cropped_for_the_target_and_squeezed_for_the_mapper():
    photo = Image.new("RGB", (96, 64))
    photo.paste((255, 255, 255), (16, 0, 80, 64))
    assert (pictures.target(photo, 64) == 1).all()
    assert pictures.clip_input(photo, 32)[0].std() > 0.5


def test_augmentation_follows_from_its_generator_and_changes_the_photo():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    photo = Image.fromarray(noise)
    first, again, other = (pictures.augmented(photo, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert len({each.tobytes() for each in (photo, first, other)}) == 3
