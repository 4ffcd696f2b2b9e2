"""The account at the end of the chaos test."""

import time
from collections import Counter

from cluster import Cluster
from cluster_observer import IN_FLIGHT, WAITING
from soak_checks import Checks
from soak_clients import GIVE_UP
from soak_reference import alike, alike_tables, difference, scores_of_run, table_of

# Seconds until what happens in the background must have happened.
SOON = 60


class Account(Checks):
    """Compares what the cluster has with what it acknowledged. Problems go to `soak.wrong`."""

    def all(self):
        self.settle()
        self.runs()
        self.database()
        self.stream()
        self.logs()
        self.objects()

    def wrong(self, kind, what):
        self.soak.wrong.add(kind, what)

    def settle(self):
        until = time.monotonic() + GIVE_UP
        for run in sorted(self.soak.evaluated):
            while (state := (self.soak.document("GET", f"/v1/runs/{run}") or {})).get("state") != "finished":
                if time.monotonic() > until:
                    self.wrong("an unfinished run", state)
                    break
                time.sleep(0.3)

    def runs(self):
        """Compares each run in the API with what was accepted and with the undisturbed service."""
        self.compared = self.different = self.listed = 0
        service, reference = self.soak.instances[0], self.soak.reference
        for run, template in sorted(self.soak.evaluated.items()):
            found, expected = scores_of_run(service, run), reference.runs[template]
            accepted = self.soak.accepted[run]
            self.listed += sum(map(len, found.values()))
            for name in accepted - found.keys():
                self.wrong("a lost sample", f"{run}/{name}")
            for name in found.keys() - accepted:
                self.wrong("a sample that was not sent", f"{run}/{name}")
            for name in found.keys() & expected.keys():
                if len(found[name]) != 1:
                    self.wrong("a duplicate sample", f"{run}/{name}")
                scores = found[name][0]
                self.compared += len(scores)
                self.different += scores != expected[name][0]
                if "state" in scores:
                    self.wrong("a sample that is not scored", f"{run}/{name}: {scores}")
                elif not alike(expected[name][0], scores):
                    self.wrong("scores that differ", f"{run}/{name}: {difference(expected[name][0], scores)}")
            # A sample that was counted twice would show here.
            table = table_of(service, run)
            if not alike_tables(reference.tables[template], table):
                self.wrong("a report that differs", f"{run}: {difference(reference.tables[template], table)}")
        listed = {entry["run_id"] for entry in service.pages("/v1/runs?", "runs")}
        for run in self.soak.deleted_runs & listed:
            self.wrong("a deleted run that still exists", run)
        for run in listed - self.soak.evaluated.keys() - self.soak.deleted_runs:
            self.wrong("a run that was not sent", run)

    def database(self):
        """Compares the rows with what was accepted."""
        expected = sum(map(len, self.soak.accepted.values()))
        ((self.rows_scored,),) = self.rows("SELECT count(*) FROM samples")
        if int(self.rows_scored) != expected:
            self.wrong("another number of rows than of accepted samples", f"{self.rows_scored}, not {expected}")
        for statement, what in (
            ("SELECT run, name, state, reason FROM pending_samples", "a sample that is still pending or failed"),
            ("SELECT run, name FROM samples GROUP BY run, name HAVING count(*) > 1", "a duplicate row"),
            ("SELECT id, waiting, failed FROM runs WHERE waiting <> 0 OR failed <> 0", "a run that counts pending samples"),
            ("SELECT id, scored FROM runs WHERE scored <> (SELECT count(*) FROM samples WHERE run = runs.id)",
             "a run that counts other samples than it has"),
            ("SELECT sample FROM scores WHERE sample NOT IN (SELECT id FROM samples)", "scores without a sample"),
            ("SELECT r.id, s.metric, s.n + s.nulls FROM summaries s JOIN runs r ON r.id = s.run WHERE s.n + s.nulls > r.scored",
             "a summary of more samples than the run has"),
        ):
            for row in self.rows(statement):
                self.wrong(what, row)

    def stream(self):
        """Waits until no id is in the stream: each is of a sample that is scored."""
        until = time.monotonic() + SOON
        while True:
            found = self.soak.cluster.workers[0].metrics()
            left = {name: found.get(name) for name in (WAITING, IN_FLIGHT) if found.get(name) != 0}
            if not left:
                return
            if time.monotonic() > until:
                self.wrong("ids that stay in the stream", left)
                return
            time.sleep(0.5)

    def logs(self):
        """Counts errors, which faults may cause. A panic is a defect."""
        self.errors = Counter()
        for service in self.soak.cluster.services:
            for line in service.log.read_text(errors="replace").splitlines():
                if " ERROR " in line:
                    self.errors[service.name] += 1
                if "panicked at" in line:
                    self.wrong("a panic", f"{service.name}: {line}")

    def objects(self):
        """Compares the bucket with the rows. An API instance that starts sweeps what crashes have left."""
        cluster: Cluster = self.soak.cluster
        self.orphans = len(self.without_row())
        cluster.apis[0].stop()
        cluster.apis[0].start().ready()
        until = time.monotonic() + SOON
        while (left := self.without_row()) and time.monotonic() < until:
            time.sleep(1)
        for image in left:
            self.wrong("an object that no row names", image)
        kept = {image for (image,) in self.rows("SELECT DISTINCT image FROM kept_files")}
        for image in kept:
            self.wrong("an image that is kept although its run is finished", image)
        self.quarantined = len(cluster.objects.names())

    def without_row(self):
        """Objects that no row names and that are not released either: those are deleted after some minutes."""
        objects = self.soak.cluster.objects.names()
        rows = self.rows("SELECT image FROM kept_files UNION SELECT image FROM released_files")
        return objects - {image for (image,) in rows}
