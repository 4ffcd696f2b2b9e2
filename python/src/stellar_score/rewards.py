"""Rewards for trainers: the request and response of ``POST /v1/rewards``, and reward functions for TRL and others."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypedDict,
    Union,
)

from . import errors, pixels
from .forms import Field, form, safetensors
from .models import Metadata
from .pixels import Pixels
from .progress import Bar
from .transport import Transport

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from .client import Client

__all__ = ["DdpoReward", "GroupStatistics", "GrpoReward", "OnNull", "Rewards"]

OnNull = Literal["skip", "zero", "fail"]
# The service's own deadline for a request is ten minutes.
_TIMEOUT = 660.0
_MOST_ITEMS = 1024
RewardNames = Union[str, Sequence[str], Mapping[str, float]]


class GroupStatistics(TypedDict):
    """Statistics of a group; its lists are in the order of its items."""

    items: List[int]
    """The images of the group."""
    n: int
    mean: Optional[float]
    std: Optional[float]
    advantage: List[Optional[float]]
    rank: List[Optional[float]]


class Rewards(TypedDict):
    """The rewards of a batch, in columns and in the order of the images."""

    rewards: Dict[str, List[Optional[float]]]
    """A number or null for each image, by the name of the reward."""
    reasons: Dict[str, Dict[str, str]]
    """Why a reward is null, by its name and the index of the image."""
    flags: Dict[str, Dict[str, List[str]]]
    """What a reader of a reward must know, by its name and the index of the image."""
    errors: Dict[str, Any]
    """The problem of an image that could not be scored at all, by its index."""
    combined: NotRequired[List[Optional[float]]]
    """The weighted sum, if weights were given."""
    groups: NotRequired[Dict[str, GroupStatistics]]
    """Statistics by group."""
    provenance: Dict[str, Any]
    """The pack, the versions of the metrics and scales, and the formulas of the scales."""
    timings: Dict[str, float]
    """Milliseconds of the service; of several requests, their sums."""


def dumps(document: Any) -> bytes:
    """Returns JSON in UTF-8."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


class Batch:
    """Images with all that they are scored against. Pixels are converted when their request is sent."""

    def __init__(
        self,
        rewards: RewardNames,
        images: Any,
        prompts: Union[str, Sequence[str], None],
        references: Optional[Sequence[Any]],
        auxiliary: Optional[Sequence[Any]],
        metadata: Optional[Sequence[Optional[Metadata]]],
        groups: Optional[Sequence[str]],
        ids: Optional[Sequence[str]],
        on_null: Optional[OnNull],
        statistics: Optional[bool],
    ) -> None:
        if isinstance(rewards, Mapping) and on_null is None:
            raise ValueError("choose what a null counts in the sum: on_null='skip', 'zero' or 'fail'")
        self._names = [rewards] if isinstance(rewards, str) else list(rewards)
        if not self._names:
            raise ValueError("name at least one reward, such as pick_score@flow_grpo")
        self._weights = dict(rewards) if isinstance(rewards, Mapping) else None
        self._on_null = on_null
        self._statistics = groups is not None if statistics is None else statistics
        self._images = pixels.split(images)
        count = len(self._images)
        self._prompts = self._column("prompts", [prompts] * count if isinstance(prompts, str) else prompts)
        self._references = self._column("references", references)
        self._auxiliary = self._column("auxiliary", auxiliary)
        self._metadata = self._column("metadata", metadata)
        self._groups = self._column("groups", groups)
        self._ids = self._column("ids", ids)

    def _column(self, name: str, values: Optional[Iterable[Any]]) -> List[Any]:
        column = [None] * len(self._images) if values is None else list(values)
        if len(column) != len(self._images):
            raise ValueError(f"there are {len(self._images)} images and {len(column)} {name}: each image needs its own")
        return column

    def send(
        self, transport: Transport, wait: Optional[float], limit: int, concurrency: int, progress: bool
    ) -> Rewards:
        """Sends all requests and returns one document."""
        chunks = self._chunks(limit)
        if not chunks:
            raise ValueError("there are no images")
        headers = {} if wait is None else {"Prefer": f"wait={max(0, round(wait))}"}

        def score(chunk: List[int]) -> Rewards:
            body, kind = self._body(chunk)
            path = ["v1", "rewards"]
            answer = transport.request("POST", path, body=body, kind=kind, headers=headers, timeout=_TIMEOUT)
            return _checked(answer.json(), len(chunk), answer.url)

        if len(chunks) == 1:
            return _merged([(chunks[0], score(chunks[0]))], len(self._images))
        parts = []
        with Bar("images scored", len(self._images), progress) as bar, ThreadPoolExecutor(max(1, concurrency)) as pool:
            waiting = [pool.submit(score, chunk) for chunk in chunks]
            done = 0
            try:
                for chunk, answer in zip(chunks, waiting):
                    parts.append((chunk, answer.result()))
                    done += len(chunk)
                    bar.update(done)
            except BaseException:
                for answer in waiting:
                    answer.cancel()
                raise
        return _merged(parts, len(self._images))

    def _chunks(self, limit: int) -> List[List[int]]:
        """Divides the images into requests. A group stays together, since its statistics need all of it."""
        units: Dict[Any, List[int]] = {}
        for at, group in enumerate(self._groups):
            units.setdefault(("", at) if group is None else group, []).append(at)
        chunks: List[List[int]] = []
        room = 0
        for unit in units.values():
            size = sum(self._size(at) for at in unit)
            if not chunks or size > room or len(chunks[-1]) + len(unit) > _MOST_ITEMS:
                chunks.append([])
                room = limit
            chunks[-1] += unit
            room -= size
        return chunks

    def _size(self, at: int) -> int:
        photos = [*_several(self._references[at]), *_several(self._auxiliary[at])]
        return sum(map(pixels.size_of, [self._images[at], *photos])) + 4 * len(self._prompts[at] or "") + 256

    def _body(self, chunk: List[int]) -> Tuple[List[bytes], str]:
        images, references, auxiliary = _Images("images"), _Images("references"), _Images("auxiliary")
        found = [
            (
                images.put(self._images[at]),
                [references.put(photo) for photo in _several(self._references[at])],
                [auxiliary.put(photo) for photo in _several(self._auxiliary[at])],
            )
            for at in chunk
        ]
        every = (images, references, auxiliary)
        # Raw pixels go into tensors. Tensors cannot hold files: with one among them, all images are files of a form.
        is_raw = all(each.is_raw for each in every)
        items = []
        for at, (image, photos, others) in zip(chunk, found):
            item: Dict[str, Any] = {"image": images.named(image, is_raw)}
            for key, value in (
                ("prompt", self._prompts[at]),
                ("references", [references.named(photo, is_raw) for photo in photos] or None),
                ("auxiliary", [auxiliary.named(photo, is_raw) for photo in others] or None),
                ("metadata", self._metadata[at]),
                ("group", self._groups[at]),
                ("id", self._ids[at]),
            ):
                if value is not None:
                    item[key] = value
            items.append(item)
        request: Dict[str, Any] = {"rewards": self._names, "items": items}
        if self._weights is not None:
            request["combine"] = {"weights": self._weights, "on_null": self._on_null}
        if self._statistics:
            request["statistics"] = True
        text = dumps(request).decode("utf-8")
        if not is_raw:
            return form([("request", text), *(part for each in every for part in each.parts())])
        tensors = {name: tensor for each in every for name, tensor in each.tensors().items()}
        return safetensors(tensors, {"request": text}), "application/x-safetensors"


def _several(images: Any) -> List[Any]:
    if images is None:
        return []
    if isinstance(images, (list, tuple)) and not isinstance(images, Pixels):
        return list(images)
    return [images]


class _Images:
    """The images of one kind in a request. The same object is sent once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: List[Union[Pixels, bytes]] = []
        # The object is kept, so that its id is not given to another one.
        self._known: Dict[Any, Tuple[int, Any]] = {}

    def put(self, image: Any) -> int:
        """Adds an image and returns its number."""
        key = os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (len(self._found), image)
            self._found.append(pixels.one(image))
        return known[0]

    @property
    def is_raw(self) -> bool:
        """Returns whether all of them are pixels."""
        return all(isinstance(found, Pixels) for found in self._found)

    def named(self, at: int, is_raw: bool) -> Dict[str, Any]:
        """Returns how an item names an image."""
        return {"tensor": at} if is_raw else {"part": f"{self._name}.{at}"}

    def parts(self) -> List[Field]:
        """Returns the images as files of a form."""
        return [(f"{self._name}.{at}", pixels.to_file(found, 0)) for at, found in enumerate(self._found)]

    def tensors(self) -> Dict[str, Tuple[Sequence[int], Sequence[bytes]]]:
        """Returns one tensor if all images have one size, and otherwise one for each image."""
        found = [each for each in self._found if isinstance(each, Pixels)]
        sizes = {(each.height, each.width) for each in found}
        if len(sizes) == 1:
            ((height, width),) = sizes
            return {self._name: ((len(found), height, width, 3), [each.data for each in found])}
        return {f"{self._name}.{at}": ((each.height, each.width, 3), [each.data]) for at, each in enumerate(found)}


def _checked(document: Any, count: int, url: str) -> Rewards:
    columns = document.get("rewards") if isinstance(document, dict) else None
    if not isinstance(columns, dict) or any(len(column) != count for column in columns.values()):
        raise errors.ForeignResponse(f"{url} did not return a reward or null for each of {count} images")
    result: Rewards = document
    return result


def _merged(parts: Sequence[Tuple[List[int], Rewards]], count: int) -> Rewards:
    first = parts[0][1]
    merged: Rewards = {
        "rewards": {name: [None] * count for name in first["rewards"]},
        "reasons": {},
        "flags": {},
        "errors": {},
        "provenance": first.get("provenance", {}),
        "timings": {},
    }
    for chunk, answer in parts:
        if answer.get("provenance", {}) != merged["provenance"]:
            message = "the service changed its pack or settings between two requests of this batch: score it again"
            raise errors.ForeignResponse(message)
        for name, column in answer["rewards"].items():
            for at, value in zip(chunk, column):
                merged["rewards"][name][at] = value
        for name, reasons in answer.get("reasons", {}).items():
            merged["reasons"].setdefault(name, {}).update({str(chunk[int(at)]): code for at, code in reasons.items()})
        for name, flags in answer.get("flags", {}).items():
            merged["flags"].setdefault(name, {}).update({str(chunk[int(at)]): of for at, of in flags.items()})
        merged["errors"].update({str(chunk[int(at)]): problem for at, problem in answer.get("errors", {}).items()})
        combined = answer.get("combined")
        if combined is not None:
            for at, value in zip(chunk, combined):
                merged.setdefault("combined", [None] * count)[at] = value
        groups = answer.get("groups")
        if groups is not None:
            for name, group in groups.items():
                merged.setdefault("groups", {})[name] = {**group, "items": [chunk[at] for at in group["items"]]}
        for name, value in answer.get("timings", {}).items():
            merged["timings"][name] = merged["timings"].get(name, 0) + value
    return merged


class _RewardFunction:
    """Scores images with one reward, or with a weighted sum."""

    def __init__(
        self,
        client: Client,
        rewards: RewardNames,
        on_null: Union[Literal["raise", "skip", "zero"], float, None],
        columns: Optional[Mapping[str, str]],
        options: Mapping[str, Any],
    ) -> None:
        is_sum = isinstance(rewards, Mapping)
        if not isinstance(rewards, str) and not is_sum and len(rewards) != 1:
            raise ValueError("several rewards need weights, as in {'pick_score@flow_grpo': 1.0, 'ips': 0.5}")
        if on_null in ("skip", "zero") and not is_sum:
            raise ValueError(f"on_null={on_null!r} is for sums: use 'raise', None or a number")
        self._client = client
        self._rewards = rewards
        self._on_null = on_null
        self._columns = {name: name for name in ("references", "auxiliary", "metadata")}
        self._columns.update(columns or {})
        self._options = dict(options)
        if is_sum:
            self._options["on_null"] = on_null if on_null in ("skip", "zero") else "fail"
        names = [rewards] if isinstance(rewards, str) else list(rewards)
        # Trainers log a reward under the name of its function.
        self.__name__ = "_".join("".join(c if c.isalnum() else "_" for c in name) for name in names)
        self.last: Optional[Rewards] = None
        """The whole result of the last call; ``summary(reward.last)`` has its means."""

    def _score(self, images: Any, prompts: Any, columns: Mapping[str, Any]) -> List[Optional[float]]:
        given = {key: columns[name] for key, name in self._columns.items() if name in columns}
        result = self._client.rewards(self._rewards, images, prompts, **given, **self._options)
        self.last = result
        (scores,) = [result["combined"]] if isinstance(self._rewards, Mapping) else result["rewards"].values()
        missing = [at for at, score in enumerate(scores) if score is None]
        if not missing or self._on_null is None:
            return list(scores)
        if isinstance(self._on_null, str):
            reasons = {at: _why(result, at) for at in missing}
            shown = "; ".join(f"image {at}: {why}" for at, why in list(reasons.items())[:3])
            raise errors.MissingScore(f"{len(missing)} of {len(scores)} images have no reward: {shown}", reasons)
        return [float(self._on_null) if score is None else score for score in scores]


def _why(result: Rewards, at: int) -> str:
    problem = result["errors"].get(str(at))
    if problem is not None:
        return f"{problem.get('code')}: {problem.get('detail')}" if isinstance(problem, dict) else str(problem)
    found = [f"{name}: {reasons[str(at)]}" for name, reasons in result["reasons"].items() if str(at) in reasons]
    return ", ".join(found) or "unknown"


class DdpoReward(_RewardFunction):
    """``fn(images, prompts, metadata) -> (scores, {})``, for DDPO trainers. See :meth:`Client.ddpo_reward`."""

    def __call__(
        self, images: Any, prompts: Any, metadata: Any = None, **_: Any
    ) -> Tuple[List[Optional[float]], Dict[str, Any]]:
        """Returns the scores, and no metadata."""
        return self._score(images, list(prompts), _transposed(metadata, self._columns.values())), {}


class GrpoReward(_RewardFunction):
    """``fn(completions, **columns) -> list[float]``, for GRPO trainers. See :meth:`Client.grpo_reward`."""

    def __call__(self, completions: Any, prompts: Any = None, **columns: Any) -> List[Optional[float]]:
        """Returns the scores."""
        if isinstance(completions, (list, tuple)):
            completions = [_content(each, "image") for each in completions]
        if prompts is not None:
            prompts = [_content(each, "text") for each in prompts]
        return self._score(completions, prompts, columns)


def _content(value: Any, kind: str) -> Any:
    """Returns the text or image of a conversation's last message; anything else as it is."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[-1], Mapping) and "content" in value[-1]:
        value = value[-1]["content"]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
        value = next((part[kind] for part in value if kind in part), value)
    return value


def _transposed(rows: Any, names: Iterable[str]) -> Dict[str, List[Any]]:
    """Returns columns for the metadata of each image, for the names that at least one image has."""
    if rows is None:
        return {}
    if isinstance(rows, Mapping):
        return dict(rows)
    found = [row if isinstance(row, Mapping) else {} for row in rows]
    return {name: [row.get(name) for row in found] for name in names if any(name in row for row in found)}
