#!/usr/bin/env python3
"""Measures import, finish and report of a large run, and the memory of the service meanwhile.

    stellar-score serve &
    python3 scripts/runs_bench.py http://127.0.0.1:8080 $! 100000

Scores are random, in the reference toolkit's files: 500 identities, two photos each. Memory is the process's resident
set, read twenty times a second. CPU time is that of the service; it is more reliable than wall time on a shared machine.
"""

import json
import os
import random
import sys
import threading
import time
import urllib.request

FILES = {
    "clip_random": ["clip_t", "clip_n", "clip_i"],
    "identity_preservation": ["identity_preservation"],
    "identity_stability": ["identity_stability"],
    "object_faithfulness": ["object_faithfulness"],
    "dino": ["dino_fidelity"],
    "dreamsim": ["dreamsim_distance"],
    "aesthetic_score": ["aesthetic_score"],
    "pick_score": ["pick_score"],
    "image_reward": ["image_reward"],
    "human_preference_score": ["human_preference_score_v1", "human_preference_score_v2"],
}
ATTRIBUTES = ["Young", "Male", "High_Cheekbones", "Pointy_Nose", "Narrow_Eyes", "Double_Chin", "Big_Lips", "Big_Nose"]


def main(server, pid, samples):
    draw = random.Random(7)
    names = [f"{at % 500:03}-{at // 500 % 2}-{at // 1000}" for at in range(samples)]
    memory = Memory(pid)
    memory.start()
    settled = memory.now()

    def ask(method, path, body=None, media_type="application/json"):
        request = urllib.request.Request(server + path, data=body, method=method, headers={"content-type": media_type})
        with urllib.request.urlopen(request) as response:
            return response.read()

    def timed(what, work):
        memory.peak = memory.now()
        begun, used = time.monotonic(), memory.cpu()
        result = work()
        wall, used = time.monotonic() - begun, memory.cpu() - used
        print(f"{what:32} {wall:8.3f} s   CPU {used:7.2f} s   peak {memory.peak >> 20:6} MiB", flush=True)
        return result

    new = json.dumps({"method": "bench", "run": str(time.time_ns())}).encode()
    run = json.loads(ask("POST", "/v1/runs", new))["run_id"]
    print(f"{samples} samples; {settled >> 20} MiB resident at the beginning", flush=True)
    began = time.monotonic()
    for file, columns in FILES.items():
        rows = (",".join([str(at), name, *(f"{draw.random():.6f}" for _ in columns)]) for at, name in enumerate(names))
        text = "\n".join([",".join(["", "name", *columns]), *rows]) + "\n"
        timed(f"import {file}", lambda: ask("POST", f"/v1/runs/{run}/import?source=bench", text.encode(), "text/csv"))
    columns = [f"{attribute}_{kind}" for attribute in ATTRIBUTES for kind in ("target", "pred")]
    rows = (",".join([str(at), name, *(draw.choice(("1", "-1")) for _ in columns)]) for at, name in enumerate(names))
    text = "\n".join([",".join(["", "name", *columns]), *rows]) + "\n"
    timed("import attribute_preservation", lambda: ask("POST", f"/v1/runs/{run}/import?source=bench", text.encode(), "text/csv"))
    print(f"all imports, including making the files: {time.monotonic() - began:.2f} s", flush=True)

    def finish():
        ask("POST", f"/v1/runs/{run}/finish", b"{}")
        while json.loads(ask("GET", f"/v1/runs/{run}"))["state"] != "finished":
            time.sleep(0.02)

    timed("finish", finish)
    timed("GET the run", lambda: ask("GET", f"/v1/runs/{run}"))
    for policy in ("stellar", "toolkit", "none"):
        timed(f"report {policy}", lambda: ask("GET", f"/v1/runs/{run}/report?policy={policy}"))
    timed("report stellar, again", lambda: ask("GET", f"/v1/runs/{run}/report?policy=stellar"))
    timed("1,000 samples of the list", lambda: ask("GET", f"/v1/runs/{run}/samples?limit=1000&after=250"))
    timed("leaderboard", lambda: ask("GET", "/v1/leaderboard?pack=all"))
    print(f"{memory.now() >> 20} MiB resident at the end", flush=True)


class Memory(threading.Thread):
    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.stat, self.peak = f"/proc/{pid}/status", f"/proc/{pid}/stat", 0

    def now(self):
        with open(self.status) as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))

    def cpu(self):
        with open(self.stat) as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self):
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 100_000)
