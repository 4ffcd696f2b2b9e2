"""The service as a process: for a notebook, a test or a training script without a service of its own.

::

    import stellar_score

    with stellar_score.serve() as server:
        response = server.client().score("image.png", "a person on a horse", reference="photo.jpg")

The wheel contains the program, the ONNX Runtime library and the demo pack. Without the wheel, `STELLAR_PROGRAM` names a
program, or `stellar-score` is found on the path.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Deque, Dict, List, Mapping, NoReturn, Optional, Type, Union

from .client import Client
from .errors import ServerFailed

_BUNDLED = Path(__file__).resolve().parent / "_server"
_LISTENING = re.compile(r" is listening on (http://\S+) ")
#: Lines of the log that an error shows.
_LINES = 30


def program() -> Path:
    """Returns the path of the program: `STELLAR_PROGRAM`, that of the wheel, or the one on the path.

    Raises `ServerFailed` if there is none.
    """
    named = os.environ.get("STELLAR_PROGRAM")
    bundled = _BUNDLED / "bin" / "stellar-score"
    if named or bundled.exists():
        return Path(named or bundled)
    found = shutil.which("stellar-score")
    if found is None:
        raise ServerFailed(
            "the program stellar-score is missing: this installation is the client alone. Install the wheel that "
            "`make wheel` builds, or name a program in STELLAR_PROGRAM"
        )
    return Path(found)


def environment() -> Dict[str, str]:
    """Returns the environment variables with which the program finds the libraries for an NVIDIA GPU.

    These are in other wheels: `pip install stellar-score[gpu]`. Empty without them.
    """
    runtime = importlib.util.find_spec("stellar_score_cuda")
    if runtime is None or not runtime.submodule_search_locations or os.environ.get("ORT_DYLIB_PATH"):
        return {}
    libraries = sorted(Path(runtime.submodule_search_locations[0]).glob("libonnxruntime.so*"))
    if not libraries:
        return {}
    nvidia = importlib.util.find_spec("nvidia")
    roots = list(nvidia.submodule_search_locations or []) if nvidia else []
    folders = sorted(str(folder) for root in roots for folder in Path(root).glob("*/lib"))
    before = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    return {"ORT_DYLIB_PATH": str(libraries[-1]), "LD_LIBRARY_PATH": os.pathsep.join(folders + before)}


def main() -> NoReturn:
    """The command `stellar-score`: replaces this process by the program."""
    try:
        path = str(program())
    except ServerFailed as error:
        sys.exit(f"stellar-score: {error}")
    os.execve(path, [path, *sys.argv[1:]], {**os.environ, **environment()})


class Server:
    """A running service, which `serve` starts. As a context manager it stops at the end of the block."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        url: str,
        folder: "Optional[tempfile.TemporaryDirectory[str]]",
        log: "_Log",
    ) -> None:
        self._process = process
        self._folder = folder
        self._log = log
        #: The address, without a slash at its end.
        self.url = url

    def client(self, **options: Any) -> Client:
        """Returns a client of the service. `options` are those of `Client`, without its address."""
        return Client(self.url, **options)

    def log(self) -> str:
        """Returns the last lines of the log."""
        return self._log.text()

    def stop(self, timeout: float = 30.0) -> None:
        """Stops the service: requests in flight are answered first, for `timeout` seconds at most."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.join()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def serve(
    pack: "Optional[Union[str, os.PathLike[str]]]" = None,
    *,
    data: "Optional[Union[str, os.PathLike[str]]]" = None,
    port: int = 0,
    settings: Optional[Mapping[str, object]] = None,
    timeout: float = 300.0,
) -> Server:
    """Starts the service on this machine, and returns it when it is ready.

    It stops at `Server.stop`, at the end of a `with` block, or when this process ends in any way.

    - `pack`: folder of the model pack. The default is the demo pack, whose numbers mean nothing.
    - `data`: folder of the database and the spool, created if missing. The default is a temporary one, which is
      deleted at the end.
    - `port`: 0 takes a free one. Other machines cannot reach the service.
    - `settings`: keys of the configuration with their values, such as `{"engine.provider": "cpu"}`. They replace those
      of a configuration file and of environment variables.
    - `timeout`: seconds for the models to load.

    Raises `ServerFailed`, with the end of the log, if the service does not start. Warns if the pack has demo weights.
    """
    path = program()
    folder = None
    if data is None:
        folder = tempfile.TemporaryDirectory(prefix="stellar-score-")
        data = folder.name
    else:
        Path(data).mkdir(parents=True, exist_ok=True)
    root = Path(data).resolve()
    variables = {
        "STELLAR_SERVER__LISTEN": f"127.0.0.1:{port}",
        "STELLAR_STORE__URL": f"sqlite://{root / 'stellar.db'}",
        "STELLAR_STORE__SPOOL": str(root / "spool"),
        **({} if pack is None else {"STELLAR_PACK": str(Path(pack).resolve())}),
    }
    command = [str(path), "serve", "--stop-with-stdin"]
    inherited = dict(os.environ)
    if settings:
        # In a file, an unknown key is an error; an unknown environment variable is not. Variables would win.
        file = root / "settings.toml"
        file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in settings.items()), encoding="utf-8")
        command += ["--config", str(file)]
        for key in settings:
            variables.pop(_variable(key), None)
            inherited.pop(_variable(key), None)
    process = subprocess.Popen(
        command,
        cwd=str(root),
        env={**inherited, **environment(), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    log = _Log(process)
    server = Server(process, "", folder, log)
    url = log.address(timeout)
    if url is None:
        ended = process.poll()
        said = log.text()
        server.stop(timeout=1.0)
        what = f"did not start within {timeout:g} s" if ended is None else f"ended with status {ended}"
        raise ServerFailed(f"the service {what}. Its log:\n{said}")
    server.url = url
    if log.has_demo_weights:
        warnings.warn(
            "the pack has demo weights: its numbers mean nothing. For real scores, name a pack: serve(pack=…)",
            stacklevel=2,
        )
    return server


class _Log:
    """Reads what a process prints, so that its pipe never fills, and keeps the last lines."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._lines: Deque[str] = deque(maxlen=_LINES)
        self._address: List[str] = []
        self.has_demo_weights = False
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._read, name="stellar-score log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            found = _LISTENING.search(text)
            if found and not self._address:
                self.has_demo_weights = "demo weights" in text
                self._address.append(found.group(1))
                self._known.set()
            self._lines.append(text)
        self._known.set()

    def address(self, timeout: float) -> Optional[str]:
        """Waits until the service listens; `None` if it ended or the time is over."""
        self._known.wait(timeout)
        if not self._address and self._known.is_set():
            # The output has ended, so the process is ending.
            deadline = time.monotonic() + 5
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        return self._address[0] if self._address else None

    def text(self) -> str:
        return "\n".join(list(self._lines))

    def join(self) -> None:
        self._thread.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _variable(key: str) -> str:
    return "STELLAR_" + key.replace(".", "__").upper()


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(of)}" for key, of in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)
