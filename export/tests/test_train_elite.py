"""ELITE's global mapping: the original's key names on Stable Diffusion 1.4's structure, and a short training."""

import json
from pathlib import Path

import pytest
import torch
from training import configuration, diffusers

from stellar_train import elite, runs
from stellar_train.base import Base
from stellar_train.errors import TrainError

# unet/config.json of CompVis/stable-diffusion-v1-4
SD_1_4 = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    layers_per_block=2,
    attention_head_dim=8,
    cross_attention_dim=768,
)


def test_the_keys_are_the_132_of_the_original():
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**SD_1_4)
        mapper = elite.GlobalMapper(1024, 768, unet)
    shapes = {key: tuple(tensor.shape) for key, tensor in mapper.state_dict().items()}
    assert len(shapes) == 132
    for word in range(5):
        for kind in ("mapping", "mapping_patch"):
            for layer, shape in ((0, (1024, 1024)), (1, (1024,)), (3, (1024, 1024)), (4, (1024,)), (6, (768, 1024))):
                assert shapes.pop(f"{kind}_{word}.{layer}.weight") == shape
                assert shapes.pop(f"{kind}_{word}.{layer}.bias") == shape[:1]
    blocks = [
        *(f"down_blocks_{b}_attentions_{a}" for b in (0, 1, 2) for a in (0, 1)),
        "mid_block_attentions_0",
        *(f"up_blocks_{b}_attentions_{a}" for b in (1, 2, 3) for a in (0, 1, 2)),
    ]
    assert set(shapes) == {f"{b}_transformer_blocks_0_attn2_to_{p}.weight" for b in blocks for p in "kv"}
    assert shapes["down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.weight"] == (320, 768)
    assert shapes["mid_block_attentions_0_transformer_blocks_0_attn2_to_v.weight"] == (1280, 768)


def short(base: Path, folder: Path, cache: Path, **sections):
    found = configuration("elite", **sections)
    found.values["base"]["folder"] = str(base)
    found.values["data"] |= {"folder": str(folder), "cache": str(cache)}
    return found


def test_training_writes_the_originals_file_and_leaves_the_rest_of_the_unet(tiny_sd, training_data, tmp_path):
    settings = short(
        tiny_sd,
        training_data,
        tmp_path / "cache",
        training={"steps": 2},
        output={"validate_every": 2, "validation_steps": 2},
    )
    out = tmp_path / "out"
    out.mkdir()
    runs.from_photos(settings, out, quiet=True)
    about = json.loads((out / elite.CONFIG).read_text())
    assert about["layers"] == {"image_encoder": [-1, 1, 1, 2, 3]}
    assert about["training"]["system"] == "elite-like"
    assert about["weights_digest"] == elite.digest_of((out / elite.FILE).read_bytes())
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_sd / "unet")
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    mapper = elite.GlobalMapper(32, 32, unet, hidden=16)
    elite.load(out / elite.FILE, mapper)
    changed = {key for key, tensor in unet.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if "attn2.to_k" in key or "attn2.to_v" in key}
    assert (out / "validation" / "step-00000002.png").is_file()


def test_a_file_of_another_model_is_refused(tiny_sd, tmp_path):
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_sd / "unet")
    mapper = elite.GlobalMapper(32, 32, unet, hidden=16)
    state = mapper.state_dict()
    state.pop("mapping_3.4.bias")
    torch.save(state, tmp_path / elite.FILE)
    with pytest.raises(TrainError, match=r"mapping_3\.4\.bias"):
        elite.load(tmp_path / elite.FILE, mapper)


@pytest.fixture
def trained(tiny_sd, tmp_path) -> Path:
    """A folder with a mapper, without elite.json."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny_sd / "unet")
    torch.save(elite.GlobalMapper(32, 32, unet, hidden=16).state_dict(), tmp_path / elite.FILE)
    return tmp_path


def test_what_elite_wrote_is_read_with_its_own_layers(tiny_sd, trained):
    about = {"schema": 1, "system": "elite-like", "layers": {"image_encoder": [4, 3, 2, 1, 0]}}
    (trained / elite.CONFIG).write_text(json.dumps({**about, "training": {"excludes_evaluation": True}}))
    _, found = elite.opened(trained, Base(tiny_sd, torch.device("cpu")))
    assert (found["system"], found["layers"], found["excludes_evaluation"]) == ("elite-like", [[4, 3, 2, 1, 0]], True)
    for text, problem in (
        ('{"schema": 9}', "schema 9"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema": 1, "layers": [1, 2]}', "`layers` must be as"),
        ('{"schema": 1, "layers": {"image_encoder": 3}}', "`layers` must be as"),
        ('{"schema": 1, "layers": {"image_encoder": [1, 2, 3, 4, "5"]}}', "`layers` must be as"),
        ('{"schema": 1, "layers": {"a": [1], "b": [1]}}', "`layers` must be as"),
        ('{"schema": 1, "layers": {"image_encoder": [1, 2]}}', "one number for each of the 5 words"),
        ('{"schema": 1, "training": []}', "`training` must be an object"),
        ('{"schema": 1, "system": 3}', "`system` must be a text"),
        ('{"schema": 1, "weights_digest": "00"}', "was written with other weights"),
    ):
        (trained / elite.CONFIG).write_text(text)
        with pytest.raises(TrainError, match=problem):
            elite.opened(trained, Base(tiny_sd, torch.device("cpu")))


def test_a_bare_file_has_the_elite_json_beside_it_only_if_it_is_of_its_weights(tiny_sd, trained):
    own, other = trained / elite.FILE, trained / "other.pt"
    torch.save(torch.load(own) | {"mapping_0.0.bias": torch.ones(16)}, other)
    about = {"schema": 1, "system": "elite-like", "weights_digest": elite.digest_of(own.read_bytes())}
    (trained / elite.CONFIG).write_text(json.dumps(about))
    for path, system, background in ((own, "elite-like", "black"), (other, "elite", "photo")):
        _, found = elite.opened(path, Base(tiny_sd, torch.device("cpu")))
        assert (found["system"], found["background"]) == (system, background)
    # One that says nothing of its weights may be of any.
    (trained / elite.CONFIG).write_text('{"schema": 1}')
    assert elite.opened(own, Base(tiny_sd, torch.device("cpu")))[1]["background"] == "photo"


def test_a_base_of_the_other_kind_is_refused(tiny_base, training_data, tmp_path):
    with pytest.raises(TrainError, match="ELITE is for Stable Diffusion 1"):
        runs.prepare(short(tiny_base, training_data, tmp_path / "cache"), tmp_path, quiet=True)
