#!/usr/bin/env python3
"""What limits a scoring cluster at which size, by simulation (scripts/scale_model.py). Needs only Python.

    scripts/simulate_scale.py                                   the tables of docs/SCALING.md, as Markdown
    scripts/simulate_scale.py --gpus 8,64 --rate 61 --cores 4   of other sizes, or of another machine
    scripts/simulate_scale.py --preempted                       what preemptions cost
    scripts/simulate_scale.py --check 1=59 2=118 4=231          compares with measured samples/s of 1, 2 and 4 workers

--check exits with 1 if the simulation is wrong by more than --within. Give every option the value of the measured
system.
"""

import argparse
import dataclasses
import sys
from typing import Any, Dict, List, Tuple

from scale_model import Result, System, Transaction, simulate

GPUS = (8, 32, 100, 400, 1000)

# Measured with the commands of docs/SCALING.md on two shared cores; its table says how.
FLUSH = 0.0015
RECORD = Transaction(fixed=0.0010, each=0.000385, locked=0.0008, flush=FLUSH)
ONE_ROW = dataclasses.replace(RECORD, each=0.36 * RECORD.each)
ACCEPT = Transaction(fixed=0.0007, each=0.00007, locked=0.0003, flush=FLUSH)
FACES, FACES_TOGETHER = 0.0003, 0.000062
READ = 0.00004
PUBLISH, DELIVER = 0.000022, 0.000036
MEASURED = System(record=RECORD, accept=ACCEPT, faces=FACES, read=READ, publish=PUBLISH, deliver=DELIVER)

STEPS: Dict[str, Dict[str, Any]] = {
    "0 as built": {},
    "1 accept together": {"accept_group": 64},
    "2 faces together": {"faces": FACES_TOGETHER},
    "3 more in flight": {"max_ack_pending": 65_536},
    "4 16 cores": {"cores": 16},
    "5 one row a sample": {"record": ONE_ROW},
    "6 shards of a run": {"runs": 16},
    "7 cells of 100": {"cell_gpus": 100},
}
"""The steps of docs/SCALING.md, each with those before it."""


def steps() -> Dict[str, System]:
    systems, so_far = {}, MEASURED
    for name, changes in STEPS.items():
        so_far = dataclasses.replace(so_far, **changes)
        systems[name] = so_far
    return systems


def changed(system: System, changes: Dict[str, Any]) -> System:
    """The system with other values; `flush` is that of all transactions."""
    changes = dict(changes)
    flush = changes.pop("flush", None)
    if flush is not None:
        both = {name: dataclasses.replace(getattr(system, name), flush=flush) for name in ("record", "accept")}
        system = dataclasses.replace(system, **both)
    return dataclasses.replace(system, **changes)


def table(systems: Dict[str, System], sizes: List[int]) -> str:
    lines = ["| GPUs | " + " | ".join(systems) + " |", "|---:|" + "---|" * len(systems)]
    for gpus in sizes:
        results = [simulate(dataclasses.replace(system, gpus=gpus)) for system in systems.values()]
        lines.append(f"| {gpus:,} | " + " | ".join(map(cell, results)) + " |")
    return "\n".join(lines)


def cell(result: Result) -> str:
    """Efficiency, then the busy share of the database, and what limits."""
    limit = f" ({result.limit})" if result.limit else ""
    return f"{result.efficiency:.2f} / {min(result.database, 1.0):.2f}{limit}"


def preemptions(system: System) -> str:
    """What preemptions cost 100 workers in half an hour: their restarts, and the work that they lose."""
    lines = ["| preemptions of a worker in an hour | efficiency | scored in vain |", "|---:|---:|---:|"]
    for often in (0.0, 0.05, 0.5, 2.0):
        result = simulate(dataclasses.replace(system, gpus=100, preemptions=often), seconds=1800.0, warm_up=300.0)
        lines.append(f"| {often:g} | {result.efficiency:.3f} | {100 * result.repeated:.3f} % |")
    return "\n".join(lines)


def check(system: System, measured: List[Tuple[int, float]], within: float) -> Tuple[str, bool]:
    """Compares measured samples per second with the simulation. Returns a table, and whether all are close enough."""
    lines, close = ["| workers | measured/s | simulated/s | error | limit |", "|---:|---:|---:|---:|---|"], True
    for workers, rate in measured:
        result = simulate(dataclasses.replace(system, gpus=workers), seconds=60.0)
        simulated = result.recorded / result.seconds
        error = simulated / rate - 1
        close = close and abs(error) <= within
        lines.append(f"| {workers} | {rate:.1f} | {simulated:.1f} | {100 * error:+.1f} % | {result.limit} |")
    return "\n".join(lines), close


def pair(text: str) -> Tuple[int, float]:
    workers, _, rate = text.partition("=")
    try:
        given = int(workers), float(rate)
    except ValueError:
        given = 0, 0.0
    if given[0] < 1 or not 0.0 < given[1] < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: give WORKERS=SAMPLES_PER_SECOND, such as 4=231.5")
    return given


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", nargs="+", type=pair, metavar="WORKERS=RATE", help="measured samples per second")
    parser.add_argument("--within", type=float, default=0.15, help="largest relative error of --check (%(default)s)")
    parser.add_argument("--preempted", action="store_true", help="what preemptions cost 100 workers")
    parser.add_argument("--gpus", default=",".join(map(str, GPUS)), help="sizes of the tables (%(default)s)")
    options = parser.add_argument_group("values of the system, for all steps")
    for field in dataclasses.fields(System):
        if field.name != "gpus" and isinstance(field.default, (int, float)):
            name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
            if kind is bool:
                options.add_argument(name, type=int, choices=(0, 1))
            else:
                options.add_argument(name, type=kind, metavar=kind.__name__.upper())
    options.add_argument("--flush", type=float, metavar="SECONDS", help=f"flush of the database's log ({FLUSH})")
    arguments = parser.parse_args()
    given = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(System)}
    changes = {name: value for name, value in given.items() if value is not None and name != "gpus"}
    if arguments.flush is not None:
        changes["flush"] = arguments.flush
    if any(value < 0 for value in changes.values()):
        parser.error("a value of the system cannot be negative")
    if any(changes.get(name, 1) < 1 for name in ("engine_batch", "in_flight", "group", "writers", "runs", "cores")):
        parser.error("engine_batch, in_flight, group, writers, runs and cores are at least 1")
    if arguments.check:
        lines, close = check(changed(MEASURED, changes), arguments.check, arguments.within)
        print(lines)
        return 0 if close else 1
    if arguments.preempted:
        *_, last = steps().values()
        print(preemptions(changed(last, changes)))
        return 0
    sizes = [int(size) for size in arguments.gpus.split(",")]
    print(table({name: changed(system, changes) for name, system in steps().items()}, sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
