#!/usr/bin/env python3
"""Ids per second through a stream of JetStream as the service sets it up: published, pulled and acknowledged, both.

    scripts/nats.sh run scripts/nats_bench.py --ids 100000 --clients 1,4

Work-queue retention, one message a subject, a subject for each sample, storage in files. Clients are processes of
Python with the plain protocol. They use the cores too, so a server alone does more: --pid tells its CPU time. --ids is
also the number that waits when pulling begins. Needs only Python, and the URL of a server in TEST_NATS_URL.
"""

import argparse
import json
import multiprocessing
import os
import socket
import time
import uuid
from typing import Any, Dict, Iterator, List, Tuple
from urllib.parse import urlsplit

PACK = "a" * 16
WINDOW = 512
"""Published ids whose acknowledgement a client awaits at a time."""


class Connection:
    """A connection with the plain protocol: publish, subscribe, requests to JetStream's API."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 4222), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.inbox = f"_INBOX.{uuid.uuid4().hex}"
        login = {"verbose": False, "headers": True}
        if parts.username:
            login |= {"user": parts.username, "pass": parts.password}
        self.send(f"CONNECT {json.dumps(login)}\r\nSUB {self.inbox}.* 1\r\n".encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def messages(self) -> Iterator[Tuple[str, str, bytes, bytes]]:
        """Received messages: subject, reply subject, headers, payload."""
        while line := self.file.readline():
            if line.startswith((b"MSG", b"HMSG")):
                words = line.split()
                has_headers = words[0] == b"HMSG"
                sizes = list(map(int, words[-2:] if has_headers else words[-1:]))
                named = words[1 : -2 if has_headers else -1]
                data = self.file.read(sizes[-1] + 2)[:-2]
                head = data[: sizes[0]] if has_headers else b""
                yield named[0].decode(), named[2].decode() if len(named) > 2 else "", head, data[len(head) :]
            elif line.startswith(b"PING"):
                self.send(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise SystemExit(f"the server says {line.decode().strip()}")
        raise SystemExit("the server closed the connection")

    def ask(self, subject: str, request: Dict[str, Any]) -> Dict[str, Any]:
        body = json.dumps(request).encode()
        self.send(f"PUB $JS.API.{subject} {self.inbox}.ask {len(body)}\r\n".encode() + body + b"\r\n")
        answer = json.loads(next(self.messages())[3])
        if "error" in answer:
            raise SystemExit(f"{subject}: {answer['error']['description']}")
        return answer


def publish(url: str, prefix: str, ids: int, gate: Any) -> None:
    connection = Connection(url)
    run = uuid.uuid4()
    gate.wait(60)
    sent = answered = 0
    received = connection.messages()
    while answered < ids:
        lines = []
        while sent < ids and sent - answered < WINDOW:
            lines.append(f"PUB {prefix}.work.{PACK}.{run}.{uuid.uuid4()} {connection.inbox}.p 0\r\n\r\n")
            sent += 1
        connection.send("".join(lines).encode())
        for _ in range(min(WINDOW // 2, sent - answered)):
            answer = json.loads(next(received)[3])
            if "error" in answer:
                raise SystemExit(f"publishing: {answer['error']['description']}")
            answered += 1


def pull(url: str, stream: str, batch: int, left: Any, gate: Any) -> None:
    """Pulls batches and acknowledges each id, and waits for the server to confirm the last of each batch."""
    connection = Connection(url)
    received = connection.messages()
    gate.wait(60)
    ask = json.dumps({"batch": batch, "expires": 200_000_000}).encode()
    while left.value > 0:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.pack-{PACK}"
        connection.send(f"PUB {subject} {connection.inbox}.m {len(ask)}\r\n".encode() + ask + b"\r\n")
        replies: List[str] = []
        while len(replies) < batch:
            _, reply, _, _ = next(received)
            if not reply.startswith("$JS.ACK"):
                # 404 or 408: no more ids at the moment.
                break
            replies.append(reply)
        if replies:
            acks = "".join(f"PUB {reply} 4\r\n+ACK\r\n" for reply in replies[:-1])
            connection.send(f"{acks}PUB {replies[-1]} {connection.inbox}.a 4\r\n+ACK\r\n".encode())
            while not next(received)[0].endswith(".a"):
                pass
            with left.get_lock():
                left.value -= len(replies)


def timed(work: List[Tuple[Any, Tuple[Any, ...]]]) -> float:
    gate = multiprocessing.Barrier(len(work) + 1)
    processes = [multiprocessing.Process(target=target, args=(*given, gate)) for target, given in work]
    for process in processes:
        process.start()
    gate.wait(60)
    began = time.monotonic()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("a client failed")
    return time.monotonic() - began


def server(pid: int) -> Tuple[float, float]:
    """CPU seconds and resident MiB of the server's process."""
    with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/status") as status:
        ticks = sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return ticks / os.sysconf("SC_CLK_TCK"), memory / 1024


def create(connection: Connection, prefix: str, replicas: int) -> str:
    """Creates the stream and the consumer of a pack, as the service does, and returns the name of the stream."""
    stream = f"{prefix}_work"
    of_stream = {
        "name": stream,
        "subjects": [f"{prefix}.work.>"],
        "retention": "workqueue",
        "storage": "file",
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
        "num_replicas": replicas,
    }
    of_consumer = {
        "durable_name": f"pack-{PACK}",
        "filter_subject": f"{prefix}.work.{PACK}.>",
        "ack_policy": "explicit",
        "ack_wait": 30_000_000_000,
        "max_ack_pending": 4096,
    }
    connection.ask(f"STREAM.CREATE.{stream}", of_stream)
    name = f"CONSUMER.DURABLE.CREATE.{stream}.pack-{PACK}"
    connection.ask(name, {"stream_name": stream, "config": of_consumer})
    return stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--clients", default="1,4")
    parser.add_argument("--batch", type=int, default=32, help="ids a pull")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--pid", type=int, help="process of the server on this machine, for its CPU time and memory")
    arguments = parser.parse_args()
    url = os.environ.get("TEST_NATS_URL") or parser.error("TEST_NATS_URL is not set: use scripts/nats.sh run")
    connection = Connection(url)
    print("| clients | work | ids/s | server's CPU µs an id | bytes an id in the file | server MiB |")
    print("|---:|---|---:|---:|---:|---:|")
    for clients in map(int, arguments.clients.split(",")):
        prefix, each = f"bench{uuid.uuid4().hex[:8]}", arguments.ids // clients
        total = each * clients
        stream = create(connection, prefix, arguments.replicas)
        publishers = [(publish, (url, prefix, each))] * clients
        for work in ("publish", "pull and acknowledge", "both at once"):
            pullers = [(pull, (url, stream, arguments.batch, multiprocessing.Value("q", total)))] * clients
            before = server(arguments.pid)[0] if arguments.pid else 0.0
            seconds = timed(
                (publishers if work != "pull and acknowledge" else []) + (pullers if work != "publish" else [])
            )
            state = connection.ask(f"STREAM.INFO.{stream}", {})["state"]
            if state["messages"] != (total if work == "publish" else 0):
                raise SystemExit(f"after {work}, {state['messages']} ids are in the stream")
            cpu, memory, size = "", "", ""
            if arguments.pid:
                after, resident = server(arguments.pid)
                cpu, memory = f"{1e6 * (after - before) / total:.0f}", f"{resident:.0f}"
            if work == "publish":
                size = f"{state['bytes'] / total:.0f}"
            print(f"| {clients} | {work} | {total / seconds:,.0f} | {cpu} | {size} | {memory} |", flush=True)
        connection.ask(f"STREAM.DELETE.{stream}", {})


if __name__ == "__main__":
    main()
