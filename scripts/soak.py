#!/usr/bin/env python3
"""Tests that nothing is lost, duplicated or changed under concurrent load while processes are killed.

    scripts/postgres.sh run sh -c 'scripts/soak.py --minutes 60 --postgres "$TEST_DATABASE_URL"'    # two instances
    scripts/soak.py --minutes 10                                                                    # one, on SQLite

First an undisturbed service scores a fixed set of samples and runs. Then, for the given time, clients repeat this under
many names and also do other work (imports, votes, deletions, analyses, event streams, disconnects), at `--load` of the
rate that the undisturbed service reached, while the instances are killed with SIGKILL at random and restarted. In the
last tenth of the time nothing is killed, and memory is observed. Then the script checks:

- every acknowledged sample is stored once, and no other sample is stored;
- every score, null and flag equals that of the undisturbed service (numbers within 1e-5, since batches differ);
- every report of a run equals that of the undisturbed service;
- deleted data is gone, and every vote and every imported number is stored;
- no file is without a row, and no row without its file;
- no response was a 5xx other than 503, 504 and 507, and no line of the log an error; resident memory was flat while
  nothing was killed.

Prints the figures and all problems; exits with 1 if there are any. Needs Python, and psql with --postgres.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from service import Service, schema_in
from soak_checks import Checks
from soak_clients import Clients
from soak_reference import Inputs, Reference, enrol


class Soak(Clients):
    """The load, the kills, and the memory of the instances."""

    def __init__(self, arguments, store, instances, inputs, runs, reference):
        super().__init__(instances, inputs, runs)
        self.arguments, self.store, self.reference = arguments, store, reference
        self.loading = threading.Event()
        self.loading.set()
        self.memory = []  # (seconds, instance, age, MiB)

    def kill(self, until):
        """Kills one instance at a time and restarts it at once; the pauses fit `--kills` kills into the time."""
        mean = (until - time.monotonic()) / max(self.arguments.kills, 1)
        while time.monotonic() < until and self.counts["kills"] < self.arguments.kills:
            time.sleep(random.uniform(0.2 * mean, 1.6 * mean))
            victim = random.choice(self.instances)
            if victim.process.poll() is not None:
                self.wrong.add("an instance ended by itself", victim.log.read_text()[-2000:])
            victim.kill()
            self.count("kills")
            victim.start()

    def observe(self, started):
        while self.loading.is_set():
            now = time.monotonic()
            for at, instance in enumerate(self.instances):
                self.memory.append((now - started, at, now - instance.started, instance.resident()))
            time.sleep(2)

    def go(self):
        """Runs all clients and kills concurrently for the given time."""
        started = time.monotonic()
        until = started + 60 * self.arguments.minutes
        calm = started + 0.9 * (until - started)
        rate = self.arguments.load * self.reference.rate
        workers = [(self.score, 4), (self.evaluate, 4), (self.bring, 1), (self.vote, 1), (self.enrol, 1), (self.remove, 1), (self.read, 3)]

        def work(job, worker):
            turn = 0
            # Half of the samples come from requests and half from runs, with four clients each.
            due = time.monotonic()

            def pause():
                nonlocal due
                due = max(due + 8 / rate, time.monotonic() - 5)
                time.sleep(max(0, due - time.monotonic()))

            while self.loading.is_set() and time.monotonic() < until:
                try:
                    job(worker, turn, pause)
                except Exception as error:  # A defect of this script must not look like a healthy service.
                    self.wrong.add("a client of the soak failed", repr(error))
                    time.sleep(1)
                turn += 1

        threads = [threading.Thread(target=work, args=(job, worker)) for job, several in workers for worker in range(several)]
        observer = threading.Thread(target=self.observe, args=(started,))
        for thread in [*threads, observer]:
            thread.start()
        self.kill(calm)
        for thread in threads:
            thread.join()
        self.loading.clear()
        observer.join()
        self.seconds = time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, help="default: four a minute")
    parser.add_argument("--load", type=float, default=0.8, help="fraction of the rate of an undisturbed service")
    parser.add_argument("--postgres", default="", help="a database in which schemas may be created: runs two instances")
    parser.add_argument("--identities", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for all files; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.program = str(Path(arguments.program).resolve())
    if arguments.kills is None:
        arguments.kills = int(4 * arguments.minutes)
    random.seed(arguments.seed)
    root = arguments.keep or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)

    inputs = Inputs(arguments.program, root, arguments.identities, arguments.prompts)
    runs = inputs.runs(24)
    calm = Service(arguments.program, root / "calm").start().ready()
    try:
        reference = Reference(calm, inputs, runs)
    finally:
        calm.stop()
    print(f"undisturbed: {len(inputs.samples)} samples at {reference.rate:.1f}/s, {len(runs)} runs", flush=True)

    store = schema_in(arguments.postgres, f"soak_{os.getpid()}") if arguments.postgres else ""
    names = ["a", "b"] if arguments.postgres else ["a"]
    instances = [Service(arguments.program, root / name, store).start() for name in names]
    soak = Soak(arguments, store, instances, inputs, runs, reference)
    checks = Checks(soak)
    try:
        for instance in instances:
            instance.ready()
        enrol(soak.patient, inputs)
        soak.go()
        for instance in instances:
            instance.ready()
        checks.all()
    finally:
        for instance in instances:
            instance.kill()

    counts = {what: soak.counts[what] for what in sorted(soak.counts)}
    print(f"{soak.seconds / 60:.1f} minutes, {len(instances)} instances, {soak.counts['kills']} kills")
    print("clients:", ", ".join(f"{count} {what}" for what, count in counts.items() if not what.startswith(("answer", "kills"))))
    print("responses:", ", ".join(f"{count} × {what[7:]}" for what, count in counts.items() if what.startswith("answer")))
    print(f"scores: {checks.compared} compared, {checks.different} samples not equal to the last bit")
    print(f"files: {checks.kept[1]} in the spools, {checks.kept[0]} in the database")
    print(f"memory: at most {checks.most:.0f} MiB; in the last calm", ", ".join(f"{a:.0f} then {b:.0f} MiB" for a, b in checks.thirds) or "not measured")
    soak.wrong.show("nothing lost, duplicated or changed")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "minutes": soak.seconds / 60, "instances": len(instances), "counts": counts, "compared": checks.compared,
            "not_equal_to_the_last_bit": checks.different, "most_mib": checks.most, "calm_mib": checks.thirds,
            "wrong": dict(soak.wrong.found),
        }, indent=1))
    if not arguments.keep:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if soak.wrong.found else 0


if __name__ == "__main__":
    sys.exit(main())
