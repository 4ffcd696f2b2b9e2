"""The sizes of the published models, for random checkpoints that are as large and as slow as the official ones."""

from __future__ import annotations

from .errors import ExportError
from .random_checkpoints import Sizes


def _clip(vision: tuple[int, int, int], text: tuple[int, int, int], projection: int, vision_mlp: int = 0) -> Sizes:
    """Each tower by its width, layers and heads."""
    return Sizes(
        vision_width=vision[0],
        vision_layers=vision[1],
        vision_heads=vision[2],
        text_width=text[0],
        text_layers=text[1],
        text_heads=text[2],
        projection=projection,
        vision_mlp=vision_mlp,
        face_divisor=1,
        egtr_width=256,
        egtr_layers=6,
        egtr_heads=8,
        egtr_queries=200,
        egtr_divisor=1,
        egtr_shortest=800,
        egtr_longest=1333,
    )


B = _clip((768, 12, 12), (512, 12, 8), 512)
L = _clip((1024, 24, 16), (768, 12, 12), 768)
H = _clip((1280, 32, 16), (1024, 24, 16), 1024)
SMALL_G = _clip((1408, 40, 16), (1024, 24, 16), 1024, vision_mlp=6144)
BIG_G = _clip((1664, 48, 16), (1280, 32, 20), 1280, vision_mlp=8192)
VIT_S = _clip((384, 12, 6), (512, 12, 8), 512)

# By what the hub ids of CLIP models call their towers; the first that fits.
CLIPS = {"bigG-14": BIG_G, "g-14": SMALL_G, "H-14": H, "L-14": L, "large": L, "B-16": B, "B-32": B, "base": B}

# The models whose sizes do not depend on an option. Those without a CLIP's towers take only their own sizes.
MODELS = {
    "aesthetic": L,
    "hpsv1": L,
    "hpsv2": H,
    "pick_score": H,
    "image_reward": L,
    "dreamsim": B,
    "dino": VIT_S,
    "faces": B,
    "owlvit": L,
    "egtr": B,
}


def published(models: list[str], clip: str) -> dict[str, Sizes]:
    """The sizes of each model; `clip` is the hub id of the CLIP of clip_t, clip_i and clip_n."""
    found = {}
    for model in models:
        if model != "clip":
            found[model] = MODELS[model]
            continue
        name = next((name for name in CLIPS if name.lower() in clip.lower()), None)
        if name is None:
            raise ExportError(f"--published-sizes: the sizes of {clip} are not known; known are CLIPs called {', '.join(CLIPS)}")
        found[model] = CLIPS[name]
    return found
