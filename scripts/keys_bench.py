#!/usr/bin/env python3
"""What the check of an API key costs a request, on SQLite and, with --postgres, on PostgreSQL.

    scripts/postgres.sh run sh -c 'scripts/keys_bench.py --postgres "$TEST_DATABASE_URL"'

Requests for a route that does not exist are answered at once after the check. Each kind of request is sent over one
connection in five turns; the median time of the fastest turn is compared with that of /livez, which checks nothing.
"""

import argparse
import http.client
import os
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from service import Service, schema_in, without_settings

TURNS, REQUESTS = 5, 1000


def microseconds(service, path, key, status):
    """Median time of a request in the fastest turn."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    turns = []
    for _ in range(TURNS):
        connection, times = http.client.HTTPConnection("127.0.0.1", service.port), []
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            times.append(time.perf_counter() - begun)
            assert response.status == status, response.status
        connection.close()
        turns.append(statistics.median(times))
    return min(turns) * 1e6


def measure(program, folder, store, name):
    service = Service(program, folder, store).start().ready()
    try:
        least = microseconds(service, "/livez", None, 200)
        print(f"{name}: a request without a check takes {least:.0f} µs; more are")
        tell = lambda what, *request: print(f"  {what:<34} {microseconds(service, *request) - least:5.0f} µs", flush=True)
        tell("no key, and there is none", "/nowhere", None, 404)
        create = [program, "keys", "create", "bench", "--scopes", "read"]
        environment = without_settings() | {"STELLAR_STORE__URL": service.store}
        key = subprocess.run(create, check=True, capture_output=True, text=True, env=environment).stdout.strip()
        tell("a valid key", "/nowhere", key, 404)
        tell("an unknown key", "/nowhere", f"stellar_{uuid.uuid4().hex}_{'0' * 64}", 401)
    finally:
        service.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/stellar-score")
    parser.add_argument("--postgres", default="", help="a database in which schemas may be created")
    arguments = parser.parse_args()
    program = str(Path(arguments.program).resolve())
    with tempfile.TemporaryDirectory() as folder:
        measure(program, Path(folder) / "sqlite", "", "SQLite")
        if arguments.postgres:
            store = schema_in(arguments.postgres, f"keys_{os.getpid()}")
            measure(program, Path(folder) / "postgres", store, "PostgreSQL")


if __name__ == "__main__":
    main()
