"""Textual Inversion and DreamBooth: one training for each photo, and images in the layout that is submitted."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training import IMAGE_KEYS, configuration, stellar_dataset

from stellar_train import lora, subjects
from stellar_train.errors import TrainError


@pytest.fixture
def dataset(tmp_path):
    """Two people in the Stellar layout, with two photos and one prompt of each kind."""
    return stellar_dataset(tmp_path / "dataset")


def short(method, base, dataset, **sections):
    found = configuration(method, **{"training": {"steps": 2}, **sections})
    found.values["base"]["folder"] = str(base)
    found.values["data"]["dataset"] = str(dataset)
    return found


def test_textual_inversion_learns_vectors_for_each_photo(tiny_base, dataset, tmp_path):
    settings = short("textual-inversion", tiny_base, dataset, model={"words": 3}, data={"photos": "first"})
    subjects.train(settings, tmp_path / "out", quiet=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000-0", "001-0"]
    first, second = (
        [load_file(tmp_path / "out" / name / file)["<S>"] for file in subjects.TextualInversion.FILES]
        for name in ("000-0", "001-0")
    )
    assert [tuple(t.shape) for t in first] == [(3, 32), (3, 40)]
    assert not torch.equal(first[0], second[0])
    about = json.loads((tmp_path / "out" / "000-0" / "training.json").read_text())
    assert about["excludes_evaluation"] is False
    assert about["system"] == "textual-inversion"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("000-0", "000-0"),
        ("ada lovelace-1", "ada lovelace-1"),
        ("a/b-0", "a%2Fb-0"),
        ("../x-0", "%2E.%2Fx-0"),
        ("100%-0", "100%25-0"),
        ("José-0", "José-0"),
        ('\\:*?"<>|-0', "%5C%3A%2A%3F%22%3C%3E%7C-0"),
        ("\0\n\x1f\x7f-a.b", "%00%0A%1F%7F-a.b"),
    ],
)
def test_a_subjects_folder_has_a_name_that_every_system_takes(name, folder):
    assert subjects.folder_name(name) == folder


def test_words_of_a_person_with_a_slash_are_in_one_folder(tiny_base, dataset, tmp_path):
    lines = [{"identity": "../ada/b", "photo": "000/0.jpg"}, {"prompt": "{} as a clown"}]
    (dataset / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = short("textual-inversion", tiny_base, dataset, training={"steps": 1})
    subjects.train(settings, tmp_path / "out", quiet=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["%2E.%2Fada%2Fb-0"]


def test_an_initialiser_of_several_tokens_is_refused(tiny_base, dataset, tmp_path):
    settings = short("textual-inversion", tiny_base, dataset, model={"initialiser": "two words"})
    with pytest.raises(TrainError, match="2 tokens"):
        subjects.train(settings, tmp_path / "out", quiet=True)


def generation(out, **changes):
    return {"out": str(out), "kind": "T", "steps": 2, "size": 64} | changes


def test_dreambooth_trains_and_generates_for_each_photo_and_goes_on_where_it_was(tiny_base, dataset, tmp_path):
    made = tmp_path / "made"
    settings = short("dreambooth", tiny_base, dataset, generation=generation(made))
    subjects.train(settings, tmp_path / "out", quiet=True)
    assert sorted(p.name for p in made.glob("*.png")) == [
        "000-0-00.png",
        "000-1-00.png",
        "001-0-00.png",
        "001-1-00.png",
    ]
    about = json.loads((made / "001-1-00.json").read_text())
    assert about.keys() >= IMAGE_KEYS
    assert (about["save_name"], about["prompt"], about["model_seed"], about["steps"]) == (
        "001-1-00", "{} as a clown of kind t", 42, 2
    )  # fmt: skip
    assert about["image_path"].endswith("001/1.jpg")
    image = Image.open(made / "001-1-00.png")
    assert image.size == (64, 64)
    assert json.loads(image.text["stellar-score"])["generated"] is True
    before = {path.name: path.read_bytes() for path in made.glob("*.png")}
    # The pictures that were not made yet are made with the stored LoRA, and equal to what they were.
    (made / "000-1-00.png").unlink()
    stored = (tmp_path / "out" / "000-1" / lora.FILE).stat().st_mtime_ns
    subjects.train(settings, tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "000-1" / lora.FILE).stat().st_mtime_ns == stored
    assert {path.name: path.read_bytes() for path in made.glob("*.png")} == before
    # Each subject begins with the base itself: subjects do not see each other.
    alone = tmp_path / "alone"
    subjects.train(short("dreambooth", tiny_base, dataset, data={"photos": "first"}), alone, quiet=True)
    assert (alone / "001-0" / lora.FILE).read_bytes() == (tmp_path / "out" / "001-0" / lora.FILE).read_bytes()


def test_textual_inversion_generates_with_the_vectors_of_each_photo(tiny_base, dataset, tmp_path):
    made, out = tmp_path / "made", tmp_path / "out"
    settings = short(
        "textual-inversion",
        tiny_base,
        dataset,
        training={"steps": 2, "rate": 0.5},
        model={"words": 2},
        data={"photos": "first"},
        generation=generation(made),
    )
    subjects.train(settings, out, quiet=True)
    assert sorted(p.name for p in made.glob("*.png")) == ["000-0-00.png", "001-0-00.png"]
    about = json.loads((made / "001-0-00.json").read_text())
    assert about.keys() >= IMAGE_KEYS
    assert (about["model_name"], about["aux_metadata"]["words"]) == ("textual-inversion", 2)
    assert about["aux_metadata"]["excludes_evaluation"] is False
    # Both have the same prompt and seed, and differ in their vectors alone.
    pictures = {path.name: path.read_bytes() for path in made.glob("*.png")}
    first, second = (Image.open(made / name).tobytes() for name in sorted(pictures))
    assert first != second
    # The stored vectors make the same picture again.
    (made / "001-0-00.png").unlink()
    subjects.train(settings, out, quiet=True)
    assert {path.name: path.read_bytes() for path in made.glob("*.png")} == pictures
    # With the vectors of the other person, it is the other person's.
    for file in subjects.TextualInversion.FILES:
        (out / "001-0" / file).write_bytes((out / "000-0" / file).read_bytes())
    (made / "001-0-00.png").unlink()
    subjects.train(settings, out, quiet=True)
    assert Image.open(made / "001-0-00.png").tobytes() == first


def test_textual_inversion_refuses_prompts_with_several_places(tiny_base, dataset, tmp_path):
    prompt = {"prompts": ["{0} beside {0}"], "categories": [["x"]], "detectables": [["clown"]]}
    (dataset / "001" / "prompts_t.json").write_text(json.dumps(prompt))
    settings = short("textual-inversion", tiny_base, dataset, generation=generation(tmp_path / "made"))
    with pytest.raises(TrainError, match="several places"):
        subjects.train(settings, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_settings_is_refused(tiny_base, dataset, tmp_path):
    made = tmp_path / "made"
    settings = short("dreambooth", tiny_base, dataset, data={"photos": "first"}, generation=generation(made))
    subjects.train(settings, tmp_path / "out", quiet=True)
    settings.values["generation"]["guidance"] = 3.0
    with pytest.raises(TrainError, match="another guidance_scale"):
        subjects.train(settings, tmp_path / "out", quiet=True)


def test_prior_preservation_uses_pictures_of_the_class(tiny_base, dataset, tmp_path):
    loss = {"prior_weight": 1.0, "prior_pictures": 2, "prior_steps": 2}
    settings = short("dreambooth", tiny_base, dataset, data={"photos": "first"}, loss=loss)
    subjects.train(settings, tmp_path / "out", quiet=True)
    assert len(list((tmp_path / "out" / "class").glob("*.png"))) == 2
    lines = (tmp_path / "out" / "000-0" / "metrics.jsonl").read_text().splitlines()
    assert all("prior" in json.loads(line) for line in lines)


def test_a_dataset_without_prompts_of_the_kind_is_refused(tiny_base, dataset, tmp_path):
    for path in dataset.rglob("prompts_h.json"):
        path.unlink()
    settings = short("dreambooth", tiny_base, dataset, generation=generation(tmp_path / "made", kind="H"))
    with pytest.raises(TrainError, match="no prompts of kind H"):
        subjects.train(settings, tmp_path / "out", quiet=True)
