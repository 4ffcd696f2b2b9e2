"""The client for asyncio: the same code as :class:`Client`, run in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Coroutine, Dict, Generator, Optional, TypeVar

from .client import Client
from .models import EngineResponse
from .runs import Run

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

__all__ = ["AsyncClient", "AsyncRun"]

T = TypeVar("T")


def _of_client(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> T:
        return await self._call(method, self.client, *args, **options)

    functools.update_wrapper(call, method)
    return call


def _of_run(method: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[AsyncRun, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncRun, /, *args: P.args, **options: P.kwargs) -> T:
        run = await self.open()
        return await self._client._call(method, run, *args, **options)

    functools.update_wrapper(call, method)
    return call


def _opening(method: Callable[Concatenate[Client, P], Run]) -> Callable[Concatenate[AsyncClient, P], AsyncRun]:
    def call(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncRun:
        return AsyncRun(self, functools.partial(method, self.client, *args, **options))

    functools.update_wrapper(call, method)
    return call


class AsyncClient:
    """A client for asyncio; the arguments are those of :class:`Client`.

    Every method of :class:`Client` is a coroutine here. A cancelled call is abandoned, not interrupted: its request is
    completed in its thread.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.client = Client(*args, **options)
        """The client that does the work."""
        # Threads of its own: those of asyncio's default pool are few, and shared with the rest of the program. Waiting
        # for a run occupies one, so there are more threads than connections.
        self._threads = ThreadPoolExecutor(2 * self.client.transport.connections + 8, "stellar-score")

    def __repr__(self) -> str:
        return repr(self.client).replace("<Client", "<AsyncClient")

    async def _call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *args, **options))

    async def close(self) -> None:
        """Closes the connections and ends the threads."""
        self.client.close()
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    score = _of_client(Client.score)
    generate = _of_client(Client.generate)
    rewards = _of_client(Client.rewards)
    runs = _of_client(Client.runs)
    methods = _of_client(Client.methods)
    report = _of_client(Client.report)
    report_text = _of_client(Client.report_text)
    leaderboard = _of_client(Client.leaderboard)
    compare = _of_client(Client.compare)
    slices = _of_client(Client.slices)
    sample = _of_client(Client.sample)
    create_study = _of_client(Client.create_study)
    set_study_state = _of_client(Client.set_study_state)
    next_study_item = _of_client(Client.next_study_item)
    answer_study = _of_client(Client.answer_study)
    study_results = _of_client(Client.study_results)
    metrics = _of_client(Client.metrics)
    models = _of_client(Client.models)
    offload = _of_client(Client.offload)
    reload = _of_client(Client.reload)
    ready = _of_client(Client.ready)
    request = _of_client(Client.request)
    get = _of_client(Client.get)

    @contextlib.asynccontextmanager
    async def offloaded(self) -> AsyncIterator[EngineResponse]:
        """Lends the memory of the models, as :meth:`Client.offloaded`."""
        try:
            yield await self.offload()
        finally:
            await self.reload()

    # Their result is an asynchronous context manager, and can be awaited.
    run = _opening(Client.run)
    open_run = _opening(Client.open_run)


class AsyncRun:
    """A run for asyncio: the methods of :class:`Run` as coroutines."""

    def __init__(self, client: AsyncClient, make: Callable[[], Run]) -> None:
        self._client = client
        self._make = make
        self._run: Optional[Run] = None
        self._opening: Optional[asyncio.Lock] = None

    def __repr__(self) -> str:
        return f"<AsyncRun {self._run!r}>" if self._run else "<AsyncRun, not opened>"

    async def open(self) -> Run:
        """Creates the run if it is not created yet, and returns what does the work."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._run is None:
                self._run = await self._client._call(self._make)
            return self._run

    async def _open_self(self) -> AsyncRun:
        await self.open()
        return self

    def __await__(self) -> Generator[Any, Any, AsyncRun]:
        return self._open_self().__await__()

    async def __aenter__(self) -> AsyncRun:
        return await self._open_self()

    async def __aexit__(self, kind: Optional[type], error: Optional[BaseException], trace: Any) -> None:
        run = await self.open()
        await self._client._call(run.__exit__, kind, error, trace)

    @property
    def id(self) -> str:
        """The id of the run."""
        if self._run is None:
            raise RuntimeError("the run is not opened yet: await it, or use it with `async with`")
        return self._run.id

    @property
    def failures(self) -> Dict[str, Exception]:
        """The samples that the service has refused so far, by name."""
        return {} if self._run is None else self._run.failures

    add = _of_run(Run.add)
    add_folder = _of_run(Run.add_folder)
    flush = _of_run(Run.flush)
    refresh = _of_run(Run.refresh)
    finish = _of_run(Run.finish)
    wait = _of_run(Run.wait)
    samples = _of_run(Run.samples)
    failed = _of_run(Run.failed)
    report = _of_run(Run.report)
    summary = _of_run(Run.summary)
