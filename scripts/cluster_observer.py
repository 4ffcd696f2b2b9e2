"""What the instances of a cluster count, over their restarts."""

import threading
from collections import Counter

CREATED = 'stellar_samples_total{outcome="created"}'
REPEATED = 'stellar_samples_total{outcome="repeated"}'
# Ids in the consumer of the pack: those that wait, and those that workers have.
WAITING, IN_FLIGHT = "stellar_dispatch_pending", "stellar_dispatch_in_flight"
COUNTED = (
    CREATED,
    REPEATED,
    'stellar_background_attempts_total{outcome="postponed"}',
    "stellar_dispatch_redelivered_total",
    "stellar_dispatch_republished_total",
    "stellar_dispatch_suspects_total",
    'stellar_dispatch_published_total{outcome="new"}',
    'stellar_dispatch_published_total{outcome="queued"}',
    'stellar_dispatch_published_total{outcome="failed"}',
)


class Observer:
    """Adds up counters of each instance, every second. What it counted in its last second before a kill is missing."""

    def __init__(self, services):
        self.services, self.last, self.memory = services, {}, Counter()
        self.counts = {service.name: Counter() for service in services}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.ending.wait(1):
            self.look()

    def look(self):
        for service in self.services:
            self.memory[service.name] = max(self.memory[service.name], service.resident())
            try:
                found = service.metrics(timeout=2)
            except OSError:
                continue
            before = self.last.get(service.name, {})
            started = "process_start_time_seconds"
            since = before if before.get(started) == found.get(started) else {}
            for name in COUNTED:
                self.counts[service.name][name] += max(0, found.get(name, 0) - since.get(name, 0))
            self.last[service.name] = found

    def sums(self):
        """The counters over all instances."""
        return {name: sum(counts[name] for counts in self.counts.values()) for name in COUNTED}

    def value(self, name):
        """The value of a gauge that all instances know, as one of them read it last; None if none did."""
        return next((found[name] for found in self.last.values() if name in found), None)

    def stop(self):
        self.ending.set()
        self.thread.join()
        self.look()
