"""Prompts with S*: the tokens around `{}`, and text encoders that take word vectors in its place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import TrainError

PLACEHOLDER = "{}"


@dataclass(frozen=True)
class Tokens:
    """Ids [context] with zeros where the words go, the first word's position (−1: none) and that of the end token."""

    ids: Tensor
    at: int
    eos: int


def splice(tokenizer, prompt: str, words: int) -> Tokens:
    """Tokens of a prompt with `words` places for `{}`. What is too long is cut on the right; end token and words stay."""
    left, *right = prompt.split(PLACEHOLDER)
    if len(right) > 1:
        raise TrainError(f"the prompt {prompt!r} has {PLACEHOLDER} more than once")
    context = tokenizer.model_max_length
    before = tokenizer(left, add_special_tokens=False).input_ids
    places = [0] * words if right else []
    before = before[: context - 2 - len(places)]
    after = tokenizer(right[0], add_special_tokens=False).input_ids if right else []
    body = (before + places + after)[: context - 2]
    ids = [tokenizer.bos_token_id, *body, tokenizer.eos_token_id]
    padded = ids + [tokenizer.pad_token_id] * (context - len(ids))
    return Tokens(torch.tensor(padded), 1 + len(before) if right else -1, len(ids) - 1)


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

    def encode(self, prompts: Sequence[str], words: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states [B, 77, D] and, of an encoder with a projection, pooled [B, P]; `words` are [B, N, D]."""
        count = 0 if words is None else words.shape[1]
        tokens = [splice(self.tokenizer, prompt, count) for prompt in prompts]
        tower = self.model.text_model
        device = tower.embeddings.token_embedding.weight.device
        embedded = tower.embeddings.token_embedding(torch.stack([t.ids for t in tokens]).to(device))
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
