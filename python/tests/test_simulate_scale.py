"""The simulation behind docs/SCALING.md agrees with what can be computed by hand."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from scale_model import System, Transaction, simulate

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts/simulate_scale.py"
CHEAP = Transaction(fixed=0.0001, each=0.00001, locked=0.0001, flush=0.0005)
BACKLOG = System(rate=50.0, accepting=False, record=CHEAP, max_ack_pending=1_000_000)
"""Everything was accepted before, and recording costs little."""


def rate(system, **changes):
    result = simulate(dataclasses.replace(system, **changes))
    return result.recorded / result.seconds


@pytest.mark.parametrize("preemptions", [0.0, 60.0])
def test_every_accepted_sample_is_recorded_or_left(preemptions):
    system = System(
        gpus=20,
        record=CHEAP,
        accept=CHEAP,
        accept_group=8,
        publish=1e-5,
        deliver=2e-5,
        read=1e-5,
        faces=1e-5,
        preemptions=preemptions,
    )
    result = simulate(dataclasses.replace(system, restart_seconds=5.0, ack_seconds=3.0))
    assert result.all_accepted == result.all_recorded + result.all_left
    assert result.all_recorded > 10_000
    assert (result.repeated > 0) == (preemptions > 0)


@pytest.mark.parametrize("gpus", [1, 2, 8, 32])
def test_at_low_load_the_rate_is_that_of_the_gpus(gpus):
    assert rate(BACKLOG, gpus=gpus) == pytest.approx(50.0 * gpus, rel=0.04)


@pytest.mark.parametrize("cores", [2, 4])
def test_it_saturates_at_the_rate_of_the_database(cores):
    record = Transaction(fixed=0.004, each=0.0005, locked=0.0, flush=0.0)
    result = simulate(dataclasses.replace(BACKLOG, gpus=400, record=record, cores=cores, runs=64))
    capacity = cores * result.group / (record.fixed + record.each * result.group)
    assert capacity < 0.5 * 400 * 50.0
    assert result.recorded / result.seconds == pytest.approx(capacity, rel=0.05)
    assert result.database == pytest.approx(1.0, abs=0.05)
    assert result.limit == "database"


@pytest.mark.parametrize("runs", [1, 4])
def test_it_saturates_at_the_lock_of_the_runs(runs):
    record = Transaction(fixed=0.0, each=0.0, locked=0.001, flush=0.009)
    result = simulate(dataclasses.replace(BACKLOG, gpus=1000, record=record, cores=64, runs=runs))
    most = runs * result.group / 0.010
    assert most < 0.6 * 1000 * 50.0
    # With several runs, chance leaves some of them idle at times.
    assert result.recorded / result.seconds == pytest.approx(most, rel=0.02 if runs == 1 else 0.1)


def test_accepting_one_at_a_time_limits_a_run_to_one_commit_each():
    accept = Transaction(fixed=0.001, each=0.0, locked=0.0005, flush=0.0045)
    system = System(gpus=32, record=CHEAP, accept=accept, cores=64)
    # Recording takes the lock too.
    assert 0.85 / 0.005 < rate(system) <= 1 / 0.005
    assert rate(system, accept_group=64) == pytest.approx(32 * 60.0, rel=0.05)


def test_it_saturates_at_the_rate_of_the_stream():
    # What was delivered before the measured time is recorded in it.
    assert rate(BACKLOG, gpus=100, deliver=1 / 1000) == pytest.approx(1000, rel=0.05)


def test_ids_in_flight_limit_the_rate_by_littles_law():
    # A sample is in flight for the fetch, a batch of 32 on the GPU at most after waiting for another, and a commit.
    system = dataclasses.replace(BACKLOG, gpus=50, fetch_seconds=1.0, max_ack_pending=800)
    assert 800 / (1.0 + 3 * 32 / 50.0) < rate(system) < 800 / 1.0
    assert simulate(system).limit == "ids"


def test_preempted_workers_are_missed_for_their_restart():
    system = dataclasses.replace(BACKLOG, gpus=50, rate=6.0, preemptions=20.0, restart_seconds=60.0)
    result = simulate(system, seconds=3000.0, warm_up=600.0)
    # 180 s up, 60 s down.
    assert result.efficiency == pytest.approx(0.75, abs=0.04)
    assert 0 < result.repeated < 0.05


def test_cells_are_systems_of_their_own():
    system = dataclasses.replace(BACKLOG, record=dataclasses.replace(CHEAP, each=0.001))
    whole, cells = (simulate(dataclasses.replace(system, gpus=400, cell_gpus=most)) for most in (0, 50))
    assert whole.efficiency < 0.3
    assert cells.efficiency > 0.6


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_the_check_says_the_error_and_fails_if_it_is_large():
    fits = run("--check", "1=60", "2=120", "--accepting", "0")
    assert fits.returncode == 0, fits.stderr
    assert len(fits.stdout.splitlines()) == 4
    fails = run("--check", "1=60", "2=60", "--accepting", "0")
    assert fails.returncode == 1
    error = float(fails.stdout.splitlines()[-1].split("|")[4].strip(" %"))
    assert error == pytest.approx(100, abs=5)


def test_a_slower_flush_accepts_fewer_samples_of_a_run():
    rates = []
    for flush in ("0.001", "0.01"):
        lines = run("--check", "32=1", "--flush", flush).stdout.splitlines()
        rates.append(float(lines[-1].split("|")[3]))
    assert rates[0] > 3 * rates[1] > 0


@pytest.mark.parametrize("given", ["x=5", "2", "0=5", "2=-1", "2=nan"])
def test_a_measured_rate_that_is_none_is_refused(given):
    refused = run("--check", given)
    assert refused.returncode == 2
    assert "WORKERS=SAMPLES_PER_SECOND" in refused.stderr
