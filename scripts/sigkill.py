#!/usr/bin/env python3
"""Evaluates a synthetic dataset twice, once undisturbed and once under random SIGKILLs, and compares every score.

    scripts/sigkill.py --kills 50 [--identities 20] [--prompts 100] [--program target/release/stellar-score]
                       [--postgres URL] [--seed 1] [--keep DIR]

The second evaluation kills the server or the client at random times, each with probability 1/2, and restarts it. With
--postgres each evaluation has its own schema in that database; otherwise each has its own SQLite file. Exits with 1 if
a sample is lost or a score, null or flag differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service import Service, schema_in, scores_of
from soak_reference import synthesize


def scores(service):
    """Returns the state of the only run, and (state, content, scores) of every sample by name."""
    (run,) = service.get("/v1/runs")["runs"]
    samples = {}
    for item in service.pages(f"/v1/runs/{run['run_id']}/samples?", "items"):
        scored = item["state"] == "scored"
        found = scores_of(service.get(f"/v1/samples/{item['id']}")) if scored else {}
        samples[item["name"]] = (item["state"], item["content"], found)
    return run["state"], samples


def client(arguments, server, log):
    command = [arguments.program, "submit", "--method", "made-up", "--dataset", arguments.dataset, "--images",
               arguments.generations, "--server", f"http://127.0.0.1:{server.port}", "--patience", "600"]
    if arguments.metrics:
        command += ["--metrics", arguments.metrics]
    return subprocess.Popen(command, stdout=log, stderr=log)


def evaluate(arguments, root, name, kills):
    """Submits until the table is printed; returns the seconds, the kills, the state and the scores."""
    folder = root / name
    store = schema_in(arguments.postgres, f"{name}_{os.getpid()}") if arguments.postgres else ""
    server = Service(arguments.program, folder, store).start()
    done = {"server": 0, "client": 0}
    started = time.monotonic()
    with open(folder / "client.txt", "ab") as log:
        process = client(arguments, server, log)
        while True:
            try:
                left = kills - sum(done.values())
                process.wait(random.uniform(*arguments.every) if left else None)
            except subprocess.TimeoutExpired:
                if random.random() < 0.5:
                    server.kill()
                    done["server"] += 1
                    server.start()
                else:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    done["client"] += 1
                    process = client(arguments, server, log)
                continue
            if process.returncode != 0:
                sys.exit(f"the client failed: {(folder / 'client.txt').read_text()[-2000:]}")
            break
    seconds = time.monotonic() - started
    state, samples = scores(server)
    server.stop()
    return seconds, done, state, samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--identities", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, nargs=2, default=(1.0, 6.0), help="seconds between kills")
    parser.add_argument("--metrics", help="codes, separated by commas (default: all)")
    parser.add_argument("--postgres")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    arguments.program = str(Path(arguments.program).resolve())
    random.seed(arguments.seed)
    root = arguments.keep or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)

    synthesize(arguments.program, root, arguments.identities, arguments.prompts)
    arguments.dataset, arguments.generations = str(root / "stellar"), str(root / "sample/generations")

    seconds, _, state, calm = evaluate(arguments, root, "calm", 0)
    print(f"undisturbed: {len(calm)} samples in {seconds:.0f} s, {state}")
    seconds, kills, state, stormy = evaluate(arguments, root, "stormy", arguments.kills)
    print(f"{kills['server']} kills of the server, {kills['client']} of the client: {len(stormy)} samples in "
          f"{seconds:.0f} s, {state}")
    if sum(kills.values()) < arguments.kills:
        print(f"only {sum(kills.values())} of {arguments.kills} kills hit a running process: use a larger sample")
    differing = [name for name in sorted(calm.keys() | stormy.keys()) if calm.get(name) != stormy.get(name)]
    scores = sum(len(scores) for _, _, scores in calm.values())
    for name in differing[:10]:
        print(f"{name}:\n  undisturbed {calm.get(name)}\n  disturbed   {stormy.get(name)}")
    print(f"{len(differing)} of {len(calm)} samples differ, {scores} scores compared")
    if not arguments.keep:
        shutil.rmtree(root)
    return 1 if differing or sum(kills.values()) < arguments.kills else 0


if __name__ == "__main__":
    sys.exit(main())
