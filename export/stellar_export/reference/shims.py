"""Lets the reference packages be imported without the training frameworks that they import and no score uses."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def stand_in(name: str, **attributes: Any) -> None:
    """An empty module (and its parents) with these attributes, unless the real one can be imported."""
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        path = ".".join(parts[:i])
        if path not in sys.modules:
            module = types.ModuleType(path)
            module.__path__ = []
            sys.modules[path] = module
            if i > 1:
                setattr(sys.modules[".".join(parts[: i - 1])], parts[i - 1], module)
    for key, value in attributes.items():
        setattr(sys.modules[name], key, value)


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Sets attributes of a module for the time of a block."""
    before = {k: getattr(owner, k) for k in attributes}
    for key, value in attributes.items():
        setattr(owner, key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(owner, key, value)


def import_hpsv2() -> None:
    """hpsv2 imports a progress bar and, by mistake, `turtle`; its wheel lacks the vocabulary, which clip has."""
    stand_in("clint.textui", progress=None)
    stand_in("turtle", forward=None)
    import clip

    vocabulary = Path(clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    opened = gzip.open

    def open_vocabulary(path, *rest, **options):
        return opened(vocabulary if str(path).endswith(vocabulary.name) else path, *rest, **options)

    with replaced(gzip, open=open_vocabulary):
        import hpsv2.src.open_clip  # noqa: F401


def import_image_reward() -> types.ModuleType:
    """ImageReward's package imports its fine-tuning of diffusion models, and BLIP a checkpointing wrapper."""
    stand_in("fairscale.nn.checkpoint.checkpoint_activations", checkpoint_wrapper=lambda module, *_, **__: module)
    sys.modules.setdefault("ImageReward.ReFL", types.ModuleType("ImageReward.ReFL"))
    return importlib.import_module("ImageReward.ImageReward")


def import_dreamsim() -> None:
    """dreamsim imports open_clip for a self-test."""
    stand_in("open_clip")
    import dreamsim.model  # noqa: F401
