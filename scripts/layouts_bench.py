#!/usr/bin/env python3
"""Samples per second and bytes of log of ways to store scores in PostgreSQL, in turns.

    POSTGRES_SETTINGS="-c fsync=on -c synchronous_commit=on -c full_page_writes=on -c max_wal_size=4GB" \\
        scripts/postgres.sh run scripts/layouts_bench.py --layouts scores,array --batches 64 --clients 1,8

Each layout has a database with the schema of migrations/postgres, and the SQL of docs/SCALING.md that carries its name.
psql sends the service's statements (scripts/recording_sql.py). In each round, every layout records the same samples
once; afterwards all layouts must return the same scores. `CPU` is the time of the server's backends; that of the
checkpointer and of other background processes is not in it.

--operation accept    accepts samples instead, a transaction for each batch
--operation faces     stores the faces of images
--operation read      reads the rows of accepted samples, as a worker does for the ids that it pulled
--runs 8              spreads the clients over eight runs, so that they do not wait for the row of one run
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence
from urllib.parse import urlsplit, urlunsplit

import recording_sql
from recording_sql import LAYOUTS, METRICS, NOW, PACK, Sample, text

ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "docs/SCALING.md"
# From a JSON list to PostgreSQL's text of an array.
ARRAY = str.maketrans("[]", "{}")
TICKS = os.sysconf("SC_CLK_TCK")
SCORES = "SELECT sample, metric, pack, metric_version, value, reason, flags, service_version, created FROM "
START = "SELECT 'at', extract(epoch FROM clock_timestamp()), pg_read_file('/proc/self/stat');\n"


class Measured(NamedTuple):
    rate: float
    """Samples per second."""
    cpu: float
    """Milliseconds of the server's backends a sample."""
    log: float
    """Bytes of the write-ahead log a sample."""
    images: float
    """Images of full pages in the log a sample, each at most 8 KiB: the first change of a page after a checkpoint."""
    held: float
    """Milliseconds of a transaction between the change of the run's row and the end of the commit."""


class Database:
    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        parts = urlsplit(server)
        self.url = urlunsplit(parts._replace(path=f"/{name}"))
        psql(server, f"DROP DATABASE IF EXISTS {name};")
        psql(server, f"CREATE DATABASE {name};")
        for migration in sorted((ROOT / "migrations/postgres").glob("*.sql")):
            psql(self.url, migration.read_text())

    def drop(self) -> None:
        psql(self.server, f"DROP DATABASE {self.name};")


def psql(url: str, sql: str) -> str:
    command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"]
    done = subprocess.run(command, input=sql, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"psql: {done.stderr.strip()[:2000]}")
    return done.stdout


def sketches() -> Dict[str, str]:
    """The SQL of docs/SCALING.md by the name in its first line."""
    blocks = re.findall(r"```sql\n(-- (?:layout|sketch): (\w+)\n.*?)```", PLAN.read_text(), re.DOTALL)
    return {name: sql for sql, name in blocks}


def prepare(database: Database, layout: str, runs: Sequence[str]) -> None:
    if layout != "scores":
        psql(database.url, sketches()[layout])
    packs = f"INSERT INTO packs (digest, name, weights, created) VALUES ({text(PACK)}, 'bench', 'official', {NOW});"
    method = "00000000-0000-4000-8000-999999999999"
    listed = ", ".join(f"({text(run)}, {text(method)}, {text(run)}, {NOW})" for run in runs)
    psql(
        database.url,
        f"""{packs}
INSERT INTO methods (id, name, created) VALUES ({text(method)}, 'bench', {NOW});
INSERT INTO runs (id, method, name, created) VALUES {listed};""",
    )
    if layout != "scores":
        metrics, versions = json.dumps(METRICS), json.dumps([1] * len(METRICS))
        if layout != "json":
            metrics, versions = metrics.translate(ARRAY), versions.translate(ARRAY)
        psql(
            database.url,
            f"""INSERT INTO score_sets (id, pack, service_version, metrics, versions)
VALUES (1, {text(PACK)}, 'bench', {text(metrics)}, {text(versions)});""",
        )


def run_clients(database: Database, transactions: List[List[str]]) -> List[float]:
    """Each client sends its transactions. Returns the seconds from the first start to the last end, those of CPU, and
    the milliseconds under the lock of a run."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(transactions)) as clients:
        files = []
        for at, of in enumerate(transactions):
            # All begin together, when the lock is free.
            lock = "SELECT pg_advisory_lock_shared(7);\n"
            body = f"\\o /dev/null\n{lock}\\o\n{START}\\o /dev/null\n{''.join(of)}\\o\n{START}"
            files.append(Path(folder) / f"{at}.sql")
            files[-1].write_text(body)
        command = ["psql", "-X", "-q", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1", "-d", database.url, "-f"]
        gate = subprocess.Popen(
            ["psql", "-X", "-q", "-d", database.url], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert gate.stdin
        gate.stdin.write("SELECT pg_advisory_lock(7);\n")
        gate.stdin.flush()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND "
        while int(psql(database.url, f"{waiting} granted;")) < 1:
            pass
        work = [clients.submit(subprocess.run, [*command, str(file)], capture_output=True, text=True) for file in files]
        while int(psql(database.url, f"{waiting} NOT granted;")) < len(files) and not any(of.done() for of in work):
            pass
        gate.stdin.close()
        gate.wait()
        began, ended, held, cpu = [], [], [], 0.0
        for of in work:
            done = of.result()
            if done.returncode:
                raise SystemExit(f"psql: {done.stderr.strip()[:2000]}")
            lines = [line.split("|") for line in done.stdout.splitlines() if line.startswith("at|")]
            held += [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("held ")]
            times = [float(line[1]) for line in lines]
            ticks = [sum(map(int, line[2].rsplit(")", 1)[1].split()[11:13])) for line in lines]
            began.append(times[0])
            ended.append(times[1])
            cpu += (ticks[1] - ticks[0]) / TICKS
        return [max(ended) - min(began), cpu, statistics.fmean(held) if held else 0.0]


def split(samples: List[Sample], size: int) -> List[List[Sample]]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def measure(database: Database, batch: int, groups: List[List[Sample]], arguments: argparse.Namespace) -> Measured:
    layout = database.name.rsplit("_", 1)[1]
    make = {
        "record": lambda group: recording_sql.record(group, layout, arguments.evidence),
        "accept": recording_sql.accept,
        "faces": lambda group: recording_sql.faces(group, arguments.faces),
        "read": recording_sql.read,
    }[arguments.operation]
    if arguments.operation in ("record", "read"):
        for group in groups:
            psql(database.url, "".join(map(recording_sql.accept, split(group, 500))))
    transactions = [[make(part) for part in split(group, batch)] for group in groups]
    # With statistics of empty tables, plans read all pending samples in each transaction.
    psql(database.url, "VACUUM ANALYZE pending_samples, kept_files, runs, summaries;")
    psql(database.url, "CHECKPOINT;")
    state = "SELECT pg_current_wal_insert_lsn() - '0/0', (SELECT wal_fpi FROM pg_stat_wal);"
    log_before = list(map(float, psql(database.url, state).split("|")))
    seconds, cpu, held = run_clients(database, transactions)
    # The server's counters are reported at most once a second.
    log_after = list(map(float, psql(database.url, f"SELECT pg_sleep(1.2);{state}").strip().split("\n")[-1].split("|")))
    count = sum(map(len, groups))
    return Measured(
        count / seconds,
        1000 * cpu / count,
        (log_after[0] - log_before[0]) / count,
        (log_after[1] - log_before[1]) / count,
        held,
    )


def source(database: Database) -> str:
    return "scores" if database.name.endswith("_scores") else "scores_as_rows"


def same_scores(databases: Sequence[Database]) -> int:
    """Number of scores, which must be equal in all layouts."""
    found = {}
    for database in databases:
        digest = f"""SELECT count(*), md5(string_agg(md5(given::text), '' ORDER BY sample, metric))
            FROM ({SCORES}{source(database)}) AS given;"""
        found[database.name] = psql(database.url, digest).strip()
    if len(set(found.values())) != 1:
        raise SystemExit(f"the layouts return different scores: {found}")
    return int(next(iter(found.values())).split("|")[0])


def reading(database: Database) -> str:
    """Milliseconds to read one metric of all samples, and all metrics, as reports do; and the size of the tables."""
    psql(database.url, "VACUUM ANALYZE;")
    of = f"EXPLAIN (ANALYZE, TIMING off) SELECT sample, metric, value FROM {source(database)} AS scores JOIN samples"
    join = f"ON samples.id = scores.sample WHERE samples.run IN (SELECT id FROM runs) AND scores.pack = {text(PACK)}"
    times = []
    for one in (f" AND metric = {text(METRICS[0])}", ""):
        plans = [psql(database.url, f"{of} {join}{one};") for _ in range(3)]
        times.append(min(float(re.search(r"Execution Time: ([\d.]+)", plan)[1]) for plan in plans))
    tables = "'scores'" if source(database) == "scores" else "'score_rows', 'score_sets'"
    size = psql(
        database.url,
        f"""SELECT sum(pg_total_relation_size(oid)) FROM pg_class
            WHERE relkind = 'r' AND (relname IN ({tables}) OR relname LIKE 'score_rows_%');""",
    )
    return f"| {times[0]:,.0f} | {times[1]:,.0f} | {int(size) / 2**20:,.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operation", choices=("record", "accept", "faces", "read"), default="record")
    parser.add_argument("--layouts", default="scores,array", help=f"of {', '.join(LAYOUTS)}; ratios are to the first")
    parser.add_argument("--batches", default="64", help="samples a transaction")
    parser.add_argument("--clients", default="1")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--best", action="store_true", help="the fastest rounds instead of medians: costs, not load")
    parser.add_argument("--samples", type=int, default=3200, help="of a round; a client has at most 200 transactions")
    parser.add_argument("--evidence", type=int, default=550, help="bytes of evidence a sample")
    parser.add_argument("--faces", type=int, default=2200, help="bytes of faces an image")
    arguments = parser.parse_args()
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        parser.error("TEST_DATABASE_URL is not set: use scripts/postgres.sh run")
    layouts = arguments.layouts.split(",")
    if unknown := set(layouts) - set(LAYOUTS):
        parser.error(f"unknown layout {', '.join(unknown)}; there are {', '.join(LAYOUTS)}")
    runs = [f"00000000-0000-4000-8000-{at:012}" for at in range(1, arguments.runs + 1)]
    databases = [Database(server, f"bench_{os.getpid()}_{layout}") for layout in layouts]
    try:
        names = "'server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'wal_compression'"
        show = f"SELECT string_agg(name || '=' || setting, ', ') FROM pg_settings WHERE name IN ({names});"
        print(psql(server, show).strip())
        for database, layout in zip(databases, layouts):
            prepare(database, layout, runs)
        seed = 0
        taken = "best" if arguments.best else "medians"
        print(f"\n{arguments.operation}, {arguments.runs} run(s), {taken} of {arguments.rounds} rounds\n")
        columns = ["samples/s", "ratio", "CPU ms/sample", "ratio", "log bytes/sample", "ratio", "page images/sample"]
        print(f"| layout | clients | batch | {' | '.join(columns)} | ms under the run's lock |")
        print("|---|" + "---:|" * 10)
        for clients in map(int, arguments.clients.split(",")):
            for batch in map(int, arguments.batches.split(",")):
                found: Dict[str, List[Measured]] = {layout: [] for layout in layouts}
                for _ in range(arguments.rounds):
                    seed += 1
                    each = max(batch, min(arguments.samples // clients, batch * 200))
                    run = itertools.cycle(runs)
                    groups = [recording_sql.samples(each, next(run), 100 * seed + at) for at in range(clients)]
                    # Each layout is first in turn: the first one also warms up what all share.
                    turn = seed % len(layouts)
                    for layout, database in [*zip(layouts, databases)][turn:] + [*zip(layouts, databases)][:turn]:
                        found[layout].append(measure(database, batch, groups, arguments))
                tell(found, clients, batch, arguments.best)
        if arguments.operation == "record" and len(databases) > 1:
            print(f"\n{same_scores(databases):,} scores are equal in all layouts\n")
            print("| layout | read one metric, ms | read all, ms | tables and indexes, MiB |\n|---|---:|---:|---:|")
            for layout, database in zip(layouts, databases):
                print(f"| {layout} {reading(database)}", flush=True)
    finally:
        for database in databases:
            database.drop()


def tell(found: Dict[str, List[Measured]], clients: int, batch: int, best: bool) -> None:
    first = next(iter(found.values()))
    for layout, rounds in found.items():
        middle = [min(column) if best else statistics.median(column) for column in zip(*rounds)]
        if best:
            middle[0] = max(of.rate for of in rounds)
        # Ratios are of the same round, since the machine is shared.
        ratio = [statistics.median(a[at] / b[at] if b[at] else 1.0 for a, b in zip(rounds, first)) for at in range(3)]
        print(
            f"| {layout} | {clients} | {batch} | {middle[0]:,.0f} | {ratio[0]:.2f} | {middle[1]:.3f} | {ratio[1]:.2f} "
            f"| {middle[2]:,.0f} | {ratio[2]:.2f} | {middle[3]:.2f} | {middle[4]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
