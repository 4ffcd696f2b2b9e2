"""What StellarNet and ELITE share: words from a photo, the loss of one batch, and whether held-out photos are used."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from . import loop
from .base import Base
from .configuration import Configuration
from .data import TEMPLATES
from .photos import Batch, Features, Photos, shown

# Photos and draws of noise of a validation, and its picture.
VALIDATED, DRAWS, SHOWN = 16, 4, 4


def masked_loss(prediction: Tensor, noise: Tensor, mask: Tensor) -> Tensor:
    """Σ m(ε − ε̂)² / (C·Σm) of each sample, averaged: [B, C, h, w] against [B, C, h, w] with masks [B, 1, h, w]."""
    squared = mask * (prediction - noise) ** 2
    return (squared.sum(dim=(1, 2, 3)) / (noise.shape[1] * mask.sum(dim=(1, 2, 3)))).mean()


class FromPhotos(loop.Method):
    """A method that turns a photo into words.

    `masked`: only the foreground counts in the loss. `drop`: share of samples whose condition is zero.
    """

    def __init__(
        self,
        configuration: Configuration,
        base: Base,
        train: Photos,
        held_out: Photos,
        masked: bool,
        drop: float,
    ) -> None:
        self.base, self.train, self.held_out, self.masked, self.drop = base, train, held_out, masked, drop
        self.configuration = configuration

    @abstractmethod
    def words(self, features: Features) -> Sequence[Tensor]:
        """Word vectors [B, words, D] for each text encoder."""

    def loss(self, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.randint(len(self.train.items), (self.configuration.training.batch,), generator=draws).tolist()
        error, words = self._error(self.train.batch(chosen, draws), draws, self.drop)
        size = sum(each.abs().mean() for each in words)
        total = error + self.configuration.loss.regularisation * size
        return total, {"loss": float(error.detach()), "words": float(size.detach())}

    def _error(self, batch: Batch, draws: torch.Generator, drop: float) -> tuple[Tensor, Sequence[Tensor]]:
        count, shape = len(batch.moments), (len(batch.moments), 4, *batch.moments.shape[2:])
        device = self.base.device
        templates = torch.randint(len(TEMPLATES), (count,), generator=draws).tolist()
        first, last = self.configuration.loss.timesteps
        timesteps = torch.randint(first, last, (count,), generator=draws).to(device)
        noise, sampled = (torch.randn(shape, generator=draws).to(device) for _ in range(2))
        kept = (torch.rand(count, generator=draws) >= drop).float().to(device)
        noisy = self.base.schedule.add_noise(self.base.latents(batch.moments, sampled), noise, timesteps)
        with self.base.autocast():
            words = self.words(batch.features)
            context, pooled = self.condition([TEMPLATES[n] for n in templates], words, kept)
            prediction = self.base.predict(noisy, timesteps, context, pooled)
        mask = batch.mask if self.masked else torch.ones_like(batch.mask)
        return masked_loss(prediction, noise, mask), words

    def condition(self, prompts: Sequence[str], words: Sequence[Tensor], kept: Tensor) -> tuple[Tensor, Tensor | None]:
        """Context and pooled vector; zeros where `kept` [B] is 0."""
        context, pooled = self.base.encode(prompts, words)
        return context * kept[:, None, None], None if pooled is None else pooled * kept[:, None]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses on training photos and on held-out ones, with the right photo and with another person's.

        If the words say who it is, `held_out` is clearly below `swapped`.
        """
        values = {"train": self._mean_error(self.train, swap=False)}
        if len({item.identity for item in self.held_out.items}) > 1:
            values["held_out"] = self._mean_error(self.held_out, swap=False)
            values["swapped"] = self._mean_error(self.held_out, swap=True)
        return values

    def _mean_error(self, photos: Photos, swap: bool) -> float:
        chosen = _spread(len(photos.items), VALIDATED)
        reads = [_other(photos, n) for n in chosen] if swap else chosen
        batch, total = photos.batch(chosen, None, reads), 0.0
        for draw in range(DRAWS):
            draws = loop.generator(self.configuration.training.seed, "validation", draw)
            total += float(self._error(batch, draws, drop=0.0)[0])
        return total / DRAWS

    @torch.no_grad()
    def picture(self) -> Image.Image | None:
        """Held-out photos as the mapper reads them, and below each what the model makes of "a photo of S*"."""
        photos = self.held_out if self.held_out.items else self.train
        chosen = _spread(len(photos.items), SHOWN)
        output, side = self.configuration.output, photos.side
        with self.base.autocast():
            words = self.words(photos.batch(chosen, None).features)
            kept = torch.ones(len(chosen), device=self.base.device)
            context, pooled = self.condition([TEMPLATES[0]] * len(chosen), words, kept)
        made = self.base.generate(
            context, pooled, [42] * len(chosen), output.validation_steps, output.validation_guidance, side
        )
        sheet = Image.new("RGB", (side * len(chosen), side * 2))
        for column, (n, image) in enumerate(zip(chosen, made, strict=True)):
            item = photos.items[n]
            sheet.paste(shown(item.image, item.mask).resize((side, side)), (column * side, 0))
            sheet.paste(image, (column * side, side))
        return sheet


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced."""
    return list(range(count)) if count <= most else [count * n // most for n in range(most)]


def _other(photos: Photos, n: int) -> int:
    """The next photo of another identity."""
    items = photos.items
    return next(
        m % len(items) for m in range(n + 1, n + len(items)) if items[m % len(items)].identity != items[n].identity
    )
