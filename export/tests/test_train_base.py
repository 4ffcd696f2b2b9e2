"""Training of a tiny base model whole."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import configuration, diffusers, killed

from stellar_export.generator.base import Base
from stellar_train import base as bases
from stellar_train import loop, made_up, whole
from stellar_train.errors import TrainError

UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))


@pytest.fixture
def settings(tiny_base, tmp_path):
    made_up.captions(tmp_path / "captions")
    found = configuration("base", training={"steps": 4}, vae={"steps": 2, "batch": 2})
    found.values["base"]["folder"], found.values["data"]["folder"] = str(tiny_base), str(tmp_path / "captions")
    return found


def test_the_result_is_a_base_model_with_another_unet_and_vae(settings, tiny_base, tmp_path):
    out = tmp_path / "out"
    whole.train(settings, out, quiet=True)
    base = Base.open(out)
    assert base.marked_demo
    base.unet()
    scaling = base.vae().config.scaling_factor
    assert scaling != json.loads((tiny_base / "vae" / "config.json").read_text())["scaling_factor"]
    for part in (UNET, VAE):
        before, after = load_file(tiny_base / part), load_file(out / part)
        assert any(not torch.equal(before[key], after[key]) for key in before)
    for part in ("text_encoder", "text_encoder_2", "image_encoder"):
        assert (out / part / "model.safetensors").read_bytes() == (tiny_base / part / "model.safetensors").read_bytes()
    written = (out / UNET).stat().st_mtime_ns
    whole.train(settings, out, quiet=True)
    assert (out / UNET).stat().st_mtime_ns == written


def test_a_killed_training_goes_on_with_an_equal_result(settings, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    whole.train(settings, unbroken, quiet=True)
    metrics = broken / "training" / "unet" / "metrics.jsonl"
    killed(whole.train, settings, broken, metrics, 3)
    assert not (broken / "model_index.json").exists()
    whole.train(settings, broken, quiet=True)
    for part in (UNET, VAE):
        assert (broken / part).read_bytes() == (unbroken / part).read_bytes()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "is empty"), ("{}\n", "line 1 has not the keys"), ('{"image": "a.png"}\n', "line 1"), ("x\n", "line 1")],
)
def test_captions_that_cannot_be_read_say_where(settings, tmp_path, text, problem):
    Path(tmp_path / "captions" / whole.CAPTIONS).write_text(text)
    with pytest.raises(TrainError, match=problem):
        whole.train(settings, tmp_path / "out", quiet=True)


def test_the_vae_has_the_decay_of_the_unet_as_far_as_it_has_steps(settings):
    for decay, own in ((4, 2), (2, 2), (1, 1), (0, 0)):
        settings.values["training"]["decay"] = decay
        assert whole._for_vae(settings).training.decay == own
        assert settings.training.decay == decay
    settings.values["training"]["decay"] = 4
    shares = [loop.rate_share(step, whole._for_vae(settings).training) for step in (1, 2)]
    assert shares == [1.0, 0.5]


def test_half_precision_is_refused(settings, tmp_path):
    settings.values["training"]["precision"] = "bf16"
    with pytest.raises(TrainError, match="fp32"):
        whole.train(settings, tmp_path / "out", quiet=True)


def test_a_dropped_caption_is_zeros_in_sdxl_and_the_empty_text_in_stable_diffusion_1(
    settings, tiny_base, tiny_sd, monkeypatch
):
    settings.values["loss"]["drop_condition"] = 0.999999
    captions, images = whole.read(Path(settings.data.folder), settings.data.resolution)
    for folder in (tiny_base, tiny_sd):
        base, seen = bases.Base(folder, torch.device("cpu")), []
        method = whole.Unet(settings, base, captions, images)
        predict = base.predict
        monkeypatch.setattr(base, "predict", lambda *inputs: seen.append(inputs[2:]) or predict(*inputs))  # noqa: B023
        method.loss(torch.Generator().manual_seed(0))
        (context, pooled), count = seen[0], settings.training.batch
        if folder == tiny_base:
            assert not context.any() and not pooled.any()
        else:
            assert torch.allclose(context, base.encode([""])[0].expand(count, -1, -1)) and pooled is None
            assert context.std() > 0.1


def test_a_tiny_stable_diffusion_1_is_trained_whole(settings, tiny_sd, tmp_path):
    settings.values["base"]["folder"] = str(tiny_sd)
    settings.values["training"]["steps"] = 2
    out = tmp_path / "out"
    whole.train(settings, out, quiet=True)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(out)
    assert pipeline.unet.config.cross_attention_dim == 32
    before, after = load_file(tiny_sd / UNET), load_file(out / UNET)
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)
    bases.Base(out, torch.device("cpu"))
