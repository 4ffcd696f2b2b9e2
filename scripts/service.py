"""Shared by the load scripts: the service as a process, forms, synthetic images. Needs only Python."""

import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

BOUNDARY = "stellar-score-scripts"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def png(side, seed):
    """A PNG of noise, which is in no cache."""
    rows = random.Random(seed)
    raw = b"".join(b"\0" + rows.randbytes(3 * side) for _ in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b"")


def flat_jpeg(side, note):
    """A flat grey JPEG: two bits per block in the file, `side` x `side` pixels in memory. `note` makes the file unique."""
    segment = lambda marker, data: b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data
    frame = struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)
    # One one-bit code: a difference of 0, and the end of the block.
    table = bytes([1] + [0] * 15) + b"\0"
    blocks = ((side + 7) // 8) ** 2
    return (
        b"\xff\xd8"
        + segment(0xFE, note.encode())
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC0, frame)
        + segment(0xC4, b"\x00" + table)
        + segment(0xC4, b"\x10" + table)
        + segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
        + bytes((2 * blocks + 7) // 8)
        + b"\xff\xd9"
    )


def form(fields):
    """Encodes a form; `fields` is a list of (name, text or bytes of a file)."""
    parts = []
    for name, value in fields:
        file = '; filename="f"' if isinstance(value, bytes) else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def schema_in(postgres, name):
    """Creates a schema in the database and returns the store's URL for it."""
    subprocess.run(["psql", postgres, "-qc", f"CREATE SCHEMA {name}"], check=True)
    return f"{postgres}{'&' if '?' in postgres else '?'}options=-c%20search_path%3D{name}"


def rows_of(postgres, statement):
    """Returns the rows of a query, as tuples of texts."""
    command = ["psql", postgres, "-Atc", statement]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [tuple(line.split("|")) for line in printed.splitlines()]


def without_settings():
    """The environment without settings of the program."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STELLAR_")}


class Service:
    """The program on a free port, with its spool in `folder`, and also its database unless `store` names another."""

    def __init__(self, program, folder, store="", settings=(), command="serve"):
        self.program, self.folder, self.port, self.settings = program, Path(folder), free_port(), dict(settings)
        self.command = command
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = store or f"sqlite:{self.folder}/stellar.db"
        self.log, self.process, self.started = self.folder / "log.txt", None, 0.0
        # Whether an interrupt from the terminal does not reach the process.
        self.detached = False

    def start(self):
        """Starts or restarts the process without waiting."""
        environment = without_settings() | {
            "STELLAR_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "STELLAR_STORE__URL": self.store,
            "STELLAR_STORE__SPOOL": str(self.files),
        } | self.settings
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, self.command], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log, start_new_session=self.detached,
            )
        self.started = time.monotonic()
        return self

    @property
    def files(self):
        return self.folder / "files"

    def ready(self, seconds=60):
        """Waits until /readyz returns 200; exits if the process ends or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.call("GET", "/readyz", timeout=5)[0] == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"the service did not start: {self.log.read_text()[-4000:]}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def call(self, method, path, body=None, kind="application/json", timeout=300):
        """Returns status, body and seconds. Raises OSError without a complete response."""
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            response = connection.getresponse()
            text = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"incomplete response: {error!r}") from error
        finally:
            connection.close()
        return response.status, text, time.monotonic() - started

    def bundle(self, run, images):
        """Packs a finished run with the images of a folder, and returns the bytes of the bundle."""
        out = self.folder / "bundle.zip"
        server = f"http://127.0.0.1:{self.port}"
        subprocess.run(
            [self.program, "submission", "pack", "--run", run, "--images", images, "--out", out, "--server", server],
            env=without_settings(), check=True, stdout=subprocess.DEVNULL,
        )
        return out.read_bytes()

    def get(self, path):
        """Returns the JSON document of a path."""
        status, text, _ = self.call("GET", path)
        if status != 200:
            sys.exit(f"GET {path}: {status} {text[:500]!r}")
        return json.loads(text)

    def pages(self, path, key):
        """Yields all entries of a paginated list."""
        after = ""
        while True:
            page = self.get(f"{path}limit=1000{after}")
            yield from page[key]
            if "next" not in page:
                return
            after = f"&after={page['next']}"

    def metrics(self, timeout=5):
        """Reads /metrics: values by name with labels. Raises OSError without a complete response."""
        status, text, _ = self.call("GET", "/metrics", timeout=timeout)
        if status != 200:
            raise OSError(f"GET /metrics: {status}")
        lines = (line.rpartition(" ") for line in text.decode().splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def resident(self):
        """Resident memory in MiB; 0 if the process has ended."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0.0
        lines = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return next((int(line.split()[1]) / 1024 for line in lines), 0.0)


def scores_of(sample):
    """Extracts the compared parts of GET /v1/samples/{id}: value, reason and flags by metric."""
    return {score["metric"]: [score.get(key) for key in ("value", "reason", "flags")] for score in sample["scores"]}
