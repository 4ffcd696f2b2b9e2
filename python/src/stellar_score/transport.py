"""HTTP with keep-alive connections and retries, on Python's ``http.client``."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import quote, unquote, urlencode, urlsplit

from . import errors
from ._version import __version__

__all__ = ["Body", "Response", "Transport"]

Body = Union[bytes, Sequence[bytes]]
"""A request body: one buffer, or several that are sent one after the other without being joined."""

Query = Mapping[str, Any]

_logger = logging.getLogger("stellar_score")
_LOG_SECONDS = 10.0

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_LONGEST_RETRY_AFTER = 60.0
# The service closes connections that were silent for 30 s.
_IDLE_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
_REFUSED = (429, 503, 507)
_RETRIED = (*_REFUSED, 502, 504)
_REDIRECTS = (301, 302, 303, 307, 308)

_Broken = (OSError, http.client.HTTPException)


class Response(NamedTuple):
    """A successful response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Any:
        """Parses the body as JSON."""
        try:
            return json.loads(self.body.decode("utf-8"))
        except ValueError as error:
            raise errors.ForeignResponse(f"{self.url} did not respond with JSON: {error}", self.status) from None


class _Attempt(NamedTuple):
    """A failed attempt: its error, and whether and when it may be repeated."""

    error: errors.StellarError
    again: bool
    pause: Optional[float] = None


class _Log:
    """Logs why a client waits, at most every ten seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, reason: str) -> None:
        now = time.monotonic()
        if not self._last or now - self._last > _LOG_SECONDS:
            self._last = now
            _logger.warning("waiting for the service: %s", reason)


class Transport:
    """A pool of connections to one service, safe to use from many threads and after a fork."""

    def __init__(
        self,
        url: str,
        key: Optional[str],
        connections: int,
        timeout: float,
        patience: float,
        context: Optional[ssl.SSLContext],
        on_wait: Optional[Callable[[str], None]] = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = url.split("@")[-1]
            raise ValueError(f"{shown!r} is not the address of a service: use one like http://127.0.0.1:8080")
        if parts.query or parts.fragment:
            raise ValueError("the address of a service has no query and no fragment")
        if connections < 1:
            raise ValueError("at least one connection is needed")
        try:
            self._port = parts.port
        except ValueError:
            raise ValueError("the port in the address of the service is not a number up to 65535") from None
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._prefix = parts.path.rstrip("/")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.base = f"{parts.scheme}://{host}" + (f":{self._port}" if self._port else "") + self._prefix
        self._timeout = timeout
        self._patience = patience
        self._context = (context or ssl.create_default_context()) if self._https else None
        self._on_wait = on_wait or _Log()
        self._headers = {"User-Agent": f"stellar-score-python/{__version__}", "Accept": "*/*"}
        authorization = _authorization(key, parts.username, parts.password)
        if authorization:
            self._headers["Authorization"] = authorization
        self._connections = connections
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self._connections)
        # Idle connections with the time since when they are idle; the last used is used first.
        self._idle: List[Tuple[http.client.HTTPConnection, float]] = []

    def __getstate__(self) -> Dict[str, Any]:
        # For worker processes that are started with pickled arguments.
        own = ("_lock", "_free", "_idle", "_context")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._context = ssl.create_default_context() if self._https else None
        self._reset()

    @property
    def connections(self) -> int:
        """Returns the most connections at a time."""
        return self._connections

    def close(self) -> None:
        """Closes idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def __del__(self) -> None:
        # Without close(), the connections end with the last reference: no warning about open sockets.
        if hasattr(self, "_idle"):
            self.close()

    def request(
        self,
        method: str,
        parts: Sequence[str],
        query: Optional[Query] = None,
        body: Optional[Body] = None,
        kind: str = "application/json",
        headers: Optional[Mapping[str, str]] = None,
        retry: bool = True,
        patience: Optional[float] = None,
        timeout: float = 0.0,
    ) -> Response:
        """Sends a request until there is a response, and raises its problem if it is one.

        ``parts`` are the components of the path, which are percent-encoded. With ``retry=False``, it is only repeated
        where the service has certainly not acted on it: no connection, or a refusal with ``Retry-After``. ``patience``
        replaces that of the client, and ``timeout`` raises it.
        """
        target = self._prefix + "".join("/" + quote(part, safe="") for part in parts)
        if query:
            found = urlencode(_query(query))
            target += "?" + found if found else ""
        fields = {**self._headers, **(headers or {})}
        if body is not None:
            fields["Content-Type"] = kind
            size = len(body) if isinstance(body, bytes) else sum(map(len, body))
            fields["Content-Length"] = str(size)
        elif method in ("POST", "PUT"):
            fields["Content-Length"] = "0"
        patience = self._patience if patience is None else patience
        began: Optional[float] = None
        pause = _FIRST_PAUSE
        while True:
            with self._slot():
                # Waiting for other threads does not count.
                began = began or time.monotonic()
                outcome = self._attempt(method, target, body, fields, retry, max(timeout, self._timeout))
            if isinstance(outcome, Response):
                return outcome
            # Jitter: clients that were refused together do not return together.
            wait = pause * random.uniform(0.5, 1.5)
            if outcome.pause is not None:
                wait = outcome.pause + random.uniform(0, max(0.25 * outcome.pause, _FIRST_PAUSE))
            if not outcome.again or time.monotonic() + wait > began + patience:
                raise outcome.error
            self._on_wait(str(outcome.error))
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _slot(self) -> threading.BoundedSemaphore:
        """Returns what a request holds while it uses a connection."""
        if os.getpid() != self._process:
            # Two processes must not share a connection.
            self._reset()
        return self._free

    def _attempt(
        self, method: str, target: str, body: Optional[Body], headers: Mapping[str, str], retry: bool, timeout: float
    ) -> Union[Response, _Attempt]:
        while True:
            connection, reused = self._take()
            try:
                if not reused:
                    connection.connect()
                connection.sock.settimeout(timeout)
            except _Broken as error:
                connection.close()
                return _Attempt(self._failed(error), not isinstance(error, ssl.SSLCertVerificationError))
            try:
                response, status, fields, data = _exchange(connection, method, target, body, headers)
            except socket.timeout:
                connection.close()
                message = f"{self.base} did not respond within {timeout:g} s"
                return _Attempt(errors.ConnectionFailed(message), retry)
            except _Broken as error:
                connection.close()
                if reused and retry:
                    # The service may have closed it while it was idle, which says nothing about the service.
                    continue
                return _Attempt(self._failed(error), retry)
            except BaseException:
                # KeyboardInterrupt: the rest of the response is still to come.
                connection.close()
                raise
            if response.will_close:
                connection.close()
            else:
                self._give_back(connection)
            return self._judge(status, fields, data, target, retry)

    def _failed(self, error: BaseException) -> errors.ConnectionFailed:
        words = str(error) or type(error).__name__
        return errors.ConnectionFailed(f"{self.base} does not respond: {words}")

    def _take(self) -> Tuple[http.client.HTTPConnection, bool]:
        """Returns a connection, and whether it was used before."""
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if now - since < _IDLE_SECONDS and not _has_ended(connection):
                return connection, True
            connection.close()
        wait = min(_CONNECT_SECONDS, self._timeout)
        if self._https:
            return http.client.HTTPSConnection(self._host, self._port, timeout=wait, context=self._context), False
        return http.client.HTTPConnection(self._host, self._port, timeout=wait), False

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append((connection, time.monotonic()))

    def _judge(
        self, status: int, fields: Mapping[str, str], data: bytes, target: str, retry: bool
    ) -> Union[Response, _Attempt]:
        url = self.base + target[len(self._prefix) :].split("?")[0]
        if 200 <= status < 300:
            return Response(status, fields, data, url)
        pause = _retry_after(fields.get("retry-after"))
        again = status in _RETRIED and (retry or (status in _REFUSED and pause is not None))
        document = _problem(fields, data)
        error: errors.StellarError
        if document is not None:
            error = errors.problem(status, document, pause)
        elif status in _REDIRECTS:
            to = fields.get("location", "another address")
            error = errors.ForeignResponse(f"{url} redirects to {to}: use the address that it redirects to", status)
        else:
            begin = data[:200].decode("utf-8", "replace")
            error = errors.ForeignResponse(f"{url} responded with {status}, but not as stellar-score: {begin}", status)
        return _Attempt(error, again, pause)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: Optional[Body],
    headers: Mapping[str, str],
) -> Tuple[http.client.HTTPResponse, int, Mapping[str, str], bytes]:
    try:
        connection.request(method, target, body, dict(headers))
    except (BrokenPipeError, ConnectionResetError):
        # The service may have refused the request without reading its body: the response is there already.
        try:
            response = connection.getresponse()
        except _Broken as error:
            raise ConnectionResetError(f"the connection was closed while the request was sent ({error})") from None
        response.will_close = True
    else:
        response = connection.getresponse()
    data = response.read()
    return response, response.status, {name.lower(): value for name, value in response.getheaders()}, data


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Returns True if the service has closed an idle connection, or has sent bytes without a request."""
    sock = connection.sock
    if sock is None:
        return True
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _retry_after(value: Optional[str]) -> Optional[float]:
    """Returns the seconds of Retry-After, at most a minute. This service never sends a date."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _problem(fields: Mapping[str, str], data: bytes) -> Optional[Mapping[str, Any]]:
    if "json" not in fields.get("content-type", ""):
        return None
    try:
        document = json.loads(data.decode("utf-8"))
    except ValueError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def _query(query: Query) -> List[Tuple[str, str]]:
    pairs = []
    for name, value in query.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        pairs.append((name, str(value)))
    return pairs


def _authorization(key: Optional[str], user: Optional[str], password: Optional[str]) -> Optional[str]:
    if user is not None or password is not None:
        if key:
            raise ValueError("there is a user in the address and also a key: use one of them")
        pair = f"{unquote(user or '')}:{unquote(password or '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    if not key:
        return None
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        # The key itself is not shown.
        raise ValueError("the API key has characters that no key has: `stellar-score keys create` prints one")
    return f"Bearer {key}"
