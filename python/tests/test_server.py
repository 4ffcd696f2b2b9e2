"""Services that `serve` starts."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import PROGRAM, ROOT

from stellar_score import Client, ServerFailed, StellarError, serve, server


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setenv("STELLAR_PROGRAM", str(PROGRAM))
    monkeypatch.delenv("STELLAR_KEY", raising=False)


def test_a_service_scores_and_leaves_nothing(goldens):
    with serve(ROOT / "packs/demo", settings={"engine.threads": 1, "server.allow_anonymous": False}) as running:
        with running.client() as client:
            scored = client.score(goldens / "coffee.jpg", "a cup of coffee")
            assert scored["scores"]["clip_t"]["value"] is not None
            folder = Path(running._folder.name)
            assert (folder / "stellar.db").exists()
        assert "listening" in running.log()
    assert not folder.exists()
    with pytest.raises(StellarError):
        Client(running.url, patience=0).get("livez")
    running.stop()


def test_data_stay_in_a_named_folder(tmp_path, goldens):
    for name in ("1", "2"):
        with serve(ROOT / "packs/demo", data=tmp_path / "data") as running, running.client() as client:
            client.score(goldens / "coffee.jpg", "a cup of coffee", method="mine", name=name)
            listed = client.get("v1", "runs")
    assert listed["runs"][0]["counts"]["scored"] == 2


def test_an_error_at_start_is_told(tmp_path):
    with pytest.raises(ServerFailed, match=r"ended with status 1.*\n(.*\n)*.*no-such-pack"):
        serve(tmp_path / "no-such-pack")
    with pytest.raises(ServerFailed, match=r"(?i)provider"):
        serve(settings={"engine.provider": "abacus"})
    with pytest.raises(ServerFailed, match="provder"):
        serve(settings={"engine.provder": "cpu"})


def test_settings_win_over_the_environment_and_random_weights_are_told(monkeypatch):
    monkeypatch.setenv("STELLAR_ENGINE__PROVIDER", "abacus")
    lists = {"engine.provider": "cpu", "rewards.adapter": [{"protocol": "pickle", "name": "a", "reward": "aesthetic"}]}
    with pytest.warns(UserWarning, match="demo weights"):
        running = serve(ROOT / "packs/demo", settings=lists)
    running.stop()


def test_a_service_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho loading\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("STELLAR_PROGRAM", str(slow))
    with pytest.raises(ServerFailed, match=r"did not start within 0.5 s.*\n.*loading"):
        serve(timeout=0.5)


def test_a_service_ends_with_the_process_that_started_it(tmp_path):
    script = textwrap.dedent(f"""
        import os, sys, time
        sys.path.insert(0, {str(ROOT / "python/src")!r})
        from stellar_score import serve
        server = serve({str(ROOT / "packs/demo")!r}, data={str(tmp_path)!r})
        print(server._process.pid, flush=True)
        time.sleep(600)
    """)
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    pid = int(owner.stdout.readline())
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the service still runs"
        time.sleep(0.05)


def test_without_a_program_the_error_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.delenv("STELLAR_PROGRAM")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerFailed, match="make wheel"):
        serve()
    with pytest.raises(SystemExit, match="make wheel"):
        server.main()


def test_the_libraries_of_the_gpu_wheel_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("ORT_DYLIB_PATH", raising=False)
    assert server.environment() == {}
    for file in ("stellar_score_cuda/__init__.py", "stellar_score_cuda/libonnxruntime.so.1.31.1"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "nvidia/cublas/lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    assert server.environment() == {
        "ORT_DYLIB_PATH": str(tmp_path / "stellar_score_cuda/libonnxruntime.so.1.31.1"),
        "LD_LIBRARY_PATH": f"{tmp_path / 'nvidia/cublas/lib'}{os.pathsep}/before",
    }
    monkeypatch.setenv("ORT_DYLIB_PATH", "/own")
    assert server.environment() == {}
