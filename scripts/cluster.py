"""A cluster on loopback ports, without containers: nats-server, PostgreSQL, an object store, API instances and workers.

Everything is private to the cluster, in one folder, and ends with it.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from cluster_links import Links
from service import Service, free_port

ROOT = Path(__file__).resolve().parents[1]
# The names of crates/stellar-s3-server.
BUCKET, ACCESS_KEY, SECRET_KEY = "images", "stellar-test", "a-secret-of-tests"
DATABASE = "scores"
START_SECONDS = 30
SIMULATED = "simulated"


def end_with_signals():
    """Lets SIGTERM and SIGHUP end the program as an interrupt does, so that it cleans up."""

    def end(number, _):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def engine(kind, milliseconds):
    """Settings of the engine: `real` on few threads, since several processes share the machine, or `simulated`."""
    if kind == SIMULATED:
        return {"STELLAR_ENGINE__PROVIDER": SIMULATED, "STELLAR_ENGINE__SIMULATED_MS": str(milliseconds)}
    return {"STELLAR_ENGINE__PROVIDER": "cpu", "STELLAR_ENGINE__THREADS": "1", "STELLAR_ENGINE__CONCURRENT_BATCHES": "1"}


def without(*names):
    return {name: value for name, value in os.environ.items() if name not in names}


class Postgres:
    """A private PostgreSQL of scripts/postgres.sh with the database of the cluster."""

    def __init__(self):
        script = 'printf "%s\\n" "$TEST_DATABASE_URL" "$PATH"; exec cat >/dev/null'
        # It ends when its standard input does, so also if this process is killed.
        self.process = subprocess.Popen(
            [ROOT / "scripts/postgres.sh", "run", "sh", "-c", script], env=without("TEST_DATABASE_URL"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        self.server = self.process.stdout.readline().strip()
        if not self.server:
            sys.exit("PostgreSQL could not be started")
        # Scripts use psql, which may only be in the folder of the server.
        os.environ["PATH"] = self.process.stdout.readline().strip()
        self.socket = f"{self.server.rpartition('host=')[2]}/.s.PGSQL.5432"
        self.run(self.server, f"CREATE DATABASE {DATABASE}")
        # Commits of a server that is restarted at once must last. postgres.sh turns that off for the tests.
        self.run(self.server, f"ALTER DATABASE {DATABASE} SET synchronous_commit = on")
        self.url = self.server.replace("/postgres?", f"/{DATABASE}?")

    @staticmethod
    def run(url, statement):
        subprocess.run(["psql", url, "-qc", statement], check=True)

    def restart(self):
        """Restarts the server at once, as after a crash."""
        environment = os.environ | {"TEST_DATABASE_URL": self.server}
        subprocess.run([ROOT / "scripts/postgres.sh", "restart"], env=environment, check=True)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Nats:
    """nats-server with JetStream, on a fixed port, with its storage in `folder`."""

    def __init__(self, folder):
        found = subprocess.run(
            [ROOT / "scripts/nats.sh", "where"], env=without("TEST_NATS_URL"), stdout=subprocess.PIPE, text=True, check=False
        )
        if found.returncode != 0:
            sys.exit("nats-server could not be found")
        self.program, self.folder, self.port = found.stdout.strip(), Path(folder), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self):
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "data")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        until_listening(self.port, self.process, self.folder / "log.txt")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def wipe(self):
        shutil.rmtree(self.folder / "data", ignore_errors=True)


class Objects:
    """The object store of crates/stellar-s3-server."""

    def __init__(self, program, folder):
        self.folder, self.port = Path(folder), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [program, str(self.folder / "data"), f"127.0.0.1:{self.port}"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )
        until_listening(self.port, self.process, log)

    def fault(self, name, times=None):
        """Lets requests fail: busy, stall, cut, torn; none ends it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", f"/_fault/{name}" + (f"?times={times}" if times else ""))
            response = connection.getresponse()
            text = response.read()
        if response.status != 200:
            raise ValueError(f"{name}: {text.decode()}")

    def names(self):
        """The hashes of the images in the bucket."""
        files = (self.folder / "data" / BUCKET / "stellar").glob("??/*")
        return {name for file in files if len(name := file.parent.name + file.name) == 64}

    def stop(self):
        self.process.kill()
        self.process.wait()


def until_listening(port, process, log):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{process.args[0]} did not start: {log.read_text(errors='replace')[-2000:]}")


class Cluster:
    """API instances and workers with what they need. Use it as a context manager, which ends everything.

    With `links`, each service reaches NATS, PostgreSQL and the object store through links of its own, which can be cut.
    """

    def __init__(self, root, program, s3_program, apis=1, workers=4, settings=(), links=False):
        self.root, self.program = Path(root), program
        self.postgres = self.nats = self.objects = None
        self.apis, self.workers, self.links = [], [], {}
        try:
            self.postgres = Postgres()
            self.nats = Nats(self.root / "nats")
            self.objects = Objects(s3_program, self.root / "objects")
            made = Links() if links else None
            for at in range(apis):
                own = {"STELLAR_DISPATCH__SCORE_HERE": "false"} | dict(settings)
                self.apis.append(self.service(f"api-{at + 1}", "serve", own, made))
            for at in range(workers):
                self.workers.append(self.service(f"worker-{at + 1}", "worker", dict(settings), made))
        except BaseException:
            self.stop()
            raise

    @property
    def services(self):
        return self.apis + self.workers

    def service(self, name, command, settings, links=None):
        """Makes a service, which is not started yet."""
        nats, objects, database = self.nats.port, self.objects.port, self.postgres.url
        if links:
            of = {
                "nats": links.to(("127.0.0.1", nats)),
                "objects": links.to(("127.0.0.1", objects)),
                "postgres": links.to(self.postgres.socket),
            }
            self.links[name] = of
            nats, objects = of["nats"].port, of["objects"].port
            database = f"postgres://stellar@127.0.0.1:{of['postgres'].port}/{DATABASE}?sslmode=disable"
        service = Service(self.program, self.root / name, database, {
            "STELLAR_DISPATCH__KIND": "nats",
            "STELLAR_DISPATCH__NATS__SERVERS": json.dumps([f"nats://127.0.0.1:{nats}"]),
            "STELLAR_STORE__S3__BUCKET": BUCKET,
            "STELLAR_STORE__S3__ENDPOINT": f"http://127.0.0.1:{objects}",
            "STELLAR_STORE__S3__ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "ORT_DISABLE_TELEMETRY": "1",
        } | settings, command)
        service.name, service.detached = name, True
        return service

    def start(self):
        """Starts the services: the first API instance alone, since it makes the tables."""
        self.apis[0].start().ready()
        for service in self.services[1:]:
            service.start()
        for service in self.services[1:]:
            service.ready()
        return self

    def stop(self):
        for service in self.services:
            if service.process is not None:
                service.kill()
        for each in (self.nats, self.objects, self.postgres):
            if each is not None:
                each.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
