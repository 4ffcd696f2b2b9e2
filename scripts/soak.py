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
import http.client
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service import FORM, Service, form, schema_in, scores_of

# Samples of a run that is scored by requests; then the next run begins, so that reports stay as small as in ordinary use.
SAMPLES_OF_A_RUN = 300
TOLERANCE = 1e-5
# Statuses that a client retries: the instance is down, starting or full, or the request timed out.
PATIENCE = {408, 421, 429, 503, 504, 507}
# Seconds; longer than a request may take and an instance needs to start.
GIVE_UP = 600


class Wrong:
    """Problems by kind, with the first few examples of each."""

    def __init__(self):
        self.lock, self.found, self.examples = threading.Lock(), Counter(), {}

    def add(self, kind, what):
        with self.lock:
            self.found[kind] += 1
            self.examples.setdefault(kind, [])
            if len(self.examples[kind]) < 5:
                self.examples[kind].append(str(what)[:600])


def alike(expected, found):
    """Returns whether scores are equal: numbers within the tolerance, everything else exactly."""
    if expected.keys() != found.keys():
        return False
    for metric, (value, reason, flags) in expected.items():
        other, other_reason, other_flags = found[metric]
        if (reason, flags) != (other_reason, other_flags) or (value is None) != (other is None):
            return False
        if value is not None and abs(value - other) > TOLERANCE:
            return False
    return True


def difference(expected, found):
    """Returns the metrics that differ."""
    names = sorted(expected.keys() | found.keys())
    return {name: (expected.get(name), found.get(name)) for name in names if expected.get(name) != found.get(name)}


class Inputs:
    """Synthetic samples: portraits, prompts and metadata, in runs of a few identities each."""

    def __init__(self, program, folder, identities, prompts):
        def run(*command):
            subprocess.run([program, *command], check=True, stdout=subprocess.DEVNULL)

        run("dataset", "synthesize", "--out", str(folder / "sample"), "--identities", str(identities), "--prompts", str(prompts))
        run("dataset", "prepare", "--download", str(folder / "sample/download"), "--prompts", str(folder / "sample/prompts"),
            "--out", str(folder / "stellar"))
        self.photos, self.samples = {}, []
        for file in sorted((folder / "sample/generations").glob("*.json")):
            known = json.loads(file.read_text())
            identity = known["save_name"].split("-")[0]
            metadata = {
                "identity": identity,
                # Source of the attribute classifiers: a dataset for some samples, their own run for the others.
                **({"dataset": "people"} if len(self.samples) % 3 == 0 else {}),
                "attributes": known["attributes"],
                "categories": known["categories"],
                "detectables": known["detectables"],
                "prompt_kind": "T" if known["is_stellar_t"] else "H",
            }
            fields = [
                ("image", file.with_suffix(".png").read_bytes()),
                ("prompt", known["prompt"].replace("{}", "a person")),
                ("reference", (folder / known["image_path"]).read_bytes()),
                ("metadata", json.dumps(metadata)),
            ]
            self.samples.append((identity, known["save_name"], fields))
            labels = {name: value == 1 for name, value in known["attributes"].items()}
            photo = {"identity": identity, "name": known["image_path"], "attributes": labels}
            self.photos[known["image_path"]] = form([("photo", fields[2][1]), ("metadata", json.dumps(photo))])

    def runs(self, size):
        """Splits the samples into runs of `size`, each evaluated as a whole."""
        return [self.samples[at : at + size] for at in range(0, len(self.samples) - size + 1, size)]


def enrol(call, inputs):
    """Enrols the dataset that some samples name."""
    for _, photo in sorted(inputs.photos.items()):
        status, text, *_ = call("POST", "/v1/datasets/people/photos", photo, FORM)
        assert status in (200, 201), text


class Reference:
    """Results of an undisturbed service: for each sample alone, and for each run."""

    def __init__(self, service, inputs, runs):
        self.samples, self.runs, self.tables = {}, [], []
        enrol(service.call, inputs)
        started = time.monotonic()

        def score(at):
            _, name, fields = inputs.samples[at]
            body = form(fields + [("method", "reference"), ("run", "alone"), ("name", name)])
            status, text, _ = service.call("POST", "/v1/score", body, FORM)
            assert status == 200, text
            return at, scores_of(service.get(f"/v1/samples/{json.loads(text)['sample']}"))

        with ThreadPoolExecutor(4) as pool:
            self.samples = dict(pool.map(score, range(len(inputs.samples))))
        self.rate = len(self.samples) / (time.monotonic() - started)
        for at, members in enumerate(runs):
            run = evaluate(service, f"run-{at}", members)
            self.runs.append(scores_of_run(service, run))
            self.tables.append(table_of(service, run))


def evaluate(service, name, members):
    """Submits and finishes one run, without retries; returns its id."""
    status, text, _ = service.call("POST", "/v1/runs", json.dumps({"method": "reference", "run": name}))
    assert status == 201, text
    run = json.loads(text)["run_id"]
    for _, sample, fields in members:
        status, text, _ = service.call("PUT", f"/v1/runs/{run}/samples/{sample}", form(fields), FORM)
        assert status == 202, text
    service.call("POST", f"/v1/runs/{run}/finish")
    while service.get(f"/v1/runs/{run}")["state"] != "finished":
        time.sleep(0.2)
    return run


def scores_of_run(service, run):
    """Returns the scores of each sample of a run by name, as a list: more than one entry is a duplicate.

    A sample that is not scored has its state and error instead.
    """
    found = {}
    for item in service.pages(f"/v1/runs/{run}/samples?", "items"):
        state = item["state"]
        scores = scores_of(service.get(f"/v1/samples/{item['id']}")) if state == "scored" else {"state": [state, item.get("error"), None]}
        found.setdefault(item["name"], []).append(scores)
    return found


def table_of(service, run):
    """Extracts the compared parts of a run's report."""
    rows = service.get(f"/v1/runs/{run}/report")["rows"]
    return {row["metric"]: [row[key] for key in ("mean", "std", "low", "high", "n")] for row in rows}


class Soak:
    """The instances, the clients, and everything that the service acknowledged."""

    def __init__(self, arguments, instances, inputs, runs, reference):
        self.arguments, self.instances = arguments, instances
        self.inputs, self.members, self.reference = inputs, runs, reference
        self.wrong, self.lock = Wrong(), threading.Lock()
        self.counts = Counter()
        self.loading, self.killing = threading.Event(), threading.Event()
        self.loading.set()
        self.killing.set()
        # Acknowledged by the service.
        self.alone = {}  # run name -> {sample name: place in inputs}
        self.maybe = {}  # run name -> the same, for clients that disconnected
        self.evaluated = {}  # run id -> template
        self.imported = {}  # run id -> {name: value}
        self.votes = Counter()
        self.deleted_samples, self.deleted_runs, self.deleted_datasets = set(), set(), set()
        self.memory = []  # (seconds, instance, age, MiB)

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] += by

    # Requests of a client.

    def once(self, method, path, body=None, kind="application/json", timeout=150):
        """Sends one request to any instance; the status is None without a response."""
        try:
            status, text, _ = random.choice(self.instances).call(method, path, body, kind, timeout)
        except OSError:
            self.count("no answer")
            return None, b""
        self.count(f"answer {status}")
        if status >= 500 and status not in PATIENCE:
            self.wrong.add("a 5xx response", f"{method} {path}: {status} {text[:300]!r}")
        return status, text

    def patient(self, method, path, body=None, kind="application/json", fine=(200, 201, 202, 204)):
        """Repeats a request until it gets a final response."""
        until = time.monotonic() + GIVE_UP
        while time.monotonic() < until:
            status, text = self.once(method, path, body, kind)
            if status in fine:
                return status, text
            if status is not None and status not in PATIENCE:
                self.wrong.add("an unexpected response", f"{method} {path}: {status} {text[:300]!r}")
                return status, text
            time.sleep(random.uniform(0.05, 0.5))
        self.wrong.add("no response for ten minutes", f"{method} {path}")
        return None, b""

    def document(self, *request, **options):
        status, text = self.patient(*request, **options)
        return json.loads(text) if status in (200, 201, 202) else None

    # Work of the clients. Each method is called repeatedly during the load.

    def score(self, worker, turn, pause):
        """Scores samples by POST /v1/score; some clients disconnect before the response."""
        run = f"alone-{worker}-{turn // SAMPLES_OF_A_RUN}"
        at = random.randrange(len(self.inputs.samples))
        name = f"{turn}"
        body = form(self.inputs.samples[at][2] + [("method", f"soak-{worker}"), ("run", run), ("name", name)])
        if random.random() < 0.1:
            with self.lock:
                self.maybe.setdefault(run, {})[name] = at
            self.leave(body)
            self.count("clients that left")
        elif self.document("POST", "/v1/score", body, FORM):
            with self.lock:
                self.alone.setdefault(run, {})[name] = at
            self.count("samples scored on request")
        pause()

    def leave(self, body):
        """Sends all or a part of a request and disconnects."""
        head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        data = head.encode() + (body if random.random() < 0.7 else body[: random.randrange(len(body))])
        try:
            with socket.create_connection(("127.0.0.1", random.choice(self.instances).port), timeout=5) as connection:
                connection.sendall(data)
                time.sleep(random.uniform(0, 0.1))
        except OSError:
            pass

    def evaluate(self, worker, turn, pause):
        """Submits and finishes a whole run. Some runs are deleted, after finishing or while they are scored."""
        template = random.randrange(len(self.members))
        members = self.members[template]
        made = self.document("POST", "/v1/runs", json.dumps({"method": f"whole-{template}", "run": f"{worker}-{turn}"}))
        if made is None:
            return
        run = made["run_id"]
        stop_at = random.randrange(len(members)) if random.random() < 0.1 else None
        for at, (_, sample, fields) in enumerate(members):
            if at == stop_at:
                break
            self.document("PUT", f"/v1/runs/{run}/samples/{sample}", form(fields), FORM)
            self.count("samples accepted")
            pause()
        if stop_at is None:
            self.patient("POST", f"/v1/runs/{run}/finish")
            with self.lock:
                self.evaluated[run] = template
            self.count("runs")
            if random.random() < 0.3:
                self.watch(run)
            if random.random() < 0.7:
                return
        with self.lock:
            self.evaluated.pop(run, None)
        self.delete_run(run)

    def delete_run(self, run):
        # The first of two attempts may have deleted the run, so 404 is fine.
        self.patient("DELETE", f"/v1/runs/{run}", fine=(200, 204, 404))
        with self.lock:
            self.deleted_runs.add(run)
        self.count("runs deleted")

    def watch(self, run):
        """Watches the events of a run for a moment and disconnects."""
        try:
            port = random.choice(self.instances).port
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", f"/v1/runs/{run}/events")
            until = time.monotonic() + random.uniform(0, 3)
            response = connection.getresponse()
            while time.monotonic() < until and response.read1(4096):
                pass
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        self.count("watchers")

    def bring(self, worker, turn, _):
        """Imports scores."""
        made = self.document("POST", "/v1/runs", json.dumps({"method": "imported", "run": f"{worker}-{turn}"}))
        if made is None:
            return
        values = {f"{at % 20}_{at}": random.random() for at in range(200)}
        table = ",name,aesthetic_score\n" + "".join(f"{at},{name},{value!r}\n" for at, (name, value) in enumerate(values.items()))
        if self.document("POST", f"/v1/runs/{made['run_id']}/import?source=elsewhere", table, "text/csv"):
            with self.lock:
                self.imported[made["run_id"]] = values
            self.count("imports")
            if random.random() < 0.3:
                with self.lock:
                    del self.imported[made["run_id"]]
                self.delete_run(made["run_id"])
        time.sleep(random.uniform(1, 5))

    def vote(self, worker, turn, _):
        """Votes on two imported runs, whose samples have the same names."""
        with self.lock:
            known = sorted(self.imported)
        if len(known) >= 2:
            a, b = random.sample(known, 2)
            name = random.choice(list(self.imported.get(a, {"0_0": 0})))
            vote = {"question": "overall", "annotator": f"{worker}-{turn}", "name": name, "run_a": a, "run_b": b, "preferred": "a"}
            # If a run was deleted meanwhile, the sample is unknown.
            status, _ = self.patient("POST", "/v1/preferences", json.dumps({"preferences": [vote]}), fine=(200, 422))
            if status == 200:
                with self.lock:
                    self.votes[(vote["annotator"], min(a, b), max(a, b))] += 1
                self.count("votes")
        time.sleep(random.uniform(0.5, 2))

    def enrol(self, worker, turn, _):
        """Creates and deletes datasets."""
        dataset = f"{worker}-{turn}"
        for photo in random.sample(sorted(self.inputs.photos), 3):
            self.document("POST", f"/v1/datasets/{dataset}/photos", self.inputs.photos[photo], FORM)
        prompts = [{"identity": "000", "prompt": f"a person number {at}"} for at in range(20)]
        self.document("PUT", f"/v1/datasets/{dataset}/prompts", json.dumps({"prompts": prompts}))
        self.once("GET", f"/v1/datasets/{dataset}")
        self.patient("DELETE", f"/v1/datasets/{dataset}", fine=(200, 204, 404))
        with self.lock:
            self.deleted_datasets.add(dataset)
        self.count("datasets")
        time.sleep(random.uniform(1, 5))

    def remove(self, _, turn, __):
        """Deletes single samples."""
        with self.lock:
            run = random.choice(sorted(self.alone)) if self.alone else None
            name = random.choice(sorted(self.alone[run])) if run and self.alone[run] else None
        if name is not None:
            body = form(self.inputs.samples[self.alone[run][name]][2] + [("method", f"soak-{run.split('-')[1]}"), ("run", run), ("name", name)])
            # A repeated request returns the id of the stored sample.
            again = self.document("POST", "/v1/score", body, FORM)
            if again:
                with self.lock:
                    del self.alone[run][name]
                self.patient("DELETE", f"/v1/samples/{again['sample']}", fine=(200, 204, 404))
                with self.lock:
                    self.deleted_samples.add(again["sample"])
                self.count("samples deleted")
        time.sleep(random.uniform(1, 3))

    def read(self, _, turn, __):
        """Reads pages and analyses. Some readers disconnect early."""
        with self.lock:
            first = random.choice(sorted(self.evaluated.items())) if self.evaluated else None
            # Runs over the same samples, so that they can be compared.
            runs = [run for run, template in self.evaluated.items() if first and template == first[1]][:2]
        paths = ["/v1/leaderboard", "/v1/leaderboard?by=run", "/v1/metrics", "/metrics", "/v1/runs", "/v1/analysis/correlations",
                 "/v1/analysis/trade-off?x=clip_t&y=aesthetic", "/v1/analysis/alignment",
                 "/v1/analysis/preferences", "/v1/preferences/next", "/readyz"]
        if len(runs) == 2:
            paths += [f"/v1/analysis/slices?run={runs[0]}", f"/v1/runs/{runs[0]}/report", f"/v1/runs/{runs[0]}/attributes", f"/v1/runs/{runs[0]}/toolkit",
                      f"/v1/runs/{runs[0]}/compare/{runs[1]}?slices=true"]
        self.once("GET", random.choice(paths), timeout=random.choice([0.05, 30, 30]))
        self.count("reads")
        time.sleep(random.uniform(0.1, 1))

    # Disturbances of the instances.

    def kill(self, until):
        """Kills one instance at a time and restarts it at once; the pauses fit `--kills` kills into the time."""
        mean = (until - time.monotonic()) / max(self.arguments.kills, 1)
        while self.killing.is_set() and time.monotonic() < until and self.counts["kills"] < self.arguments.kills:
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

    # Final checks.

    def settle(self):
        """Waits until all runs are finished."""
        until = time.monotonic() + GIVE_UP
        service = self.instances[0]
        for run in sorted(self.evaluated):
            while time.monotonic() < until:
                if service.get(f"/v1/runs/{run}")["state"] == "finished":
                    break
                time.sleep(0.5)
            else:
                self.wrong.add("an unfinished run", service.get(f"/v1/runs/{run}"))

    def account(self):
        service = self.instances[0]
        compared, different = 0, 0
        runs = {entry["run"]: entry for entry in service.pages("/v1/runs?", "runs")}
        ids = {entry["run_id"] for entry in runs.values()}
        for run in sorted(self.alone.keys() | self.maybe.keys()):
            sent, maybe = self.alone.get(run, {}), self.maybe.get(run, {})
            if run not in runs:
                if sent:
                    self.wrong.add("a lost run", run)
                continue
            found = scores_of_run(service, runs[run]["run_id"])
            if runs[run]["counts"]["scored"] != len(found):
                self.wrong.add("counts of a run that do not match its samples", f"{run}: {runs[run]['counts']}, {len(found)} samples")
            for name in sent.keys() - found.keys():
                self.wrong.add("a lost sample", f"{run}/{name}")
            for name, scores in found.items():
                if len(scores) != 1:
                    self.wrong.add("a duplicate sample", f"{run}/{name}")
                at = sent.get(name, maybe.get(name))
                if at is None:
                    self.wrong.add("a sample that was not sent or was deleted", f"{run}/{name}")
                    continue
                compared += len(scores[0])
                different += self.reference.samples[at] != scores[0]
                if not alike(self.reference.samples[at], scores[0]):
                    self.wrong.add("scores that differ", f"{run}/{name}: {difference(self.reference.samples[at], scores[0])}")
        for run, template in sorted(self.evaluated.items()):
            found, expected = scores_of_run(service, run), self.reference.runs[template]
            if found.keys() != expected.keys():
                self.wrong.add("a run with other samples than were sent", f"{run}: {sorted(found.keys() ^ expected.keys())}")
            for name in found.keys() & expected.keys():
                compared += len(found[name][0])
                different += expected[name][0] != found[name][0]
                if len(found[name]) != 1 or not alike(expected[name][0], found[name][0]):
                    self.wrong.add("scores that differ", f"{run}/{name}: {difference(expected[name][0], found[name][0])}")
            table = table_of(service, run)
            same = table.keys() == self.reference.tables[template].keys() and all(
                (a is None) == (b is None) and (a is None or abs(a - b) <= 1e-4)
                for metric, row in self.reference.tables[template].items()
                for a, b in zip(row, table[metric])
            )
            if not same:
                self.wrong.add("a table that differs", f"{run}: {difference(self.reference.tables[template], table)}")
        for run, values in sorted(self.imported.items()):
            found = {
                name: scores[0].get("aesthetic", [None])[0] if len(scores) == 1 else "several"
                for name, scores in scores_of_run(service, run).items()
            }
            if found != values:
                self.wrong.add("imported numbers that differ", run)
        stored = Counter()
        for vote in service.pages("/v1/preferences?", "preferences"):
            stored[(vote["annotator"], min(vote["run_a"], vote["run_b"]), max(vote["run_a"], vote["run_b"]))] += 1
        for vote in self.votes:
            gone = set(vote[1:]) & self.deleted_runs
            if stored[vote] != (0 if gone else 1):
                self.wrong.add("a vote that is lost or not deleted", f"{vote}: {stored[vote]} times")
        for run in self.deleted_runs & ids:
            self.wrong.add("a deleted run that still exists", run)
        datasets = {entry["name"] for entry in service.get("/v1/datasets")["datasets"]}
        for dataset in self.deleted_datasets & datasets:
            self.wrong.add("a deleted dataset that still exists", dataset)
        for sample in self.deleted_samples:
            if service.call("GET", f"/v1/samples/{sample}")[0] != 404:
                self.wrong.add("a deleted sample that still exists", sample)
        self.compared, self.different = compared, different

    def rows(self, statement):
        if self.arguments.postgres:
            printed = subprocess.run(["psql", self.store, "-Atc", statement], check=True, capture_output=True, text=True).stdout
            return [tuple(line.split("|")) for line in printed.splitlines()]
        with sqlite3.connect(f"file:{self.instances[0].folder}/stellar.db?mode=ro", uri=True) as database:
            return [tuple(map(str, row)) for row in database.execute(statement)]

    def files(self):
        """Compares the spools with the database, for up to half a minute: files are removed after the commit."""
        for _ in range(30):
            rows = Counter(image for (image,) in self.rows("SELECT DISTINCT image FROM kept_files"))
            on_disk = Counter()
            for instance in self.instances:
                for file in instance.files.glob("??/*"):
                    if len(file.parent.name + file.name) == 64:
                        on_disk[file.parent.name + file.name] += 1
            without_row, without_file = on_disk.keys() - rows.keys(), rows.keys() - on_disk.keys()
            if not without_row and not without_file:
                break
            time.sleep(1)
        for file in without_row:
            self.wrong.add("a file without a row", file)
        for row in without_file:
            self.wrong.add("a row without its file", row)
        self.kept = (len(rows), len(on_disk))
        for statement, what in (
            ("SELECT run, name FROM samples WHERE run IS NOT NULL GROUP BY run, name HAVING count(*) > 1", "a duplicate name"),
            ("SELECT p.id FROM pending_samples p JOIN samples s ON s.id = p.id", "a sample that is both pending and scored"),
            ("SELECT image FROM released_files", "a released file that was not removed"),
        ):
            for row in self.rows(statement):
                self.wrong.add(what, row)

    def logs(self):
        for instance in self.instances:
            for line in instance.log.read_text(errors="replace").splitlines():
                if " ERROR " in line:
                    self.wrong.add("an error in the log", line)

    def flat(self):
        """Compares the maxima of resident memory in the last two thirds of the final quiet time."""
        calm = 0.9 * 60 * self.arguments.minutes
        quiet = [row for row in self.memory if row[0] > calm and row[2] > 20]
        self.most = max((row[3] for row in self.memory), default=0.0)
        self.thirds = []
        for at in range(len(self.instances)):
            of = [row[3] for row in quiet if row[1] == at]
            third = len(of) // 3
            if third:
                middle, last = max(of[third : 2 * third]), max(of[2 * third :])
                self.thirds.append((middle, last))
                if last > 1.15 * middle + 32:
                    self.wrong.add("memory that grows", f"instance {at}: {middle:.0f} MiB, then {last:.0f} MiB")


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
    soak = Soak(arguments, instances, inputs, runs, reference)
    soak.store = store
    try:
        for instance in instances:
            instance.ready()
        enrol(soak.patient, inputs)
        soak.go()
        for instance in instances:
            instance.ready()
        soak.settle()
        soak.account()
        soak.files()
        soak.logs()
        soak.flat()
    finally:
        for instance in instances:
            instance.kill()

    counts = {what: soak.counts[what] for what in sorted(soak.counts)}
    print(f"{soak.seconds / 60:.1f} minutes, {len(instances)} instances, {soak.counts['kills']} kills")
    print("clients:", ", ".join(f"{count} {what}" for what, count in counts.items() if not what.startswith(("answer", "kills"))))
    print("responses:", ", ".join(f"{count} × {what[7:]}" for what, count in counts.items() if what.startswith("answer")))
    print(f"scores: {soak.compared} compared, {soak.different} samples not equal to the last bit")
    print(f"files: {soak.kept[1]} in the spools, {soak.kept[0]} in the database")
    print(f"memory: at most {soak.most:.0f} MiB; in the last calm", ", ".join(f"{a:.0f} then {b:.0f} MiB" for a, b in soak.thirds) or "not measured")
    for kind, count in soak.wrong.found.most_common():
        print(f"WRONG: {count} × {kind}")
        for example in soak.wrong.examples[kind]:
            print(f"    {example}")
    if not soak.wrong.found:
        print("nothing lost, duplicated or changed")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "minutes": soak.seconds / 60, "instances": len(instances), "counts": counts, "compared": soak.compared,
            "not_equal_to_the_last_bit": soak.different, "most_mib": soak.most, "calm_mib": soak.thirds,
            "wrong": dict(soak.wrong.found),
        }, indent=1))
    if not arguments.keep:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if soak.wrong.found else 0


if __name__ == "__main__":
    sys.exit(main())
