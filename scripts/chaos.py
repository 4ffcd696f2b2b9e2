#!/usr/bin/env python3
"""Tests that a cluster loses, repeats and changes nothing under many random faults.

    make chaos SAMPLES=300 FAULTS=10 MINUTES=0.5
    scripts/chaos.py --samples 20000 --faults 300 --minutes 40                    # the engine is simulated
    scripts/chaos.py --samples 500 --faults 60 --minutes 15 --engine real         # the demo pack is

First an undisturbed service on the embedded default (SQLite, a folder) scores the samples, in runs. Then a cluster does:
two API instances, four workers, NATS, PostgreSQL, an object store. Clients send the samples over the time given, some of
them twice, finish every run, and delete some copies of runs. They repeat requests until there is an answer, as the
project's own clients do. Meanwhile faults happen at random, which follow from --seed alone and may overlap:

- workers and API instances are killed (SIGKILL), or stand still (SIGSTOP);
- a worker is cut off from everything, an instance from one thing, all from PostgreSQL: packets vanish in a proxy. Then
  connections go on or are reset;
- NATS is killed, stopped for a while, or loses its storage;
- PostgreSQL is restarted at once, without a checkpoint (immediate mode);
- the object store refuses every request with 503, or breaks off responses;
- the clock of an instance is wrong by up to 50 seconds (clocks may differ by a minute).

An instance that ends by itself, because it cannot start without its database, is started again, as an orchestrator does.
When everything works again and every run is finished, the script checks:

- every accepted sample is scored once and no other is: in the API's listing, in the rows of the database, in the counts
  and summaries of runs; none failed, none is pending, no id is in the stream;
- every score, null, flag and report equals that of the undisturbed service (numbers within 1e-5);
- no deleted run exists, and no image is kept; every object is released, those of crashes by the next start;
- no response was a 5xx other than 503, 504 and 507, and nothing panicked.

Prints the figures as Markdown and JSON, and all problems; exits with 1 if there are any. Everything is on loopback
addresses, and ends with the script. Needs psql or what scripts/postgres.sh fetches; without a C compiler no clock is wrong.
"""

import argparse
import json
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos_checks import Account
from chaos_faults import Clocks, Faults, schedule
from cluster import SIMULATED, Cluster, end_with_signals, engine
from cluster_observer import Observer
from service import FORM, Service, form, png
from soak_clients import Clients
from soak_reference import Inputs, undisturbed

APIS, WORKERS, CLIENTS = 2, 4, 8
SAMPLES_OF_A_RUN = 100
SAMPLES_OF_AN_IDENTITY = 20
# How much of the time is used to send: the last faults hit a cluster that works off what it has.
SENDING = 0.85
# Percent of the samples that are sent twice, and of the runs of which a copy is sent and deleted.
REPEATED, DELETED = 2, 5
# How busy the simulated devices are, one of each worker: so busy that most faults hit samples that are being scored.
BUSY = 0.6


class Noise:
    """Samples for the simulated engine: small images that are all different, photos that some share."""

    def __init__(self, samples):
        photos = -(-samples // SAMPLES_OF_AN_IDENTITY)
        references = [png(24, f"photo {at}") for at in range(photos)]
        self.samples = []
        for at in range(samples):
            identity = at // SAMPLES_OF_AN_IDENTITY
            fields = [("image", png(16, f"image {at}")), ("prompt", f"a person, number {at}"), ("reference", references[identity])]
            self.samples.append((f"{identity}", f"{at:06}", fields))


class Reference:
    """What an undisturbed service on the embedded default makes of the runs."""

    def __init__(self, program, folder, settings, runs):
        service = Service(program, folder, settings=settings)
        service.detached = True
        service.start()
        pool = ThreadPoolExecutor(4)
        try:
            service.ready()
            done = list(pool.map(lambda at: undisturbed(service, f"{at}", runs[at]), range(len(runs))))
        finally:
            # First, since an interrupted thread only ends with the service.
            service.kill()
            pool.shutdown(cancel_futures=True)
        self.runs, self.tables = [scores for scores, _ in done], [table for _, table in done]


class Chaos(Clients):
    """The clients, and what the cluster acknowledged."""

    def __init__(self, arguments, cluster, inputs, runs, reference):
        super().__init__(cluster.apis, inputs, runs)
        self.arguments, self.cluster, self.store, self.reference = arguments, cluster, cluster.postgres.url, reference
        self.accepted = {}  # run id -> names of samples
        self.ended = threading.Event()
        self.slot = 0

    def send_all(self, seconds):
        """Sends every run, and some copies that are deleted, evenly over the time."""
        jobs = queue.Queue()
        chance = random.Random(self.arguments.seed)
        self.copies = chance.sample(range(len(self.members)), -(-len(self.members) * DELETED // 100))
        for at in range(len(self.members)):
            jobs.put((at, False))
            if at in self.copies:
                jobs.put((at, True))
        total = sum(len(self.members[at]) for at in [*range(len(self.members)), *self.copies])
        self.every, self.began = seconds / total, time.monotonic()

        def work():
            while not self.ended.is_set():
                try:
                    template, copy = jobs.get_nowait()
                except queue.Empty:
                    return
                try:
                    self.send(template, copy)
                except Exception as error:  # A defect of this script must not look like a healthy service.
                    self.wrong.add("a client failed", repr(error))

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def pause(self):
        with self.lock:
            self.slot += 1
            due = self.began + self.slot * self.every
        self.ended.wait(max(0.0, due - time.monotonic()))

    def send(self, template, copy):
        made = self.document("POST", "/v1/runs", json.dumps({"method": "deleted" if copy else "chaos", "run": f"{template}"}))
        if made is None:
            return
        run, names = made["run_id"], set()
        for _, name, fields in self.members[template]:
            self.pause()
            if self.ended.is_set():
                return
            body = form(fields)
            for _ in range(1 + (100 * random.random() < REPEATED)):
                if self.document("PUT", f"/v1/runs/{run}/samples/{name}", body, FORM) is not None:
                    names.add(name)
        self.count("samples of deleted runs" if copy else "samples accepted", len(names))
        if copy:
            self.delete_run(run)
            return
        with self.lock:
            self.accepted[run], self.evaluated[run] = names, template
        self.patient("POST", f"/v1/runs/{run}/finish")
        self.count("runs")

    def revive(self, faults):
        """Starts what has ended by itself."""
        while not self.ended.wait(1):
            for name, code in faults.revive():
                self.count(f"{name.partition('-')[0]} ended by itself")
                if code < 0 or code == 101:
                    self.wrong.add("an instance that crashed", f"{name}: {code}")


def inputs_of(arguments, root):
    if arguments.engine == SIMULATED:
        return Noise(arguments.samples)
    prompts = 20
    inputs = Inputs(arguments.program, root, max(1, min(200, -(-arguments.samples // prompts))), prompts, enrolled=False)
    inputs.samples = inputs.samples[: arguments.samples]
    return inputs


def disturb(chaos, cluster, clocks, arguments, root):
    """Sends everything while the faults happen; returns the faults and the figures of the instances."""
    unit = arguments.ack_seconds
    seconds = 60 * arguments.minutes
    planned = schedule(arguments.seed, arguments.faults, seconds, unit, APIS, WORKERS, clocks is not None)
    faults, observer = Faults(cluster, clocks, root / "faults.jsonl"), Observer(cluster.services)
    threads = [
        threading.Thread(target=chaos.send_all, args=(SENDING * seconds,)),
        threading.Thread(target=faults.carry_out, args=(planned, chaos.ended)),
    ]
    reviver = threading.Thread(target=chaos.revive, args=(faults,))
    try:
        for thread in [*threads, reviver]:
            thread.start()
        for thread in threads:
            thread.join()
        chaos.sent = time.monotonic()
        # The cluster works off the rest by itself.
        account = Account(chaos)
        account.settle()
        chaos.settled = time.monotonic()
    finally:
        # Also after an interrupt: all threads end.
        chaos.ended.set()
        for thread in [*threads, reviver]:
            thread.join()
        observer.stop()
    for failed in faults.failed:
        chaos.wrong.add("a fault that could not be done", failed)
    return faults, observer, account


def figures(arguments, chaos, faults, observer, account, seconds):
    kinds = Counter(faults.done)
    return {
        "engine": arguments.engine, "seed": arguments.seed, "minutes": round(seconds / 60, 2),
        "faults": sum(kinds.values()), "faults_by_kind": dict(kinds.most_common()),
        "clients": dict(sorted(chaos.counts.items())),
        "accepted": sum(map(len, chaos.accepted.values())), "rows": int(account.rows_scored), "listed": account.listed,
        "compared_scores": account.compared, "samples_not_equal_to_the_last_bit": account.different,
        "seconds_until_all_runs_were_finished": round(chaos.settled - chaos.sent, 1),
        "orphan_objects_of_crashes": account.orphans, "objects_in_quarantine": account.quarantined,
        "counters": {name: round(value) for name, value in sorted(observer.sums().items())},
        "errors_in_logs": sum(account.errors.values()),
        "most_resident_mib": round(max(observer.memory.values())),
        "wrong": dict(chaos.wrong.found),
    }


def markdown(found):
    rows = [
        ("engine, seed, minutes", f"{found['engine']}, {found['seed']}, {found['minutes']}"),
        ("faults", f"{found['faults']}: " + ", ".join(f"{count} × {kind}" for kind, count in found["faults_by_kind"].items())),
        ("accepted; rows; listed by the API", f"{found['accepted']}; {found['rows']}; {found['listed']}"),
        ("scores compared; samples not equal to the last bit",
         f"{found['compared_scores']}; {found['samples_not_equal_to_the_last_bit']}"),
        ("runs; runs deleted", f"{found['clients'].get('runs', 0)}; {found['clients'].get('runs deleted', 0)}"),
        ("responses", ", ".join(f"{count} × {what[7:]}" for what, count in found["clients"].items() if what.startswith("answer "))),
        ("from the last fault until every run was finished", f"{found['seconds_until_all_runs_were_finished']} s"),
        ("objects of crashes, released at the next start; objects in quarantine",
         f"{found['orphan_objects_of_crashes']}; {found['objects_in_quarantine']}"),
        *((f"`{name}`", f"{value}") for name, value in found["counters"].items()),
        ("most memory of an instance", f"{found['most_resident_mib']} MiB"),
        ("wrong", ", ".join(f"{count} × {kind}" for kind, count in found["wrong"].items()) or "nothing"),
    ]
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--s3-server", help="default: stellar-s3-server beside the program")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=0.5, help="time over which samples and faults are spread")
    parser.add_argument("--engine", choices=(SIMULATED, "real"), default=SIMULATED)
    parser.add_argument("--ack-seconds", type=int, default=2, help="time after which a silent worker loses its samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for all files; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="also writes the figures to this file")
    arguments = parser.parse_args()
    if arguments.samples < 1 or arguments.faults < 0 or arguments.minutes <= 0:
        parser.error("--samples, --faults and --minutes must be positive")
    program = Path(arguments.program).resolve()
    arguments.s3_server = str(Path(arguments.s3_server or program.with_name("stellar-s3-server")).resolve())
    arguments.program = str(program)
    for path in (arguments.program, arguments.s3_server):
        if not Path(path).is_file():
            parser.error(f"{path} is not there: cargo build --workspace")
    return arguments


def main():
    arguments = parse()
    end_with_signals()
    random.seed(arguments.seed)
    root = (arguments.keep or Path(tempfile.mkdtemp(prefix="stellar-chaos."))).resolve()
    root.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        inputs = inputs_of(arguments, root)
        size = max(1, min(SAMPLES_OF_A_RUN, len(inputs.samples) // 6))
        runs = [inputs.samples[at : at + size] for at in range(0, len(inputs.samples), size)]
        # The numbers of the simulated engine do not depend on its speed.
        reference = Reference(arguments.program, root / "calm", engine(arguments.engine, 0), runs)
        seconds = time.monotonic() - began
        print(f"undisturbed: {len(inputs.samples)} samples in {len(runs)} runs, {seconds:.0f} s", flush=True)
        milliseconds = round(BUSY * WORKERS * SENDING * 60e3 * arguments.minutes / len(inputs.samples), 2)
        settings = engine(arguments.engine, milliseconds) | {
            "STELLAR_DISPATCH__NATS__ACK_SECONDS": str(arguments.ack_seconds),
            # What a crash leaves in the bucket is swept at the next start.
            "STELLAR_STORE__TRASH_RETENTION_DAYS": "0",
        }
        began = time.monotonic()
        with Cluster(root, arguments.program, arguments.s3_server, APIS, WORKERS, settings, links=True) as cluster:
            library = Clocks.compile(root)
            clocks = Clocks(library, cluster.services) if library else None
            if clocks is None:
                print("there is no C compiler: no clock is wrong")
            cluster.start()
            chaos = Chaos(arguments, cluster, inputs, runs, reference)
            faults, observer, account = disturb(chaos, cluster, clocks, arguments, root)
            account.all()
            found = figures(arguments, chaos, faults, observer, account, time.monotonic() - began)
    except KeyboardInterrupt:
        print("interrupted: everything has been stopped", file=sys.stderr)
        return 130
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    print(markdown(found))
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    chaos.wrong.show("nothing lost, repeated or changed")
    return 1 if chaos.wrong.found else 0


if __name__ == "__main__":
    sys.exit(main())
