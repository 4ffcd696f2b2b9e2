"""hpsv1 by OpenAI's code (clip-anytorch) and hpsv2 by hpsv2's own copy of open_clip."""

from __future__ import annotations

import json

import torch
from torch.nn.functional import cosine_similarity

from ..checkpoints import Checkpoints
from . import Sample, Scorer, Scores, require, shims


def hpsv1_scorer(checkpoints: Checkpoints) -> Scorer:
    require("clip")
    import clip

    state = torch.load(checkpoints.file("hpc.pt", None).path, map_location="cpu", weights_only=True)["state_dict"]
    model = clip.model.build_model(dict(state)).float()
    model.load_state_dict(state)  # once more: build_model rounds to half precision
    preprocess = clip.clip._transform(model.visual.input_resolution)

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        if sample.prompt is None:
            return {}
        image = model.encode_image(preprocess(sample.image()).unsqueeze(0))
        # The toolkit does not truncate, so that over-long prompts raise; cut as OpenAI's own option does.
        text = model.encode_text(clip.tokenize([sample.prompt], truncate=True))
        image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
        return {"hpsv1": cosine_similarity(image, text).item()}

    return score


def hpsv2_scorer(checkpoints: Checkpoints, version: str) -> Scorer:
    require("clip", "hpsv2")
    shims.import_hpsv2()
    from hpsv2.src.open_clip.factory import get_model_config
    from hpsv2.src.open_clip.model import CLIP
    from hpsv2.src.open_clip.tokenizer import tokenize
    from hpsv2.src.open_clip.transform import image_transform
    from hpsv2.utils import hps_version_map

    own = checkpoints.local("files", "hpsv2_open_clip_config.json")
    config = json.loads(own.read_text()) if own else get_model_config("ViT-H-14")
    model = CLIP(**config).eval()
    file = checkpoints.file(hps_version_map[version], "xswu/HPSv2").path
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["state_dict"])
    side = config["vision_cfg"]["image_size"]
    preprocess = image_transform((side, side), is_train=False, mean=None, std=None, resize_longest_max=True)

    @torch.inference_mode()
    def score(sample: Sample) -> Scores:
        image = sample.image()
        if sample.prompt is None or (max(image.size) == side and image.width != image.height):
            return {}  # the latter is where the original skips the padding and then fails
        image_features, text_features, _ = model(preprocess(image).unsqueeze(0), tokenize([sample.prompt]))
        return {"hpsv2": (image_features @ text_features.T).item()}

    return score
