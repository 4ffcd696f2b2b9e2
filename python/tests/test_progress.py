"""The progress bar, and what a user sees of a wait."""

import io
import logging
import subprocess
import sys
import types
from pathlib import Path

import pytest
from stand_in import problem, response

import stellar_score.transport
from stellar_score import Client
from stellar_score.progress import Bar


class Terminal(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "shown", "expected"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_without_tqdm_a_terminal_has_one_line(monkeypatch, is_terminal, shown, expected):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys, "stderr", Terminal(is_terminal))
    with Bar("images scored", 3, shown) as bar:
        bar.update(1)
        bar.update(4, 5)
    text = sys.stderr.getvalue()
    assert (text == "\rimages scored: 1/3\rimages scored: 4/5\n") if expected else text == ""


def test_tqdm_is_used_if_it_is_installed(monkeypatch):
    calls = []

    class Tqdm:
        def __init__(self, **options):
            calls.append(options)

        def refresh(self):
            calls.append((self.n, self.total))

        def close(self):
            calls.append("closed")

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Tqdm
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    with Bar("images scored", 3) as bar:
        bar.update(1)
        bar.update(2, 5)
    assert calls == [{"total": 3, "desc": "images scored", "unit": "image"}, (1, 3), (2, 5), "closed"]


def test_a_wait_is_logged_once_in_ten_seconds(stand_in, monkeypatch, caplog):
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds

    clock = types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(stellar_score.transport, "time", clock)
    stand_in.script = [problem(503, "unavailable", [("Retry-After", "4")])] * 5
    with caplog.at_level(logging.WARNING), Client(stand_in.url, key="") as client:
        client.get("v1")
    waited = now[0] - 100
    assert 20 <= waited <= 25
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for the service: 503 unavailable: the detail (request r1)"
    ] * 2


def test_a_program_that_ends_without_waiting_sends_what_it_has_added(stand_in):
    run = {"run_id": "x", "method": "m", "run": "r", "state": "open", "counts": {"accepted": 0, "pending": 0}}
    stand_in.pause, stand_in.otherwise = 0.02, response(200, run)
    source = str(Path(stellar_score.__file__).parent.parent)
    code = f"""
import sys; sys.path.insert(0, {source!r})
from stellar_score import Client
run = Client({stand_in.url!r}, key="").run("m")
for at in range(20):
    run.add(str(at), b"x")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    names = [each.path.split("/")[-1] for each in stand_in.requests if each.method == "PUT"]
    assert sorted(map(int, names)) == list(range(20))
