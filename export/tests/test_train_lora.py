"""Adapters: diffusers' keys, fusion, and a base that is never written to."""

import re

import pytest
import torch
from safetensors.torch import save_file
from training import diffusers

from stellar_export.generator.tiny_sdxl import UNET
from stellar_train import lora
from stellar_train.errors import TrainError


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(**UNET).eval()


@torch.no_grad()
def output(unet):
    draws = torch.Generator().manual_seed(1)
    sample, context = torch.randn(1, 4, 8, 8, generator=draws), torch.randn(1, 9, 72, generator=draws)
    added = {"text_embeds": torch.ones(1, 40), "time_ids": torch.ones(1, 6)}
    return unet(sample, 5, context, added_cond_kwargs=added).sample


def trained(unet):
    """Adapters that do something."""
    parameters = lora.inject(unet, rank=4, alpha=8)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / 10)
    return parameters


def test_fresh_adapters_change_nothing_and_only_they_are_trained(unet):
    before = output(unet)
    parameters = lora.inject(unet)
    assert torch.equal(output(unet), before)
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in parameters}
    # Four projections in each of two attentions of a transformer block.
    blocks = [path for path in dict(unet.named_modules()) if re.search(r"transformer_blocks\.\d+$", path)]
    assert len(list(lora.layers(unet))) == 8 * len(blocks) > 0


def test_keys_are_those_of_diffusers(unet):
    trained(unet)
    keys = lora.state(unet).keys()
    assert "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight" in keys
    assert all(re.fullmatch(r"unet\.\S+\.attn[12]\.to_(q|k|v|out\.0)\.lora\.(down|up)\.weight", key) for key in keys)


@pytest.mark.parametrize("names", [("lora.down", "lora.up"), ("lora_A", "lora_B")])
def test_fusing_a_file_equals_the_adapter(unet, tmp_path, names):
    base = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    trained(unet)
    adapted, state = output(unet), lora.state(unet)
    renamed = {k.replace("lora.down", names[0]).replace("lora.up", names[1]): t for k, t in state.items()}
    save_file(renamed, tmp_path / lora.FILE)
    lora.remove(unet)
    assert all(torch.equal(tensor, base[key]) for key, tensor in unet.state_dict().items())
    changed = lora.fuse(unet, tmp_path, alpha=8)
    assert changed == len(state) // 2
    assert (output(unet) - adapted).abs().max() < 1e-5
    assert (output(unet) - adapted).abs().max() < (adapted - output_of(base)).abs().max() / 100


def output_of(state):
    plain = diffusers.UNet2DConditionModel(**UNET).eval()
    plain.load_state_dict(state)
    return output(plain)


def test_alpha_is_the_files_then_the_argument_then_the_rank():
    tensors = {"unet.a.to_q.lora_A.weight": torch.ones(2, 3), "unet.a.to_q.lora_B.weight": torch.ones(5, 2)}
    assert lora.load(tensors)["a.to_q"][2] == 1
    assert lora.load(tensors, alpha=4)["a.to_q"][2] == 2
    assert lora.load({**tensors, "unet.a.to_q.alpha": torch.tensor(1.0)}, alpha=4)["a.to_q"][2] == 0.5


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({}, "no adapters"),
        ({"text_encoder.a.lora_A.weight": torch.ones(2, 2)}, "only adapters of the UNet"),
        ({"unet.a.lora_A.weight": torch.ones(2, 2)}, "up weight is missing"),
        ({"unet.a.lora_A.weight": torch.ones(2, 2), "unet.a.lora_B.weight": torch.ones(2, 3)}, "do not fit"),
        ({"unet.a.lora_A.weight": torch.ones(2, 2), "unet.a.lora_B.weight": torch.ones(2, 2)}, "no such linear layer"),
        (
            {
                "unet.time_embedding.linear_1.lora_A.weight": torch.ones(2, 2),
                "unet.time_embedding.linear_1.lora_B.weight": torch.ones(2, 2),
            },
            "it is for 2×2",
        ),
    ],
)
def test_files_that_do_not_fit_say_why(unet, tensors, problem):
    with pytest.raises(TrainError, match=problem):
        lora.fuse(unet, tensors)


def test_adapters_are_restored_only_into_the_same_layers_and_rank(unet):
    trained(unet)
    state = lora.state(unet)
    wanted = output(unet)
    with torch.no_grad():
        for _, layer in lora.layers(unet):
            layer.up.zero_()
    lora.restore(unet, state)
    assert torch.equal(output(unet), wanted)
    path = next(iter(state)).removesuffix(".lora.down.weight")
    with pytest.raises(TrainError, match="different layers"):
        lora.restore(unet, {k: t for k, t in state.items() if not k.startswith(path)})
    with pytest.raises(TrainError, match="rank 2 instead of 4"):
        halved = {k: t[:2] if ".down." in k else t[:, :2] for k, t in state.items()}
        lora.restore(unet, halved)
    with pytest.raises(TrainError, match="has adapters already"):
        lora.inject(unet)
