"""clip_t, clip_i, clip_n and aesthetic by transformers' CLIPModel with the slow (PIL) processors."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from ..checkpoints import Checkpoints
from . import Sample, Scorer, Scores, require

FILES = ("config.json", "preprocessor_config.json", "*token*.json", "vocab.json", "merges.txt")


def load(checkpoints: Checkpoints, hub_id: str):
    """The model and its slow tokenizer and image processor."""
    # Without ftfy the slow tokenizer falls back to another cleaning, and the ids of non-ASCII prompts differ.
    require("ftfy", "transformers")
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    path = checkpoints.folder(hub_id, FILES).path
    return (
        CLIPModel.from_pretrained(path).eval(),
        CLIPTokenizer.from_pretrained(path),
        CLIPImageProcessor.from_pretrained(path),
    )


def pixels_of(processor, images: list) -> torch.Tensor:
    """The processor's pixels, told that pictures are HWC: left to guess, it takes one of 1 or 3 rows for CHW."""
    return processor(images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]


def clip_scorer(checkpoints: Checkpoints, hub_id: str) -> Scorer:
    model, tokenizer, processor = load(checkpoints, hub_id)

    def embed(images: list, prompt: str):
        text = tokenizer([prompt], truncation=True, padding=True, return_tensors="pt")
        pixels = pixels_of(processor, images)
        out = model(pixel_values=pixels, **text)
        return out.image_embeds, out.text_embeds

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        scores = {}
        if sample.prompt is not None:
            image, text = embed([sample.image()], sample.prompt)
            scores["clip_t"] = cosine_similarity(text, image).item()
        if sample.reference is not None:
            image, _ = embed([sample.image()], "")
            reference, _ = embed([sample.reference_image()], "")
            scores["clip_i"] = cosine_similarity(reference, image).item()
            if sample.prompt is not None:
                scores["clip_n"] = cosine_similarity(text, reference).item()
        return scores

    return score


class AestheticHead(nn.Module):
    """The MLP of improved-aesthetic-predictor, by which the published file is named."""

    def __init__(self, size: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def aesthetic_scorer(checkpoints: Checkpoints) -> Scorer:
    model, tokenizer, processor = load(checkpoints, "openai/clip-vit-large-patch14")
    head = AestheticHead(768)
    file = checkpoints.file("sac+logos+ava1-l14-linearMSE.pth", None).path
    head.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    head.eval()
    blank = tokenizer([""], return_tensors="pt")

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        pixels = pixels_of(processor, [sample.image()])
        return {"aesthetic": head(model(pixel_values=pixels, **blank).image_embeds).item()}

    return score
