#!/usr/bin/env python3
"""Shows a cluster of four workers, of which two are killed, and compares its scores with those of a single process.

    make scale-demo
    scripts/scale_demo.py [--identities 20] [--prompts 30] [--workers 4] [--kills 2] [--restart 8 | --no-restart]

First the images of a synthetic dataset are submitted to one process on the embedded default: SQLite and a folder. Then to a
cluster on loopback addresses, without containers: nats-server, PostgreSQL, an object store, an API instance that loads no
model, and workers. A table shows what each worker has scored and what waits. When a third is scored, workers are killed with
SIGKILL; they are started again after `--restart` seconds. In the end every sample must be scored once, and every score
and the report must be those of the single process. Exits with 1 if they are not. Ctrl-C ends everything.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cluster import Cluster, end_with_signals, engine
from cluster_observer import CREATED, IN_FLIGHT, REPEATED, WAITING, Observer
from service import Service, rows_of
from sigkill import client, scores
from soak_reference import alike, alike_tables, difference, synthesize, table_of

# The part of the samples after which workers are killed.
KILL_AT = 1 / 3
# Seconds between two tables, on a terminal and elsewhere.
LIVE, PRINTED = 1, 5


class Table:
    """Prints the state of the cluster; on a terminal in place."""

    def __init__(self):
        self.live, self.lines, self.printed = sys.stdout.isatty(), 0, 0.0

    def show(self, lines, now=False):
        if not now and time.monotonic() - self.printed < (LIVE if self.live else PRINTED):
            return
        if self.live and self.lines:
            # Up to the first line of the table, and erase what is below.
            print(f"\x1b[{self.lines}A\x1b[J", end="")
        print("\n".join(lines), flush=True)
        self.lines, self.printed = len(lines), time.monotonic()

    def say(self, text):
        """Prints a line that stays."""
        print(text, flush=True)
        self.lines = 0


def state_of(worker, down):
    if worker.name in down:
        return "killed"
    return "running" if worker.process.poll() is None else "ended"


def table(cluster, observer, run, total, down):
    scored = sum(observer.counts[worker.name][CREATED] for worker in cluster.workers)
    waiting, in_flight = (observer.value(name) or 0 for name in (WAITING, IN_FLIGHT))
    lines = [f"{run['scored']} of {total} samples scored, {waiting:.0f} wait, {in_flight:.0f} in flight",
             f"  {'worker':12}{'state':10}{'scored':>8}{'share':>8}"]
    for worker in cluster.workers:
        own = observer.counts[worker.name][CREATED]
        lines.append(f"  {worker.name:12}{state_of(worker, down):10}{own:8.0f}{own / max(scored, 1):8.0%}")
    return lines


def counts(service):
    """The counts of the only run, which is there soon after the client has begun."""
    runs = service.get("/v1/runs")["runs"]
    return runs[0]["counts"] if runs else {"scored": 0}


def alone(arguments, root):
    """Submits to one process; returns the state and samples of the run, and its report."""
    service = Service(arguments.program, root / "alone", settings=engine("real", 0)).start()
    try:
        service.ready()
        began = time.monotonic()
        submit(arguments, service, root)
        (run,) = service.get("/v1/runs")["runs"]
        return *scores(service), table_of(service, run["run_id"]), time.monotonic() - began
    finally:
        service.kill()


def submit(arguments, service, root, watch=lambda: None):
    """Runs `stellar-score submit` until it has printed its report; exits if it fails."""
    path = root / "submit.txt"
    with open(path, "ab") as log:
        process = client(arguments, service, log)
        try:
            while process.poll() is None:
                watch()
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        sys.exit(f"stellar-score submit failed: {path.read_text(errors='replace')[-2000:]}")


def together(arguments, root, total):
    """The same with a cluster of which workers are killed."""
    shown, down = Table(), {}
    # Soon, so that the samples of killed workers go to others before these have nothing left to do.
    settings = engine("real", 0) | {"STELLAR_DISPATCH__NATS__ACK_SECONDS": "8"}
    with Cluster(root, arguments.program, arguments.s3_server, 1, arguments.workers, settings) as cluster:
        cluster.start()
        shown.say(f"the cluster is ready: nats-server, PostgreSQL, an object store, 1 API instance, {arguments.workers} workers")
        observer, api, killed = Observer(cluster.services), cluster.apis[0], 0
        began = time.monotonic()

        def watch():
            nonlocal killed
            run = counts(api)
            if not killed and run["scored"] >= KILL_AT * total:
                for worker in cluster.workers[: arguments.kills]:
                    worker.kill()
                    down[worker.name] = time.monotonic()
                killed = len(down)
                shown.say(f"SIGKILL to {', '.join(down)} after {run['scored']} samples")
            for worker in cluster.workers:
                if arguments.restart is not None and time.monotonic() - down.get(worker.name, time.monotonic()) > arguments.restart:
                    worker.start()
                    del down[worker.name]
                    shown.say(f"{worker.name} is started again")
            shown.show(table(cluster, observer, run, total, down))

        try:
            submit(arguments, api, root, watch)
        finally:
            observer.stop()
        seconds = time.monotonic() - began
        shown.show(table(cluster, observer, counts(api), total, down), now=True)
        if killed < arguments.kills:
            sys.exit("the run was over before workers could be killed: give more --identities or --prompts")
        (run,) = api.get("/v1/runs")["runs"]
        state, samples = scores(api)
        problems = [f"the run counts {run['counts']}"] if run["counts"]["scored"] != len(samples) else []
        (rows,) = rows_of(cluster.postgres.url, "SELECT count(*), count(DISTINCT name) FROM samples")
        if rows != (str(len(samples)),) * 2:
            problems.append(f"the database has {rows[0]} rows for {rows[1]} names")
        twice = observer.sums()[REPEATED]
        shown.say(f"{seconds:.0f} s; {twice:.0f} samples were scored by two workers, and recorded once")
        return state, samples, table_of(api, run["run_id"]), problems


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--s3-server", help="default: stellar-s3-server beside the program")
    parser.add_argument("--identities", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--restart", type=float, default=8, help="seconds after which killed workers are started again")
    parser.add_argument("--no-restart", dest="restart", action="store_const", const=None)
    arguments = parser.parse_args()
    if not 0 <= arguments.kills < arguments.workers:
        parser.error("--kills must be less than --workers: somebody has to score")
    program = Path(arguments.program).resolve()
    arguments.s3_server = str(Path(arguments.s3_server or program.with_name("stellar-s3-server")).resolve())
    arguments.program, arguments.metrics = str(program), None
    for path in (arguments.program, arguments.s3_server):
        if not Path(path).is_file():
            parser.error(f"{path} is not there: build both with `make scale-demo`")
    return arguments


def main():
    arguments = parse()
    end_with_signals()
    root = Path(tempfile.mkdtemp(prefix="stellar-scale."))
    try:
        synthesize(arguments.program, root, arguments.identities, arguments.prompts)
        arguments.dataset, arguments.generations = str(root / "stellar"), str(root / "sample/generations")
        state, expected, report, seconds = alone(arguments, root)
        print(f"one process, SQLite and a folder: {len(expected)} samples in {seconds:.0f} s, {state}", flush=True)
        state, found, other, problems = together(arguments, root, len(expected))
    except KeyboardInterrupt:
        print("interrupted: everything has been stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if state != "finished":
        problems.append(f"the run is {state}")
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(name), found.get(name)
        if ours is None or theirs is None or ours[:2] != theirs[:2]:
            problems.append(f"{name}: {ours and ours[0]} in one process, {theirs and theirs[0]} in the cluster")
        elif not alike(ours[2], theirs[2]):
            problems.append(f"{name}: {difference(ours[2], theirs[2])}")
    if not alike_tables(report, other):
        problems.append(f"the reports differ: {difference(report, other)}")
    compared = sum(len(of) for _, _, of in expected.values())
    for problem in problems[:10]:
        print(f"WRONG: {problem}")
    print(f"{len(found)} samples and {compared} scores compared: " + (f"{len(problems)} problems" if problems else
          "each is scored once, and scores and report equal those of one process"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
