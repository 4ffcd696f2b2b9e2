#!/usr/bin/env python3
"""Tests the configurations of docker/proxy with the proxies themselves, through TLS. Called by scripts/proxy_test.sh.

    scripts/proxy_test.py [--nginx PROGRAM] [--caddy PROGRAM] [--program target/debug/stellar-score] [--slow SECONDS]

Starts two instances, the proxy with the file from docker/proxy (only ports, certificate and temporary folders are
replaced), and checks: a large upload, 413 of the proxy and of the service, a slow first score, server-sent events as they
happen, forwarded names and ids, and that a rolling restart of both instances under load fails no request. `--slow` is how
long the first score takes: the usual time limits of proxies are 60 s.
"""

import argparse
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from service import FORM, Service, flat_jpeg, form, free_port, png

ROOT = Path(__file__).resolve().parent.parent
NAME = "scores.example"
MIB = 1 << 20


class Through(http.client.HTTPSConnection):
    """A connection to the proxy on this machine under its public name."""

    def __init__(self, port, certificate, timeout=200, name=NAME):
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = name == NAME
        super().__init__("127.0.0.1", port, timeout=timeout, context=context)
        self.tls, self.name = context, name

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout)
        self.sock = self.tls.wrap_socket(plain, server_hostname=NAME)

    def ask(self, method, path, body=None, kind="application/json", headers=()):
        everything = {"Host": self.name, **dict(headers)}
        if body is not None:
            everything["Content-Type"] = kind
        self.request(method, path, body, everything)
        response = self.getresponse()
        return response, response.read()


def replaced(text, pairs):
    for old, new in pairs:
        if old not in text:
            sys.exit(f"the test replaces {old!r}, which the file does not have")
        text = text.replace(old, new)
    return text


class Nginx:
    name = "nginx"

    def __init__(self, program, folder, ports, certificate, key):
        self.port, plain, temporary = free_port(), free_port(), folder / "temporary"
        temporary.mkdir()
        paths = "".join(
            f"    {kind}_temp_path {temporary}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = replaced((ROOT / "docker/proxy/nginx.conf").read_text(), [
            ("pid /run/nginx.pid;", f"pid {folder}/nginx.pid;"),
            ("http {\n", "http {\n" + paths),
            ("listen 80;", f"listen 127.0.0.1:{plain};"),
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.port} ssl http2;"),
            ("server 127.0.0.1:8080 max", f"server 127.0.0.1:{ports[0]} max"),
            ("# server 10.0.0.8:8080", f"server 127.0.0.1:{ports[1]}"),
            ("/etc/ssl/scores.example/fullchain.pem", str(certificate)),
            ("/etc/ssl/scores.example/privkey.pem", str(key)),
        ])
        (folder / "nginx.conf").write_text(text)
        self.command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]


class Caddy:
    name = "caddy"

    def __init__(self, program, folder, ports, certificate, key):
        self.port = free_port()
        text = replaced((ROOT / "docker/proxy/Caddyfile").read_text(), [
            ("scores.example {", f"scores.example:{self.port} {{"),
            ("# tls /etc/ssl/scores.example/fullchain.pem /etc/ssl/scores.example/privkey.pem", f"tls {certificate} {key}"),
            ("reverse_proxy 127.0.0.1:8080 {", f"reverse_proxy 127.0.0.1:{ports[0]} 127.0.0.1:{ports[1]} {{"),
        ])
        # No port for administration, and no redirection on port 80, which a test cannot take.
        (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
        self.command = ["env", f"HOME={folder}", program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def padded(seed, size):
    """An image file of this size: what follows the end of a JPEG is not decoded."""
    image = flat_jpeg(64, f"image {seed}")
    return image + bytes(size - len(image))


class Test:
    def __init__(self, proxy, services, certificate, slow):
        self.proxy, self.services, self.certificate, self.slow = proxy, services, certificate, slow
        self.failures = []

    def connect(self, **options):
        return Through(self.proxy.port, self.certificate, **options)

    def ask(self, *request, **options):
        connection = self.connect(**options)
        try:
            return connection.ask(*request)
        finally:
            connection.close()

    def check(self, what, good, seen=""):
        print(f"  {'ok' if good else 'FAILED':7}{what}{'' if good else f': {seen}'}", flush=True)
        if not good:
            self.failures.append(f"{self.proxy.name}: {what}: {seen}")

    def until_up(self):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                if self.ask("GET", "/livez")[0].status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"{self.proxy.name} did not start")

    def names(self):
        response, body = self.ask("GET", "/livez", None, "", {"X-Request-Id": "of-the-client"}.items())
        self.check("ids of requests reach the service", response.getheader("x-request-id") == "of-the-client", body)
        for path in ("/metrics", "/readyz", "/startupz"):
            status = self.ask("GET", path)[0].status
            self.check(f"{path} is not public", status == 404, status)
        if self.proxy.name == "nginx":
            # Caddy has no certificate for other names.
            status = self.ask("GET", "/v1/metrics", name="other.example")[0].status
            self.check("the service sees the host and refuses another one", status == 421, status)

    def uploads(self):
        fields = [("image", padded(1, 25 * MIB)), ("method", "large"), ("metrics", "clip_i")]
        fields += [("reference", padded(10 + at, 25 * MIB)) for at in range(3)]
        started = time.monotonic()
        response, body = self.ask("POST", "/v1/score", form(fields), FORM)
        took = time.monotonic() - started
        self.check(f"an upload of 100 MiB is scored ({took:.1f} s)", response.status == 200, body[:300])
        response, body = self.ask("POST", "/v1/score", form([("image", padded(2, 33 * MIB))]), FORM)
        good = response.status == 413 and response.getheader("content-type") == "application/problem+json"
        self.check("the service's own 413 arrives as a problem document", good, (response.status, body[:300]))
        self.too_large()

    def too_large(self):
        """A client that announces more than the limit gets 413 before it has sent its body."""
        connection = self.connect(timeout=20)
        connection.putrequest("POST", "/v1/score", skip_host=True)
        for name, value in (("Host", NAME), ("Content-Type", FORM), ("Content-Length", str(200 * MIB)), ("Expect", "100-continue")):
            connection.putheader(name, value)
        connection.endheaders()
        try:
            connection.send(bytes(64 << 10))
            status = connection.getresponse().status
        except OSError as error:
            status = repr(error)
        connection.close()
        self.check("an announced body over the limit gets 413", status == 413, status)

    def slow_score(self):
        """The instances are stopped while they hold the request, as if the models were slow."""
        answers = []
        body = form([("image", png(64, 77)), ("method", "slow"), ("metrics", "aesthetic")])
        for service in self.services:
            service.process.send_signal(signal.SIGSTOP)
        asking = threading.Thread(target=lambda: answers.append(self.ask("POST", "/v1/score", body, FORM)))
        asking.start()
        time.sleep(self.slow)
        for service in self.services:
            service.process.send_signal(signal.SIGCONT)
        asking.join(60)
        status = answers[0][0].status if answers else "no response"
        self.check(f"a first score that takes {self.slow:g} s arrives", status == 200, status)
        time.sleep(2.5)

    def events(self):
        # Each instance has a database of its own in this test, so only one has the run.
        created = self.ask("POST", "/v1/runs", json.dumps({"method": "watched", "metrics": ["aesthetic"]}))
        run = json.loads(created[1])["run_id"]
        status, seen = 0, []
        for _ in range(8):
            watching = self.connect(timeout=20)
            watching.request("GET", f"/v1/runs/{run}/events", headers={"Host": NAME})
            stream = watching.getresponse()
            status = stream.status
            if status == 200:
                break
            watching.close()
        self.check("the events of a run are public", status == 200, status)
        if status != 200:
            return
        started = time.monotonic()
        seen.append(self.event(stream))
        first = time.monotonic() - started
        self.check(f"the first event arrives at once ({first:.2f} s)", seen[0] and first < 2, seen)
        for _ in range(8):
            sent, _ = self.ask("PUT", f"/v1/runs/{run}/samples/one", form([("image", png(64, 5))]), FORM)
            if sent.status == 202:
                break
        started = time.monotonic()
        while seen[-1] and '"scored":1' not in seen[-1].replace(" ", "") and time.monotonic() - started < 15:
            seen.append(self.event(stream))
        took = time.monotonic() - started
        self.check(f"the score's event arrives while the stream is open ({took:.2f} s)", seen[-1] and took < 10, seen)
        watching.close()

    @staticmethod
    def event(stream):
        try:
            while line := stream.readline():
                if line.startswith(b"data:"):
                    return line.decode()
        except OSError:
            pass
        return ""

    def rolling_restart(self):
        stopping, outcomes = threading.Event(), []

        def ask(kind):
            connection, at = self.connect(), kind * 100_000
            while not stopping.is_set():
                at += 1
                body = form([("image", png(32, at)), ("method", "load"), ("metrics", "aesthetic")])
                try:
                    if kind == 1:
                        # A kept connection to the proxy.
                        response, text = connection.ask("GET", "/v1/leaderboard")
                    else:
                        response, text = self.ask("POST", "/v1/score", body, FORM)
                    outcomes.append((response.status, text[:200]))
                except OSError as error:
                    outcomes.append((repr(error), b""))
                    connection = self.connect()

        clients = [threading.Thread(target=ask, args=(kind,)) for kind in range(3)]
        for client in clients:
            client.start()
        for service in self.services:
            time.sleep(1)
            service.stop()
            service.start().ready()
            # Until the proxy uses it again: Caddy's probe, nginx' fail_timeout.
            time.sleep(6)
        stopping.set()
        for client in clients:
            client.join()
        failed = [outcome for outcome in outcomes if outcome[0] != 200]
        self.check(f"a rolling restart fails none of {len(outcomes)} requests", not failed and len(outcomes) > 20, failed[:3])

    def run(self):
        self.until_up()
        self.names()
        self.uploads()
        self.slow_score()
        self.events()
        self.rolling_restart()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nginx", default="")
    parser.add_argument("--caddy", default="")
    parser.add_argument("--program", default="target/debug/stellar-score")
    parser.add_argument("--slow", type=float, default=5)
    arguments = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Workers of nginx that was started by root run as another user.
        folder.chmod(0o755)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
             "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        settings = {
            "STELLAR_SERVER__HOSTS": json.dumps([NAME]),
            "STELLAR_SERVER__SHUTDOWN_DELAY_SECONDS": "3",
            "STELLAR_SERVER__ANSWER_WHILE_LOADING": "false",
            "STELLAR_STORE__MIN_FREE_MIB": "1",
        }
        services = [Service(arguments.program, folder / f"service-{at}", "", settings).start() for at in range(2)]
        try:
            for service in services:
                service.ready()
            for kind, program in ((Nginx, arguments.nginx), (Caddy, arguments.caddy)):
                if not program:
                    print(f"SKIPPED {kind.name}: the program is missing")
                    continue
                print(f"{kind.name}:", flush=True)
                place = folder / kind.name
                place.mkdir()
                proxy = kind(program, place, [service.port for service in services], certificate, key)
                with open(place / "log", "wb") as log:
                    process = subprocess.Popen(proxy.command, stdout=log, stderr=log)
                test = Test(proxy, services, certificate, arguments.slow)
                try:
                    test.run()
                finally:
                    process.terminate()
                    process.wait()
                    if test.failures or sys.exc_info()[0]:
                        print((place / "log").read_text()[-3000:], file=sys.stderr)
                failures += test.failures
        finally:
            for service in services:
                service.process.send_signal(signal.SIGCONT)
                service.process.kill()
                service.process.wait()
    for failure in failures:
        print("failed:", failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
