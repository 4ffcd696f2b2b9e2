"""Golden samples: inputs, and the scores that the original Python code gives for them on a pack's own checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from . import reference
from .checkpoints import Checkpoints
from .manifest import sha256_of

SCHEMA = 1
FILE = "goldens/goldens.json"
PICTURES = Path(__file__).parent / "pictures"

# From the file to the score, at fp32; the contract of each metric.
TOLERANCE = {
    "clip_t": 1e-4,
    "clip_i": 1e-4,
    "clip_n": 1e-4,
    "aesthetic": 1e-3,
    "hpsv1": 1e-4,
    "hpsv2": 1e-4,
    "pick_score": 1e-4,
    "image_reward": 1e-3,
    "dreamsim": 1e-4,
    "dino": 1e-4,
    # Of faces that are cropped at the same pixels; a box that rounds to others moves the score by more.
    "ips": 5e-3,
    "sis": 5e-3,
    "goa": 2e-3,
    # Products of probabilities, which are below 1.
    "rfs": 5e-5,
    "rfs_strict": 5e-5,
    "rfs_interaction": 5e-5,
    "rfs_location": 5e-5,
}
# Of a half-precision pack, from the same scores.
TOLERANCE_FP16 = {"aesthetic": 2e-2, "image_reward": 2e-2}
# Of a pack of eight-bit products; what is not here comes from graphs that stay in single precision.
TOLERANCE_INT8 = {
    "clip_t": 3e-2,
    "clip_i": 3e-2,
    "clip_n": 3e-2,
    "aesthetic": 2e-1,
    "hpsv1": 3e-2,
    "hpsv2": 3e-2,
    "pick_score": 3e-2,
    "image_reward": 2e-1,
    "dreamsim": 1e-1,
    "dino": 3e-2,
    "goa": 3e-2,
}


def tolerance(metric: str, precision: str) -> float:
    """By how much a score of a pack of this precision may differ from the original's."""
    if precision == "fp16":
        return TOLERANCE_FP16.get(metric, 5e-3)
    return TOLERANCE_INT8.get(metric, TOLERANCE[metric]) if precision == "int8" else TOLERANCE[metric]


@dataclass(frozen=True)
class Golden:
    """One golden sample; pictures by their name in `pictures/`."""

    name: str
    picture: str
    prompt: str | None
    reference: str | None
    auxiliary: tuple[str, ...] = ()
    detectables: tuple[str, ...] = ()
    relations: tuple[tuple[str, str, str], ...] = ()

    def metadata(self, models: Sequence[str]) -> dict:
        """What a client would send beside the pictures, as far as these models need it."""
        sent = {}
        if self.detectables and "owlvit" in models:
            sent["detectables"] = list(self.detectables)
        if self.relations and "egtr" in models:
            sent["relations"] = [list(relation) for relation in self.relations]
        return sent


LONG = "a portrait of a person " + "who looks past the camera at a very small and distant rocket " * 12
GOLDENS = (
    Golden("portrait", "astronaut.jpg", "a person in an orange space suit", "astronaut-face.jpg", ("chelsea.webp", "astronaut.jpg"), ("space suit", "flag", "Astronaut"), (("person", "wearing", "space suit"), ("woman", "in front of", "flag"))),
    Golden("portrait-of-the-crop", "astronaut-face.jpg", "A Person's smile, 123!! as a painting", "astronaut.jpg", (), ("painting",)),
    Golden("cat-over-long-prompt", "chelsea.webp", LONG, "astronaut.jpg", (), ("a very small and distant rocket that nobody in the picture seems to look at for long", "cat"), (("person", "whistling at", "cat"),)),
    Golden("cup-non-ascii", "coffee.jpg", "café crème, naïve — 한국어 \U0001f600 don’t “quote” ﬁne", "chelsea.webp", (), ("café crème", "cup", "한국어", "spoon", "Cup"), (("person", "drinking", "café crème"), ("person", "holding", "cup"), ("lady", "next to", "spoon"))),
    Golden("grey-html", "camera-grey.png", "salt &amp; pepper &lt;b&gt; &amp;amp; a   camera", "brick-225x180.jpg", (), ("camera", "tripod", "coat"), (("man", "using", "camera"), ("man", "in", "coat"))),
    Golden("rgba-empty-prompt", "waves-rgba.png", "", "waves-palette.png"),
    Golden("palette", "waves-palette.png", "colourful waves", "waves-rgba.png"),
    Golden("longest-side-224", "hubble-224x180.jpg", "galaxies in deep space #42", "rocket.jpg"),
    Golden("longest-side-225", "brick-225x180.jpg", "a wall of bricks", "camera-grey.png"),
    Golden("wide", "stripes-3000x100.png", "vertical stripes", "tiny-5x3.png", (), ("stripes", "zebra"), (("person", "riding", "zebra"),)),
    Golden("tall", "rocket.jpg", "a rocket launch at night", "hubble-224x180.jpg", (), ("rocket", "tower", "king"), (("person", "gazing upon", "rocket"), ("king", "near", "towers"))),
    Golden("tiny", "tiny-5x3.png", "x", "pixel-1x1.png", (), ("x",)),
    Golden("one-pixel", "pixel-1x1.png", "!", "coffee.jpg", (), ("pixel", "dog"), (("person", "walking", "dog"),)),
    Golden("no-reference", "coffee.jpg", "a cup of coffee on a wooden table", None, (), ("cup of coffee", "table", "cup of coffee"), (("person", "sitting at", "table"), ("person", "with", "cup"))),
    Golden("no-prompt", "chelsea.webp", None, "chelsea.webp"),
)


def reference_name() -> str:
    """The versions of the packages that the expected scores come from."""
    import PIL
    import transformers

    torch_version = torch.__version__.split("+")[0]
    return f"transformers {transformers.__version__} (PIL processors), Pillow {PIL.__version__}, torch {torch_version}"


def compute(
    checkpoints: Checkpoints, models: Sequence[str], clip: str, hps: str, say: Callable[[str], None]
) -> list[dict]:
    """Scores every golden sample with the original code; one model is in memory at a time."""
    torch.set_num_threads(1)
    expected: list[dict[str, float]] = [{} for _ in GOLDENS]
    makers = reference.makers(checkpoints, clip, hps, models)
    for model in models:
        scorer = makers[model]()
        for golden, scores in zip(GOLDENS, expected, strict=True):
            sample = reference.Sample(
                PICTURES / golden.picture,
                golden.prompt,
                PICTURES / golden.reference if golden.reference else None,
                [PICTURES / name for name in golden.auxiliary],
                golden.detectables,
                golden.relations,
            )
            scores.update({k: round(v, 7) for k, v in scorer(sample).items()})
    say(f"  {len(GOLDENS)} samples, {sum(map(len, expected))} scores by {reference_name()}")
    return [
        dict(
            name=g.name,
            image=f"goldens/{g.picture}",
            prompt=g.prompt,
            reference=f"goldens/{g.reference}" if g.reference else None,
            auxiliary=[f"goldens/{name}" for name in g.auxiliary],
            metadata=g.metadata(models),
            expected=scores,
        )
        for g, scores in zip(GOLDENS, expected, strict=True)
    ]


def write(
    pack: Path,
    checkpoints: Checkpoints,
    models: Sequence[str],
    clip: str,
    hps: str,
    precision: str,
    say: Callable[[str], None],
) -> dict:
    """Writes `goldens/` into a pack folder; returns the manifest's table."""
    say("goldens:")
    samples = compute(checkpoints, models, clip, hps, say)
    metrics = sorted({m for s in samples for m in s["expected"]})
    tolerances = {m: tolerance(m, precision) for m in metrics}
    document = dict(schema=SCHEMA, reference=reference_name(), samples=samples, tolerance=tolerances)
    path = pack / FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    for name in sorted({n for g in GOLDENS for n in (g.picture, g.reference, *g.auxiliary) if n}):
        shutil.copyfile(PICTURES / name, path.parent / name)
    return dict(file=FILE, sha256=sha256_of(path))
