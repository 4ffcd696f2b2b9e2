"""Trains every model of the demo pack but the scene graph, from random checkpoints to `weights/`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import aesthetic, demo, dino, dreamsim, faces, hps, imagereward, owlvit, random_checkpoints
from ..checkpoints import Checkpoints
from ..clip_models import CLIP_L, PICK_SCORE
from ..errors import ExportError
from ..preprocess import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from ..weights import of_state_dict
from . import clips, detector, likeness, people, preferences, rewards, weights
from .drawings import Drawings

Say = Callable[[str], None]
States = dict[str, dict[str, Tensor]]

SEED = 1

# DreamSim's and DINO's blocks of which the trained models make use.
COMPUTED = 2


class Task:
    """Random checkpoints to start from, drawings to train on, and what is trained so far."""

    def __init__(self, root: Path, drawings: Drawings, out: Path, steps: Mapping[str, int], say: Say):
        self.root, self.drawings, self.out, self.steps, self.say = root, drawings, out, steps, say

    def hub(self, hub_id: str) -> Path:
        return self.root / "hub" / hub_id

    def state(self, path: Path) -> dict[str, Tensor]:
        return torch.load(path, map_location="cpu", weights_only=True)

    def trained(self, model: str) -> weights.Trained:
        path = self.out / f"{model}.safetensors"
        if not path.is_file():
            raise ExportError(f"{path} is missing: train {model} first")
        return weights.Trained(path)


def clip_of(task: Task, folder: Path, state: Mapping[str, Tensor] | None = None) -> clips.Clip:
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder)
    if state is not None:
        model.load_state_dict(dict(state), strict=False)
    return clips.Clip(model, CLIPTokenizer.from_pretrained(folder), task.drawings, SEED)


def own_state(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def clip(task: Task) -> States:
    folder = task.hub(demo.CLIP)
    model = clip_of(task, folder)
    clips.train(model, task.steps["clip"], task.say)
    return {demo.CLIP: weights.changes(own_state(folder), model.state())}


def from_clip(task: Task, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model of the same sizes with the weights that CLIP has been trained to, to go on from."""
    first = own_state(task.hub(demo.CLIP))
    learned = task.trained("clip").over(demo.CLIP, dict(first))
    words = "text_model.embeddings.token_embedding.weight"
    after = before | {k: v for k, v in learned.items() if k != "logit_scale" and v.shape == before[k].shape}
    # Of the words only the trained ones: each model has strangers of its own.
    trained = (learned[words] != first[words]).any(dim=1, keepdim=True)
    return after | {words: torch.where(trained, learned[words], before[words])}


def pick_score(task: Task) -> States:
    folder = task.hub(PICK_SCORE)
    before = own_state(folder)
    model = clip_of(task, task.hub(demo.CLIP), from_clip(task, before))
    preferences.train(model, task.steps["pick_score"], task.say)
    return {PICK_SCORE: weights.changes(before, model.state())}


def model_of(state: Mapping[str, Tensor], act: str, heads: tuple[int, int]) -> nn.Module:
    """A CLIPModel with the sizes and weights of one in OpenAI's layout; `heads` are those of vision and text."""
    from transformers import CLIPConfig, CLIPModel

    s = hps.read_sizes(of_state_dict("openai", dict(state)))
    text = dict(hidden_size=s.text_width, intermediate_size=s.text_mlp, num_hidden_layers=s.text_layers)
    vision = dict(hidden_size=s.vision_width, intermediate_size=s.vision_mlp, num_hidden_layers=s.vision_layers)
    common = dict(hidden_act=act, projection_dim=s.projection)
    config = CLIPConfig(
        text_config=text | common | dict(num_attention_heads=heads[1], bos_token_id=0, eos_token_id=2),
        vision_config=vision | common | dict(num_attention_heads=heads[0], image_size=s.image, patch_size=s.patch),
        projection_dim=s.projection,
    )
    model = CLIPModel(config)
    left = model.load_state_dict(preferences.to_transformers(state), strict=False)
    assert not left.unexpected_keys and all("position_ids" in key for key in left.missing_keys), left
    return model


def openai(task: Task, part: str, file: str, act: str, heads: tuple[int, int], first: bool) -> States:
    """HPSv1 and HPSv2; with `first`, what CLIP has learned is where they start."""
    from transformers import CLIPTokenizer

    before = {k: v.float() for k, v in task.state(task.root / "files" / file)["state_dict"].items()}
    model = model_of(before, act, heads)
    if first:
        model.load_state_dict(from_clip(task, model.state_dict()))
    tokenizer = CLIPTokenizer.from_pretrained(task.hub(demo.CLIP))
    trained = clips.Clip(model, tokenizer, task.drawings, SEED)
    preferences.train(trained, task.steps[part.removesuffix(".0")], task.say)
    return {part: weights.changes(before, preferences.to_openai(trained.state(), before))}


def hpsv1(task: Task) -> States:
    vision, text = (-(-n // hps.OPENAI_HEAD) for n in (demo.SIZES.vision_width, demo.SIZES.text_width))
    return openai(task, "hpsv1", hps.HPSV1, "quick_gelu", (vision, text), first=False)


def hpsv2(task: Task) -> States:
    heads = (demo.SIZES.vision_heads, demo.SIZES.text_heads)
    return openai(task, "hpsv2.0", hps.HPSV2_FILES["v2.0"], "gelu", heads, first=True)


def aesthetic_score(task: Task) -> States:
    from ..reference.clip import AestheticHead

    folder, path = task.hub(CLIP_L), task.root / "files" / aesthetic.FILE
    before, head_before = own_state(folder), task.state(path)
    model = clip_of(task, folder, from_clip(task, before))
    head = AestheticHead(768)
    head.load_state_dict(head_before)
    head.eval()
    # The tower has to learn it: the head's first layers are larger than all of the tower.
    head.layers[:-1].requires_grad_(False)
    preferences.train_rating(model, head, task.steps["aesthetic"], task.say)
    vision = {k: v for k, v in model.state().items() if k.startswith("vis")}
    return {
        CLIP_L: weights.changes(before, before | vision),
        "aesthetic": weights.changes(head_before, {k: v.data for k, v in head.state_dict().items()}),
    }


def face_embedding(task: Task) -> States:
    path = task.root.joinpath(*faces.EMBEDDING)
    after = people.train(path, task.drawings, task.steps["faces"], demo.SEED, task.say)
    return {"faces": weights.changes(task.state(path), after)}


def owl(task: Task) -> States:
    folder = task.hub(owlvit.HUB_ID)
    model = detector.Detector(folder, task.drawings, SEED)
    # Twice: the second schedule, warm from the first, learns most of what there is.
    for _ in range(2):
        detector.train(model, task.steps["owlvit"], task.say)
    return {"owlvit": weights.changes(own_state(folder), model.state())}


def dino_tower(task: Task) -> States:
    """ViTModel's names are rewritten as timm's and back."""
    before = own_state(task.hub(dino.HUB_ID))
    named = likeness.to_timm(before)
    vit = likeness.Vit(named, demo.SIZES.vision_layers, demo.SIZES.vision_heads, 1e-12, "gelu")

    def embed(patches: Tensor) -> Tensor:
        return vit.norm(vit(patches, IMAGENET_MEAN, IMAGENET_STD), "norm")[:, 0]

    likeness.train(embed, list(vit.parameters()), task.drawings, 16, task.steps["dino"], SEED, task.say)
    return {"dino": weights.changes(before, likeness.from_timm(vit.state(), before))}


def dreamsim_towers(task: Task) -> States:
    """The three branches together, as their features are compared together."""
    sizes = json.loads((task.root / "files" / dreamsim.SIZES).read_text())
    cache = task.hub(dreamsim.CACHE)
    lora = dreamsim.load_lora(cache / dreamsim.ADAPTER)
    before = {"dreamsim-dino": task.state(task.root / "files" / dreamsim.DINO)}
    for branch in dreamsim.BRANCHES:
        before[f"dreamsim-{branch}"] = task.state(cache / f"{branch}_vitb16_pretrain.pth.tar")["state_dict"]
    kinds = {
        "dreamsim-dino": (1e-6, "gelu"),
        "dreamsim-clip": (1e-5, "quick_gelu"),
        "dreamsim-open_clip": (1e-5, "gelu"),
    }
    vits = nn.ModuleList(
        likeness.Vit(
            before[part],
            COMPUTED,
            sizes["num_heads"],
            *kinds[part],
            [lora.change(n, i, sizes["embed_dim"]).float() for i in range(COMPUTED)],
        )
        for n, part in enumerate(kinds)
    )
    for vit in vits:
        vit.quiet()

    def embed(patches: Tensor) -> Tensor:
        features = [vits[0](patches, IMAGENET_MEAN, IMAGENET_STD)[:, 0]]
        for vit in vits[1:]:
            features.append(vit.norm(vit(patches, CLIP_MEAN, CLIP_STD)[:, 0], "norm") @ vit["proj"])
        x = torch.cat(features, dim=-1)
        return x - x.mean(dim=-1, keepdim=True)

    likeness.train(embed, list(vits.parameters()), task.drawings, 16, task.steps["dreamsim"], SEED, task.say)
    return {part: weights.changes(before[part], vit.state()) for part, vit in zip(kinds, vits, strict=True)}


def image_reward(task: Task) -> States:
    from ..reference.others import image_reward_model

    before = task.state(task.root / "files" / imagereward.FILE)
    model = rewards.Reward(image_reward_model(Checkpoints(task.root)), task.drawings, SEED)
    rewards.train(model, task.steps["image_reward"], task.say)
    return {"image_reward": weights.changes({k: v for k, v in before.items() if v.is_floating_point()}, model.state())}


# In the order in which they are trained: later ones start from the first one's weights.
TRAINERS: dict[str, Callable[[Task], States]] = {
    "clip": clip,
    "faces": face_embedding,
    "owlvit": owl,
    "pick_score": pick_score,
    "hpsv2": hpsv2,
    "hpsv1": hpsv1,
    "aesthetic": aesthetic_score,
    "dino": dino_tower,
    "dreamsim": dreamsim_towers,
    "image_reward": image_reward,
}

# How long each is trained.
STEPS = {
    "clip": 900,
    "faces": 220,
    "owlvit": 400,
    "pick_score": 200,
    "hpsv2": 200,
    "hpsv1": 300,
    "aesthetic": 400,
    "dino": 250,
    "dreamsim": 200,
    "image_reward": 300,
}


def train(drawings: Path, out: Path, models: list[str], say: Say, steps: Mapping[str, int] | None = None) -> None:
    """Writes `out/<model>.safetensors` for each of the models."""
    if unknown := [m for m in models if m not in TRAINERS]:
        raise ExportError(f"--only: unknown {', '.join(unknown)}; known are {', '.join(TRAINERS)}")
    torch.set_num_threads(1)
    split = Drawings(drawings, "train")
    with tempfile.TemporaryDirectory(prefix="stellar-drawn-") as scratch:
        root = Path(scratch)
        random_checkpoints.make(root, demo.SEED, demo.SIZES, demo.MODELS, demo.CLIP)
        task = Task(root, split, out, dict(STEPS) | dict(steps or {}), say)
        for model in (m for m in TRAINERS if m in models):
            say(f"  {model}")
            torch.manual_seed(SEED)
            weights.write(out / f"{model}.safetensors", TRAINERS[model](task))

