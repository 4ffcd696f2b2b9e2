"""The final checks of the soak test: everything that the service acknowledged is accounted for."""

import sqlite3
import time
from collections import Counter

from service import rows_of
from soak_clients import GIVE_UP
from soak_reference import alike, alike_tables, difference, scores_of_run, table_of


class Checks:
    """Compares what the instances have with what they acknowledged. Problems go to `soak.wrong`."""

    def __init__(self, soak):
        self.soak = soak

    def all(self):
        self.settle()
        self.account()
        self.files()
        self.logs()
        self.flat()

    def settle(self):
        """Waits until all runs are finished."""
        until = time.monotonic() + GIVE_UP
        service = self.soak.instances[0]
        for run in sorted(self.soak.evaluated):
            while time.monotonic() < until:
                if service.get(f"/v1/runs/{run}")["state"] == "finished":
                    break
                time.sleep(0.5)
            else:
                self.soak.wrong.add("an unfinished run", service.get(f"/v1/runs/{run}"))

    def account(self):
        service = self.soak.instances[0]
        compared, different = 0, 0
        runs = {entry["run"]: entry for entry in service.pages("/v1/runs?", "runs")}
        ids = {entry["run_id"] for entry in runs.values()}
        for run in sorted(self.soak.alone.keys() | self.soak.maybe.keys()):
            sent, maybe = self.soak.alone.get(run, {}), self.soak.maybe.get(run, {})
            if run not in runs:
                if sent:
                    self.soak.wrong.add("a lost run", run)
                continue
            found = scores_of_run(service, runs[run]["run_id"])
            if runs[run]["counts"]["scored"] != len(found):
                self.soak.wrong.add("counts of a run that do not match its samples", f"{run}: {runs[run]['counts']}, {len(found)} samples")
            for name in sent.keys() - found.keys():
                self.soak.wrong.add("a lost sample", f"{run}/{name}")
            for name, scores in found.items():
                if len(scores) != 1:
                    self.soak.wrong.add("a duplicate sample", f"{run}/{name}")
                at = sent.get(name, maybe.get(name))
                if at is None:
                    self.soak.wrong.add("a sample that was not sent or was deleted", f"{run}/{name}")
                    continue
                compared += len(scores[0])
                different += self.soak.reference.samples[at] != scores[0]
                if not alike(self.soak.reference.samples[at], scores[0]):
                    self.soak.wrong.add("scores that differ", f"{run}/{name}: {difference(self.soak.reference.samples[at], scores[0])}")
        for run, template in sorted(self.soak.evaluated.items()):
            found, expected = scores_of_run(service, run), self.soak.reference.runs[template]
            if found.keys() != expected.keys():
                self.soak.wrong.add("a run with other samples than were sent", f"{run}: {sorted(found.keys() ^ expected.keys())}")
            for name in found.keys() & expected.keys():
                compared += len(found[name][0])
                different += expected[name][0] != found[name][0]
                if len(found[name]) != 1 or not alike(expected[name][0], found[name][0]):
                    self.soak.wrong.add("scores that differ", f"{run}/{name}: {difference(expected[name][0], found[name][0])}")
            table = table_of(service, run)
            if not alike_tables(self.soak.reference.tables[template], table):
                self.soak.wrong.add("a table that differs", f"{run}: {difference(self.soak.reference.tables[template], table)}")
        for run, values in sorted(self.soak.imported.items()):
            found = {
                name: scores[0].get("aesthetic", [None])[0] if len(scores) == 1 else "several"
                for name, scores in scores_of_run(service, run).items()
            }
            if found != values:
                self.soak.wrong.add("imported numbers that differ", run)
        stored = Counter()
        for vote in service.pages("/v1/preferences?", "preferences"):
            stored[(vote["annotator"], min(vote["run_a"], vote["run_b"]), max(vote["run_a"], vote["run_b"]))] += 1
        for vote in self.soak.votes:
            gone = set(vote[1:]) & self.soak.deleted_runs
            if stored[vote] != (0 if gone else 1):
                self.soak.wrong.add("a vote that is lost or not deleted", f"{vote}: {stored[vote]} times")
        for run in self.soak.deleted_runs & ids:
            self.soak.wrong.add("a deleted run that still exists", run)
        datasets = {entry["name"] for entry in service.get("/v1/datasets")["datasets"]}
        for dataset in self.soak.deleted_datasets & datasets:
            self.soak.wrong.add("a deleted dataset that still exists", dataset)
        for sample in self.soak.deleted_samples:
            if service.call("GET", f"/v1/samples/{sample}")[0] != 404:
                self.soak.wrong.add("a deleted sample that still exists", sample)
        self.compared, self.different = compared, different

    def rows(self, statement):
        if self.soak.store:
            return rows_of(self.soak.store, statement)
        with sqlite3.connect(f"file:{self.soak.instances[0].folder}/stellar.db?mode=ro", uri=True) as database:
            return [tuple(map(str, row)) for row in database.execute(statement)]

    def files(self):
        """Compares the spools with the database, for up to half a minute: files are removed after the commit."""
        for _ in range(30):
            rows = Counter(image for (image,) in self.rows("SELECT DISTINCT image FROM kept_files"))
            on_disk = Counter()
            for instance in self.soak.instances:
                for file in instance.files.glob("??/*"):
                    if len(file.parent.name + file.name) == 64:
                        on_disk[file.parent.name + file.name] += 1
            without_row, without_file = on_disk.keys() - rows.keys(), rows.keys() - on_disk.keys()
            if not without_row and not without_file:
                break
            time.sleep(1)
        for file in without_row:
            self.soak.wrong.add("a file without a row", file)
        for row in without_file:
            self.soak.wrong.add("a row without its file", row)
        self.kept = (len(rows), len(on_disk))
        for statement, what in (
            ("SELECT run, name FROM samples WHERE run IS NOT NULL GROUP BY run, name HAVING count(*) > 1", "a duplicate name"),
            ("SELECT p.id FROM pending_samples p JOIN samples s ON s.id = p.id", "a sample that is both pending and scored"),
            ("SELECT image FROM released_files", "a released file that was not removed"),
        ):
            for row in self.rows(statement):
                self.soak.wrong.add(what, row)

    def logs(self):
        for instance in self.soak.instances:
            for line in instance.log.read_text(errors="replace").splitlines():
                if " ERROR " in line:
                    self.soak.wrong.add("an error in the log", line)

    def flat(self):
        """Compares the maxima of resident memory in the last two thirds of the final quiet time."""
        calm = 0.9 * 60 * self.soak.arguments.minutes
        quiet = [row for row in self.soak.memory if row[0] > calm and row[2] > 20]
        self.most = max((row[3] for row in self.soak.memory), default=0.0)
        self.thirds = []
        for at in range(len(self.soak.instances)):
            of = [row[3] for row in quiet if row[1] == at]
            third = len(of) // 3
            if third:
                middle, last = max(of[third : 2 * third]), max(of[2 * third :])
                self.thirds.append((middle, last))
                if last > 1.15 * middle + 32:
                    self.soak.wrong.add("memory that grows", f"instance {at}: {middle:.0f} MiB, then {last:.0f} MiB")
