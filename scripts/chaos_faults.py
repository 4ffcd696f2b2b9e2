"""The faults of the chaos test: what they are, when they happen, and how each is done and undone.

The schedule follows from the seed alone. Faults overlap, except that two never concern the same part of the cluster at the
same time: the later one then waits.
"""

import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass

from cluster import ROOT

# Seconds by which a clock is wrong at most: less than the minute by which clocks of instances may differ.
SKEW = 50
# Requests that a torn response of the object store hits.
TORN = 5
LINKS = ("nats", "postgres", "objects")


@dataclass
class Fault:
    """One planned fault. `seconds` is how long it lasts, `choice` a random number for what the kind has to choose."""

    at: float
    kind: str
    part: str
    seconds: float
    choice: float


# What each kind needs, and the range of its duration in units of the time after which a silent worker loses its samples.
# The most important ones come first: a test with few faults has those.
KINDS = {
    "a worker is killed": ("worker", 0, 1),
    "NATS loses its storage": ("nats", 0, 1),
    "an API instance is killed": ("api", 0, 1),
    "a worker stands still": ("worker", 0.5, 2.5),
    "a worker is cut off": ("worker", 0.5, 2.5),
    "PostgreSQL is restarted": ("postgres", 0, 0),
    "the object store refuses": ("objects", 0.5, 2),
    "a clock is wrong": ("clock", 1, 4),
    "NATS is stopped": ("nats", 0.5, 3),
    "all lose PostgreSQL": ("postgres", 0.5, 2),
    "an instance loses one link": ("link", 0.5, 2.5),
    "connections are reset": ("link", 0, 0),
    "an API instance stands still": ("api", 0.5, 2),
    "NATS is killed": ("nats", 0, 1),
    "the object store tears responses": ("objects", 0, 0),
}


def schedule(seed, count, seconds, unit, apis, workers, clocks):
    """Plans faults within `seconds`; `unit` is that of the durations. Every kind comes up before one is repeated."""
    chance = random.Random(seed)
    kinds = [kind for kind, (part, *_) in KINDS.items() if clocks or part != "clock"]
    order = []
    while len(order) < count:
        turn = list(kinds)
        if order:
            chance.shuffle(turn)
        order += turn
    order = order[:count]
    chance.shuffle(order)
    times = sorted(chance.uniform(0.05, 0.95) * seconds for _ in range(count))
    planned = []
    for at, kind in zip(times, order):
        of, low, high = KINDS[kind]
        part = {
            "worker": f"worker-{chance.randint(1, workers)}",
            "api": f"api-{chance.randint(1, apis)}",
        }.get(of, of)
        if of in ("link", "clock"):
            part = chance.choice([f"api-{at + 1}" for at in range(apis)] + [f"worker-{at + 1}" for at in range(workers)])
        planned.append(Fault(at, kind, part, chance.uniform(low, high) * unit, chance.random()))
    return planned


class Clocks:
    """Wrong clocks, by the library wrong_clock.c that is loaded into each service."""

    @staticmethod
    def compile(folder):
        """Returns the path of the library, or None without a C compiler."""
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None or sys.platform != "linux":
            return None
        library = folder / "wrong_clock.so"
        source = ROOT / "scripts/wrong_clock.c"
        subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
        return library

    def __init__(self, library, services):
        self.files = {}
        for service in services:
            self.files[service.name] = service.folder / "clock"
            self.files[service.name].write_bytes(bytes(8))
            service.settings |= {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self.files[service.name])}

    def set(self, name, seconds):
        # In place: the process has mapped the file.
        with open(self.files[name], "r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))


class Faults:
    """Carries out a schedule on a cluster."""

    def __init__(self, cluster, clocks, log):
        self.cluster, self.clocks, self.log = cluster, clocks, log
        self.by_name = {service.name: service for service in cluster.services}
        # One lock for each part of the cluster. A clock may be wrong while something else happens to its instance.
        parts = [*self.by_name, "nats", "postgres", "objects"]
        self.locks = {part: threading.Lock() for part in [*parts, *(f"clock of {name}" for name in self.by_name)]}
        self.done, self.failed, self.lock = [], [], threading.Lock()
        # Instances that are down because of a fault: nobody else may start them.
        self.down, self.starting = set(), threading.Lock()
        self.how = {
            "a worker is killed": self.kill,
            "an API instance is killed": self.kill,
            "a worker stands still": self.stand_still,
            "an API instance stands still": self.stand_still,
            "a worker is cut off": self.cut_off,
            "an instance loses one link": self.lose_link,
            "connections are reset": self.reset,
            "NATS loses its storage": self.wipe_nats,
            "NATS is killed": self.kill_nats,
            "NATS is stopped": self.stop_nats,
            "PostgreSQL is restarted": lambda fault: self.cluster.postgres.restart(),
            "all lose PostgreSQL": self.lose_postgres,
            "the object store refuses": self.refuse,
            "the object store tears responses": lambda fault: self.cluster.objects.fault("torn", TORN),
            "a clock is wrong": self.wrong_clock,
        }
        assert self.how.keys() == KINDS.keys()

    def carry_out(self, planned, ended):
        """Begins each fault at its time, and returns when all have ended. Stops early if the event `ended` is set."""
        started = time.monotonic()
        threads = []
        for fault in planned:
            if ended.wait(max(0.0, started + fault.at - time.monotonic())):
                break
            thread = threading.Thread(target=self.one, args=(fault, started))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def one(self, fault, started):
        name = f"clock of {fault.part}" if fault.kind == "a clock is wrong" else fault.part
        with self.locks[name]:
            begun = time.monotonic() - started
            try:
                self.how[fault.kind](fault)
            except Exception as error:  # A fault that cannot be done is a defect of this script.
                with self.lock:
                    self.failed.append(f"{fault}: {error!r}")
                print(f"the fault failed: {fault}: {error!r}", file=sys.stderr)
                return
        with self.lock:
            self.done.append(fault.kind)
            ended = time.monotonic() - started
            entry = asdict(fault) | {"begun": round(begun, 3), "ended": round(ended, 3)}
            with open(self.log, "a") as log:
                log.write(json.dumps(entry) + "\n")

    def kill(self, fault):
        service = self.by_name[fault.part]
        with self.starting:
            self.down.add(fault.part)
            service.kill()
        time.sleep(fault.seconds)
        with self.starting:
            service.start()
            self.down.discard(fault.part)

    def revive(self):
        """Starts instances that ended without a fault, as an orchestrator does. Returns their names and exit codes."""
        ended = []
        for name, service in self.by_name.items():
            with self.starting:
                if name not in self.down and service.process.poll() is not None:
                    ended.append((name, service.process.returncode))
                    service.start()
        return ended

    def stand_still(self, fault):
        process = self.by_name[fault.part].process
        process.send_signal(signal.SIGSTOP)
        time.sleep(fault.seconds)
        process.send_signal(signal.SIGCONT)

    def cut(self, links, fault):
        for link in links:
            link.cut()
        time.sleep(fault.seconds)
        for link in links:
            # Half of the outages are so long that the connections do not survive.
            if fault.choice < 0.5:
                link.reset()
            link.restore()

    def cut_off(self, fault):
        self.cut(self.cluster.links[fault.part].values(), fault)

    def lose_link(self, fault):
        # The fraction within a third is used again for the way in which the outage ends.
        at = fault.choice * len(LINKS)
        fault.choice = at % 1
        self.cut([self.cluster.links[fault.part][LINKS[int(at)]]], fault)

    def reset(self, fault):
        for link in self.cluster.links[fault.part].values():
            link.reset()

    def lose_postgres(self, fault):
        self.cut([links["postgres"] for links in self.cluster.links.values()], fault)

    def kill_nats(self, fault):
        self.cluster.nats.kill()
        time.sleep(fault.seconds)
        self.cluster.nats.start()

    def stop_nats(self, fault):
        self.cluster.nats.stop()
        time.sleep(fault.seconds)
        self.cluster.nats.start()

    def wipe_nats(self, fault):
        self.cluster.nats.kill()
        self.cluster.nats.wipe()
        time.sleep(fault.seconds)
        self.cluster.nats.start()

    def refuse(self, fault):
        self.cluster.objects.fault("busy")
        time.sleep(fault.seconds)
        self.cluster.objects.fault("none")

    def wrong_clock(self, fault):
        self.clocks.set(fault.part, SKEW * (2 * fault.choice - 1))
        time.sleep(fault.seconds)
        self.clocks.set(fault.part, 0)
