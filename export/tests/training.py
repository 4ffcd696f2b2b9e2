"""What the tests of training share: a tiny base, made-up data and short configurations."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

diffusers = pytest.importorskip("diffusers", reason="training needs the packages of requirements-reference.txt")

from stellar_train import made_up, runs  # noqa: E402
from stellar_train.configuration import Configuration  # noqa: E402

SIDE = 64
SHORT = {
    "data": {"resolution": SIDE, "features": "cached", "held_out": 2},
    "training": {"steps": 6, "batch": 2, "seed": 3, "device": "cpu"},
    "output": {"log_every": 1, "checkpoint_every": 2, "validate_every": 0},
}


def configuration(method: str, **sections: dict) -> Configuration:
    """A short training of a method; `sections` replace single keys."""
    found = Configuration(method)
    for given in (SHORT, sections):
        for section, keys in given.items():
            known = found.values[section]
            known.update({key: value for key, value in keys.items() if key in known or given is sections})
    if "hidden" in found.values.get("model", {}):
        found.values["model"]["hidden"] = 16
    return found


def stellarnet(base: Path, folder: Path, cache: Path, **sections: dict) -> Configuration:
    found = configuration("stellarnet", **sections)
    found.values["base"]["folder"] = str(base)
    found.values["data"] |= {"folder": str(folder), "cache": str(cache)}
    return found


def prepared(configuration: Configuration, out: Path):
    """The method of a configuration that has not been trained."""
    found = runs.prepare(configuration, out, quiet=True)
    assert found is not None
    return found[0]


def killed(work, until: Path, step: int) -> None:
    """Runs `work` in a child process and kills it with SIGKILL once `until` (metrics.jsonl) has reached `step`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    end = time.monotonic() + 120
    while last_step(until) < step:
        assert time.monotonic() < end, "the child made no progress"
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child ended before it was killed"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=-1)


def make_data(out: Path, count: int = 6, **options) -> Path:
    made_up.identities(out, count, **options)
    return out
