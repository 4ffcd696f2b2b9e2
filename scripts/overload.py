#!/usr/bin/env python3
"""Measures whether one well-behaved client still gets its scores while others attack the service.

    scripts/overload.py [--program target/release/stellar-score] [--sockets 1000] [--analyses 64] [--seconds 30]
                        [--postgres URL] [--json FILE]

Measures `POST /v1/score`, `/livez` and `/readyz` on an idle service, then again during an attack: `--sockets`
connections that send nothing, drip a head or drip a body; `--analyses` concurrent slow analyses whose clients disconnect
early; and uploads of samples with 16 references that decode to 192 MB each. Needs only Python. Prints a table, and exits
with 1 if scoring takes more than three times its idle time, a health route takes more than a second, or memory exceeds
`--memory-mib`.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from service import FORM, Service, flat_jpeg, form, png

def prepare_analyses(service, samples):
    """Imports two runs that take long to compare."""
    runs = []
    for method in ("slow-a", "slow-b"):
        body = json.dumps({"method": method, "run": "r"})
        status, text, _ = service.call("POST", "/v1/runs", body)
        assert status in (200, 201), text
        run = json.loads(text)["run_id"]
        rows = random.Random(method)
        for columns in (["clip_t", "clip_i", "clip_n"], ["aesthetic_score"], ["pick_score"], ["dino_fidelity"], ["image_reward"]):
            lines = [f",name,{','.join(columns)}"]
            lines += [
                f"{at},person_{at % 200}_{at}," + ",".join(f"{0.2 + 0.1 * rows.random():.6f}" for _ in columns)
                for at in range(samples)
            ]
            status, text, _ = service.call(
                "POST", f"/v1/runs/{run}/import?source=made-up", "\n".join(lines) + "\n", "text/csv"
            )
            if status not in (200, 201):
                return None, text.decode()
        runs.append(run)
    return runs, None


class Attack:
    def __init__(self, service, arguments, runs):
        self.service, self.arguments, self.runs = service, arguments, runs
        self.stopping = threading.Event()
        self.threads, self.sockets, self.statuses = [], [], {}
        self.lock = threading.Lock()

    def count(self, what):
        with self.lock:
            self.statuses[what] = self.statuses.get(what, 0) + 1

    def begin(self):
        self.threads.append(threading.Thread(target=self.hold_sockets, daemon=True))
        self.threads += [
            threading.Thread(target=self.analyse, args=(at,), daemon=True) for at in range(self.arguments.analyses)
        ]
        self.threads += [threading.Thread(target=self.upload, args=(at,), daemon=True) for at in range(8)]
        for thread in self.threads:
            thread.start()

    def open_socket(self, at):
        kinds = (
            b"",
            b"GET /v1/leaderboard HTTP/1.1\r\nHo",
            b"PUT /v1/datasets/x/prompts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
            b"PUT /v1/runs/%s/samples/drip HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 130000000\r\n\r\n" % self.runs[0].encode() if self.runs else b"GET / HTTP/1.1\r\n",
        )
        held = socket.create_connection(("127.0.0.1", self.service.port), timeout=5)
        held.setblocking(False)
        held.send(kinds[at % len(kinds)])
        return held

    def hold_sockets(self):
        """Keeps `--sockets` connections open; sends one byte per second on the dripping ones."""
        at = 0
        while not self.stopping.is_set():
            while len(self.sockets) < self.arguments.sockets and not self.stopping.is_set():
                try:
                    self.sockets.append((at, self.open_socket(at)))
                    self.count("socket opened")
                except OSError:
                    self.count("socket refused")
                    break
                at += 1
            alive = []
            for at_, held in self.sockets:
                try:
                    if at_ % 4:
                        held.send(b"x")
                    elif not held.recv(4096):
                        raise OSError
                    alive.append((at_, held))
                except BlockingIOError:
                    alive.append((at_, held))
                except OSError:
                    held.close()
                    self.count("socket closed by the service")
            self.sockets = alive
            time.sleep(1)

    def analyse(self, at):
        paths = ["/v1/runs/{a}/compare/{b}?slices=true&min_pairs={n}", "/v1/runs/{b}/toolkit",
                 "/v1/analysis/correlations?run={a}&pack=made-up", "/v1/runs/{b}/compare/{a}?min_pairs={n}"]
        n = at * 1_000_000
        while self.runs and not self.stopping.is_set():
            n += 1
            path = paths[n % len(paths)].format(a=self.runs[0], b=self.runs[1], n=n % 1000)
            try:
                self.count(f"analysis {self.service.call('GET', path, timeout=3)[0]}")
            except OSError:
                self.count("analysis left after 3 s")
            time.sleep(0.5)

    def upload(self, at):
        status, text, _ = self.service.call("POST", "/v1/runs", json.dumps({"method": "large", "run": f"r{at}"}))
        run = json.loads(text).get("run_id")
        n = 0
        while not self.stopping.is_set():
            n += 1
            fields = [("image", png(64, at * 10_000 + n)), ("prompt", "a person")]
            fields += [("reference", flat_jpeg(8000, f"{at}-{n}-{k}")) for k in range(16)]
            try:
                status, _, _ = self.service.call(
                    "PUT", f"/v1/runs/{run}/samples/{n}", form(fields), FORM
                )
                self.count(f"upload {status}")
                if status not in (200, 202):
                    time.sleep(1)
            except OSError:
                self.count("upload failed")

    def end(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)
        for _, held in self.sockets:
            held.close()


def attack(service, arguments, runs, stop, statuses):
    """Runs all attackers in a separate process, since their threads would disturb the measuring client."""
    # They simulate other machines, so their own work must not compete with the measured service.
    os.nice(arguments.attackers_nice)
    attackers = Attack(service, arguments, runs)
    attackers.begin()
    stop.wait()
    attackers.end()
    statuses.put(attackers.statuses)


def measure(service, seconds, seed):
    """Measures latencies of one patient client that scores new images, and of the health routes."""
    taken = {"score": [], "livez": [], "readyz": []}
    failures, memory = [], 0.0
    until = time.monotonic() + seconds
    at = seed
    while time.monotonic() < until or (len(taken["score"]) < 5 and time.monotonic() < until + 300):
        at += 1
        body = form([("image", png(256, at)), ("prompt", f"a person number {at}"), ("method", "patient"), ("name", str(at))])
        for name, call in (
            ("score", lambda: service.call("POST", "/v1/score", body, FORM)),
            ("livez", lambda: service.call("GET", "/livez")),
            ("readyz", lambda: service.call("GET", "/readyz")),
        ):
            try:
                status, text, took = call()
                taken[name].append(took)
                if status != 200:
                    failures.append(f"{name}: {status} {text[:200]!r}")
            except OSError as error:
                failures.append(f"{name}: {error}")
        memory = max(memory, service.resident())
        if len(failures) > 20:
            break
    return taken, failures, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--analyses", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--memory-mib", type=float, default=0, help="the documented bound; 0 only prints")
    parser.add_argument("--attackers-nice", type=int, default=10, help="niceness of the attackers' process")
    parser.add_argument("--postgres", default="")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))

    with tempfile.TemporaryDirectory() as folder:
        service = Service(arguments.program, folder, arguments.postgres).start().ready()
        try:
            runs, problem = prepare_analyses(service, arguments.samples)
            if problem:
                print(f"no analyses: the import was refused: {problem}", file=sys.stderr)
            time.sleep(5)
            measure(service, 2, 10_000_000)
            idle, idle_failures, idle_memory = measure(service, arguments.seconds, 20_000_000)
            stop, statuses = multiprocessing.Event(), multiprocessing.Queue()
            attackers = multiprocessing.Process(target=attack, args=(service, arguments, runs, stop, statuses))
            attackers.start()
            time.sleep(5)
            busy, failures, memory = measure(service, arguments.seconds, 30_000_000)
            stop.set()
            others = statuses.get()
            attackers.join()
        finally:
            service.process.kill()
            service.process.wait()

    result = {"idle": {}, "under attack": {}, "memory_mib": {"idle": idle_memory, "under attack": memory},
              "others": others, "failures": idle_failures + failures}
    print(f"{'':8}{'idle: median':>14}{'p95':>8}{'max':>8}   {'attacked: median':>16}{'p95':>8}{'max':>8}{'ratio':>8}")
    kept = not (idle_failures or failures)
    for name in idle:
        row = []
        for kind, taken in (("idle", idle[name]), ("under attack", busy[name])):
            taken = sorted(taken) or [float("nan")]
            figures = {"n": len(taken), "median": statistics.median(taken), "p95": taken[int(0.95 * (len(taken) - 1))], "max": taken[-1]}
            result[kind][name] = figures
            row.append(figures)
        ratio = row[1]["median"] / row[0]["median"]
        kept &= ratio <= 3 if name == "score" else row[1]["max"] <= 1
        print(f"{name:8}{row[0]['median']:14.3f}{row[0]['p95']:8.3f}{row[0]['max']:8.3f}   "
              f"{row[1]['median']:16.3f}{row[1]['p95']:8.3f}{row[1]['max']:8.3f}{ratio:8.2f}")
    print(f"memory: {idle_memory:.0f} MiB idle, {memory:.0f} MiB under attack")
    print("others:", ", ".join(f"{what} {count}" for what, count in sorted(others.items())))
    for failure in result["failures"][:10]:
        print("failed:", failure)
    if arguments.memory_mib:
        kept &= memory <= arguments.memory_mib
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
