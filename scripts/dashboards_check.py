#!/usr/bin/env python3
"""Runs every query of every dashboard and alert against a real Prometheus and PostgreSQL, with a real service under load.

    scripts/postgres.sh run scripts/dashboards_check.py [--program target/debug/stellar-score]

An error or an empty result fails, except those in EMPTY. Also: the rules' own tests (promtool), the export's names, the
runbook of every alert, and that the role of the dashboards can read its views and no table. Prints one line on success.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from service import FORM, Service, form, free_port, png, schema_in

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
ROLE, PASSWORD = "stellar_grafana", "dashboards-check"
# Time for two evaluations of each rule after the last request.
SETTLE = 4
# Queries that are empty on a machine without a GPU, without requests of adapters, or without a message broker. `spelt` checks
# the names in them.
EMPTY = re.compile(r"^stellar_(device|adapter_items)_|\bstellar_(dispatch_|workers\b|forwarded_|leader\b)")

problems = []


def problem(text):
    problems.append(text)


def programs():
    found = subprocess.run([ROOT / "scripts/prometheus.sh", "where"], stdout=subprocess.PIPE, text=True)
    if found.returncode == 3:
        print("dashboards_check.py: skipped, there is neither Prometheus nor apt")
        sys.exit(0)
    if found.returncode != 0:
        sys.exit("dashboards_check.py: Prometheus could not be fetched")
    return Path(found.stdout.strip())


def promtool(folder, *arguments, text=None):
    ran = subprocess.run([folder / "promtool", *map(str, arguments)], input=text, capture_output=True, text=True)
    if ran.returncode != 0:
        problem(f"promtool {' '.join(map(str, arguments[:2]))}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}")


def psql(url, text):
    """Returns the rows of a query, the names of the columns first. Raises ValueError with the error."""
    ran = subprocess.run(["psql", url, "-X", "--csv", "-v", "ON_ERROR_STOP=1", "-c", text], capture_output=True, text=True)
    if ran.returncode != 0:
        raise ValueError(ran.stderr.strip())
    return ran.stdout.splitlines()


class Prometheus:
    """The program on a free port, scraping the service every second."""

    def __init__(self, folder, work, service):
        self.port, self.work = free_port(), Path(work)
        self.work.mkdir()
        config = self.work / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{DOCKER}/prometheus/rules/*.yml']\n"
            "scrape_configs:\n"
            f"  - {{job_name: stellar-score, static_configs: [{{targets: ['127.0.0.1:{service.port}']}}]}}\n"
        )
        promtool(folder, "check", "config", config)
        with open(self.work / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [folder / "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.work}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log,
            )

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from error

    def ready(self):
        until = time.monotonic() + 30
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.get("query", query="up == 1")["result"]:
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        sys.exit(f"dashboards_check.py: Prometheus did not start: {(self.work / 'log.txt').read_text()[-3000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(service, stop):
    """Scores samples of two methods and a run, is refused and makes mistakes, until `stop` is set."""
    goldens = ROOT / "packs/demo/goldens"
    face, image = (goldens / "astronaut-face.jpg").read_bytes(), (goldens / "astronaut.jpg").read_bytes()

    def call(method, path, body, kind=FORM, expected=(200, 201, 202)):
        status, text, _ = service.call(method, path, body, kind)
        if status not in expected:
            problem(f"{method} {path}: {status} {text[:300]!r}")
        return json.loads(text)

    run = call("POST", "/v1/runs", json.dumps({"method": "run's method", "run": "1"}), "application/json")["run_id"]
    for at in range(4):
        # A long prompt is truncated, which is a flag.
        words = [("image", png(160, at)), ("reference", face), ("prompt", "a person on a horse " * 60)]
        call("PUT", f"/v1/runs/{run}/samples/{at}", form(words))
    call("PUT", f"/v1/runs/{run}/samples/broken", form([("image", image[: len(image) // 2]), ("prompt", "a person")]))
    call("POST", f"/v1/runs/{run}/finish", "{}", "application/json")
    call("POST", "/v1/runs", json.dumps({"method": "run's method", "run": "open"}), "application/json")
    at = 0
    while not stop.is_set():
        call("POST", "/v1/score", form([("image", png(160, 100 + at)), ("reference", face), ("prompt", "a person"), ("method", f"m{at % 2}")]))
        call("POST", "/v1/score", form([("prompt", "a form without an image")]), expected=(422,))
        call("GET", "/v1/leaderboard?pack=all", None)
        at += 1


def finished(service, method):
    runs = service.get("/v1/runs")["runs"]
    return any(run["method"] == method and run["state"] == "finished" for run in runs)


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def metric_query(prometheus, panel, query, begun):
    """Runs a query as the panel does: over time, or its last value."""
    expr = query["expr"].replace("$__rate_interval", "10s").replace("$__range", "60s").replace("$instance", ".*")
    if query.get("instant"):
        found = prometheus.get("query", query=expr)["result"]
    else:
        found = prometheus.get("query_range", query=expr, start=begun, end=time.time(), step=1)["result"]
    # The rate of a series is NaN in a histogram without observations: not a number to look at.
    numbers = [value for series in found for _, value in series.get("values", [series.get("value")]) if value != "NaN"]
    if not numbers and not EMPTY.search(expr):
        problem(f"{panel}: empty: {expr}")


def table_query(url, panel, text, form, values):
    """Replaces Grafana's macros and variables as Grafana does, and runs the query."""
    text = text.replace("$__timeFilter(created)", "created BETWEEN now() - interval '1 hour' AND now()")
    text = re.sub(r"\$__timeGroupAlias\((\w+), *\$__interval\)", r'floor(extract(epoch FROM \1) / 5) * 5 AS "time"', text)
    quoted = lambda value: "'" + value.replace("'", "''") + "'"
    text = re.sub(r"\$\{(\w+):sqlstring\}", lambda found: ",".join(map(quoted, values[found[1]])), text)
    text = re.sub(r"'\$(\w+)'", lambda found: quoted(values[found[1]][0]), text)
    try:
        rows = psql(url, text)
    except ValueError as error:
        return problem(f"{panel}: {error}: {text}")
    if len(rows) < 2:
        problem(f"{panel}: empty: {text}")
    elif form == "time_series" and rows[0] != "time,metric,value":
        problem(f"{panel}: the columns are {rows[0]}, a time series has time,metric,value")


def variables(prometheus, url, dashboard):
    """The values of each variable of a dashboard."""
    values = {}
    for variable in dashboard["templating"]["list"]:
        query = variable["query"]
        labels = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        if labels:
            found = prometheus.get(f"label/{labels[2]}/values", **{"match[]": labels[1]})
        else:
            rows = psql(url, query)
            found = [row.rpartition(",")[2] for row in rows[1:]] if "__value" in rows[0] else rows[1:]
        if not found:
            problem(f"{dashboard['title']}: the variable {variable['name']} has no values")
        values[variable["name"]] = found
    return values


def alerts(prometheus):
    """Evaluates every alert without its threshold: an alert over names that nothing exports never fires."""
    tested = "".join(path.read_text() for path in (DOCKER / "prometheus/tests").glob("*.yml"))
    page = (ROOT / "docs/OPERATIONS.md").read_text()
    anchors = {re.sub(r"[^\w-]", "", line.lstrip("# ").lower()) for line in page.splitlines() if line.startswith("#")}
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            name = rule["name"]
            if rule["health"] != "ok":
                problem(f"rule {name}: {rule['health']} {rule.get('lastError', '')}")
            if rule["type"] == "recording":
                if not prometheus.get("query", query=rule["query"])["result"] and not EMPTY.search(rule["query"]):
                    problem(f"recording rule {name}: empty: {rule['query']}")
                continue
            # What follows `unless` silences the alert and must stay a filter.
            alert, *silenced = re.split(r"(?= unless )", rule["query"], maxsplit=1)
            open_ended = re.sub(r" (==|!=|>=|<=|>|<) (?!bool)", r" \1 bool ", alert) + "".join(silenced)
            if not prometheus.get("query", query=open_ended)["result"] and not EMPTY.search(alert):
                problem(f"alert {name}: its series do not exist: {open_ended}")
            if rule["state"] == "firing":
                problem(f"alert {name} fires although all is well: {rule['alerts']}")
            file, _, anchor = rule["annotations"]["runbook"].partition("#")
            if file != "docs/OPERATIONS.md" or anchor not in anchors:
                problem(f"alert {name}: there is no section {rule['annotations']['runbook']}")
            if f'"{name}"' not in tested and f"alertname: {name}" not in tested:
                problem(f"alert {name} has no test in docker/prometheus/tests/")


def role(owner, url):
    """Creates the role of the dashboards, and checks that it can read its views and no table."""
    made = subprocess.run(
        ["psql", owner, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", f"password={PASSWORD}", "-f", DOCKER / "grafana/role.sql"],
        capture_output=True, text=True,
    )
    if made.returncode != 0:
        sys.exit(f"dashboards_check.py: docker/grafana/role.sql: {made.stderr}")
    tables = psql(owner, "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = current_schema()")[1:]
    for name, kind in (row.split(",") for row in tables):
        try:
            psql(url, f'SELECT * FROM "{name}" LIMIT 0')
            readable = True
        except ValueError as error:
            readable = False
            if "permission denied" not in str(error):
                problem(f"{name}: {error}")
        if readable != (kind == "VIEW"):
            problem(f"{ROLE} can{'' if readable else 'not'} read the {kind.lower()} {name}")
    personal = r"prompt|image|reference|auxiliary|metadata|content|face|annotator|detail|settings|identity"
    columns = psql(owner, "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables "
                          "USING (table_schema, table_name) WHERE table_schema = current_schema() AND table_type = 'VIEW'")
    for row in columns[1:]:
        if re.search(personal, row):
            problem(f"a view has a column that may hold personal data: {row}")


def in_the_page():
    return set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/TELEMETRY.md").read_text(), re.M))


def spelt():
    """Looks up every name in dashboards and rules in docs/TELEMETRY.md: a misspelt one is as empty as one without a GPU."""
    known = in_the_page()
    for path in [*(DOCKER / "grafana/dashboards").glob("*.json"), *(DOCKER / "prometheus/rules").glob("*.yml")]:
        # Names after a colon are those of recording rules.
        for name in set(re.findall(r"(?<![:\w])stellar_\w+", path.read_text())):
            if re.sub(r"_(bucket|sum|count)$", "", name) not in known:
                problem(f"{path.name}: docs/TELEMETRY.md does not list {name}")


def names(service):
    """Compares the exported names with docs/TELEMETRY.md. Returns the export."""
    _, text, _ = service.call("GET", "/metrics")
    exported = set(re.findall(r"^# TYPE (\w+)", text.decode(), re.M))
    listed = in_the_page()
    for name in sorted(exported - listed):
        problem(f"docs/TELEMETRY.md does not list {name}")
    for name in sorted(listed - exported):
        if not EMPTY.search(name):
            problem(f"docs/TELEMETRY.md lists {name}, which the service did not export")
    return text.decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/debug/stellar-score")
    arguments = parser.parse_args()
    started, folder = time.monotonic(), programs()
    subprocess.run([sys.executable, ROOT / "scripts/dashboards.py", "--check"], check=True)
    promtool(folder, "check", "rules", *(DOCKER / "prometheus/rules").glob("*.yml"))
    promtool(folder, "test", "rules", *(DOCKER / "prometheus/tests").glob("*.yml"))
    for config in (DOCKER / "prometheus").glob("prometheus*.yml"):
        promtool(folder, "check", "config", "--syntax-only", config)

    spelt()

    owner = schema_in(os.environ["TEST_DATABASE_URL"], f"dashboards_{os.getpid()}")
    parts = urllib.parse.urlsplit(owner)
    url = parts._replace(netloc=f"{ROLE}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()
    count = 0
    with tempfile.TemporaryDirectory() as work:
        service = Service(str(Path(arguments.program).resolve()), Path(work) / "service", owner).start().ready()
        prometheus, begun, stop = Prometheus(folder, Path(work) / "prometheus", service).ready(), time.time(), threading.Event()
        loading = threading.Thread(target=load, args=(service, stop))
        loading.start()
        try:
            until = time.monotonic() + 60
            while not finished(service, "run's method") and time.monotonic() < until:
                time.sleep(0.3)
            if time.monotonic() >= until:
                problem("the run did not finish")
            time.sleep(SETTLE)
            role(owner, url)
            for path in sorted((DOCKER / "grafana/dashboards").glob("*.json")):
                dashboard = json.loads(path.read_text())
                values = variables(prometheus, url, dashboard)
                for panel in panels(dashboard):
                    for query in panel["targets"]:
                        count, title = count + 1, f"{path.name}: {panel['title']}"
                        try:
                            if "expr" in query:
                                metric_query(prometheus, title, query, begun)
                            else:
                                table_query(url, title, query["rawSql"], query["format"], values)
                        except ValueError as error:
                            problem(f"{title}: {error}: {query.get('expr')}")
            alerts(prometheus)
            promtool(folder, "check", "metrics", text=names(service))
        finally:
            stop.set()
            loading.join()
            prometheus.stop()
            service.stop()
            for text in (f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}"):
                subprocess.run(["psql", owner, "-Xqc", text], check=False)
    if problems:
        print(*problems, sep="\n")
        return 1
    print(f"{count} queries of the dashboards and all rules have data ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
