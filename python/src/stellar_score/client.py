"""The client of the service."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from typing import Any, Callable, Dict, Iterator, List, Literal, Mapping, Optional, Sequence, Union, cast
from urllib.parse import urlsplit
from uuid import UUID

from . import errors, generated, pixels
from . import rewards as reward
from .forms import Field, form
from .generated import Generated
from .models import (
    AnswerResponse,
    CompareResponse,
    EngineResponse,
    LeaderboardResponse,
    Metadata,
    MethodEntry,
    MetricsResponse,
    ModelsResponse,
    Policy,
    ReportResponse,
    ResultsResponse,
    RunFlags,
    RunResponse,
    SampleResponse,
    ScoreResponse,
    SlicesResponse,
    StudyNextResponse,
    StudyPlan,
    StudyResponse,
    StudyState,
    TableFormat,
)
from .pixels import Image
from .rewards import DdpoReward, GrpoReward, Rewards
from .runs import Run, several, texts_of
from .transport import Body, Response, Transport

__all__ = ["Client"]

RunName = Union[str, UUID, Run]
"""A run: its id, ``METHOD/RUN``, or a :class:`Run`."""


class Client:
    """A client of one service. It may be used from many threads.

    :param url: the address, with ``user:password@`` for HTTP Basic. Default: ``STELLAR_URL``, or
        ``http://127.0.0.1:8080``.
    :param key: the API key. Default: ``STELLAR_KEY``, if it is set and the address has no user.
    :param connections: the most concurrent requests; further ones wait.
    :param timeout: seconds without a byte from the service after which an attempt has failed. The service's own
        deadline is 120 s by default.
    :param patience: seconds from the beginning of a request within which it is repeated: after broken connections, at
        the service's bounds (429, 507), and while it is not available (502, 503, 504).
    :param png_compression: zlib's level for pixels that are sent as PNG files, from 0, which only stores, to 9.
    :param context: the TLS settings of ``https`` addresses.
    :param on_wait: is called with the reason before each repetition. Default: the reason is logged as a warning of the
        logger ``stellar_score``, at most every ten seconds.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        key: Optional[str] = None,
        connections: int = 8,
        timeout: float = 300.0,
        patience: float = 120.0,
        png_compression: int = 1,
        context: Optional[ssl.SSLContext] = None,
        on_wait: Optional[Callable[[str], None]] = None,
    ) -> None:
        url = url or os.environ.get("STELLAR_URL") or "http://127.0.0.1:8080"
        if key is None and urlsplit(url).password is None:
            key = os.environ.get("STELLAR_KEY")
        if not 0 <= png_compression <= 9:
            raise ValueError("the levels of compression are 0 to 9")
        self.png_compression = png_compression
        self.transport = Transport(url, key, connections, timeout, patience, context, on_wait)

    def __repr__(self) -> str:
        return f"<Client {self.transport.base}>"

    def close(self) -> None:
        """Closes the connections. The client can still be used: it opens new ones."""
        self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        method: str,
        *path: str,
        query: Optional[Mapping[str, Any]] = None,
        body: Optional[Body] = None,
        kind: str = "application/json",
        retry: Optional[bool] = None,
    ) -> Response:
        """Sends a request to any route; ``path`` has its components, which are percent-encoded.

        ``retry`` says whether it may be repeated after the service may have acted on it. Default: not for POST.
        """
        may = method != "POST" if retry is None else retry
        return self.transport.request(method, path, query, body, kind, retry=may)

    def get(self, /, *path: str, **query: Any) -> Any:
        """Returns the JSON document of any route: ``client.get("v1", "methods", limit=10)``."""
        return self.transport.request("GET", path, query).json()

    def score(
        self,
        image: Image,
        prompt: Optional[str] = None,
        *,
        reference: Union[Image, List[Image], None] = None,
        auxiliary: Union[Image, List[Image], None] = None,
        metadata: Optional[Metadata] = None,
        metrics: Union[str, Sequence[str], None] = None,
        method: Optional[str] = None,
        run: Optional[str] = None,
        name: Optional[str] = None,
        evidence: bool = False,
    ) -> ScoreResponse:
        """Scores one image at once and stores the result (``POST /v1/score``).

        Files are sent as they are, and pixels as a lossless PNG. With ``method``, the sample counts on the leaderboard.
        """
        fields: List[Field] = texts_of(prompt, metadata)
        if metrics is not None:
            fields.append(("metrics", metrics if isinstance(metrics, str) else ",".join(metrics)))
        fields += [(key, value) for key, value in (("method", method), ("run", run), ("name", name)) if value]
        if evidence:
            fields.append(("evidence", "true"))
        level = self.png_compression
        fields += [("reference", pixels.to_file(each, level)) for each in several(reference)]
        fields += [("auxiliary", pixels.to_file(each, level)) for each in several(auxiliary)]
        fields.append(("image", pixels.to_file(image, level)))
        body, kind = form(fields)
        return cast(ScoreResponse, self.transport.request("POST", ["v1", "score"], body=body, kind=kind).json())

    def generate(
        self,
        prompt: str,
        photo: Optional[Image] = None,
        mask: Optional[Image] = None,
        *,
        seed: Optional[int] = None,
        steps: Optional[int] = None,
        guidance: Optional[float] = None,
        width: Optional[int] = None,
        height: Optional[int] = None,
        negative_prompt: Optional[str] = None,
    ) -> Generated:
        """Generates an image of the person in a photo (``POST /v1/generate``). A key needs the scope ``generate``.

        Nothing is stored. The same request gives the same bytes. What is not given is the service's default.

        :param prompt: ``{}`` stands for the person. Without it, no photo is needed.
        :param photo: the photo of the person.
        :param mask: an image in which every pixel with a channel above 0 is the person. Default: the whole photo, with
            the flag ``unmasked``.
        :param seed: seed of the noise, from 0. Default: 42.
        :param steps: denoising steps, 1 to 150. Default: 100.
        :param guidance: guidance scale, 0 to 100; up to 1 there is none. Default: 5.
        :param width: in pixels, a multiple of the model's, usually 32. Default: the model's.
        :param height: as ``width``.
        :param negative_prompt: what the image must not show.
        """
        if mask is not None and photo is None:
            raise ValueError("a mask needs its photo")
        settings: Dict[str, Any] = {"seed": seed, "steps": steps, "guidance": guidance, "width": width}
        settings.update(height=height, negative_prompt=negative_prompt)
        settings = {key: value for key, value in settings.items() if value is not None}
        fields: List[Field] = [("prompt", prompt)]
        if settings:
            fields.append(("metadata", reward.dumps(settings).decode("utf-8")))
        level = self.png_compression
        given = (("reference", photo), ("mask", mask))
        fields += [(name, pixels.to_file(each, level)) for name, each in given if each is not None]
        body, kind = form(fields)
        path = ["v1", "generate"]
        return generated.read(self.transport.request("POST", path, body=body, kind=kind, timeout=generated.TIMEOUT))

    def rewards(
        self,
        rewards: Union[str, Sequence[str], Mapping[str, float]],
        images: Any,
        prompts: Union[str, Sequence[str], None] = None,
        *,
        references: Optional[Sequence[Any]] = None,
        auxiliary: Optional[Sequence[Any]] = None,
        metadata: Optional[Sequence[Optional[Metadata]]] = None,
        groups: Optional[Sequence[str]] = None,
        ids: Optional[Sequence[str]] = None,
        on_null: Optional[reward.OnNull] = None,
        statistics: Optional[bool] = None,
        wait: Optional[float] = None,
        chunk_mib: int = 64,
        concurrency: int = 2,
        progress: bool = False,
    ) -> Rewards:
        """Scores a batch of images for a trainer (``POST /v1/rewards``). Nothing is stored.

        Pixels are sent as they are, in requests of at most ``chunk_mib``, of which ``concurrency`` are in flight. The
        result is one document in the order of the images.

        :param rewards: names such as ``pick_score@flow_grpo``; with weights, the result also has ``combined``.
        :param images: images, or a batch (BHWC array or BCHW tensor).
        :param prompts: one prompt for each image, or one for all.
        :param references: for each image, one image, a list of images or None.
        :param auxiliary: as ``references``.
        :param groups: the group of each image, for statistics and advantages. A group is never divided.
        :param on_null: what a reward without a number means for ``combined``: ``skip`` leaves it out and raises the
            other weights, ``zero`` counts it as 0, ``fail`` makes the sum null. It must be chosen if there are weights.
        :param statistics: whether the result has statistics of the groups. Default: if there are groups.
        :param wait: the most seconds that the service lets a request wait for its turn.
        """
        batch = reward.Batch(
            rewards, images, prompts, references, auxiliary, metadata, groups, ids, on_null, statistics
        )
        return batch.send(self.transport, wait, chunk_mib << 20, concurrency, progress)

    def ddpo_reward(
        self,
        rewards: reward.RewardNames,
        *,
        on_null: Union[Literal["raise", "skip", "zero"], float, None] = "raise",
        columns: Optional[Mapping[str, str]] = None,
        **options: Any,
    ) -> DdpoReward:
        """Returns a reward function for DDPO trainers: ``fn(images, prompts, metadata) -> (scores, {})``.

        :param rewards: one name, or several with weights.
        :param on_null: what happens to an image without a number. By default, :class:`MissingScore` is raised; a number
            or None is its score. ``skip`` and ``zero`` are those of :meth:`rewards`, for sums.
        :param columns: the keys of an image's metadata with its references, auxiliary images and scoring metadata, as
            in ``{"references": "photo"}``. Default: ``references``, ``auxiliary`` and ``metadata``.
        :param options: further options of :meth:`rewards`.
        """
        return DdpoReward(self, rewards, on_null, columns, options)

    def grpo_reward(
        self,
        rewards: reward.RewardNames,
        *,
        on_null: Union[Literal["raise", "skip", "zero"], float, None] = "raise",
        columns: Optional[Mapping[str, str]] = None,
        **options: Any,
    ) -> GrpoReward:
        """Returns a reward function for GRPO trainers: ``fn(completions, **columns) -> list[float]``.

        The completions are images. ``prompts`` may be texts or conversations. See :meth:`ddpo_reward` for the options;
        with ``on_null=None``, such a score is None, which TRL leaves out.
        """
        return GrpoReward(self, rewards, on_null, columns, options)

    def run(
        self,
        method: str,
        run: Optional[str] = None,
        *,
        dataset: Optional[str] = None,
        split: Optional[str] = None,
        flags: Optional[RunFlags] = None,
        settings: Optional[Mapping[str, Any]] = None,
        metrics: Optional[Sequence[str]] = None,
        workers: int = 4,
        buffer_mib: int = 256,
    ) -> Run:
        """Creates a run, or returns the existing one if it has the same properties (``POST /v1/runs``).

        ``workers`` samples are sent concurrently, and at most ``buffer_mib`` wait in memory.
        """
        new: Dict[str, Any] = {"method": method, "run": run, "dataset": dataset, "split": split}
        new.update(flags=flags, settings=settings, metrics=list(metrics) if metrics is not None else None)
        new = {key: value for key, value in new.items() if value is not None}
        answer = self.transport.request("POST", ["v1", "runs"], body=reward.dumps(new))
        return Run(self, cast(RunResponse, answer.json()), workers, buffer_mib)

    def open_run(self, run: RunName, *, workers: int = 4, buffer_mib: int = 256) -> Run:
        """Returns an existing run by its id or by ``METHOD/RUN``."""
        found = cast(RunResponse, self.get("v1", "runs", self._run_id(run)))
        return Run(self, found, workers, buffer_mib)

    def _run_id(self, run: RunName) -> str:
        if isinstance(run, Run):
            return run.id
        text = str(run)
        try:
            return str(UUID(text))
        except ValueError:
            pass
        method, slash, name = text.partition("/")
        found = [each for each in self.runs(method) if not slash or each["run"] == name]
        if len(found) == 1:
            return found[0]["run_id"]
        if not found:
            raise errors.NotFound(404, "not_found", f"there is no run {text}")
        names = ", ".join(sorted(f"{each['method']}/{each['run']}" for each in found))
        raise ValueError(f"{text} has several runs: {names}")

    def runs(self, method: Optional[str] = None, state: Optional[str] = None) -> List[RunResponse]:
        """Returns all runs, or those of a method or in a state."""
        return cast(List[RunResponse], self._pages(["v1", "runs"], "runs", method=method, state=state))

    def methods(self) -> List[MethodEntry]:
        """Returns all methods."""
        return cast(List[MethodEntry], self._pages(["v1", "methods"], "methods"))

    def _pages(self, path: Sequence[str], key: str, **query: Any) -> List[Any]:
        found: List[Any] = []
        after: Optional[str] = None
        while True:
            page = self.get(*path, **query, limit=1000, after=after)
            found += page[key]
            after = page.get("next")
            if after is None:
                return found

    def report(
        self,
        run: RunName,
        *,
        policy: Optional[Policy] = None,
        pack: Optional[str] = None,
        percentiles: Optional[bool] = None,
        common_with: Union[str, Sequence[str], None] = None,
    ) -> ReportResponse:
        """Returns the table of a run."""
        options = {"policy": policy, "pack": pack, "percentiles": percentiles, "common_with": common_with}
        return cast(ReportResponse, self.get("v1", "runs", self._run_id(run), "report", **options))

    def report_text(self, run: RunName, format: TableFormat = "markdown", *, policy: Optional[Policy] = None) -> str:
        """Returns the table of a run as ``markdown``, ``csv``, ``latex`` or ``json``."""
        query = {"format": format, "policy": policy}
        answer = self.transport.request("GET", ["v1", "runs", self._run_id(run), "report"], query)
        return answer.body.decode("utf-8")

    def leaderboard(self, /, **filters: Any) -> LeaderboardResponse:
        """Returns the leaderboard; the filters are the parameters of ``GET /v1/leaderboard``.

        ``client.leaderboard(sort="clip_t", metrics=["clip_t", "clip_i"], dataset="stellar")``
        """
        return cast(LeaderboardResponse, self.get("v1", "leaderboard", **filters))

    def compare(self, /, a: RunName, b: RunName, **options: Any) -> CompareResponse:
        """Compares two runs on the samples that they have in common."""
        path = ("v1", "runs", self._run_id(a), "compare", self._run_id(b))
        return cast(CompareResponse, self.get(*path, **options))

    def slices(self, /, run: RunName, **options: Any) -> SlicesResponse:
        """Returns the scores of a run by category, prompt kind, relation, attribute and size."""
        return cast(SlicesResponse, self.get("v1", "analysis", "slices", run=self._run_id(run), **options))

    def sample(self, id: Union[str, UUID], *, percentiles: Optional[bool] = None) -> SampleResponse:
        """Returns a stored sample with its scores."""
        return cast(SampleResponse, self.get("v1", "samples", str(id), percentiles=percentiles))

    def create_study(self, plan: StudyPlan) -> StudyResponse:
        """Creates a human-preference study, or returns the one that exists with the same plan."""
        body = json.dumps(plan, default=str).encode()
        return cast(StudyResponse, self.request("POST", "v1", "studies", body=body, retry=True).json())

    def set_study_state(self, study: Union[str, UUID], state: StudyState) -> StudyResponse:
        """Opens or closes a study."""
        body = json.dumps({"state": state}).encode()
        return cast(StudyResponse, self.request("PUT", "v1", "studies", str(study), "state", body=body).json())

    def next_study_item(self, study: Union[str, UUID], annotator: str) -> StudyNextResponse:
        """Returns the next question for an annotator as ``task``, or in ``done`` why there is none."""
        return cast(StudyNextResponse, self.get("v1", "studies", str(study), "next", annotator=annotator))

    def answer_study(
        self,
        study: Union[str, UUID],
        annotator: str,
        item: int,
        choice: Union[int, str],
        *,
        question: Optional[str] = None,
    ) -> AnswerResponse:
        """Records an answer: the position of the chosen image from 1 on, ``tie`` or ``cannot_tell``."""
        answer = {"annotator": annotator, "item": item, "choice": str(choice), "question": question}
        body = json.dumps(answer).encode()
        # The same answer again changes nothing.
        path = ("v1", "studies", str(study), "answers")
        return cast(AnswerResponse, self.request("POST", *path, body=body, retry=True).json())

    def study_results(self, study: Union[str, UUID], question: Optional[str] = None) -> ResultsResponse:
        """Returns first-choice shares and strengths of the methods of a study, with intervals."""
        return cast(ResultsResponse, self.get("v1", "studies", str(study), "results", question=question))

    def metrics(self) -> MetricsResponse:
        """Returns all metrics, and which the loaded pack can compute."""
        return cast(MetricsResponse, self.get("v1", "metrics"))

    def models(self) -> ModelsResponse:
        """Returns the loaded pack and the state of its graphs."""
        return cast(ModelsResponse, self.get("v1", "models"))

    def offload(self) -> EngineResponse:
        """Frees the memory of the models, also on a GPU (``POST /v1/engine/offload``). It needs a key with ``admin``.

        Work in flight is finished first. Until :meth:`reload`, scoring is refused as :class:`Unavailable`, which this
        client repeats for as long as its patience lasts, and samples of runs wait.
        """
        # Doing it twice is doing it once.
        return cast(EngineResponse, self.request("POST", "v1", "engine", "offload", retry=True).json())

    def reload(self) -> EngineResponse:
        """Loads the models again and warms them up (``POST /v1/engine/reload``)."""
        return cast(EngineResponse, self.request("POST", "v1", "engine", "reload", retry=True).json())

    @contextlib.contextmanager
    def offloaded(self) -> Iterator[EngineResponse]:
        """Lends the memory of the models, for example to a training step on the same GPU.

        ``with client.offloaded(): train()`` The models are loaded again at the end, whatever happens inside.
        """
        try:
            yield self.offload()
        finally:
            self.reload()

    def ready(self) -> bool:
        """Returns whether the service accepts requests; it is not waited for."""
        try:
            self.transport.request("GET", ["readyz"], patience=0)
        except (errors.Unavailable, errors.ConnectionFailed, errors.ForeignResponse):
            return False
        return True
