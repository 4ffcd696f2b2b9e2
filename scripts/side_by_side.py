"""Shared by the benchmarks of single models: runs an original and its graph, each in its own process."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def synthetic_image(side: int):
    import numpy as np

    y, x = np.mgrid[0:side, 0:side]
    waves = [127 + 100 * np.sin(x * a + y * b) for a, b in ((0.02, 0.05), (0.11, 0.01), (0.004, 0.2))]
    return np.stack(waves, axis=-1).astype(np.uint8)


def measure(load, run, rounds: int) -> dict:
    """Returns CPU and wall seconds of the fastest round after a warm-up, and peak memory in MiB."""
    state = load()
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        output = run(state)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(times[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(cpu=cpu, wall=wall, peak=peak // 1024, loaded=loaded // 1024, sample=output)


def main(description: str, original: Callable, graph: Callable) -> None:
    """The command line: runs each side in its own process and compares them.

    `original(root, threads, rounds)` and `graph(root, pack, threads, rounds)` return the result of `measure`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=("original", "graph"), help="measure one side in this process, print JSON")
    a = parser.parse_args()
    if a.side == "original":
        print(json.dumps(original(a.root, a.threads, a.rounds)))
    elif a.side == "graph":
        print(json.dumps(graph(a.root, a.pack, a.threads, a.rounds)))
    else:
        found = {}
        for side in ("original", "graph"):
            command = [sys.executable, *sys.argv, "--side", side]
            environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(a.threads)}
            out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            r = found[side] = json.loads(out.splitlines()[-1])
            print(
                f"{side:9} {a.threads} threads: CPU {r['cpu']:.1f} s, wall {r['wall']:.1f} s, "
                f"peak {r['peak']} MiB (loaded {r['loaded']})",
                flush=True,
            )
        o, g = found["original"], found["graph"]
        worst = max(abs(x - y) for x, y in zip(o["sample"], g["sample"], strict=True))
        print(f"CPU time ÷ {o['cpu'] / g['cpu']:.2f}, wall ÷ {o['wall'] / g['wall']:.2f}, outputs within {worst:.1e}")
