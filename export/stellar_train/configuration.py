"""Configuration files: TOML over the defaults in `configurations/`, which also define the keys and their types."""

import copy
import hashlib
import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .errors import TrainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_AT_LEAST_1 = {
    "training": ("steps", "batch", "accumulate"),
    "output": ("log_every", "checkpoint_every", "keep"),
    "generation": ("steps",),
}

# Keys that say where something is.
_PLACES = {
    "data": ("folder", "cache", "dataset", "prompts", "evaluation"),
    "model": ("checkpoint",),
    "reward": ("service",),
}

METHODS = ("stellarnet", "elite", "images", "dreambooth", "textual-inversion", "preference", "base")


def defaults_text(method: str) -> str:
    """The configuration file of a method with every default and what it means."""
    return (resources.files(__package__) / "configurations" / f"{method}.toml").read_text(encoding="utf-8")


class Configuration:
    """The sections of a configuration as attributes: `configuration.training.steps`."""

    def __init__(self, method: str, path: Path | None = None, settings: Sequence[str] = ()) -> None:
        self.method = method
        defaults = tomllib.loads(defaults_text(method))
        self.values: dict[str, dict[str, Any]] = copy.deepcopy(defaults)
        if path is not None:
            try:
                given = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise TrainError(f"{path}: {error}") from error
            self._overlay(given, str(path))
        for setting in settings:
            self._overlay(_parsed(setting), f"--set {setting}")
        self._check()

    def __getattr__(self, section: str) -> SimpleNamespace:
        values = self.__dict__.get("values", {})
        if section not in values:
            raise AttributeError(section)
        return SimpleNamespace(**values[section])

    def _overlay(self, given: dict[str, Any], where: str) -> None:
        for section, keys in given.items():
            known = self.values.get(section)
            if known is None or not isinstance(keys, dict):
                raise TrainError(f"{where}: unknown section [{section}]; known are {', '.join(self.values)}")
            for key, value in keys.items():
                if key not in known:
                    raise TrainError(f"{where}: unknown key {section}.{key}; known are {', '.join(known)}")
                known[key] = _typed(value, known[key], f"{where}: {section}.{key}")

    def _check(self) -> None:
        data = self.values["data"]
        for section, keys in _AT_LEAST_1.items():
            for key in keys:
                if (value := self.values.get(section, {}).get(key, 1)) < 1:
                    raise TrainError(f"{section}.{key} = {value}: it must be at least 1")
        self._check_rates()
        for section in ("training", "generation"):
            if (precision := self.values.get(section, {}).get("precision", "fp32")) not in ("fp32", "bf16", "fp16"):
                raise TrainError(f"{section}.precision = {precision!r}: choose fp32, bf16 or fp16")
        if "loss" not in self.values:
            # Nothing is trained, so what follows has no keys.
            return
        if data["resolution"] < 32 or data["resolution"] % 32:
            raise TrainError(f"data.resolution = {data['resolution']}: it must be a multiple of 32")
        if data.get("features", "cached") not in ("cached", "computed"):
            raise TrainError(f"data.features = {data['features']!r}: choose cached or computed")
        first, last, *more = self.values["loss"]["timesteps"] + [0, 0]
        if len(more) != 2 or not 0 <= first < last <= 1000:
            raise TrainError("loss.timesteps: give [first, last] with 0 ≤ first < last ≤ 1000")
        if not 0 <= self.values["loss"].get("drop_condition", 0) < 1:
            raise TrainError("loss.drop_condition: it must be from 0 to below 1")

    def _check_rates(self) -> None:
        training = self.values.get("training", {})
        steps, warmup, decay = (training.get(key, 0) for key in ("steps", "warmup", "decay"))
        for key, value in (("warmup", warmup), ("decay", decay)):
            if value < 0:
                raise TrainError(f"training.{key} = {value}: it must be at least 0")
        if warmup + decay > steps:
            raise TrainError(
                f"training.warmup = {warmup} and training.decay = {decay}: together they must be at most "
                f"training.steps = {steps}"
            )

    def need(self, section: str, key: str, option: str) -> Path:
        """A path that has no default."""
        if not (value := self.values[section][key]):
            raise TrainError(f"{option} is missing: give it, or {section}.{key} in the configuration")
        return Path(value)

    def digest(self) -> str:
        """Of everything that a result depends on: not of where files lie or how often something is written.

        The content of those files is in what the methods store beside it (`about`).
        """
        kept = copy.deepcopy(self.values)
        for section in ("base", "output", "generation"):
            kept.pop(section, None)
        for section, keys in _PLACES.items():
            for key in keys:
                kept.get(section, {}).pop(key, None)
        text = json.dumps([self.method, kept], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _parsed(setting: str) -> dict[str, Any]:
    """`section.key=value` as TOML; a bare word is a string."""
    name, equals, value = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot):
        raise TrainError(f"--set {setting}: write section.key=value")
    try:
        return {section: {key: tomllib.loads(f"value = {value}")["value"]}}
    except tomllib.TOMLDecodeError:
        return {section: {key: value}}


def _typed(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise TrainError(f"{where} = {value!r}: expected {type(default).__name__}, such as {default!r}")
    return value
