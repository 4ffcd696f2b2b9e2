"""Photos of the training data as tensors, with what frozen models make of them kept on disk."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from . import base as bases
from . import files, pictures
from .data import Item
from .errors import TrainError
from .mapper import hidden_states

Features = dict[str, list[Tensor]]


def layers_of(tower: nn.Module, last_first: bool = False) -> list[int]:
    """Hidden states 1/6, 1/3, 1/2 and 2/3 up the tower, and the last: 4, 8, 12, 16, −1 of CLIP-L.

    ELITE has the last one first.
    """
    depth = tower.config.num_hidden_layers
    inner = [round(depth * part / 6) for part in (1, 2, 3, 4)]
    return [-1, *inner] if last_first else [*inner, -1]


def shown(image: Path, mask: Path | None) -> Image.Image:
    """The photo on black, as the mapper reads it without augmentation; without a mask the whole photo."""
    photo = pictures.photo(image)
    return pictures.on_black(photo, None if mask is None else pictures.foreground(mask, photo.size))


class Towers:
    """The vision towers that the mapper reads, with their chosen hidden states."""

    def __init__(
        self,
        folders: dict[str, Path],
        layers: Sequence[Sequence[int]],
        words: int,
        device: torch.device,
        precision: str,
        last_first: bool = False,
    ) -> None:
        self.models = {name: bases.tower(folder, device, precision) for name, folder in folders.items()}
        given = layers or [layers_of(model, last_first) for model in self.models.values()]
        if len(given) != len(self.models):
            raise TrainError(f"model.layers: give a list for each of the {len(self.models)} towers, or none")
        self.layers = {name: list(each) for name, each in zip(self.models, given, strict=True)}
        for name, each in self.layers.items():
            if len(each) != words:
                raise TrainError(f"model.layers: {name} has {len(each)} layers for {words} words")
            depth = self.models[name].config.num_hidden_layers
            if out := [n for n in each if not -depth - 1 <= n <= depth]:
                raise TrainError(f"layers {out}: the vision tower {name} has hidden states 0 to {depth}")
        self.widths = {name: model.config.hidden_size for name, model in self.models.items()}
        self.device = device
        self.digest = bases.digest(*folders.values())

    @torch.no_grad()
    def features(self, photos: Sequence) -> Features:
        """Of each tower the chosen hidden states [B, 1 + patches, width] of photos (PIL, background black)."""
        found = {}
        for name, model in self.models.items():
            side = model.config.image_size
            pixels = torch.stack([pictures.clip_input(photo, side) for photo in photos])
            states = hidden_states(model, pixels.to(self.device, model.dtype), self.layers[name])
            found[name] = [state.float() for state in states]
        return found


@dataclass
class Batch:
    """Moments [B, 8, h, w] and mask [B, 1, h, w] of the targets, and the features of the mapper's input."""

    moments: Tensor
    mask: Tensor
    features: Features


class Photos:
    """Reads batches of items. Latents come from the cache; features too, or from the towers at each step."""

    def __init__(
        self,
        items: Sequence[Item],
        base: bases.Base,
        towers: Towers,
        *,
        side: int,
        cache: Path,
        cached_views: int | None,
        augment: bool,
        generator: Callable[..., torch.Generator],
        say: Callable[[str], None],
    ) -> None:
        self.items, self.base, self.towers, self.side = list(items), base, towers, side
        self.views, self.augment, self.generator = cached_views, augment, generator
        vae = bases.digest(base.folder / "vae")
        self._latents = cache / f"latents-{side}-{vae}"
        chosen = hashlib.blake2b(repr((towers.digest, towers.layers)).encode(), digest_size=8).hexdigest()
        self._features = cache / f"features-{chosen}"
        self._readers = ThreadPoolExecutor(8)
        self._content = [item.content() for item in self.items]
        self._fill(say)

    def _fill(self, say: Callable[[str], None]) -> None:
        missing = [n for n in range(len(self.items)) if not self._latent_file(n).is_file()]
        if missing:
            say(f"latents of {len(missing)} photos → {self._latents}")
        for n in missing:
            item = self.items[n]
            photo = pictures.photo(item.image)
            mask = pictures.foreground(item.mask, photo.size)
            moments = self.base.moments(pictures.target(photo, self.side)[None])[0]
            small = pictures.latent_mask(mask, self.side, self.base.latent_factor)
            files.write_tensors(self._latent_file(n), {"moments": moments, "mask": small})
        if self.views is None:
            return
        pairs = [(n, view) for n in range(len(self.items)) for view in range(self.views)]
        pairs = [(n, view) for n, view in pairs if not self._feature_file(n, view).is_file()]
        for at, (n, view) in enumerate(pairs):
            found = self.towers.features([self._input(n, view)])
            tensors = {f"{t}.{i}": s[0].half() for t, states in found.items() for i, s in enumerate(states)}
            if at == 0:
                self._check_space(sum(t.numel() * 2 for t in tensors.values()), len(pairs), say)
            files.write_tensors(self._feature_file(n, view), tensors)

    def _check_space(self, each: int, count: int, say: Callable[[str], None]) -> None:
        self._features.mkdir(parents=True, exist_ok=True)
        needed, free = each * count, shutil.disk_usage(self._features).free
        say(f"features of {count} views → {self._features}, {needed / 2**30:.2f} GiB")
        if needed > free:
            raise TrainError(
                f"{self._features}: the features need {needed / 2**30:.0f} GiB and {free / 2**30:.0f} are free: "
                'give another data.cache, fewer data.views, or data.features = "computed"'
            )

    def _latent_file(self, n: int) -> Path:
        return self._latents / f"{self.items[n].name}-{self._content[n]}.safetensors"

    def _feature_file(self, n: int, view: int) -> Path:
        return self._features / f"{self.items[n].name}-{self._content[n]}-{view}.safetensors"

    def _input(self, n: int, view: int):
        """The mapper's input: the photo on black, as it is (view 0) or augmented in a way that `view` chooses."""
        photo = shown(self.items[n].image, self.items[n].mask)
        if view == 0:
            return photo
        return pictures.augmented(photo, self.generator("view", self.items[n].name, view))

    def batch(self, chosen: Sequence[int], draws: torch.Generator | None, reads: Sequence[int] | None = None) -> Batch:
        """Targets of the chosen items and features of their photos, or of those of `reads`.

        Without `draws`, the photos are not augmented.
        """
        device = self.base.device
        latents = [load_file(self._latent_file(n)) for n in chosen]
        features = self._read_features(chosen if reads is None else reads, draws)
        return Batch(
            torch.stack([each["moments"] for each in latents]).to(device),
            torch.stack([each["mask"] for each in latents]).to(device),
            {name: [state.to(device) for state in states] for name, states in features.items()},
        )

    def _read_features(self, chosen: Sequence[int], draws: torch.Generator | None) -> Features:
        fresh = draws is not None and self.augment
        if self.views is None:
            numbers = torch.randint(1, 2**62, (len(chosen),), generator=draws).tolist() if fresh else [0] * len(chosen)
            # Pillow decodes and resizes without Python's lock.
            return self.towers.features(list(self._readers.map(self._input, chosen, numbers)))
        count = self.views if fresh else 1
        views = torch.randint(count, (len(chosen),), generator=draws).tolist() if count > 1 else [0] * len(chosen)
        found = [load_file(self._feature_file(n, view)) for n, view in zip(chosen, views, strict=True)]
        return {
            name: [torch.stack([each[f"{name}.{i}"] for each in found]).float() for i in range(len(layers))]
            for name, layers in self.towers.layers.items()
        }
