#!/usr/bin/env python3
"""Compares rewards of the service with bare sessions and with Python servers, on the same graphs and pixels.

    .runtime/export/bin/python scripts/rewards_bench.py [--program target/release/stellar-score] [--pack packs/demo]
        [--rewards pick_score] [--images 64] [--side 512] [--in-flight 16] [--rounds 3] [--threads 1] [--batch 16]
        [--fixed] [--cache-texts] [--requests 300] [--json FILE]

The sides take turns within a round, with new images in each:

- *service*: raw pixels (safetensors), one image a request, `--in-flight` requests at once;
- *servers*: scripts/rewards_python_server.py, a process for each reward as trainers run them, the same requests to each;
- *bare*: the graphs alone in a loop of full batches, on pixels that are resized already.

The measure is CPU time of the processes that serve, which other work on the machine does not change as it changes
wall-clock time. Then the time of single requests whose features are all cached is measured: everything but the models.
Needs numpy, Pillow, onnxruntime and transformers (`make export-setup`).
"""

import argparse
import http.client
import io
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

from rewards_python_server import GRAPHS, Model
from service import Service, free_port

PROMPTS = [f"a photograph of a person number {at} in a garden with red flowers" for at in range(4)]


def cpu_seconds(pid):
    """CPU time of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def safetensors(document, images):
    head = {"__metadata__": {"request": json.dumps(document)},
            "images": {"dtype": "U8", "shape": list(images.shape), "data_offsets": [0, images.nbytes]}}
    head = json.dumps(head).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + images.tobytes()


class Connections(threading.local):
    """A connection that stays open, for each thread and port."""

    def __init__(self):
        self.open = {}

    def post(self, port, path, body, headers):
        connection = self.open.get(port)
        if connection is None:
            connection = self.open[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=1200)
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            sys.exit(f"{response.status}: {text[:500]!r}")
        return json.loads(text)


CONNECTIONS = Connections()


def ask_service(port, rewards, images, prompts):
    items = [{"image": {"tensor": at}, "prompt": prompt} for at, prompt in enumerate(prompts)]
    body = safetensors({"rewards": rewards, "items": items}, images)
    answer = CONNECTIONS.post(port, "/v1/rewards", body, {"Content-Type": "application/x-safetensors"})
    return answer["rewards"], answer["timings"]


def ask_server(port, images, prompts):
    body = io.BytesIO()
    numpy.save(body, images)
    return CONNECTIONS.post(port, "/", body.getvalue(), {"X-Prompts": json.dumps(prompts)})


class Servers:
    """The Python servers, a process for each reward."""

    def __init__(self, arguments):
        script = Path(__file__).with_name("rewards_python_server.py")
        self.ports = {reward: free_port() for reward in arguments.rewards}
        more = ["--cache-texts"] if arguments.cache_texts else []
        self.processes = [
            subprocess.Popen([sys.executable, script, arguments.pack, reward, str(port), "--threads", str(arguments.threads),
                              "--batch", str(arguments.batch), *more], env={**os.environ, "OMP_WAIT_POLICY": "passive"})
            for reward, port in self.ports.items()
        ]
        until = time.monotonic() + 600
        for port in self.ports.values():
            while True:
                try:
                    http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
                    break
                except OSError:
                    if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                        sys.exit("a Python server did not start")
                    time.sleep(0.2)

    def cpu(self):
        return sum(cpu_seconds(process.pid) for process in self.processes)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


def timed(cpu, work):
    """Returns the result, CPU seconds and wall-clock seconds of some work."""
    before, started = cpu(), time.monotonic()
    result = work()
    return result, cpu() - before, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--pack", default="packs/demo")
    parser.add_argument("--rewards", default="pick_score", help=f"comma-separated, of {', '.join(GRAPHS)}")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fixed", action="store_true", help="engine.batching = fixed")
    parser.add_argument("--cache-texts", action="store_true", help="the Python servers compute each prompt once")
    parser.add_argument("--requests", type=int, default=300, help="single requests with cached features")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    arguments.rewards = arguments.rewards.split(",")
    settings = {
        "STELLAR_PACK": str(Path(arguments.pack).resolve()), "STELLAR_ENGINE__THREADS": str(arguments.threads),
        "STELLAR_ENGINE__CONCURRENT_BATCHES": "1", "STELLAR_ENGINE__MAX_BATCH": str(arguments.batch),
        "STELLAR_REWARDS__CONCURRENCY": str(max(arguments.in_flight, 2 * arguments.batch)),
    }
    if arguments.fixed:
        settings["STELLAR_ENGINE__BATCHING"] = "fixed"
    dice = numpy.random.default_rng(7)
    pool = ThreadPoolExecutor(arguments.in_flight)
    models = {reward: Model(arguments.pack, reward, arguments.threads, True) for reward in arguments.rewards}
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(arguments.program, folder, settings=settings).start().ready(600)
        servers = Servers(arguments)
        try:
            for at in range(arguments.rounds + 1):
                count = arguments.images if at else min(arguments.images, arguments.in_flight)
                images = dice.integers(0, 256, (count, arguments.side, arguments.side, 3), numpy.uint8)
                prompts = [PROMPTS[each % len(PROMPTS)] for each in range(count)]
                one = lambda each: images[each : each + 1]

                def ours(each):
                    found, _ = ask_service(service.port, arguments.rewards, one(each), prompts[each : each + 1])
                    return [found[reward][0] for reward in arguments.rewards]

                def theirs(each):
                    return [ask_server(port, one(each), prompts[each : each + 1])[0] for port in servers.ports.values()]

                def bare():
                    for reward, model in models.items():
                        pixels = resized[reward]
                        for begin in range(0, count, arguments.batch):
                            output = "embedding" if model.text else "aesthetic"
                            model.image.run([output], {"pixels": pixels[begin : begin + arguments.batch]})

                resized = {reward: numpy.stack([model.prepare(image) for image in images]) for reward, model in models.items()}
                a, our_cpu, our_wall = timed(lambda: cpu_seconds(service.process.pid), lambda: list(pool.map(ours, range(count))))
                b, their_cpu, their_wall = timed(servers.cpu, lambda: list(pool.map(theirs, range(count))))
                _, bare_cpu, bare_wall = timed(time.process_time, bare)
                if at == 0:
                    continue  # A round that is not counted: caches of texts, arenas, connections.
                difference = float(numpy.abs(numpy.array(a) - numpy.array(b)).max())
                rounds.append({
                    "images": count, "service_cpu_s": our_cpu, "servers_cpu_s": their_cpu, "bare_cpu_s": bare_cpu,
                    "service_wall_s": our_wall, "servers_wall_s": their_wall, "bare_wall_s": bare_wall, "largest_difference": difference,
                })
            servers.stop()
            taken, inside = [], []
            image = dice.integers(0, 256, (1, arguments.side, arguments.side, 3), numpy.uint8)
            for _ in range(arguments.requests + 10):
                started = time.monotonic()
                _, timings = ask_service(service.port, arguments.rewards, image, PROMPTS[:1])
                taken.append((time.monotonic() - started) * 1e3)
                inside.append(timings["total_ms"])
        finally:
            service.stop()
            servers.stop()
    print(f"{', '.join(arguments.rewards)}: {arguments.images} images of {arguments.side}², batches of up to {arguments.batch}"
          f"{' (fixed)' if arguments.fixed else ''}, {arguments.in_flight} requests in flight, {arguments.threads} threads")
    for each in rounds:
        print("  CPU s: service {service_cpu_s:.2f}, servers {servers_cpu_s:.2f}, bare {bare_cpu_s:.2f}; wall s: "
              "{service_wall_s:.2f}, {servers_wall_s:.2f}, {bare_wall_s:.2f}; scores within {largest_difference:.1e}".format(**each))
    median = lambda of: statistics.median(map(of, rounds)) if rounds else float("nan")
    result = {
        "rounds": rounds, "service_over_bare": median(lambda each: each["service_cpu_s"] / each["bare_cpu_s"]),
        "servers_over_service": median(lambda each: each["servers_cpu_s"] / each["service_cpu_s"]),
        "servers_over_service_wall": median(lambda each: each["servers_wall_s"] / each["service_wall_s"]),
        "images_per_core_second": median(lambda each: each["images"] / each["service_cpu_s"]),
        "cached_request_ms": statistics.median(taken[10:]), "cached_request_inside_ms": statistics.median(inside[10:]),
    }
    print("medians: service {service_over_bare:.3f} times the bare sessions' CPU time; servers {servers_over_service:.2f} times the "
          "service's (wall {servers_over_service_wall:.2f}); {images_per_core_second:.2f} images a core and second".format(**result))
    print("a request with cached features: {cached_request_ms:.2f} ms, of which {cached_request_inside_ms:.2f} ms in the "
          "service".format(**result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
