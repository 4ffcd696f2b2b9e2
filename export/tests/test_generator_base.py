"""Base models of generator packs: strict loading, official names and sizes, schedules, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from stellar_export import cli, clip, pack
from stellar_export.errors import ExportError
from stellar_export.generator import scheduler, tiny_sdxl
from stellar_export.generator.base import STEM, Base, fill, halved, is_published, renamed_attention
from stellar_export.generator.export import TextConfig, decoder_job, text_config, text_module
from stellar_export.generator.words import REST_OF_CLIP, encoder
from stellar_export.nn import FP16, FP32
from stellar_export.vocabulary import CLIP_MERGES
from stellar_export.weights import POSITION_IDS, of_state_dict
from stellar_train import lora

diffusers = pytest.importorskip("diffusers", reason="requirements-reference.txt is not installed")

# config.json of stabilityai/stable-diffusion-xl-base-1.0, as far as it differs from diffusers' defaults.
SDXL_UNET = dict(
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
    cross_attention_dim=2048,
)
SDXL_VAE = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
    sample_size=1024,
    scaling_factor=0.13025,
    force_upcast=True,
)
# Some of the published file's keys.
UNET_KEYS = {
    "add_embedding.linear_1.weight": (1280, 2816),
    "time_embedding.linear_1.weight": (1280, 320),
    "conv_in.weight": (320, 4, 3, 3),
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight": (640, 2048),
    "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight": (10240, 1280),
    "mid_block.attentions.0.transformer_blocks.9.attn1.to_out.0.bias": (1280,),
    "up_blocks.0.attentions.2.proj_in.weight": (1280, 1280),
    "up_blocks.2.resnets.2.conv_shortcut.weight": (320, 640, 1, 1),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny base model; not to be changed."""
    path = tmp_path_factory.mktemp("tiny") / "base"
    assert cli.main(["tiny-sdxl", "--out", str(path), "--seed", "0"]) == 0
    return path


@pytest.fixture
def own(tiny, tmp_path) -> Path:
    """A copy of the base model to break."""
    return Path(shutil.copytree(tiny, tmp_path / "base"))


def meta(kind, **config) -> torch.nn.Module:
    with torch.device("meta"):
        return kind(**config)


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


# ---- official names and sizes


def test_the_official_unet_is_read_whole():
    unet = meta(diffusers.UNet2DConditionModel, **SDXL_UNET)
    state = unet.state_dict()
    assert {k: tuple(state[k].shape) for k in UNET_KEYS} == UNET_KEYS
    read = fill(diffusers.UNet2DConditionModel, unet.config, of_state_dict("unet", state))
    assert is_published("unet", read) and sum(p.numel() for p in read.parameters()) == 2_567_463_684
    assert all(p.dtype == torch.float16 for p in halved(read, FP16).parameters())


@pytest.mark.parametrize("key", UNET_KEYS)
def test_one_wrong_key_of_the_official_unet_is_named(key):
    unet = meta(diffusers.UNet2DConditionModel, **SDXL_UNET)
    state = dict(unet.state_dict())
    kept = state.pop(key)
    with pytest.raises(ExportError, match=f"key {key} is missing"):
        fill(diffusers.UNet2DConditionModel, unet.config, of_state_dict("unet", state))
    with pytest.raises(ExportError, match="the configuration implies"):
        fill(diffusers.UNet2DConditionModel, unet.config, of_state_dict("unet", state | {key: kept[1:]}))
    with pytest.raises(ExportError, match=r"unexpected key x\.weight"):
        fill(diffusers.UNet2DConditionModel, unet.config, of_state_dict("unet", state | {key: kept, "x.weight": kept}))


def test_a_step_of_the_official_unet_is_seven_teraflops():
    unet = meta(diffusers.UNet2DConditionModel, **SDXL_UNET).eval()
    shapes = dict(sample=(1, 4, 128, 128), timestep=(1,), encoder_hidden_states=(1, 77, 2048))
    given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    added = dict(text_embeds=torch.empty(1, 1280, device="meta"), time_ids=torch.empty(1, 6, device="meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(**given, added_cond_kwargs=added)
    assert counter.get_total_flops() == pytest.approx(6.76e12, rel=0.002)


def test_the_official_unet_has_room_for_the_adapters():
    unet = meta(diffusers.UNet2DConditionModel, **SDXL_UNET)
    added = lora.inject(unet, 4, 4)
    assert len(added) == 2 * 560 and sum(p.numel() for p in added) == 5_806_080


def test_the_official_vae_is_read_with_old_and_new_names():
    vae = meta(diffusers.AutoencoderKL, **SDXL_VAE)
    state = vae.state_dict()
    read = fill(diffusers.AutoencoderKL, vae.config, renamed_attention(of_state_dict("vae", state)))
    assert is_published("vae", read)
    assert round(sum(p.numel() for p in read.decoder.parameters()) / 1e6, 1) == 49.5
    for today, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        state = {k.replace(f"attentions.0.{today}.", f"attentions.0.{old}."): v for k, v in state.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in state
    assert is_published(
        "vae", fill(diffusers.AutoencoderKL, vae.config, renamed_attention(of_state_dict("vae", state)))
    )


@pytest.mark.parametrize(
    ("name", "tower", "projection", "parameters"),
    [
        ("text_encoder", clip.Tower(768, 3072, 12, 12, "quick_gelu", 1e-5), 768, 123_060_480),
        ("text_encoder_2", clip.Tower(1280, 5120, 32, 20, "gelu", 1e-5), 1280, 694_659_840),
    ],
)
def test_the_official_text_encoders_are_read_whole(name, tower, projection, parameters):
    import transformers

    kind = transformers.CLIPTextModelWithProjection if name == "text_encoder_2" else transformers.CLIPTextModel
    config = transformers.CLIPTextConfig(
        hidden_size=tower.width,
        intermediate_size=tower.mlp,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        projection_dim=projection,
        vocab_size=49408,
    )
    state = {k: p.to("meta") for k, p in meta(kind, config=config).named_parameters()}
    assert sum(p.numel() for p in state.values()) == parameters
    module = text_module(of_state_dict(name, state), TextConfig(name, tower, 49408, projection), FP32)
    assert len(module.blocks) == tower.layers - 1
    dropped = "text_model.final_layer_norm.bias"
    del state[dropped]
    with pytest.raises(ExportError, match=dropped):
        text_module(of_state_dict(name, state), TextConfig(name, tower, 49408, projection), FP32)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "mlp", "millions"), [(1024, 24, 16, 4096, 303.2), (1664, 48, 16, 8192, 1842.8)]
)
def test_the_official_image_encoders_are_read_whole(width, layers, heads, mlp, millions):
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=224,
        patch_size=14,
    )
    state = dict(meta(transformers.CLIPVisionModel, config=config).named_parameters())
    assert round(sum(p.numel() for p in state.values()) / 1e6, 1) == millions
    weights = of_state_dict("vision", state | {"logit_scale": torch.empty((), device="meta")})
    tower = clip.Tower(width, mlp, layers, heads, "gelu", 1e-5)
    assert len(clip.vision_body(weights, tower, 224, 14, FP32).blocks) == layers
    weights.finish(POSITION_IDS, *REST_OF_CLIP, r"vision_model\.post_layernorm\..*")


# ---- a folder


def test_the_same_seed_gives_the_same_model(tiny, tmp_path):
    tiny_sdxl.make(tmp_path / "again", 0)
    tiny_sdxl.make(tmp_path / "other", 1)
    for path in tiny.rglob("*.safetensors"):
        name = path.relative_to(tiny)
        assert path.read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert path.read_bytes() != (tmp_path / "other" / name).read_bytes(), name
    assert cli.main(["tiny-sdxl", "--out", str(tmp_path / "again")]) == 1


def test_the_tiny_stable_diffusion_1_is_what_diffusers_loads(tmp_path):
    out = tmp_path / "base"
    assert cli.main(["tiny-sd", "--out", str(out)]) == 0
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(out)
    # As in CompVis/stable-diffusion-v1-4, with the vision tower beside it.
    assert (type(pipeline.scheduler).__name__, pipeline.vae.config.scaling_factor) == ("PNDMScheduler", 0.18215)
    assert pipeline.unet.config.down_block_types == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert sorted(each.name for each in out.iterdir() if each.is_dir()) == [
        "image_encoder", "scheduler", "text_encoder", "tokenizer", "unet", "vae"
    ]  # fmt: skip
    assert json.loads((out / "stellar_export.json").read_text())["model"] == "tiny-sd"
    assert cli.main(["tiny-sd", "--out", str(out)]) == 1


def test_the_tiny_model_is_what_diffusers_loads(tiny):
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny)
    assert pipeline.vae_scale_factor == 8 and pipeline.config.force_zeros_for_empty_prompt
    assert 300_000 < sum(p.numel() for p in pipeline.unet.parameters()) < 460_000
    assert Base.open(tiny).marked_demo
    assert not is_published("unet", Base.open(tiny).unet())


def test_both_tokenizers_have_their_own_padding_and_all_merges(tiny):
    base = Base.open(tiny)
    assert (base.pad("tokenizer"), base.pad("tokenizer_2")) == (49407, 0)
    merges = base.merges()
    assert len(merges) == CLIP_MERGES
    assert [m for m in merges if m.startswith("#")], "these are no comments: without them all later ids would move"


def test_a_merge_that_was_taken_for_a_comment_is_noticed(own):
    for name in ("tokenizer", "tokenizer_2"):
        path = own / name / "merges.txt"
        first, *rest = path.read_text().split("\n")
        path.write_text("\n".join([first, *(m for m in rest if not m.startswith("#"))]))
    with pytest.raises(ExportError, match="merges, CLIP's vocabulary has 48894"):
        Base.open(own).merges()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_keys_of_every_part_are_checked(own, part):
    (path,) = (own / part).glob("*.safetensors")

    def load():
        base = Base.open(own)
        if part == "unet":
            return base.unet()
        if part == "vae":
            return base.vae()
        from stellar_export.weights import load_folder

        return text_module(load_folder(own / part), text_config(base, part), FP32)

    load()
    key = next(k for k in load_file(path) if k.endswith("norm2.weight") or k.endswith("layer_norm2.weight"))
    change_weights(path, lambda s: s.update({"extra.weight": torch.zeros(1)}))
    with pytest.raises(ExportError, match=r"unexpected key extra\.weight"):
        load()
    change_weights(path, lambda s: (s.pop("extra.weight"), s.update({key: torch.zeros(3)})))
    with pytest.raises(ExportError, match=f"{key} has shape \\[3\\]"):
        load()
    change_weights(path, lambda s: s.pop(key))
    with pytest.raises(ExportError, match=f"key {key} is missing"):
        load()


def test_a_half_precision_variant_is_read_where_there_is_nothing_else(own):
    expected = Base.open(own).unet().state_dict()
    path = own / "unet" / f"{STEM}.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, own / "unet" / f"{STEM}.fp16.safetensors")
    path.unlink()
    found = Base.open(own).unet().state_dict()
    assert all(torch.equal(v, found[k]) and found[k].dtype == torch.float32 for k, v in expected.items())


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("unet/config.json", dict(addition_embed_type=None), "SDXL's is 'text_time'"),
        ("unet/config.json", dict(time_cond_proj_dim=8), "distilled"),
        ("unet/config.json", dict(sample_size=None), "sample_size must be given"),
        ("vae/config.json", dict(shift_factor=0.1), "shift_factor of latents"),
        ("vae/config.json", dict(scaling_factor=None), "scaling_factor must be given"),
        ("model_index.json", dict(force_zeros_for_empty_prompt=False), "force_zeros_for_empty_prompt"),
        ("text_encoder/config.json", dict(max_position_embeddings=64), "expected 77"),
        ("text_encoder/config.json", dict(hidden_act="swish"), "hidden_act 'swish'"),
    ],
)
def test_models_of_another_kind_are_refused(own, file, values, says):
    edit(own / file, **values)
    with pytest.raises(ExportError, match=says):
        base = Base.open(own)
        base.unet_config()
        base.vae_config()
        text_config(base, "text_encoder")


def test_an_incomplete_folder_is_refused_with_what_it_lacks(own, capsys):
    shutil.rmtree(own / "vae")
    shutil.rmtree(own / "tokenizer_2")
    assert cli.main(["generator", "--base", str(own), "--out", str(own / "pack")]) == 1
    assert "tokenizer_2, vae are missing" in capsys.readouterr().err
    assert cli.main(["generator", "--base", str(own / "nowhere"), "--out", str(own / "pack")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert not (own / "pack").exists()


def test_the_decoder_stays_in_single_precision(tiny):
    """A VAE in half precision gives values that are not finite, and so black pictures."""
    job = decoder_job(Base.open(tiny))
    assert job.precision == FP32 and job.max_batch == 1
    assert all(p.dtype == torch.float32 for p in job.module.parameters())


def test_a_weight_beyond_half_precision_is_refused(tiny):
    unet = Base.open(tiny).unet()
    unet.conv_in.bias[0] = 1e5
    with pytest.raises(ExportError, match=r"conv_in\.bias is too large for half precision"):
        halved(unet, FP16)


def test_an_image_encoder_may_be_a_whole_clip(tiny, own):
    from stellar_export.checkpoints import Folder

    folder = Folder("x", own / "image_encoder", "local")
    expected = encoder(folder, [1, -1], FP32)
    assert expected.layers == (1, 4)
    path = own / "image_encoder" / "model.safetensors"
    change_weights(path, lambda s: s.update({"text_model.x.weight": torch.zeros(1), "logit_scale": torch.zeros(())}))
    edit(
        own / "image_encoder" / "config.json",
        vision_config=json.loads((own / "image_encoder" / "config.json").read_text()),
    )
    assert encoder(folder, [1, -1], FP32).width == expected.width
    with pytest.raises(ExportError, match=r"hidden states \[5\], the encoder has 0 to 4"):
        encoder(folder, [5], FP32)
    change_weights(path, lambda s: s.update({"vision_model.extra": torch.zeros(1)}))
    with pytest.raises(ExportError, match=r"unexpected key vision_model\.extra"):
        encoder(folder, [1], FP32)


def test_a_failed_build_leaves_the_earlier_pack(tmp_path):
    out = tmp_path / "pack"
    with pack.replaced(out) as part:
        (part / "pack.toml").write_text("first")
    with pytest.raises(ExportError, match="broken"), pack.replaced(out) as part:
        (part / "pack.toml").write_text("second")
        raise ExportError("broken")
    assert (out / "pack.toml").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


# ---- the schedule


@pytest.mark.parametrize("steps", [1, 20, 30, 50, 100])
def test_the_table_gives_the_schedulers_own_values(tiny, steps):
    table = json.loads(
        json.dumps(scheduler.table(Base.open(tiny).part("scheduler").json("scheduler_config.json"), "x"))
    )
    assert (table["kind"], table["spacing"], table["steps_offset"], len(table["sigmas"])) == (
        "euler",
        "leading",
        1,
        1000,
    )
    ours = diffusers.EulerDiscreteScheduler.from_pretrained(tiny / "scheduler")
    ours.set_timesteps(steps)
    chosen = np.arange(steps)[::-1] * (1000 // steps) + 1
    assert chosen.tolist() == ours.timesteps.tolist()
    sigmas = np.array([*(table["sigmas"][t] for t in chosen), 0], np.float32)
    np.testing.assert_array_equal(sigmas, ours.sigmas.numpy())
    assert all(float(np.float32(s)) == s for s in table["sigmas"]), "float32 values, each written exactly"
    if steps == 100:
        assert float((ours.sigmas.max() ** 2 + 1) ** 0.5) == pytest.approx(13.9617, abs=1e-4)


def test_the_schedule_of_elite_is_known():
    config = dict(
        _class_name="LMSDiscreteScheduler",
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
    )
    table = scheduler.table(config, "x")
    assert (table["kind"], table["spacing"]) == ("lms", "linspace")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(_class_name="DDIMScheduler"), "DDIMScheduler is not supported"),
        (dict(use_karras_sigmas=True), "use_karras_sigmas = True"),
        (dict(prediction_type="v_prediction"), "v_prediction"),
        (dict(timestep_spacing="trailing"), "trailing"),
        (dict(interpolation_type="log_linear"), "log_linear"),
    ],
)
def test_other_schedules_are_refused(tiny, change, says):
    config = json.loads((tiny / "scheduler" / "scheduler_config.json").read_text())
    with pytest.raises(ExportError, match=says):
        scheduler.table(config | change, "x")
