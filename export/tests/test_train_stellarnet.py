"""The StellarNet-like method: its loss, its condition, its files, and going on after SIGKILL."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from training import SIDE, configuration, diffusers, killed, last_step, prepared, stellarnet

from stellar_export.checkpoints import Folder
from stellar_export.generator import words
from stellar_export.nn import FP32
from stellar_train import loop, lora, mapper, pictures, runs
from stellar_train.configuration import METHODS, Configuration
from stellar_train.errors import TrainError
from stellar_train.personal import masked_loss


@pytest.fixture
def short(tiny_base, training_data, training_cache):
    return lambda **sections: stellarnet(tiny_base, training_data, training_cache, **sections)


def test_the_loss_is_the_mean_over_the_foreground_and_has_no_gradient_outside():
    draws = torch.Generator().manual_seed(0)
    prediction, noise = (torch.randn(2, 4, 8, 8, generator=draws) for _ in range(2))
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:5, 2:5], mask[1, :, :2, :7] = 1, 1
    prediction.requires_grad_(True)
    loss = masked_loss(prediction, noise, mask)
    squared = (prediction - noise).detach() ** 2
    expected = (squared[0, :, 2:5, 2:5].mean() + squared[1, :, :2, :7].mean()) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    loss.backward()
    outside = (mask == 0).expand_as(prediction)
    assert (prediction.grad[outside] == 0).all()
    assert (prediction.grad[~outside] != 0).all()


def test_prompts_without_words_are_encoded_as_diffusers_does(short, tmp_path):
    base = prepared(short(), tmp_path).base
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(base.folder)
    for prompt in ("a photo of a person", "", "naïve ☃ café, a  b", "one two three " * 40):
        with torch.no_grad():
            context, pooled = base.encode([prompt])
            wanted, _, wanted_pooled, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        assert (context - wanted).abs().max() < 1e-5, prompt
        assert (pooled - wanted_pooled).abs().max() < 1e-5, prompt


def test_words_stand_where_the_braces_are(short, tmp_path):
    base = prepared(short(), tmp_path).base
    # As words, the vectors of five tokens are what the tokens are.
    with torch.no_grad():
        tables = [encoder.model.text_model.embeddings.token_embedding.weight for encoder in base.encoders]
        words = [table[[320, 1125, 539, 320, 2368]][None] for table in tables]
        context, pooled = base.encode(["hello {} there"], words)
        wanted, wanted_pooled = base.encode(["hello a photo of a dog there".replace("dog", _word(base, 2368))])
    assert (context - wanted).abs().max() < 1e-5
    assert (pooled - wanted_pooled).abs().max() < 1e-5
    with pytest.raises(TrainError, match=r"has no \{\}"):
        base.encode(["hello"], words)


def _word(base, token: int) -> str:
    return base.encoders[0].tokenizer.convert_ids_to_tokens(token).removesuffix("</w>")


def test_a_dropped_condition_is_zero_and_the_others_are_not(short, tmp_path):
    method = prepared(short(), tmp_path)
    words = [torch.ones(3, 5, encoder.width) for encoder in method.base.encoders]
    context, pooled = method.condition(["a photo of {}"] * 3, words, torch.tensor([1.0, 0.0, 1.0]))
    assert (context[1] == 0).all()
    assert (pooled[1] == 0).all()
    assert (context[[0, 2]].abs().amax(dim=(1, 2)) > 0).all()


def test_a_tenth_of_the_conditions_is_dropped(short, tmp_path, monkeypatch):
    method = prepared(short(training={"batch": 40}), tmp_path)
    kept = []
    zeros = torch.zeros(40, 77, 72), torch.zeros(40, 40)
    monkeypatch.setattr(method, "condition", lambda prompts, words, k: (kept.extend(k.tolist()), zeros)[1])
    monkeypatch.setattr(method.base, "predict", lambda noisy, *_: noisy)
    for step in range(20):
        method.loss(loop.generator(0, step))
    assert 0.07 < 1 - sum(kept) / len(kept) < 0.13


@pytest.mark.parametrize("sections", [{}, {"data": {"features": "computed"}}, {"data": {"views": 3}}])
def test_training_writes_a_checkpoint_and_leaves_the_base_as_it_was(short, tmp_path, sections):
    settings = short(training={"steps": 2}, **sections)
    method, about = runs.prepare(settings, tmp_path, quiet=True)
    frozen = {key: t.clone() for key, t in method.base.unet.state_dict().items() if not key.endswith((".up", ".down"))}
    loop.train(method, settings, tmp_path, about, quiet=True)
    now = method.base.unet.state_dict()
    assert all(torch.equal(now[key], tensor) for key, tensor in frozen.items())
    loaded, about_weights = mapper.load(tmp_path)
    assert about_weights["layers"] == {"image_encoder": [1, 1, 2, 3, -1], "image_encoder_2": [1, 1, 2, 3, -1]}
    assert about_weights["training"]["excludes_evaluation"] is True
    digest = hashlib.sha256((Path(settings.data.folder) / "SHA256SUMS").read_bytes()).hexdigest()
    assert about_weights["training"]["dataset_digest"] == digest
    photo = method.train.batch([0], None).features
    assert all(torch.equal(a, b) for a, b in zip(loaded(photo), method.words(photo), strict=True))
    plain = diffusers.UNet2DConditionModel.from_pretrained(method.base.folder / "unet")
    assert lora.fuse(plain, tmp_path, about_weights["lora_alpha"]) == len(list(lora.layers(method.base.unet)))


def test_the_exporter_makes_the_words_that_were_trained(short, tmp_path):
    settings = short(training={"steps": 1})
    runs.from_photos(settings, tmp_path, quiet=True)
    photos = prepared(short(data={"features": "computed"}), tmp_path / "other").train
    trained, about = words.trained(tmp_path, (32, 40))
    base = photos.base.folder
    encoders = {
        name: words.encoder(Folder(name, base / name, "local"), layers, FP32)
        for name, layers in about["layers"].items()
    }
    item = photos.items[0]
    pixels = words.pixels_of_photo(pictures.photo(item.image), Image.open(item.mask))
    with torch.no_grad():
        exported = words.PhotoWords(encoders, trained)(torch.from_numpy(pixels.copy())[None])
        wanted = trained(photos.batch([0], None).features)
    for found, want in zip(exported, wanted, strict=True):
        assert (found - want).abs().max() < 1e-5


def test_a_killed_training_goes_on_with_an_equal_result(short, tmp_path):
    settings = short(training={"steps": 9})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    runs.from_photos(settings, whole, quiet=True)
    killed(runs.from_photos, settings, broken, broken / "metrics.jsonl", 5)
    assert not (broken / "stellarnet.json").exists()
    assert list((broken / "progress").glob("step-*"))
    runs.from_photos(settings, broken, quiet=True)
    for name in ("mapper.safetensors", lora.FILE, "metrics.jsonl", "stellarnet.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert last_step(broken / "metrics.jsonl") == 9


def test_other_settings_data_or_base_do_not_continue_a_training(short, tmp_path, tiny_base):
    settings = short()
    killed(runs.from_photos, settings, tmp_path, tmp_path / "metrics.jsonl", 4)
    with pytest.raises(TrainError, match="configuration differ"):
        runs.from_photos(short(training={"mapper_rate": 1.0}), tmp_path, quiet=True)
    other = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (other / "unet" / "config.json").write_text((other / "unet" / "config.json").read_text() + "\n")
    settings.values["base"]["folder"] = str(other)
    with pytest.raises(TrainError, match="base differ"):
        runs.from_photos(settings, tmp_path, quiet=True)


def test_a_finished_training_is_not_repeated_and_not_overwritten(short, tmp_path):
    settings = short(training={"steps": 1})
    runs.from_photos(settings, tmp_path, quiet=True)
    before = (tmp_path / "mapper.safetensors").stat().st_mtime_ns
    runs.from_photos(settings, tmp_path, quiet=True)
    assert (tmp_path / "mapper.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainError, match="another training"):
        runs.from_photos(short(training={"steps": 2}), tmp_path, quiet=True)


def test_the_seed_decides_the_result(short, tmp_path):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        runs.from_photos(short(training={"steps": 1, "seed": seed}), tmp_path / name, quiet=True)
        results.append((tmp_path / name / "mapper.safetensors").read_bytes())
    assert results[0] == results[1] != results[2]


def test_bfloat16_and_gradient_checkpointing_train_the_same_model_nearly(short, tmp_path):
    losses = []
    for name, training in (("a", {}), ("b", {"gradient_checkpointing": True}), ("c", {"precision": "bf16"})):
        (tmp_path / name).mkdir()
        runs.from_photos(short(training={"steps": 2, **training}), tmp_path / name, quiet=True)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        assert (
            load_file(tmp_path / name / "mapper.safetensors")["image_encoder.1.mapping_0.0.weight"].dtype
            == torch.float32
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)
    assert losses[2] != losses[0]


def test_validation_writes_losses_and_a_picture(short, tmp_path):
    settings = short(training={"steps": 2}, output={"validate_every": 2, "validation_steps": 2})
    runs.from_photos(settings, tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out" in line] == [0, 2]
    assert Image.open(tmp_path / "validation" / "step-00000002.png").size == (2 * SIDE, 2 * SIDE)


def test_a_base_with_a_missing_weight_is_refused(tiny_base, short, tmp_path):
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    path = base / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("text_model.final_layer_norm.weight")
    save_file(tensors, path, {"format": "pt"})
    settings = short()
    settings.values["base"]["folder"] = str(base)
    with pytest.raises(TrainError, match="final_layer_norm"):
        runs.prepare(settings, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"model": {"layers": [[1, 2, 3, 4, 9], [0, 1, 2, 3, 4]]}}, "hidden states 0 to 4"),
        ({"model": {"layers": [[1, 2]]}}, "a list for each"),
        ({"model": {"words": 3}}, "5 layers for 3 words"),
        ({"model": {"towers": ["image_encoder_3"]}}, "not known"),
        ({"model": {"lora_rank": 0}}, "at least 1"),
        ({"data": {"held_out": 6}}, "6 identities"),
    ],
)
def test_settings_that_do_not_fit_the_models_say_why(short, tmp_path, sections, problem):
    # Features of other layers are not in the shared cache.
    settings = short(**sections)
    settings.values["data"]["cache"] = str(tmp_path / "cache")
    with pytest.raises(TrainError, match=problem):
        runs.prepare(settings, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[training]\nstep = 3", "unknown key training.step"),
        ("[trainings]\nsteps = 3", r"unknown section \[trainings\]"),
        ("[training]\nsteps = '3'", "expected int"),
        ("[training]\nsteps = 0", "at least 1"),
        ("[training]\nprecision = 'half'", "fp32, bf16 or fp16"),
        ("[data]\nresolution = 100", "multiple of 32"),
        ("[loss]\ntimesteps = [10]", "first < last"),
        ("[loss]\ndrop_condition = 1.0", "below 1"),
        ("[training", "not|Expected"),
    ],
)
def test_configurations_are_checked(tmp_path, text, problem):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(TrainError, match=problem):
        Configuration("stellarnet", path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["training.warmup=-1"], "training.warmup = -1: it must be at least 0"),
        (["training.decay=-5"], "training.decay = -5: it must be at least 0"),
        (
            ["training.steps=10", "training.warmup=4", "training.decay=7"],
            "training.warmup = 4 and training.decay = 7: together they must be at most training.steps = 10",
        ),
    ],
)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "images"])
def test_rates_that_cannot_rise_and_fall_are_refused(method, settings, problem):
    with pytest.raises(TrainError, match=problem):
        Configuration(method, settings=settings)


def test_a_configuration_overlays_the_defaults():
    found = Configuration("stellarnet", settings=["training.steps=7", "base.folder=x/y", "loss.drop_condition=0"])
    assert (found.training.steps, found.base.folder, found.loss.drop_condition) == (7, "x/y", 0.0)
    assert configuration("stellarnet").digest() != found.digest()
    with pytest.raises(TrainError, match="--data is missing"):
        found.need("data", "folder", "--data")


def test_rates_rise_in_the_warm_up_and_fall_in_the_decay():
    training = Configuration("stellarnet").training
    training.steps, training.warmup, training.decay = 10, 2, 4
    shares = [loop.rate_share(step, training) for step in range(1, 11)]
    assert shares == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    training.warmup = training.decay = 0
    assert {loop.rate_share(step, training) for step in range(1, 11)} == {1.0}
