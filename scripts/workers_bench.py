#!/usr/bin/env python3
"""Measures a cluster on one machine: what forwarding adds to a request, and how samples scale with workers.

    scripts/workers_bench.py forward [--requests 300] [--pad 1500000]
    scripts/workers_bench.py scale [--workers 1,2,4,8] [--ms 100] [--samples 1000]

`forward` sends the same request to a worker and through an API instance that forwards it, in turn, and prints the time of
both and the difference. The features are cached, so that the rest of the request counts. `--pad` makes the image file
that large.

`scale` lets 1 to 8 workers score a run each time: `--samples` for each worker, with a simulated engine that takes `--ms` for
a sample with all metrics. The run has three of them, for which 100 ms are about 65 samples per second. It prints samples
per second, the share of linear scaling, the cores that API instance and workers used and those that everything used,
how many samples a transaction recorded, and how long a sample waited for its transaction. Everything runs on loopback
addresses: with n cores, more than n cores' worth of work cannot scale. PostgreSQL flushes its log.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import Cluster
from service import FORM, form, png

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "packs/demo/goldens"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(send):
    started = time.perf_counter()
    status, answer = send()
    if status != 200:
        sys.exit(f"{status}: {answer}")
    return (time.perf_counter() - started) * 1e3


def request_of(pad):
    """A request whose image file is at least that large: a JPEG may have anything behind its end."""
    image = (GOLDENS / "astronaut.jpg").read_bytes()
    image += bytes(max(0, pad - len(image)))
    face = (GOLDENS / "astronaut-face.jpg").read_bytes()
    return form([("image", image), ("prompt", "a person in a space suit"), ("reference", face)])


def forward(options, root):
    cluster = Cluster(root, options.program, options.s3_server, workers=1)
    with cluster:
        cluster.start()
        body = request_of(options.pad)
        direct, forwarded = cluster.workers[0], cluster.apis[0]
        sending = [lambda of=of: of.call("POST", "/v1/score", body, FORM)[:2] for of in (direct, forwarded)]
        until = time.monotonic() + 60
        while sending[1]()[0] != 200 and time.monotonic() < until:
            time.sleep(0.1)
        for _ in range(20):
            timed(sending[0]), timed(sending[1])
        times = [[], []]
        for at in range(options.requests):
            # In turn, and each first in half of the rounds: load of the machine hits both.
            for which in ((0, 1), (1, 0))[at % 2]:
                times[which].append(timed(sending[which]))
    added = [b - a for a, b in zip(*times, strict=True)]
    print(f"| image file of {max(options.pad, 61368):,} bytes | median, ms | p95, ms |\n|---|---|---|")
    for name, values in (("to a worker", times[0]), ("through an API instance", times[1]), ("added, each pair", added)):
        print(f"| {name} | {statistics.median(values):.2f} | {percentile(values, 0.95):.2f} |")


def processor_seconds(pid):
    """Name and processor seconds of a process; none if it has ended."""
    try:
        name, _, fields = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return "", 0
    return name, sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def seconds_by_program():
    """Processor seconds of the programs that run now."""
    found = Counter()
    for folder in Path("/proc").glob("[0-9]*"):
        name, seconds = processor_seconds(folder.name)
        found[name] += seconds
    return found


def machine_seconds():
    """Processor seconds of everything on this machine."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def transactions(workers):
    """Count, seconds and samples of the transactions that recorded scores."""
    names = (
        'stellar_store_operation_seconds_count{resource="group_commit"}',
        'stellar_store_operation_seconds_sum{resource="group_commit"}',
        "stellar_store_group_size_count",
        "stellar_store_group_size_sum",
    )
    found = [worker.metrics() for worker in workers]
    return [sum(values.get(name, 0) for values in found) for name in names]


def score_run(cluster, name, samples):
    """Sends a run to a stopped queue, starts the workers, and returns samples per second of the middle of the run."""
    api = cluster.apis[0]
    facts = {"method": "scale", "run": name, "metrics": ["clip_i", "aesthetic", "clip_t"]}
    run = json.loads(api.call("POST", "/v1/runs", json.dumps(facts))[1])["run_id"]

    def put(at):
        body = form([("image", png(16, f"{name} {at}")), ("prompt", f"number {at}"), ("reference", png(24, "photo"))])
        status, answer, _ = api.call("PUT", f"/v1/runs/{run}/samples/{at:06}", body, FORM)
        if status not in (200, 202):
            sys.exit(f"{status}: {answer}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(samples)))
    return run


def scored(api, run):
    return api.get(f"/v1/runs/{run}")["counts"]["scored"]


def scale(options, root):
    sizes = [int(size) for size in options.workers.split(",")]
    rows = []
    for size in sizes:
        settings = {
            "STELLAR_ENGINE__PROVIDER": "simulated",
            "STELLAR_ENGINE__SIMULATED_MS": str(options.ms),
        }
        cluster = Cluster(root / f"{size}", options.program, options.s3_server, workers=size, settings=settings)
        with cluster:
            cluster.apis[0].start().ready()
            samples = options.samples * size
            run = score_run(cluster, f"of-{size}", samples)
            for worker in cluster.workers:
                worker.start()
            for worker in cluster.workers:
                worker.ready()
            marks, processes = [], [service.process for service in cluster.services]
            before, busy, programs = transactions(cluster.workers), machine_seconds(), seconds_by_program()
            # From now on all workers score. The end of a run is not measured: they do not end at the same moment.
            while True:
                done = scored(cluster.apis[0], run)
                marks.append((time.monotonic(), done, sum(processor_seconds(process.pid)[1] for process in processes)))
                if done >= 0.9 * samples:
                    break
                time.sleep(0.2)
            recorded = [now - then for now, then in zip(transactions(cluster.workers), before, strict=True)]
            busy, programs = machine_seconds() - busy, seconds_by_program() - programs
        seconds = marks[-1][0] - marks[0][0]
        rate = (marks[-1][1] - marks[0][1]) / seconds
        cores = (marks[-1][2] - marks[0][2]) / seconds
        calls, waited, groups, grouped = recorded
        shares = ", ".join(f"{name} {used / seconds:.2f}" for name, used in programs.most_common(6))
        print(f"{size} workers, cores by program: {shares}", file=sys.stderr)
        rows.append((size, rate, cores, busy / seconds, grouped / max(groups, 1), waited / max(calls, 1) * 1e3))
    heads = ("workers", "samples/s", "of linear", "cores of the service", "of all", "samples a transaction", "ms to record")
    print(f"| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    for size, rate, *rest in rows:
        linear = rate / (rows[0][1] / rows[0][0] * size)
        print(f"| {size} | {rate:.1f} | {linear:.2f} | {' | '.join(f'{value:.2f}' for value in rest)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("forward", "scale"))
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--s3-server", help="default: stellar-s3-server beside the program")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--pad", type=int, default=0)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--ms", type=float, default=100)
    parser.add_argument("--samples", type=int, default=1000, help="for each worker")
    options = parser.parse_args()
    options.s3_server = options.s3_server or Path(options.program).parent / "stellar-s3-server"
    with tempfile.TemporaryDirectory(prefix="stellar-workers-") as folder:
        {"forward": forward, "scale": scale}[options.what](options, Path(folder))


if __name__ == "__main__":
    main()
