#!/usr/bin/env python3
"""Measures the time to the first byte of every page, with many samples stored.

    scripts/pages_bench.py [--program target/release/stellar-score] [--samples 100000] [--postgres URL] [--rounds 20]

Imports runs of 5,000 samples each with scores of all metrics, and requests each page several times, one at a time. The
first request of a page is apart, since later ones may find its numbers in a cache. GET /livez is the baseline of the same
run: the cost of a request that reads nothing.
"""

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from browser_check import Filler
from service import Service, schema_in

RUN = 5_000


def first_byte(port, path):
    """Returns milliseconds until the head of the response, and the size of its body in KiB."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.connect()
    started = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    response = connection.getresponse()
    took = (time.perf_counter() - started) * 1e3
    body = response.read()
    connection.close()
    if response.status != 200:
        sys.exit(f"pages_bench.py: GET {path}: {response.status} {body[:300]!r}")
    return took, len(body) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--postgres", default="", help="a database in which schemas may be created; default: SQLite")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    program = str(Path(arguments.program).resolve())
    with tempfile.TemporaryDirectory() as work:
        store = schema_in(arguments.postgres, f"pages_bench_{os.getpid()}") if arguments.postgres else ""
        service = Service(program, f"{work}/service", store).start().ready()
        try:
            filler = Filler(service, program, work)
            runs = [filler.imported(f"method {at:02}", at, RUN) for at in range(max(2, arguments.samples // RUN))]
            filler.dataset()
            filler.summarised(seconds=600)
            sample = filler.score("mine", "an astronaut in an orange space suit")
            stored = len(runs) * RUN
            pages = [
                "/livez", "/", "/leaderboard?pack=all", "/leaderboard?pack=toolkit&view=trade-off&x=clip_t&y=ips", "/runs", f"/runs/{runs[0]}",
                f"/compare?a={runs[0]}&b={runs[1]}", f"/gallery?runs={runs[0]},{runs[1]},{runs[2]}", f"/correlations?run={runs[0]}&pack=toolkit",
                f"/first-places?runs={runs[0]},{runs[1]},{runs[2]}", "/matrix?kind=attribute&min_samples=5", "/methods/method%2000", f"/samples/{sample}", "/vote", "/study", "/datasets", "/datasets/stellar", "/metrics-guide",
            ]
            print(f"{stored:,} samples in {len(runs)} runs on {'PostgreSQL' if store else 'SQLite'}")
            print(f"{'page':58} {'first':>8} {'median':>8} {'most':>8}  KiB   (milliseconds to the first byte)")
            for page in pages:
                first, _ = first_byte(service.port, page)
                later = [first_byte(service.port, page) for _ in range(arguments.rounds)]
                times = [took for took, _ in later]
                print(f"{page[:58]:58} {first:8.1f} {statistics.median(times):8.1f} {max(times):8.1f} {later[0][1]:4.0f}")
        finally:
            service.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
