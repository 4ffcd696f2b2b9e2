"""What is exported: the text encoders with room for a photo's words, the denoiser and the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..nn import Attentive, Block, Embedding, LayerNorm, Linear, Precision, stored


class WordsInText(Attentive):
    """A CLIP text tower whose input has a photo's words at some positions.

    Inputs: `input_ids` i64 [B, L], `words` f32 [B, N, D], `at` i64 [B] (position of the first word, negative: none) and
    `eos` i64 [B]. Outputs: the states before the last layer, without the final norm, as SDXL's UNet is conditioned on
    them, f32 [B, L, D]; with a `head` also the projected state at `eos` after the last layer, f32 [B, P]. Padding is
    attended to like any token.
    """

    def __init__(
        self,
        tokens: Embedding,
        position: Tensor,
        blocks: Sequence[Block],
        precision: Precision,
        head: tuple[Block, LayerNorm, Linear] | None = None,
    ):
        super().__init__()
        self.compute = precision.compute
        self.tokens = tokens
        self.position = stored(position, precision)
        self.blocks = nn.ModuleList(blocks)
        self.last, self.norm, self.projection = head or (None, None, None)
        for block in (*blocks, *(head or ())[:1]):
            block.attn.causal = True

    def forward(self, input_ids: Tensor, words: Tensor, at: Tensor, eos: Tensor) -> tuple[Tensor, ...]:
        n, length = input_ids.shape
        step = torch.arange(length)
        since = step[None, :] - at[:, None]
        count = words.shape[1]
        chosen = since.clamp(0, count - 1)[..., None].expand(-1, -1, words.shape[2])
        here = (since >= 0) & (since < count) & (at[:, None] >= 0)
        x = torch.where(here[..., None], words.to(self.compute).gather(1, chosen), self.tokens(input_ids))
        x = x + self.position.to(self.compute)[:length]
        for block in self.blocks:
            x = block(x)
        hidden = x.float()
        if self.last is None:
            return (hidden,)
        ends = self.last.at(x, lambda tokens: tokens[torch.arange(n), eos])
        return hidden, self.projection(self.norm(ends)).float()


class Denoiser(nn.Module):
    """SDXL's UNet: one evaluation of the noise in `sample` f32 [B, 4, H, W].

    `timestep` f32 [B], `context` f32 [B, L, D1+D2], `pooled` f32 [B, P], `time_ids` f32 [B, 6].
    """

    def __init__(self, unet: nn.Module, precision: Precision):
        super().__init__()
        self.unet, self.compute = unet, precision.compute

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, time_ids: Tensor) -> Tensor:
        # Beside the sines of the sizes, which are float32: the UNet narrows both together.
        added = dict(text_embeds=pooled, time_ids=time_ids)
        (noise,) = self.unet(
            sample.to(self.compute),
            timestep,
            encoder_hidden_states=context.to(self.compute),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return noise.float()


class Decoder(nn.Module):
    """The VAE's decoder: `latents` f32 [B, 4, H, W], already divided by the scaling factor → image [B, 3, fH, fW]."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.before, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(latents if self.before is None else self.before(latents))
