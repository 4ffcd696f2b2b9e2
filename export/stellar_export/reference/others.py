"""pick_score, image_reward, dreamsim and dino by the packages that define them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from ..checkpoints import Checkpoints
from . import Sample, Scorer, Scores, require, shims
from .clip import FILES, pixels_of


def pick_score_scorer(checkpoints: Checkpoints) -> Scorer:
    require("transformers")
    from transformers import AutoModel, CLIPImageProcessor, CLIPTokenizerFast

    model = AutoModel.from_pretrained(checkpoints.folder("yuvalkirstain/PickScore_v1", FILES).path).eval()
    processor = checkpoints.folder("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", FILES, weights=False).path
    images, tokenizer = CLIPImageProcessor.from_pretrained(processor), CLIPTokenizerFast.from_pretrained(processor)

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        if sample.prompt is None:
            return {}
        text = tokenizer([sample.prompt], padding=True, truncation=True, max_length=77, return_tensors="pt")
        image = model.get_image_features(pixel_values=pixels_of(images, [sample.image()]))
        return {"pick_score": cosine_similarity(model.get_text_features(**text), image).item()}

    return score


def image_reward_model(checkpoints: Checkpoints) -> Any:
    """The package's model with the checkpoint's sizes and weights."""
    require("ImageReward", "timm")
    package = shims.import_image_reward()
    from ImageReward.models.BLIP import blip, blip_pretrain, vit
    from transformers import BertTokenizer

    bert = checkpoints.folder("bert-base-uncased", ("vocab.txt", "tokenizer*.json"), weights=False).path

    class LocalBertTokenizer(BertTokenizer):
        @classmethod
        def from_pretrained(cls, _name):
            return BertTokenizer.from_pretrained(bert)

    changes = contextlib.ExitStack()
    changes.enter_context(shims.replaced(blip, BertTokenizer=LocalBertTokenizer))
    if own := checkpoints.local("files", "imagereward_tiny.json"):
        sizes = json.loads(own.read_text())

        def create_vit(*_, **__):
            return vit.VisionTransformer(drop_path_rate=0.1, **sizes["vit"]), sizes["vit"]["embed_dim"]

        changes.enter_context(shims.replaced(blip_pretrain, create_vit=create_vit))
        mlp = package.MLP
        changes.enter_context(shims.replaced(package, MLP=lambda _: mlp(sizes["mlp_in"])))
    with changes:
        config = checkpoints.file("med_config.json", "THUDM/ImageReward").path
        model = package.ImageReward(med_config=str(config)).eval()
    file = checkpoints.file("ImageReward.pt", "THUDM/ImageReward").path
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=False)
    return model


def image_reward_scorer(checkpoints: Checkpoints) -> Scorer:
    model = image_reward_model(checkpoints)

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        return {} if sample.prompt is None else {"image_reward": model.score(sample.prompt, sample.image())}

    return score


def dreamsim_scorer(checkpoints: Checkpoints) -> Scorer:
    require("dreamsim", "peft", "accelerate")
    shims.import_dreamsim()
    from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino, vision_transformer
    from dreamsim.model import dreamsim

    sizes = {}
    if own := checkpoints.local("files", "dreamsim_tiny.json"):
        sizes = json.loads(own.read_text())

    def vit_base(patch_size: int = 16, **options):
        norm = partial(torch.nn.LayerNorm, eps=1e-6)
        base = dict(embed_dim=768, depth=12, num_heads=12) | sizes
        return vision_transformer.VisionTransformer(
            patch_size=patch_size, mlp_ratio=4, qkv_bias=True, norm_layer=norm, **base, **options
        )

    def dino_of_torch_hub(repository: str, name: str):
        assert (repository, name) == ("facebookresearch/dino:main", "dino_vitb16")
        model = vit_base()
        model.load_state_dict(torch.load(checkpoints.file("dino_vitbase16_pretrain.pth", None).path, weights_only=True))
        return model

    class Head(torch.nn.Module):
        """DINOHead reads its width in code; its weights are loaded and never used."""

        def __init__(self, *_):
            super().__init__()
            self.mlp = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(5))
            self.last_layer = torch.nn.Linear(1, 1)

    from dreamsim.feature_extraction import extractor

    cache = checkpoints.local("hub", ".dreamsim_cache")
    with (
        shims.replaced(torch.hub, load=dino_of_torch_hub, set_dir=lambda _: None),
        shims.replaced(load_clip_as_dino, vit_base=vit_base),
        shims.replaced(load_open_clip_as_dino, vit_base=vit_base),
        shims.replaced(extractor, DINOHead=Head),
        contextlib.redirect_stdout(None),
        tempfile.TemporaryDirectory() as scratch,
    ):
        link = Path(scratch) / "cache"  # dreamsim wants to be able to write to it
        link.symlink_to(Path(cache).resolve())
        model, preprocess = dreamsim(pretrained=True, device="cpu", cache_dir=str(link))
    model.eval()

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        if sample.reference is None:
            return {}
        return {"dreamsim": model(preprocess(sample.image()), preprocess(sample.reference_image())).item()}

    return score


def dino_scorer(checkpoints: Checkpoints) -> Scorer:
    require("transformers")
    from transformers import ViTImageProcessor, ViTModel

    path = checkpoints.folder("facebook/dino-vits16", ("config.json", "preprocessor_config.json")).path
    # The pooler is not in the checkpoint and not used; left in, it would be random.
    model = ViTModel.from_pretrained(path, add_pooling_layer=False).eval()
    processor = ViTImageProcessor.from_pretrained(path)

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        if sample.reference is None:
            return {}
        image, reference = (
            model(pixel_values=pixels_of(processor, [i])).last_hidden_state[:, 0]
            for i in (sample.image(), sample.reference_image())
        )
        return {"dino": cosine_similarity(reference, image).item()}

    return score
