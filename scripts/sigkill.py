#!/usr/bin/env python3
"""Evaluates a made-up dataset twice, once undisturbed and once under random SIGKILLs, and compares every score.

    scripts/sigkill.py --kills 50 [--identities 20] [--prompts 100] [--program target/release/stellar-score]
                       [--postgres URL] [--seed 1] [--keep DIR]

The second evaluation kills the server or the client, whichever a coin says, at random moments, and starts it again. With
--postgres both use schemas of their own in that database; otherwise each has an SQLite file. Exits with 1 if a sample is
lost or a score, null or flag differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path


class Server:
    def __init__(self, program, folder, url, port):
        self.program, self.folder, self.url, self.port = program, folder, url, port
        self.process = None

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STELLAR_")}
        environment |= {
            "STELLAR_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "STELLAR_STORE__URL": self.url,
            "STELLAR_STORE__FILES": str(self.folder / "files"),
        }
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=log
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.load(answer)

    def scores(self):
        """Every sample of the only run, by name: what was sent and what came out."""
        (run,) = self.get("/v1/runs")["runs"]
        samples, after = {}, ""
        while True:
            page = self.get(f"/v1/runs/{run['run_id']}/samples?limit=1000{after}")
            for item in page["items"]:
                sample = self.get(f"/v1/samples/{item['id']}") if item["state"] == "scored" else {}
                scores = sample.get("scores", [])
                scores = scores if isinstance(scores, list) else [
                    {"metric": metric, **score} for metric, score in scores.items()
                ]
                found = {score["metric"]: [score.get(key) for key in ("value", "reason", "flags")] for score in scores}
                samples[item["name"]] = (item["state"], item["content"], found)
            if "next" not in page:
                return run["state"], samples
            after = f"&after={page['next']}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def client(arguments, server, log):
    command = [arguments.program, "submit", "--method", "made-up", "--dataset", arguments.dataset, "--run",
               arguments.generations, "--server", f"http://127.0.0.1:{server.port}", "--patience", "600"]
    if arguments.metrics:
        command += ["--metrics", arguments.metrics]
    return subprocess.Popen(command, stdout=log, stderr=log)


def store_of(arguments, folder, name):
    if not arguments.postgres:
        return f"sqlite:{folder / 'stellar.db'}"
    separator = "&" if "?" in arguments.postgres else "?"
    subprocess.run(["psql", arguments.postgres, "-qc", f"CREATE SCHEMA {name}"], check=True)
    return f"{arguments.postgres}{separator}options=-c%20search_path%3D{name}"


def evaluate(arguments, root, name, kills):
    """Submits until the table is printed; gives the seconds it took, the kills, and the scores."""
    folder = root / name
    folder.mkdir()
    server = Server(arguments.program, folder, store_of(arguments, folder, f"{name}_{os.getpid()}"), free_port())
    server.start()
    done = {"server": 0, "client": 0}
    started = time.monotonic()
    with open(folder / "client.txt", "ab") as log:
        process = client(arguments, server, log)
        while True:
            try:
                left = kills - sum(done.values())
                process.wait(random.uniform(*arguments.every) if left else None)
            except subprocess.TimeoutExpired:
                if random.random() < 0.5:
                    server.kill()
                    done["server"] += 1
                    server.start()
                else:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    done["client"] += 1
                    process = client(arguments, server, log)
                continue
            if process.returncode != 0:
                sys.exit(f"the client failed: {(folder / 'client.txt').read_text()[-2000:]}")
            break
    seconds = time.monotonic() - started
    state, samples = server.scores()
    server.stop()
    return seconds, done, state, samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--identities", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, nargs=2, default=(1.0, 6.0), help="seconds between kills")
    parser.add_argument("--metrics", help="codes, separated by commas (default: all)")
    parser.add_argument("--postgres")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    arguments.program = str(Path(arguments.program).resolve())
    random.seed(arguments.seed)
    root = arguments.keep or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)

    def run(*command):
        subprocess.run([arguments.program, *command], check=True, stdout=subprocess.DEVNULL)

    run("dataset", "sample", "--out", str(root / "sample"), "--identities", str(arguments.identities),
        "--prompts", str(arguments.prompts))
    run("dataset", "prepare", "--download", str(root / "sample/download"), "--prompts", str(root / "sample/prompts"),
        "--out", str(root / "stellar"))
    arguments.dataset, arguments.generations = str(root / "stellar"), str(root / "sample/generations")

    seconds, _, state, calm = evaluate(arguments, root, "calm", 0)
    print(f"undisturbed: {len(calm)} samples in {seconds:.0f} s, {state}")
    seconds, kills, state, stormy = evaluate(arguments, root, "stormy", arguments.kills)
    print(f"{kills['server']} kills of the server, {kills['client']} of the client: {len(stormy)} samples in "
          f"{seconds:.0f} s, {state}")
    if sum(kills.values()) < arguments.kills:
        print(f"only {sum(kills.values())} of {arguments.kills} kills found something to kill: use a larger sample")
    differing = [name for name in sorted(calm.keys() | stormy.keys()) if calm.get(name) != stormy.get(name)]
    scores = sum(len(scores) for _, _, scores in calm.values())
    for name in differing[:10]:
        print(f"{name}:\n  undisturbed {calm.get(name)}\n  disturbed   {stormy.get(name)}")
    print(f"{len(differing)} of {len(calm)} samples differ, {scores} scores compared")
    if not arguments.keep:
        shutil.rmtree(root)
    return 1 if differing or sum(kills.values()) < arguments.kills else 0


if __name__ == "__main__":
    sys.exit(main())
