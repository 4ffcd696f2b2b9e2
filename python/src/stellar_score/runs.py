"""A run: samples are uploaded in the background, and scored by the service after they are accepted."""

from __future__ import annotations

import collections
import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Deque, Dict, Iterable, List, Mapping, Optional, Tuple, Union, cast

from . import blake3, errors, frames, pixels
from .forms import Field, form
from .models import Metadata, ReportResponse, RunResponse, SubmittedEntry, SubmittedResponse
from .pixels import Image, Pixels
from .progress import Bar

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Run"]

# Errors of one sample; any other concerns the whole run. A text that is not Unicode is a ValueError.
_OF_A_SAMPLE = (errors.InvalidRequest, errors.InvalidImage, errors.Conflict, ValueError)
_OF_THE_RUN = ("run_finished", "pack_conflict")
# How long a thread waits for a sample before it ends.
_IDLE_SECONDS = 1.0
_FIRST_POLL = 0.1
_LONGEST_POLL = 2.0


class _Sample:
    """A sample that waits to be sent. Pixels are already copied: the caller may reuse its buffers."""

    def __init__(self, name: str, image: Union[Pixels, bytes], photos: List[Tuple[str, bytes]], texts: List[Field]):
        self.name = name
        self.image = image
        self.photos = photos
        self.texts = texts
        pixels_of = len(image) if isinstance(image, bytes) else len(image.data)
        self.size = pixels_of + sum(len(photo) for _, photo in photos)


class Run:
    """A run of a method. Use it as a context manager: leaving it waits until every sample is accepted.

    A sample is identified by its name, and sending it again is harmless, so an interrupted script can be started again.
    Create one with :meth:`Client.run`.
    """

    def __init__(self, client: Client, info: RunResponse, workers: int = 4, buffer_mib: int = 256) -> None:
        if workers < 1 or buffer_mib < 1:
            raise ValueError("a run needs at least one worker and 1 MiB of buffer")
        self._client = client
        self.info = info
        """The run as the service described it last."""
        self.id: str = info["run_id"]
        """The id of the run."""
        self._limit = buffer_mib << 20
        self._workers = workers
        self._threads: List[threading.Thread] = []
        self._samples: Deque[_Sample] = collections.deque()
        # BLAKE3 of the photos that the run has already, by a hash that is faster to compute. None: not computed yet.
        self._photos: Dict[bytes, Optional[str]] = {}
        self._changed = threading.Condition()
        self._bytes = 0
        self._unsent = 0
        self._added = 0
        self._sent = 0
        self._failures: Dict[str, Exception] = {}
        self._stop: Optional[Exception] = None

    def __repr__(self) -> str:
        return f"<Run {self.info['method']}/{self.info['run']} {self.id} {self.info['state']}>"

    def add(
        self,
        name: str,
        image: Image,
        prompt: Optional[str] = None,
        *,
        reference: Union[Image, List[Image], None] = None,
        auxiliary: Union[Image, List[Image], None] = None,
        metadata: Optional[Metadata] = None,
    ) -> None:
        """Queues a sample. Blocks while the queue is full; raises the error that stopped the upload, if there is one.

        A sample that the service refuses does not stop the others: see :attr:`failures`.
        """
        if not name or not isinstance(name, str):
            raise ValueError("a sample of a run needs a name, which identifies it")
        level = self._client.png_compression
        photos = [("reference", pixels.to_file(each, level)) for each in several(reference)]
        photos += [("auxiliary", pixels.to_file(each, level)) for each in several(auxiliary)]
        sample = _Sample(name, pixels.one(image), photos, texts_of(prompt, metadata))
        with self._changed:
            # A sample that is larger than the whole buffer is sent alone.
            self._changed.wait_for(
                lambda: self._stop is not None or self._bytes == 0 or self._bytes + sample.size <= self._limit
            )
            self._raise_if_stopped()
            self._bytes += sample.size
            self._unsent += 1
            self._added += 1
            self._samples.append(sample)
            if len(self._threads) < min(self._workers, self._unsent):
                # Not a daemon: a program that ends without flush() still sends what it has added.
                thread = threading.Thread(target=self._work, name="stellar-score upload", daemon=False)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def add_folder(self, dataset: Any, progress: bool = True) -> int:
        """Adds every image that was saved with a :class:`Dataset`, and returns their number."""
        samples = dataset.samples()
        with Bar("images sent", len(samples), progress) as bar:
            for sample in samples:
                self.add(**sample)
                bar.update(self._sent)
            self.flush()
            bar.update(self._sent)
        return len(samples)

    def _next(self) -> Optional[_Sample]:
        """Returns the next sample, or None if this thread shall end, since there was none for a while."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._samples), _IDLE_SECONDS):
                self._threads.remove(threading.current_thread())
                return None
            return self._samples.popleft()

    def _work(self) -> None:
        while True:
            sample = self._next()
            if sample is None:
                return
            error: Optional[Exception] = None
            try:
                if self._stop is None:
                    self._send(sample)
            except Exception as raised:
                error = raised
            with self._changed:
                self._bytes -= sample.size
                self._unsent -= 1
                if error is None:
                    self._sent += 1
                elif isinstance(error, _OF_A_SAMPLE) and getattr(error, "code", "") not in _OF_THE_RUN:
                    self._failures[sample.name] = error
                elif self._stop is None:
                    self._stop = error
                self._changed.notify_all()

    def _send(self, sample: _Sample) -> None:
        image = pixels.to_file(sample.image, self._client.png_compression)
        photos = [(field, photo, hashlib.blake2b(photo).digest()) for field, photo in sample.photos]
        as_files = False
        while True:
            named = [self._named(*photo) if not as_files else (photo[0], photo[1]) for photo in photos]
            body, kind = form([*sample.texts, *named, ("image", image)])
            path = ["v1", "runs", self.id, "samples", sample.name]
            try:
                self._client.transport.request("PUT", path, body=body, kind=kind)
            except errors.InvalidImage as error:
                if error.code != "image_unknown" or as_files:
                    raise
                # The service has deleted photos, or another instance has answered.
                as_files = True
                with self._changed:
                    self._photos.clear()
            else:
                with self._changed:
                    for _, _, key in photos:
                        self._photos.setdefault(key, None)
                return

    def _named(self, field: str, photo: bytes, key: bytes) -> Field:
        """Returns a photo as a file, or its hash if the service has it already."""
        with self._changed:
            if key not in self._photos:
                return field, photo
            hashed = self._photos[key]
        if hashed is None:
            # Only for photos that are used again.
            hashed = blake3.hexdigest(photo)
            if hashed is None:
                return field, photo
            with self._changed:
                self._photos[key] = hashed
        return f"{field}_hash", hashed

    def _raise_if_stopped(self) -> None:
        if self._stop is not None:
            raise self._stop

    @property
    def failures(self) -> Dict[str, Exception]:
        """The samples that the service has refused so far, by name."""
        with self._changed:
            return dict(self._failures)

    def flush(self) -> None:
        """Waits until every added sample is accepted: durable, whatever happens to the service.

        Raises :class:`UploadFailed` if samples were refused; the others were accepted. Correct and add them again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._unsent == 0)
            self._raise_if_stopped()
            failures, self._failures = self._failures, {}
        if failures:
            raise errors.UploadFailed(failures)

    def close(self) -> None:
        """Drops samples that are not being sent yet, and waits for those that are."""
        with self._changed:
            for sample in self._samples:
                self._bytes -= sample.size
                self._unsent -= 1
            self._samples.clear()
            self._changed.wait_for(lambda: self._unsent == 0)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def refresh(self) -> RunResponse:
        """Returns the run as it is now."""
        self.info = cast(RunResponse, self._client.get("v1", "runs", self.id))
        return self.info

    def finish(self) -> RunResponse:
        """Waits for the upload, and closes the run to further samples. Its tables are then computed."""
        self.flush()
        answer = self._client.transport.request("POST", ["v1", "runs", self.id, "finish"])
        self.info = cast(RunResponse, answer.json())
        return self.info

    def wait(self, timeout: Optional[float] = None, progress: bool = True) -> RunResponse:
        """Waits until every accepted sample is scored, and a finished run also evaluated.

        Raises ``TimeoutError`` after ``timeout`` seconds, and :class:`RunBlocked` if the service has loaded another
        pack. Samples can fail without an error here: ``counts`` has their number, and :meth:`failed` the reasons.
        """
        self.flush()
        until = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_POLL
        before = -1
        with Bar("images scored", self._added, progress) as bar:
            while True:
                info = self.refresh()
                counts, held = info["counts"], info.get("held")
                done = counts["accepted"] - counts["pending"]
                bar.update(done, counts["accepted"])
                if held is not None:
                    raise errors.RunBlocked(held["code"], held["detail"])
                if info["state"] == "finished" or (info["state"] == "open" and counts["pending"] == 0):
                    return info
                if until is not None and time.monotonic() + pause > until:
                    raise TimeoutError(f"{counts['pending']} samples of the run are not scored after {timeout:g} s")
                time.sleep(pause)
                # Fast at first for small runs, and while the counts change.
                pause = min(2 * pause, _LONGEST_POLL / 4 if done != before else _LONGEST_POLL)
                before = done

    def samples(self, state: Optional[str] = None) -> List[SubmittedEntry]:
        """Returns all samples, or those in one state: ``pending``, ``scored`` or ``failed``."""
        found: List[SubmittedEntry] = []
        after: Optional[str] = None
        while True:
            page = cast(
                SubmittedResponse,
                self._client.get("v1", "runs", self.id, "samples", state=state, after=after, limit=1000),
            )
            found += page["items"]
            after = page.get("next")
            if after is None:
                return found

    def failed(self) -> Dict[str, str]:
        """Returns the reason of each sample that could not be scored, by name."""
        reasons = {}
        for entry in self.samples("failed"):
            error = entry.get("error")
            reasons[entry["name"]] = f"{error['code']}: {error['detail']}" if error else "unknown"
        return reasons

    def report(self, /, **options: Any) -> ReportResponse:
        """Returns the table of the run; the options are those of :meth:`Client.report`."""
        return self._client.report(self.id, **options)

    def summary(self, /, prefix: str = "", **options: Any) -> Dict[str, float]:
        """Returns the table of the run as flat numbers, for W&B, MLflow, TensorBoard or trackio."""
        return frames.summary(cast(Mapping[str, Any], self.report(**options)), prefix)


def several(images: Union[Image, Iterable[Image], None]) -> List[Image]:
    """Returns a list of images for none, one or several."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)) and not isinstance(images, Pixels):
        return list(images)
    return [images]


def texts_of(prompt: Optional[str], metadata: Optional[Metadata]) -> List[Field]:
    """Returns the fields for a prompt and metadata."""
    fields: List[Field] = []
    if prompt is not None:
        fields.append(("prompt", prompt))
    if metadata:
        fields.append(("metadata", json.dumps(metadata, ensure_ascii=False)))
    return fields
