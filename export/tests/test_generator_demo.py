"""The whole way from drawings to a leaderboard, in small. Slow: it takes minutes, and needs the built program."""

import json
import subprocess
import sys

import pytest
from conftest import REPO

pytest.importorskip("diffusers", reason="training needs the packages of requirements-reference.txt")

METHODS = {
    "stellarnet-like",
    "stellarnet-like-made-masks",
    "stellarnet-like-no-masks",
    "stellarnet-untrained",
    "elite-like",
    "textual-inversion",
    "dreambooth",
}


@pytest.mark.slow
def test_all_systems_are_trained_and_stand_on_the_leaderboard(tmp_path, program):
    command = [sys.executable, REPO / "scripts" / "generator_demo.py", "--small", "--program", program]
    command += ["--work", tmp_path / "work"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    results = json.loads((tmp_path / "work" / "results.json").read_text())
    assert set(results["leaderboard"]) == set(results["areas"]) == METHODS
    for method in METHODS:
        assert results["leaderboard"][method]["clip_i"] is not None
        # Three people with one prompt each.
        assert results["areas"][method]["images"] == 3
        assert 0 <= results["areas"][method]["auc"]["dino"] <= 1
    training = json.loads((tmp_path / "work" / "training" / "training.json").read_text())
    assert training["excluded_identities"] == 3

    # Nothing is made twice.
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout[-3000:]
    assert again.stdout.count("done before") == 20

    other = subprocess.run([*command[:2], *command[3:]], capture_output=True, text=True)
    assert other.returncode != 0 and "other sizes" in other.stderr
