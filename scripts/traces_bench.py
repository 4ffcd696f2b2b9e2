#!/usr/bin/env python3
"""What traces cost a request: the same cached request to services with and without them, in random turns.

    scripts/traces_bench.py [PROGRAM] [REQUESTS]      default: target/release/stellar-score, 2000

Two services run without traces: the ratio between them is the noise of the machine."""

import http.client
import http.server
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUNDARY = "traces-bench"


class Collector(http.server.BaseHTTPRequestHandler):
    """Accepts every export."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def start(program: str, folder: str, endpoint: str) -> tuple[subprocess.Popen, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STELLAR_")}
    environment |= {
        "STELLAR_SERVER__LISTEN": "127.0.0.1:0",
        "STELLAR_STORE__URL": f"sqlite:{folder}/stellar.db",
        "STELLAR_STORE__SPOOL": f"{folder}/spool",
        "STELLAR_TRACES__ENDPOINT": endpoint,
    }
    service = subprocess.Popen([program, "serve"], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    for line in service.stdout:
        if "listening on http://" in line:
            return service, line.split("http://")[1].split()[0]
    raise SystemExit("traces_bench: the service did not start")


def form() -> bytes:
    parts = b""
    for name, file in (("image", "astronaut.jpg"), ("reference", "astronaut-face.jpg")):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
        parts += head.encode() + (ROOT / "packs/demo/goldens" / file).read_bytes() + b"\r\n"
    for name, value in (("prompt", "a person in an orange space suit"), ("method", "mine")):
        parts += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    return parts + f"--{BOUNDARY}--\r\n".encode()


def main() -> None:
    program = str(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/stellar-score").resolve())
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    body, kind = form(), {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with tempfile.TemporaryDirectory() as folder:
        services = {
            name: start(program, tempfile.mkdtemp(dir=folder), at)
            for name, at in (("off", ""), ("off, again", ""), ("on, all requests", endpoint))
        }
        try:
            connections = {name: http.client.HTTPConnection(at) for name, (_, at) in services.items()}

            def one(name: str) -> float:
                began = time.perf_counter()
                connections[name].request("POST", "/v1/score", body, kind)
                response = connections[name].getresponse()
                response.read()
                assert response.status == 200, response.status
                return time.perf_counter() - began

            for name in services:
                for _ in range(30):
                    one(name)
            seconds = {name: [] for name in services}
            for _ in range(requests):
                for name in random.sample(list(services), len(services)):
                    seconds[name].append(one(name))
        finally:
            for service, _ in services.values():
                service.terminate()
                service.wait()
    print("| traces | median, ms | ratio to off, median of pairs |\n|---|---:|---:|")
    for name, of in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(of, seconds["off"]))
        print(f"| {name} | {statistics.median(of) * 1e3:.2f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
