#!/usr/bin/env python3
"""Applies each block of SQL in docs/SCALING.md to the service's schema, and compares what its views merge.

    scripts/postgres.sh run scripts/scaling_sketches.py

Counts and sums of random scores are spread over the shards of a run, and over runs in cells, with another pivot each.
The views must return the mean and the deviation of all scores.
"""

import os
import random
import statistics
import sys
from typing import Dict, List, Sequence

from layouts_bench import Database, prepare, psql, sketches
from recording_sql import NOW, PACK, text

METHOD_NAME = "'bench'"


def sums(numbers: Sequence[float]) -> List[float]:
    """n, nulls, pivot, total and squares of a summary, as src/store/summaries/running.rs computes them."""
    pivot = numbers[0] if numbers else 0.0
    distances = [number - pivot for number in numbers]
    return [len(numbers), 1, pivot, sum(distances), sum(distance**2 for distance in distances)]


def parts(draw: random.Random) -> List[List[float]]:
    """Scores of several writers; the second one has none yet."""
    return [[draw.gauss(0.3, 0.05) for _ in range(count)] for count in (400, 0, 1, 37)]


def expect(what: str, found: str, numbers: Sequence[float]) -> None:
    """Compares “n|nulls|mean|deviation”."""
    n, nulls, mean, deviation = map(float, found.strip().split("|"))
    wanted = (len(numbers), statistics.fmean(numbers), statistics.stdev(numbers))
    for name, got, right in zip(("n", "mean", "deviation"), (n, mean, deviation), wanted):
        if not abs(got - right) <= 1e-12 * max(1.0, abs(right)):
            raise SystemExit(f"{what}: {name} is {got!r}, and should be {right!r}")
    if nulls < 3:
        raise SystemExit(f"{what}: {nulls} nulls were merged, and should be at least 3")


def shards(database: Database, run: str) -> None:
    of_writers = parts(random.Random(3))
    for shard, numbers in enumerate(of_writers):
        values = ", ".join(map(repr, sums(numbers)))
        psql(
            database.url,
            f"""INSERT INTO summary_shards VALUES ({text(run)}, {shard}, {text(PACK)}, 'dino', 1, {values});
INSERT INTO run_shards VALUES ({text(run)}, {shard}, 1, {5 if shard == 0 else -1}, 0, {len(numbers)});""",
        )
    counts = psql(database.url, "SELECT revision, waiting, failed, scored FROM run_counts;").strip()
    if counts != "4|2|0|438":
        raise SystemExit(f"shards: the counts of the run are {counts}")
    merged = "SELECT n, nulls, pivot + total / n, sqrt((squares - total * total / n) / (n - 1)) FROM merged_summaries;"
    expect("shards", psql(database.url, merged), [number for numbers in of_writers for number in numbers])


def cells(database: Database) -> None:
    of_runs = parts(random.Random(5))
    for at, numbers in enumerate(of_runs):
        run, values = text(f"00000000-0000-4000-8000-{at:012}"), ", ".join(map(repr, sums(numbers)))
        psql(
            database.url,
            f"""INSERT INTO cells VALUES ('cell {at}', 'https://cell-{at}.example.org', 'open', {NOW});
INSERT INTO run_cells VALUES ({run}, {METHOD_NAME}, 'run {at}', 'cell {at}', {NOW});
INSERT INTO cell_summaries VALUES ({run}, 1, {text(PACK)}, 'dino', 1, {values});""",
        )
    merged = "SELECT n, nulls, mean, deviation FROM method_summaries;"
    expect("cells", psql(database.url, merged), [number for numbers in of_runs for number in numbers])


def main() -> int:
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        raise SystemExit("TEST_DATABASE_URL is not set: use scripts/postgres.sh run")
    run = "00000000-0000-4000-8000-000000000001"
    found: Dict[str, str] = sketches()
    for name, sql in found.items():
        database = Database(server, f"sketch_{os.getpid()}_scores")
        try:
            prepare(database, "scores", [run])
            psql(database.url, sql)
            if name == "shards":
                shards(database, run)
            if name == "cells":
                cells(database)
        finally:
            database.drop()
        print(f"{name}: applied" + (", and merged right" if name in ("shards", "cells") else ""))
    if missing := {"array", "json", "partitioned", "shards", "cells"} - set(found):
        raise SystemExit(f"docs/SCALING.md has no SQL for {', '.join(sorted(missing))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
