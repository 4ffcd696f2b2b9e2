#!/usr/bin/env python3
"""Compares rewards of the service with bare sessions and with Python servers, on the same graphs and pixels.

    .runtime/export/bin/python scripts/rewards_bench.py [--program target/release/stellar-score] [--pack packs/demo]
        [--rewards pick_score] [--images 64] [--side 512] [--per-request 1] [--in-flight 16] [--rounds 3] [--threads 1]
        [--batch 16] [--fixed] [--cache-texts] [--apart] [--sides service,servers,bare] [--requests 300] [--json FILE]

The sides take turns within a round, with new images in each. With `--apart` each is started for its turn and stopped after
it, so that only one has its models in memory:

- *service*: raw pixels (safetensors), `--per-request` images a request, `--in-flight` requests at once;
- *servers*: scripts/rewards_python_server.py, a process for each reward as trainers run them, the same requests to each;
- *bare*: the graphs alone in a loop of full batches, on pixels that are resized already. A graph that two rewards share
  runs once, and each prompt is encoded once, as in the service.

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


def in_requests(pool, per_request, images, ask):
    """Asks for the scores of all images in requests of `per_request`; returns a row of scores for each image."""
    begins = range(0, images, per_request)
    return [row for rows in pool.map(lambda at: ask(at, at + per_request), begins) for row in rows]


class ServiceSide:
    """The service."""

    def __init__(self, arguments, pool):
        self.arguments, self.pool = arguments, pool
        self.settings = {
            "STELLAR_PACK": str(Path(arguments.pack).resolve()), "STELLAR_ENGINE__THREADS": str(arguments.threads),
            "STELLAR_ENGINE__CONCURRENT_BATCHES": "1", "STELLAR_ENGINE__MAX_BATCH": str(arguments.batch),
            "STELLAR_REWARDS__CONCURRENCY": str(max(arguments.in_flight, 2 * arguments.batch)),
            "STELLAR_REWARDS__WAIT_SECONDS": "900", "STELLAR_REWARDS__DEADLINE_SECONDS": "3600",
        }
        if arguments.fixed:
            self.settings["STELLAR_ENGINE__BATCHING"] = "fixed"

    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.service = Service(self.arguments.program, self.folder.name, settings=self.settings).start().ready(900)

    def stop(self):
        self.service.stop()
        self.folder.cleanup()

    def cpu(self):
        return cpu_seconds(self.service.process.pid)

    def score(self, images, prompts):
        rewards = self.arguments.rewards

        def some(at, end):
            found, _ = ask_service(self.service.port, rewards, images[at:end], prompts[at:end])
            return list(zip(*(found[reward] for reward in rewards)))

        return in_requests(self.pool, self.arguments.per_request, len(images), some)

    def cached(self, image, requests):
        """Milliseconds of single requests whose features are cached, at the client and within the service."""
        taken, inside = [], []
        for at in range(requests + 10):
            started = time.monotonic()
            _, timings = ask_service(self.service.port, self.arguments.rewards, image, PROMPTS[:1])
            if at >= 10:
                taken.append((time.monotonic() - started) * 1e3)
                inside.append(timings["total_ms"])
        return statistics.median(taken), statistics.median(inside)


class ServersSide:
    """The Python servers, a process for each reward."""

    def __init__(self, arguments, pool):
        self.arguments, self.pool = arguments, pool

    def start(self):
        script, arguments = Path(__file__).with_name("rewards_python_server.py"), self.arguments
        self.ports = {reward: free_port() for reward in arguments.rewards}
        more = ["--cache-texts"] if arguments.cache_texts else []
        self.processes = [
            subprocess.Popen([sys.executable, script, arguments.pack, reward, str(port), "--threads", str(arguments.threads),
                              "--batch", str(arguments.batch), *more], env={**os.environ, "OMP_WAIT_POLICY": "passive"})
            for reward, port in self.ports.items()
        ]
        until = time.monotonic() + 900
        for port in self.ports.values():
            while True:
                try:
                    http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
                    break
                except OSError:
                    if time.monotonic() > until or any(process.poll() is not None for process in self.processes):
                        sys.exit("a Python server did not start")
                    time.sleep(0.2)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def cpu(self):
        return sum(cpu_seconds(process.pid) for process in self.processes)

    def score(self, images, prompts):
        some = lambda at, end: list(zip(*(ask_server(port, images[at:end], prompts[at:end]) for port in self.ports.values())))
        return in_requests(self.pool, self.arguments.per_request, len(images), some)


class BareSide:
    """The graphs in a loop in this process. Images are resized and prompts tokenized before the clock starts."""

    def __init__(self, arguments, _pool):
        self.arguments = arguments

    def start(self):
        self.models, sessions = {}, {}
        for reward in self.arguments.rewards:
            self.models[reward] = Model(self.arguments.pack, reward, self.arguments.threads, True, sessions)
        self.encoded = set()

    def stop(self):
        self.models = {}

    def cpu(self):
        return time.process_time()

    def prepare(self, images, prompts):
        """Inputs of each graph, in full batches; a graph that several rewards share has one."""
        self.runs, size = [], self.arguments.batch
        images_of = {id(model.image): (model.image, model) for model in self.models.values()}
        for session, model in images_of.values():
            pixels = numpy.stack([model.prepare(image) for image in images])
            self.runs += [(session, {"pixels": pixels[at : at + size]}) for at in range(0, len(pixels), size)]
        new = sorted(set(prompts) - self.encoded)
        self.encoded.update(new)
        texts = {id(model.text): model for model in self.models.values() if model.text and new}
        for model in texts.values():
            ids = model.tokenize(new)
            self.runs += [(model.text, {"input_ids": ids[at : at + size]}) for at in range(0, len(ids), size)]

    def score(self, _images, _prompts):
        for session, inputs in self.runs:
            session.run(None, inputs)


SIDES = {"service": ServiceSide, "servers": ServersSide, "bare": BareSide}


def measure(side, images, prompts):
    """Returns CPU seconds, wall-clock seconds and scores of a side."""
    if isinstance(side, BareSide):
        side.prepare(images, prompts)
    before, started = side.cpu(), time.monotonic()
    scores = side.score(images, prompts)
    return {"cpu_s": side.cpu() - before, "wall_s": time.monotonic() - started, "scores": scores}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--pack", default="packs/demo")
    parser.add_argument("--rewards", default="pick_score", help=f"comma-separated, of {', '.join(GRAPHS)}")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--per-request", type=int, default=1, help="images of a request")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fixed", action="store_true", help="engine.batching = fixed")
    parser.add_argument("--cache-texts", action="store_true", help="the Python servers compute each prompt once")
    parser.add_argument("--apart", action="store_true", help="one side in memory at a time")
    parser.add_argument("--sides", default="service,servers,bare")
    parser.add_argument("--requests", type=int, default=300, help="single requests with cached features")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    arguments.rewards = arguments.rewards.split(",")
    dice, pool = numpy.random.default_rng(7), ThreadPoolExecutor(arguments.in_flight)
    noise = lambda count: dice.integers(0, 256, (count, arguments.side, arguments.side, 3), numpy.uint8)
    texts = lambda count: [PROMPTS[at % len(PROMPTS)] for at in range(count)]
    sides = {name: SIDES[name](arguments, pool) for name in arguments.sides.split(",")}
    rounds, cached, running = [], None, []

    def begin(side):
        side.start()
        running.append(side)
        # Not counted: caches of texts, arenas, connections.
        count = 1 if arguments.apart else min(arguments.images, arguments.in_flight)
        measure(side, noise(count), texts(count))

    def end(side):
        running.remove(side)
        side.stop()

    try:
        if not arguments.apart:
            for side in sides.values():
                begin(side)
        for _ in range(arguments.rounds):
            images, found = noise(arguments.images), {}
            for name, side in sides.items():
                if arguments.apart:
                    begin(side)
                found[name] = measure(side, images, texts(arguments.images))
                if arguments.apart:
                    if name == "service":
                        cached = side.cached(noise(1), arguments.requests)
                    end(side)
            scores = [each.pop("scores") for each in found.values()]
            both = [numpy.array(each) for each in scores if each is not None]
            found["largest_difference"] = float(numpy.abs(both[0] - both[-1]).max())
            rounds.append(found)
        if not arguments.apart and "service" in sides:
            cached = sides["service"].cached(noise(1), arguments.requests)
    finally:
        for side in list(running):
            end(side)
    print(f"{', '.join(arguments.rewards)}: {arguments.images} images of {arguments.side}², batches of up to {arguments.batch}"
          f"{' (fixed)' if arguments.fixed else ''}, {arguments.in_flight} requests of {arguments.per_request} in flight, {arguments.threads} threads")
    for each in rounds:
        times = "; ".join(f"{name} {each[name]['cpu_s']:.2f} CPU s, {each[name]['wall_s']:.2f} s" for name in sides)
        print(f"  {times}; scores within {each['largest_difference']:.1e}")
    result = {"rounds": rounds}
    ratio = lambda a, b, of: statistics.median(each[a][of] / each[b][of] for each in rounds)
    for a, b in (("service", "bare"), ("servers", "service")):
        if a in sides and b in sides:
            result[f"{a}_over_{b}"] = ratio(a, b, "cpu_s")
            result[f"{a}_over_{b}_wall"] = ratio(a, b, "wall_s")
            print(f"median: {a} {result[f'{a}_over_{b}']:.3f} times the CPU time of {b}, {result[f'{a}_over_{b}_wall']:.3f} times its time")
    if cached:
        result["images_per_core_second"] = statistics.median(arguments.images / each["service"]["cpu_s"] for each in rounds)
        result["cached_request_ms"], result["cached_request_inside_ms"] = cached
        print(f"service: {result['images_per_core_second']:.3f} images a core and second; a request with cached features "
              f"{cached[0]:.2f} ms, {cached[1]:.2f} ms of it in the service")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
