"""Text encoders that take word vectors in place of `{}`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stellar_export.generator.splice import PLACEHOLDER, splice

from .errors import TrainError


class TextEncoder:
    """A CLIP text tower of a diffusion model.

    `penultimate`: the hidden state before the last layer, without the final norm (SDXL); otherwise the normed last one.
    """

    def __init__(self, tokenizer, model: nn.Module, penultimate: bool) -> None:
        self.tokenizer, self.model, self.penultimate = tokenizer, model, penultimate

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    def embedding(self, token: str) -> Tensor:
        """The vector of a single token."""
        ids = self.tokenizer(token, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise TrainError(f"{token!r} is {len(ids)} tokens; choose a word that is one")
        return self.model.text_model.embeddings.token_embedding.weight[ids[0]].detach().float().clone()

    def place(self, prompt: str, words: int) -> int:
        """The position of the first word in a prompt; −1 if it has no `{}`."""
        return splice(self.tokenizer, prompt, words, self.tokenizer.pad_token_id).at

    def encode(self, prompts: Sequence[str], words: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states [B, 77, D] and, of an encoder with a projection, pooled [B, P]; `words` are [B, N, D]."""
        count = 0 if words is None else words.shape[1]
        pad = self.tokenizer.pad_token_id
        tokens = [splice(self.tokenizer, prompt, count, pad) for prompt in prompts]
        tower = self.model.text_model
        device = tower.embeddings.token_embedding.weight.device
        embedded = tower.embeddings.token_embedding(torch.tensor([t.ids for t in tokens], device=device))
        if words is not None:
            if missing := next((p for p, t in zip(prompts, tokens, strict=True) if t.at < 0), None):
                raise TrainError(f"the prompt {missing!r} has no {PLACEHOLDER}")
            rows = torch.arange(len(tokens), device=device)[:, None]
            places = torch.tensor([t.at for t in tokens], device=device)[:, None] + torch.arange(count, device=device)
            embedded = embedded.index_put((rows, places), words.to(embedded.dtype))
        length = embedded.shape[1]
        hidden = embedded + tower.embeddings.position_embedding.weight[:length]
        # Each position attends to itself and those before it.
        lowest = torch.finfo(hidden.dtype).min
        mask = torch.full((length, length), lowest, dtype=hidden.dtype, device=device).triu(1)
        states = tower.encoder(
            inputs_embeds=hidden,
            causal_attention_mask=mask[None, None].expand(len(tokens), 1, -1, -1),
            output_hidden_states=True,
        ).hidden_states
        last = tower.final_layer_norm(states[-1])
        projection = getattr(self.model, "text_projection", None)
        pooled = None
        if projection is not None:
            pooled = projection(last[torch.arange(len(tokens), device=device), [t.eos for t in tokens]])
        return (states[-2] if self.penultimate else last), pooled
