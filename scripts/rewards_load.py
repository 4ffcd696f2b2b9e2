#!/usr/bin/env python3
"""Sends rewards as trainers do: hundreds of requests at once from each of several clients, which are then killed.

    scripts/rewards_load.py [--program target/release/stellar-score] [--pack packs/demo] [--requests 512] [--clients 3]
                            [--kills 12] [--json FILE]

First `--clients` processes, each from an address of its own (127.0.0.2 and so on), send `--requests` requests of one image
at once, and a slow client sends one request after the other. Every request must be answered with a reward, and the slow
client must not wait for the others. Then the same processes are killed by SIGKILL at random moments, `--kills` times.
Afterwards no place, no memory and no queue may be held, and the next request must be answered at once. Needs only Python.
Prints what it found, and exits with 1 if anything of this is not so.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import resource
import signal
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from service import Service

REWARDS = ["aesthetic", "clip_t"]
# What is 0 if nothing is held. The request for the metrics is in flight itself, and has a connection.
HELD = {"stellar_rewards_items": 0, "stellar_rewards_waiting_items": 0, "stellar_rewards_bytes": 0, "stellar_upload_bytes": 0,
        "stellar_pixel_bytes": 0, "stellar_engine_queue_depth": 0, "stellar_http_requests_in_flight": 1,
        "stellar_http_connections": 1}


def body(images, side, seed):
    """A request with images of noise as raw pixels (safetensors)."""
    noise = random.Random(seed)
    pixels = noise.randbytes(images * side * side * 3)
    items = [{"image": {"tensor": at}, "prompt": f"a person number {seed % 16}", "group": "g"} for at in range(images)]
    document = json.dumps({"rewards": REWARDS, "items": items})
    tensor = {"dtype": "U8", "shape": [images, side, side, 3], "data_offsets": [0, len(pixels)]}
    head = json.dumps({"__metadata__": {"request": document}, "images": tensor}).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + pixels


async def ask(port, address, sent):
    """Returns the status and the document of one request, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        head = (f"POST /v1/rewards HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/x-safetensors\r\n"
                f"Content-Length: {len(sent)}\r\nConnection: close\r\n\r\n")
        writer.write(head.encode() + sent)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, _, text = answer.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionError("no response")
    if b"chunked" in head.lower():
        raise ConnectionError("a chunked response")
    return int(head.split()[1]), json.loads(text)


def complete(document, images):
    columns = document["rewards"]
    return all(len(columns[name]) == images and None not in columns[name] for name in REWARDS)


async def wave(port, address, requests, side, seed):
    """Sends all requests at once, and returns counts of outcomes and the time until each response."""
    found, taken = Counter(), []
    started = time.monotonic()

    async def one(at):
        try:
            status, document = await ask(port, address, body(1, side, seed + at))
            found[status if status != 200 or complete(document, 1) else "incomplete"] += 1
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            found[f"lost: {error!r}"[:80]] += 1
        taken.append(time.monotonic() - started)

    await asyncio.gather(*(one(at) for at in range(requests)))
    return found, taken


def client(port, address, requests, side, seed, out):
    # It simulates another machine.
    os.nice(5)
    out.put(asyncio.run(wave(port, address, requests, side, seed)))


def slow(port, address, side, seed, images, stop, out):
    """One request of a few images after the other."""
    found, taken, at = Counter(), [], 0
    while not stop.is_set():
        started = time.monotonic()
        at += 1
        try:
            status, document = asyncio.run(ask(port, address, body(images, side, seed + at)))
            found[status if status != 200 or complete(document, images) else "incomplete"] += 1
        except (OSError, ValueError) as error:
            found[f"lost: {error!r}"[:80]] += 1
        taken.append(time.monotonic() - started)
    out.put((found, taken))


def metrics(service):
    """The sums of all series by name, labels left out."""
    sums = Counter()
    for name, value in service.metrics().items():
        sums[name.partition("{")[0]] += value
    return sums


def held(service, seconds=30):
    """What is still held after some seconds, or nothing as soon as nothing is."""
    until = time.monotonic() + seconds
    while True:
        now = metrics(service)
        left = {name: now[name] for name, free in HELD.items() if now[name] > free}
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


def under_load(service, arguments, most, seed):
    """All clients at once, with images of noise that follow from `seed`. Returns what happened."""
    out, stop, of_slow = multiprocessing.Queue(), multiprocessing.Event(), multiprocessing.Queue()
    port, side = service.port, arguments.side
    fourth = multiprocessing.Process(target=slow, args=(port, "127.0.0.9", side, seed + (1 << 28), 4, stop, of_slow))
    fourth.start()
    started = time.monotonic()
    heavy = [
        multiprocessing.Process(target=client, args=(port, f"127.0.0.{2 + at}", arguments.requests, side, seed + (at << 20), out))
        for at in range(arguments.clients)
    ]
    for each in heavy:
        each.start()
    answers = []
    while len(answers) < len(heavy) and time.monotonic() < started + 600:
        most = max(most, service.resident())
        try:
            answers.append(out.get(timeout=0.1))
        except multiprocessing.queues.Empty:
            pass
    seconds = time.monotonic() - started
    stop.set()
    slow_found, slow_taken = of_slow.get(timeout=120)
    for each in [*heavy, fourth]:
        each.join()
    found = sum((found for found, _ in answers), Counter())
    taken = sorted(took for _, each in answers for took in each)
    return {
        "seconds": seconds, "outcomes": {str(key): count for key, count in found.items()}, "last_s": taken[-1] if taken else None,
        "median_s": statistics.median(taken) if taken else None, "peak_mib": most,
        "slow": {"outcomes": {str(key): count for key, count in slow_found.items()}, "median_s": statistics.median(slow_taken),
                 "longest_s": max(slow_taken)},
        "of_clients": [sorted(each)[-1] for _, each in answers],
    }, found, slow_found


def killed(service, arguments):
    """Clients that are killed while their requests wait. Returns the peak memory."""
    dice, most, out = random.Random(1), 0.0, multiprocessing.Queue()
    for at in range(arguments.kills):
        seed = (1 << 30) + (at << 20)
        process = multiprocessing.Process(
            target=client, args=(service.port, f"127.0.0.{2 + at % 3}", arguments.requests, arguments.side, seed, out))
        process.start()
        time.sleep(dice.uniform(0.2, 2.0))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        most = max(most, service.resident())
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--pack", default="packs/demo")
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    settings = {"STELLAR_PACK": str(Path(arguments.pack).resolve())}
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(arguments.program, folder, settings=settings).start().ready()
        try:
            asyncio.run(ask(service.port, "127.0.0.9", body(4, arguments.side, 7)))
            idle = service.resident()
            load, found, slow_found = under_load(service, arguments, idle, 1 << 32)
            left = held(service)
            peak_killed = killed(service, arguments)
            left_killed = held(service)
            started = time.monotonic()
            status, _ = asyncio.run(ask(service.port, "127.0.0.9", body(1, arguments.side, 11)))
            at_once = time.monotonic() - started
            again, found_again, _ = under_load(service, arguments, 0.0, 1 << 33)
            bound = metrics(service)["stellar_rewards_limit_bytes"] / 2**20
            alive = service.process.poll() is None
        finally:
            service.stop()
    asked = arguments.requests * arguments.clients
    if found != Counter({200: asked}) or found_again != Counter({200: asked}):
        problems.append("not every request was answered with rewards")
    if set(slow_found) != {200} or load["slow"]["longest_s"] > load["seconds"] / 2:
        problems.append("the slow client waited for the others")
    if left or left_killed:
        problems.append(f"still held: {left or left_killed}")
    if status != 200 or at_once > 2 or not alive:
        problems.append(f"after the kills a request took {at_once:.2f} s with status {status}")
    peak = max(load["peak_mib"], peak_killed, again["peak_mib"])
    # Bodies have their bound; pixels, responses and connections of so many requests are smaller.
    if peak > idle + bound + 256:
        problems.append(f"memory grew from {idle:.0f} to {peak:.0f} MiB, beyond the bound of bodies ({bound:.0f} MiB)")
    result = {"load": load, "after_kills": again, "idle_mib": idle, "peak_killed_mib": peak_killed, "at_once_s": at_once,
              "bound_mib": bound, "kills": arguments.kills, "problems": problems}
    for name, each in (("before the kills", load), ("after them", again)):
        print(f"{name}: {asked} requests at once from {arguments.clients} clients: {each['outcomes']}, all within {each['last_s']:.1f} s "
              f"(by client {', '.join(f'{took:.1f}' for took in each['of_clients'])})")
        print(f"  slow client beside them: {each['slow']['outcomes']}, median {each['slow']['median_s']:.2f} s, "
              f"longest {each['slow']['longest_s']:.2f} s")
    print(f"memory: {idle:.0f} MiB idle, at most {load['peak_mib']:.0f} under load, {peak_killed:.0f} during the kills, "
          f"{again['peak_mib']:.0f} under load again")
    print(f"{arguments.kills} kills: {'nothing held afterwards' if not left_killed else left_killed}, "
          f"the next request took {at_once * 1e3:.0f} ms")
    for problem in problems:
        print("failed:", problem)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
