#!/usr/bin/env python3
"""Uses the images of docker/ through compose.yaml. scripts/docker_test.sh builds them and calls this. Needs only Python.

Every check prints one line; the first that fails ends the test with status 1. Containers and volumes are removed at the end.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from service import FORM, Service, form, free_port, png, scores_of, without_settings

ROOT = Path(__file__).resolve().parent.parent
PROJECT = f"stellar-score-test-{os.getpid()}"
SAMPLES = 96
# Noise takes longer to score than to send.
SIDE = 384
SERVICE = "stellar-score"


def check(what, holds, found=""):
    print(f"{'ok    ' if holds else 'FAILED'}  {what}", flush=True)
    if not holds:
        raise SystemExit(f"{what}: {found}")


class Stack(Service):
    """Compose's services, each on a free port; the HTTP client is that of a process on this machine."""

    def __init__(self, compose):
        self.compose, self.port = compose.split(), free_port()
        self.prometheus, self.alertmanager, self.grafana = free_port(), free_port(), free_port()
        self.settings = {}

    def run(self, *command, fails=False):
        """Runs a compose command; returns its standard output, and that of errors too if it is to fail."""
        environment = without_settings() | {
            "PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus),
            "ALERTMANAGER_PORT": str(self.alertmanager),
            "GRAFANA_PORT": str(self.grafana),
            "COMPOSE_PROFILES": "cpu",
        } | self.settings
        done = subprocess.run(
            [*self.compose, "-f", "docker/compose.yaml", "-p", PROJECT, *command],
            cwd=ROOT, env=environment, capture_output=True, text=True,
        )
        if (done.returncode != 0) != fails:
            raise SystemExit(f"compose {' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + (done.stderr if fails else "")

    def container(self, service=SERVICE):
        return self.run("ps", "-aq", service).strip()

    def inspect(self, service=SERVICE):
        return json.loads(docker("inspect", self.container(service)))[0]

    def up(self, *services):
        """Creates and starts services, and waits until the service is healthy."""
        self.run("up", "-d", "--no-build", *services)
        self.healthy()

    def healthy(self, seconds=120):
        """Waits until the container's own health check has passed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.inspect()["State"]["Health"]["Status"] == "healthy":
                return
            time.sleep(0.5)
        raise SystemExit(f"not healthy: {self.inspect()['State']}\n{docker('logs', '--tail', '20', self.container())}")

    def ready(self, seconds=120):
        """Waits until /readyz returns 200."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.call("GET", "/readyz", timeout=5)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"not ready: {docker('logs', '--tail', '20', self.container())}")

    def seconds_to_ready(self, *command):
        """Seconds from a command of Docker that starts the service until it is ready."""
        began = time.monotonic()
        docker(*command, self.container())
        self.ready()
        return time.monotonic() - began

    def sql(self, statement, role="stellar", fails=False):
        """Runs a statement over TCP with the role's password."""
        file = {"stellar": "stellar_password", "stellar_grafana": "grafana_password"}[role]
        script = f'PGPASSWORD=$(cat /run/secrets/{file}) psql -h 127.0.0.1 -U {role} -d stellar -At -c "$0"'
        return self.run("exec", "-T", "postgres", "sh", "-c", script, statement, fails=fails).strip()


def docker(*arguments, fails=False):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"docker {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def until(seconds, what, holds):
    """Waits until `holds` returns something, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"{what}: not within {seconds} s")


def image_checks(image, sbom_wheel):
    """What an image says of itself, without starting it."""
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    check(f"{image}: runs as a user that is not root", config["User"] == "10001:10001", config["User"])
    check(f"{image}: has a health check by the program", config["Healthcheck"]["Test"] == ["CMD", "stellar-score", "health"])
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    labels = config["Labels"]
    check(f"{image}: labels name version, revision and licence",
          labels["org.opencontainers.image.version"] == version
          and re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
          and labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0", labels)
    docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", "true", fails=True)
    check(f"{image}: has no shell", True)
    printed = docker("run", "--rm", "--network", "none", "--read-only", image, "--version")
    check(f"{image}: the program starts", printed.strip() == f"stellar-score {version}", printed)
    container = docker("create", image).strip()
    with tempfile.TemporaryDirectory() as folder:
        docker("cp", f"{container}:/usr/local/share/stellar-score/sbom.cdx.json", folder)
        docker("cp", f"{container}:/var/lib/dpkg/status.d", folder)
        docker("rm", "-v", container)
        packages = {file.name for file in (Path(folder) / "status.d").iterdir()}
        sbom = json.loads((Path(folder) / "sbom.cdx.json").read_text())
    names = {component["name"] for component in sbom["components"]}
    check(f"{image}: the SBOM lists {len(names)} crates, wheels and packages",
          sbom["specVersion"] == "1.6" and {"axum", "sqlx", sbom_wheel} <= names and len(names) > 200, names)
    listed = {component["name"] for component in sbom["components"] if component["purl"].startswith("pkg:deb/")}
    check(f"{image}: it lists {', '.join(sorted(packages))} of Debian", listed == packages, listed)


def start(stack, left_out):
    services = [name for name in stack.run("config", "--services").split() if name not in left_out]
    began = time.monotonic()
    stack.up(*services)
    print(f"        from nothing to healthy, with database and monitoring: {time.monotonic() - began:.1f} s")
    found = stack.inspect()
    check("the service has a read-only root and no capabilities",
          found["HostConfig"]["ReadonlyRootfs"] and found["HostConfig"]["CapDrop"] == ["ALL"])
    (process,) = docker("top", stack.container(), "-eo", "pid,uid,args").strip().splitlines()[1:]
    check("one process runs in the container, not as root", process.split()[1] == "10001", process)
    with tempfile.NamedTemporaryFile() as file:
        refused = docker("cp", file.name, f"{stack.container()}:/usr/local/bin/x", fails=True)
    check("its files cannot be changed", "read-only" in refused, refused)
    secret = stack.run("exec", "-T", "postgres", "cat", "/run/secrets/stellar_password").strip()
    shown = json.dumps(found) + docker("logs", stack.container()) + docker("logs", stack.container("postgres"))
    check("no password is in the settings or logs", len(secret) == 64 and secret not in shown)
    ports = {binding["HostIp"] for of in found["NetworkSettings"]["Ports"].values() for binding in of}
    check("the port is published on the loopback interface only", ports == {"127.0.0.1"}, ports)


def first_score(stack):
    """Runs the command of the README as it is there, but for the port."""
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"```sh\n(curl -F image=.*?)```", readme, re.S)[1].replace(":8080", f":{stack.port}")
    printed = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    answer = json.loads(printed)
    check("the README's first score works", answer["outcome"] == "created" and answer["scores"]["aesthetic"]["value"], answer)
    stored = stack.sql("SELECT count(*) FROM samples")
    check("it is stored in PostgreSQL", stored == "1", stored)


def health(stack):
    program = ["exec", "-T", SERVICE, "stellar-score", "health"]
    printed = stack.run(*program)
    check("`stellar-score health` in the container says ready", printed == "ready\n", printed)
    printed = stack.run(*program, "--url", "http://127.0.0.1:1", fails=True)
    check("it fails for an address that does not respond", "does not respond" in printed, printed)
    stack.run("stop", "postgres")
    printed = stack.run(*program, fails=True)
    check(f"it fails without the database: {printed.strip()}", "not ready: " in printed or "does not respond" in printed, printed)
    stack.run("start", "postgres")
    stack.ready()
    check("the service is ready again after its database is", True)


def roles(stack):
    def may(statement):
        stack.sql(statement, role="stellar_grafana")

    def may_not(statement):
        stack.sql(statement, role="stellar_grafana", fails=True)

    until(60, "the role of Grafana exists", lambda: stack.inspect("grafana-role")["State"]["Status"] == "exited")
    may("SELECT * FROM report_scores LIMIT 1")
    for statement in ("SELECT count(*) FROM samples", "DELETE FROM samples", "CREATE TABLE own (x int)"):
        may_not(statement)
        may_not(f"SET default_transaction_read_only = off; {statement}")
    check("the role of Grafana reads its views, and may do nothing else", True)


def monitoring(stack):
    prometheus = f"http://127.0.0.1:{stack.prometheus}/api/v1"

    def query(text):
        return fetch(f"{prometheus}/query?query={urllib.parse.quote(text)}")["data"]["result"]

    until(60, "Prometheus scrapes the service", lambda: [of for of in query(f'up{{job="{SERVICE}"}}') if of["value"][1] == "1"])
    until(60, "its metrics are stored", lambda: query(f'{{__name__=~"stellar_http_.*",job="{SERVICE}"}}'))
    check("Prometheus scrapes the service", True)
    found = fetch(f"{prometheus}/alertmanagers")["data"]["activeAlertmanagers"]
    check("Prometheus has its Alertmanager", len(found) == 1, found)
    files = list((ROOT / "docker/prometheus/rules").glob("*.yml"))
    groups = fetch(f"{prometheus}/rules")["data"]["groups"]
    unhealthy = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
    check(f"{len(files)} files of rules are loaded", {Path(group["file"]).name for group in groups} == {file.name for file in files}
          and not unhealthy, unhealthy or groups)
    fetch(f"http://127.0.0.1:{stack.alertmanager}/api/v2/status")
    check("Alertmanager responds", True)


def submit(stack, method, images):
    status, text, _ = stack.call("POST", "/v1/runs", json.dumps({"method": method, "run": "one"}))
    assert status == 201, text
    run = json.loads(text)["run_id"]
    for name, image in images.items():
        fields = [("image", image), ("prompt", f"a person on a horse, {name}"), ("reference", image)]
        status, text, _ = stack.call("PUT", f"/v1/runs/{run}/samples/{name}", form(fields), FORM)
        assert status == 202, text
    return run


def scored(stack, run):
    return [item for item in stack.pages(f"/v1/runs/{run}/samples?", "items") if item["state"] == "scored"]


def finished(stack, run):
    """Finishes a run and returns the scores of its samples by name."""
    stack.call("POST", f"/v1/runs/{run}/finish")
    until(600, "the run is finished", lambda: stack.get(f"/v1/runs/{run}")["state"] == "finished")
    return {item["name"]: scores_of(stack.get(f"/v1/samples/{item['id']}")) for item in scored(stack, run)}


def killed_in_the_middle(stack):
    images = {f"s{at:03}": png(SIDE, at) for at in range(SAMPLES)}
    run = submit(stack, "killed", images)
    until(300, "the first samples are scored", lambda: len(scored(stack, run)) >= 4)
    docker("kill", stack.container())
    state = stack.inspect()["State"]
    check("the container is killed in the middle of a run", state["ExitCode"] == 137 and not state["Running"], state)
    seconds = stack.seconds_to_ready("start")
    before = len(scored(stack, run))
    check(f"it is ready {seconds:.1f} s after `docker start`, with {before} of {SAMPLES} samples scored", 4 <= before < SAMPLES)
    disturbed = finished(stack, run)
    check("all accepted samples are scored", disturbed.keys() == images.keys(), len(disturbed))
    calm = finished(stack, submit(stack, "calm", images))
    differing = [name for name in images if disturbed[name] != calm[name]]
    check("their scores are those of an undisturbed run", not differing, differing)
    return run


def stopped(stack, run):
    """Stops in the middle of a run, and starts."""
    open_run = submit(stack, "stopped", {f"s{at:03}": png(SIDE, 1000 + at) for at in range(SAMPLES)})
    began = time.monotonic()
    stack.run("stop", SERVICE)
    seconds, state = time.monotonic() - began, stack.inspect()["State"]
    check(f"it stops within {seconds:.1f} s and exits with 0", state["ExitCode"] == 0 and seconds < 35, state)
    log = docker("logs", "--tail", "5", stack.container())
    check("its last words are that it has stopped", '"stopped"' in log, log)
    stack.run("start", SERVICE)
    stack.ready()
    check("the stopped run is completed", len(finished(stack, open_run)) == SAMPLES)
    check("the other run is still there", len(scored(stack, run)) == SAMPLES)


def recreated(stack):
    """Removes all containers, as an update of the images does."""
    samples = stack.sql("SELECT count(*) FROM samples")
    services = stack.run("ps", "--services").split()
    stack.run("down")
    stack.up(*services)
    check(f"new containers have the {samples} samples of the old ones", stack.sql("SELECT count(*) FROM samples") == samples)


def exported(stack):
    """Builds a pack into the volume and serves it."""
    small = ["--vision-width", "192", "--vision-layers", "3", "--vision-heads", "4", "--no-goldens"]
    stack.run("run", "--rm", "export", "build", "--random", "--only", "clip", *small, "--out", "/packs/random")
    stack.settings["STELLAR_PACK"] = "/packs/random"
    stack.run("up", "-d", "--no-build", "--no-deps", SERVICE)
    stack.ready()
    lanes = {role for lane in stack.get("/v1/models")["lanes"] for role in lane["roles"]}
    check("a pack built by the export image is served", lanes == {"clip.image", "clip.text"}, lanes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compose", default="docker compose", help="the command")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()

    image_checks("stellar-score:cpu", "onnxruntime")
    if arguments.cuda:
        image_checks("stellar-score:cuda", "onnxruntime-gpu")
    stack = Stack(arguments.compose)
    images = {of["image"]: name for name, of in json.loads(stack.run("config", "--format", "json"))["services"].items()}
    left_out = []
    for image, name in images.items():
        found = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True)
        if found.returncode != 0:
            print(f"        {name} is left out: {image} cannot be pulled here")
            left_out.append(name)
        elif not image.startswith("stellar-score:") and not json.loads(found.stdout)[0]["RepoDigests"]:
            print(f"        {image} is a local stand-in")
    try:
        start(stack, left_out)
        first_score(stack)
        health(stack)
        roles(stack)
        monitoring(stack)
        stopped(stack, killed_in_the_middle(stack))
        recreated(stack)
        if arguments.export:
            exported(stack)
        print("Docker: all checks passed")
    finally:
        stack.run("--profile", "*", "down", "--volumes", "--timeout", "5")


if __name__ == "__main__":
    sys.exit(main())
