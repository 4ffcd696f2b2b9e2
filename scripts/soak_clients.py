"""The clients of the soak test: their requests, and what the service acknowledged."""

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter

from service import FORM, form

# Samples of a run that is scored by requests; then the next run begins, so that reports stay as small as in ordinary use.
SAMPLES_OF_A_RUN = 300
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

    def show(self, nothing):
        """Prints all problems, or the text if there are none."""
        for kind, count in self.found.most_common():
            print(f"WRONG: {count} × {kind}")
            for example in self.examples[kind]:
                print(f"    {example}")
        if not self.found:
            print(nothing)


class Clients:
    """Clients of some instances, and everything that the service acknowledged."""

    def __init__(self, instances, inputs, runs):
        self.instances, self.inputs, self.members = instances, inputs, runs
        self.wrong, self.lock = Wrong(), threading.Lock()
        self.counts = Counter()
        # Acknowledged by the service.
        self.alone = {}  # run name -> {sample name: place in inputs}
        self.maybe = {}  # run name -> the same, for clients that disconnected
        self.evaluated = {}  # run id -> template
        self.imported = {}  # run id -> {name: value}
        self.votes = Counter()
        self.deleted_samples, self.deleted_runs, self.deleted_datasets = set(), set(), set()

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
