"""A discrete-event simulation of workers, JetStream and PostgreSQL of a cluster. scripts/simulate_scale.py runs it.

What is simulated, event by event:

- An API accepts samples. A transaction takes one or more, then their ids are published. It pauses while the backlog is
  long.
- A worker keeps up to `in_flight` ids that are not acknowledged. Its GPU takes up to `engine_batch` at a time. A free
  writer takes what is scored, up to `group` samples, into one transaction, and does not wait for more. Then the ids
  are acknowledged.
- A transaction needs a core of the database, then the lock of its run while it changes the run's counts and summaries
  and until its log is flushed. The flush needs no core.
- A stream of JetStream handles one id after the other, and gives out `max_ack_pending` ids that are not acknowledged.
- A preempted worker loses what it has not recorded. The ids come back after `ack_seconds`, the worker after
  `restart_seconds`.

Not simulated: growth of tables and indexes, vacuum, checkpoints, network, the object store (a fixed delay), failures of
the database, and two workers on one id while both live. A transaction is of one run.
"""

import dataclasses
import heapq
import itertools
import random
import sys
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Tuple


@dataclasses.dataclass(frozen=True)
class Transaction:
    """What a transaction of n samples costs, in seconds: `fixed + each * n` of a core, then `locked` of a core and
    `flush` without a core, both under the lock of the run."""

    fixed: float
    each: float
    locked: float
    flush: float


@dataclasses.dataclass(frozen=True)
class System:
    gpus: int = 1
    rate: float = 60.0
    """Samples per second of a GPU."""
    engine_batch: int = 32
    in_flight: int = 128
    max_ack_pending: int = 4096
    group: int = 64
    writers: int = 1
    fetch_seconds: float = 0.03
    """From the answer of JetStream until the images of a pull are there."""
    accepting: bool = True
    """Whether samples are accepted as fast as they are scored; otherwise all wait from the beginning."""
    acceptors: int = 64
    accept_group: int = 1
    backlog_seconds: float = 2.0
    runs: int = 1
    cores: int = 2
    cell_gpus: int = 0
    """Most GPUs of a cell, which has a database and a stream of its own. 0: all are one cell."""
    record: Transaction = Transaction(0.0, 0.0, 0.0, 0.0)
    accept: Transaction = Transaction(0.0, 0.0, 0.0, 0.0)
    faces: float = 0.0
    """Seconds of a core to store the faces of an image."""
    read: float = 0.0
    """Seconds of a core to read the row of a pulled id."""
    publish: float = 0.0
    deliver: float = 0.0
    """Seconds of a stream to publish an id, and to deliver it and take its acknowledgement."""
    preemptions: float = 0.0
    """Of a worker in an hour."""
    restart_seconds: float = 180.0
    ack_seconds: float = 30.0


@dataclasses.dataclass
class Result:
    """Counts of the measured time, except those that begin with `all_`, which are of the whole simulation."""

    seconds: float
    recorded: int
    efficiency: float
    """Recorded samples per second, of what all GPUs could score."""
    database: float
    """Busy share of the database's cores."""
    lock: float
    """Busy share of the lock of the busiest run."""
    stream: float
    """Busy share of the stream."""
    ids: float
    """Share of `max_ack_pending` that workers hold at the end."""
    group: float
    """Mean number of samples of a recording transaction."""
    repeated: float
    """Samples whose scoring was begun in vain, of the recorded ones."""
    all_accepted: int
    all_recorded: int
    all_left: int
    """Samples that wait, are held by workers, or come back from preempted ones."""

    @property
    def limit(self) -> str:
        """What keeps GPUs idle; empty if they are busy."""
        shares = {"database": self.database, "run": self.lock, "stream": self.stream}
        busiest = max(shares, key=lambda name: shares[name])
        if self.efficiency > 0.97:
            return ""
        if shares[busiest] > 0.95:
            return busiest
        return "ids" if self.ids > 0.95 else "preemption" if self.repeated else ""


class Servers:
    """Servers with one queue: work that comes first begins first."""

    def __init__(self, count: int) -> None:
        self.free = [0.0] * count
        self.work = 0.0

    def done(self, now: float, work: float) -> float:
        """Time at which work that comes now is done."""
        end = max(now, self.free[0]) + work
        heapq.heapreplace(self.free, end)
        self.work += work
        return end

    def busy(self, now: float) -> float:
        """Seconds of all servers so far in which they were busy."""
        return self.work - sum(max(0.0, free - now) for free in self.free)


class Lock:
    def __init__(self) -> None:
        self.taken = False
        self.waiting: Deque[Callable[[], None]] = deque()
        self.busy = 0.0


class Worker:
    def __init__(self) -> None:
        self.life = 0
        self.is_up = True
        self.pulling = self.ready = self.computing = self.scored = self.writing = self.writers = 0

    @property
    def held(self) -> int:
        return self.pulling + self.ready + self.computing + self.scored + self.writing


class Simulation:
    def __init__(self, system: System, seed: int = 1) -> None:
        self.system, self.draw = system, random.Random(seed)
        self.now, self.order = 0.0, itertools.count()
        self.events: List[Tuple[float, int, Callable[..., None], Tuple[Any, ...]]] = []
        self.cores, self.stream = Servers(system.cores), Servers(1)
        self.locks = [Lock() for _ in range(system.runs)]
        self.workers = [Worker() for _ in range(system.gpus)]
        self.recorded = self.groups = self.wasted = self.coming_back = self.publishing = 0
        self.unacknowledged = 0
        self.starving: Dict[Worker, None] = {}
        "Workers without an answer to their request for ids, oldest first."
        self.accepted = self.waiting = 0 if system.accepting else sys.maxsize
        self.backlog = int(system.backlog_seconds * system.gpus * system.rate) + system.accept_group
        self.paused_acceptors = 0
        for _ in range(system.acceptors if system.accepting else 0):
            self.at(self.draw.random() * 0.01, self.accept)
        for worker in self.workers:
            self.at(self.draw.random() * system.engine_batch / system.rate, self.pull, worker, 0)
            self.plan_preemption(worker)

    def at(self, delay: float, what: Callable[..., None], *given: Any) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), what, given))

    def until(self, end: float) -> None:
        while self.events and self.events[0][0] <= end:
            self.now, _, what, given = heapq.heappop(self.events)
            what(*given)
        self.now = end

    def transact(self, cost: Transaction, count: int, then: Callable[[], None]) -> None:
        lock = self.locks[self.draw.randrange(len(self.locks))]

        def locked() -> None:
            begun = self.now
            # A process that wakes up gets a core before those that have used one: it does not wait for the queue.
            self.cores.done(self.now, cost.locked)
            self.at(cost.locked + cost.flush, release, begun)

        def take() -> None:
            if lock.taken:
                lock.waiting.append(locked)
            else:
                lock.taken = True
                locked()

        def release(begun: float) -> None:
            lock.busy += self.now - begun
            lock.taken = False
            if lock.waiting:
                lock.taken = True
                self.at(0.0, lock.waiting.popleft())
            then()

        self.at(self.cores.done(self.now, cost.fixed + cost.each * count) - self.now, take)

    def accept(self) -> None:
        if self.waiting >= self.backlog:
            self.paused_acceptors += 1
            return

        def published(count: int) -> None:
            self.publishing -= count
            self.waiting += count
            self.supply()
            self.accept()

        def committed() -> None:
            count = self.system.accept_group
            self.accepted += count
            self.publishing += count
            self.at(self.stream.done(self.now, count * self.system.publish) - self.now, published, count)

        self.transact(self.system.accept, self.system.accept_group, committed)

    def supply(self) -> None:
        """Gives ids to workers that wait for some, in the order of their requests."""
        while self.starving and self.waiting and self.unacknowledged < self.system.max_ack_pending:
            worker = next(iter(self.starving))
            del self.starving[worker]
            self.pull(worker, worker.life)

    def pull(self, worker: Worker, life: int) -> None:
        system = self.system
        room = system.in_flight - worker.held
        # One request at a time, of a batch at least, as long as there are ids.
        if (
            not worker.is_up
            or life != worker.life
            or worker.pulling
            or room < min(system.engine_batch, system.in_flight)
        ):
            return
        count = min(room, self.waiting, system.max_ack_pending - self.unacknowledged)
        if not count:
            self.starving[worker] = None
            return
        self.waiting -= count
        self.unacknowledged += count
        worker.pulling = count
        delivered = self.stream.done(self.now, count * system.deliver)
        # Reading begins when the ids are there; the queue of the cores needs events in the order of time.
        self.at(delivered - self.now, self.read, worker, life, count)
        room = max(0, self.backlog - self.waiting) // system.accept_group
        for _ in range(min(self.paused_acceptors, room)):
            self.paused_acceptors -= 1
            self.at(0.0, self.accept)

    def read(self, worker: Worker, life: int, count: int) -> None:
        if life == worker.life:
            there = self.cores.done(self.now, count * self.system.read) + self.system.fetch_seconds
            self.at(there - self.now, self.fetched, worker, life, count)

    def fetched(self, worker: Worker, life: int, count: int) -> None:
        if life == worker.life:
            worker.pulling -= count
            worker.ready += count
            self.compute(worker)
            self.pull(worker, life)

    def compute(self, worker: Worker) -> None:
        if worker.computing or not worker.ready:
            return
        count = min(worker.ready, self.system.engine_batch)
        worker.ready -= count
        worker.computing = count
        self.at(count / self.system.rate, self.computed, worker, worker.life, count)

    def computed(self, worker: Worker, life: int, count: int) -> None:
        if life != worker.life:
            return
        if self.system.faces:
            self.cores.done(self.now, count * self.system.faces)
        worker.computing = 0
        worker.scored += count
        self.write(worker)
        self.compute(worker)

    def write(self, worker: Worker) -> None:
        while worker.scored and worker.writers < self.system.writers:
            count = min(worker.scored, self.system.group)
            worker.scored -= count
            worker.writing += count
            worker.writers += 1
            self.transact(
                self.system.record, count, lambda count=count, life=worker.life: self.wrote(worker, life, count)
            )  # type: ignore[misc]

    def wrote(self, worker: Worker, life: int, count: int) -> None:
        # The transaction of a worker that was preempted meanwhile is rolled back.
        if life != worker.life:
            return
        self.recorded += count
        self.groups += 1
        self.unacknowledged -= count
        worker.writing -= count
        worker.writers -= 1
        self.write(worker)
        self.pull(worker, life)
        if self.unacknowledged + count >= self.system.max_ack_pending:
            self.supply()

    def plan_preemption(self, worker: Worker) -> None:
        if self.system.preemptions:
            self.at(self.draw.expovariate(self.system.preemptions / 3600), self.preempt, worker)

    def preempt(self, worker: Worker) -> None:
        lost = worker.held
        self.wasted += worker.computing + worker.scored + worker.writing
        life = worker.life + 1
        worker.__init__()  # type: ignore[misc]
        worker.life, worker.is_up = life, False
        self.coming_back += lost
        self.at(self.system.ack_seconds, self.come_back, lost)
        self.at(self.system.restart_seconds, self.restart, worker)

    def restart(self, worker: Worker) -> None:
        worker.is_up = True
        self.pull(worker, worker.life)
        self.plan_preemption(worker)

    def come_back(self, lost: int) -> None:
        self.coming_back -= lost
        self.unacknowledged -= lost
        self.waiting += lost
        self.supply()

    def state(self) -> Tuple[int, int, int, float, float, float]:
        lock = max(lock.busy for lock in self.locks)
        return self.recorded, self.groups, self.wasted, self.cores.busy(self.now), lock, self.stream.busy(self.now)


def cell_of(system: System) -> System:
    """One of the cells, which are equal and do not meet."""
    cells = -(-system.gpus // system.cell_gpus) if system.cell_gpus else 1
    return dataclasses.replace(system, gpus=-(-system.gpus // cells), cell_gpus=0)


def simulate(system: System, seconds: float = 20.0, warm_up: float = 10.0, seed: int = 1) -> Result:
    system = cell_of(system)
    simulation = Simulation(system, seed)
    simulation.until(warm_up)
    before = simulation.state()
    simulation.until(warm_up + seconds)
    recorded, groups, wasted, cores, lock, stream = (b - a for a, b in zip(before, simulation.state()))
    left = (
        simulation.publishing
        + simulation.waiting
        + simulation.coming_back
        + sum(worker.held for worker in simulation.workers)
    )
    return Result(
        seconds=seconds,
        recorded=int(recorded),
        efficiency=recorded / seconds / (system.gpus * system.rate),
        database=cores / seconds / system.cores,
        lock=lock / seconds,
        stream=stream / seconds,
        ids=simulation.unacknowledged / system.max_ack_pending,
        group=recorded / groups if groups else 0.0,
        repeated=wasted / recorded if recorded else 0.0,
        all_accepted=simulation.accepted,
        all_recorded=simulation.recorded,
        all_left=left,
    )
