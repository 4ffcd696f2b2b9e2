#!/usr/bin/env python3
"""Tests the service against openapi/openapi.json: sends requests that the document allows and ones that it does not.

    scripts/contract.py [--program target/debug/stellar-score] [--examples 15] [--postgres URL] [--seed 1]

Schemathesis makes the requests: no response may be a 5xx, or have a status, media type or body that the document lacks
for the route, and no route may accept an undocumented method. Ids are those of existing rows, except in deletions.
Schemathesis is installed under .runtime/contract on first use. Prints one line on success, and otherwise the failures as
curl commands.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from service import FORM, Service, form, schema_in

HERE = Path(__file__).resolve().parent
# Without adapters, their routes only answer 404.
ADAPTERS = (
    '[{protocol="pickle", name="demo", reward="aesthetic"}, {protocol="flow-factory", name="demo", reward="aesthetic"}, '
    '{protocol="unirl", reward={demo="aesthetic"}}, {protocol="cosmos", reward={demo="aesthetic"}}]'
)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method"
# Small images of few steps, so that those that are valid are generated at once.
SETTINGS = {
    "STELLAR_REWARDS__ADAPTER": ADAPTERS,
    "STELLAR_GENERATOR__PACK": str(Path(__file__).resolve().parent.parent / "packs/demo-generator"),
    "STELLAR_GENERATOR__MOST_STEPS": "2",
    "STELLAR_GENERATOR__LARGEST_SIDE": "64",
}



def schemathesis():
    """Returns the command of Schemathesis; installs it if it is missing or of another version.

    It runs as a module, since an installed script contains the path of its folder.
    """
    folder, wanted = HERE.parent / ".runtime/contract", (HERE / "contract.txt").read_text()
    program, mark = [folder / "bin/python", "-m", "schemathesis.cli"], folder / "contract.txt"
    if not mark.exists() or mark.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
             "--only-binary", ":all:", "-r", HERE / "contract.txt"],
            check=True,
        )
        mark.write_text(wanted)
    return program


def rows(service):
    """Creates a few rows of every kind and returns their ids."""
    def call(method, path, body, kind="application/json"):
        status, text, _ = service.call(method, path, body, kind)
        if status not in (200, 201, 202):
            sys.exit(f"contract.py: {method} {path}: {status} {text[:500]!r}")
        return json.loads(text)

    goldens = HERE.parent / "packs/demo/goldens"
    face, other = (goldens / "astronaut-face.jpg").read_bytes(), (goldens / "coffee.jpg").read_bytes()
    sample = call("POST", "/v1/score", form([("image", face), ("prompt", "a person"), ("method", "mine"), ("run", "scored"), ("name", "1")]), FORM)
    open_run = call("POST", "/v1/runs", json.dumps({"method": "mine", "run": "open"}))["run_id"]
    call("PUT", f"/v1/runs/{open_run}/samples/1", form([("image", other), ("reference", face), ("prompt", "coffee")]), FORM)
    photo = json.dumps({"identity": "000", "name": "0", "attributes": {"Young": True}})
    call("POST", "/v1/datasets/people/photos", form([("photo", face), ("metadata", photo)]), FORM)
    call("PUT", "/v1/datasets/people/prompts", json.dumps({"prompts": [{"identity": "000", "prompt": "{} riding a horse"}]}))
    until = time.monotonic() + 60
    while service.get(f"/v1/runs/{open_run}")["counts"]["scored"] == 0 and time.monotonic() < until:
        time.sleep(0.2)
    runs = [sample["run_id"], open_run]
    vote = {"question": "overall", "annotator": "ada", "name": "1", "run_a": runs[0], "run_b": runs[1], "preferred": "a"}
    call("POST", "/v1/preferences", json.dumps({"preferences": [vote]}))
    submitted = call("POST", "/v1/runs", json.dumps({"method": "submitted"}))["run_id"]
    call("PUT", f"/v1/runs/{submitted}/samples/1", form([("image", face), ("prompt", "a person")]), FORM)
    call("POST", f"/v1/runs/{submitted}/finish", None)
    while service.get(f"/v1/runs/{submitted}")["state"] != "finished" and time.monotonic() < until:
        time.sleep(0.2)
    images = service.folder / "images"
    images.mkdir()
    (images / "1.jpg").write_bytes(face)
    bundle = service.bundle("submitted", images)
    submission = call("POST", "/v1/submissions", bundle, "application/zip")["id"]
    return {"/v1/submissions/": [submission], "/v1/runs/": runs, "/v1/samples/": [sample["sample"]], "/v1/datasets/": ["people"],
            "/v1/methods/": ["mine"], "/rl/": ["demo"]}


def with_ids(document, ids):
    """Sets existing ids in the paths of the document, except for deletions."""
    for path, item in document["paths"].items():
        # Only those of adapters and methods: a sample's name may be a new one.
        names = ("name",) if path.startswith(("/rl/", "/v1/methods/")) else ("id", "a", "b", "dataset")
        known = next((found for prefix, found in ids.items() if path.startswith(prefix)), [])
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                if known and method != "delete" and parameter["in"] == "path" and parameter["name"] in names:
                    parameter["schema"] = {"type": "string", "enum": known}
    # The document describes the data of an event, but Schemathesis would validate the whole event.
    watch = document["paths"]["/v1/runs/{id}/events"]["get"]["responses"]["200"]["content"]
    watch["text/event-stream"] = {}
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/debug/stellar-score")
    parser.add_argument("--examples", type=int, default=15, help="requests of each kind per route")
    parser.add_argument("--postgres", default="", help="a database in which schemas may be created; default: SQLite")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        print("contract.py: skipped, Schemathesis needs Python 3.11 or newer")
        return 0
    program = schemathesis()
    with tempfile.TemporaryDirectory() as folder:
        store = schema_in(arguments.postgres, f"contract_{os.getpid()}") if arguments.postgres else ""
        service = Service(str(Path(arguments.program).resolve()), folder, store, SETTINGS).start().ready()
        try:
            document = Path(folder) / "openapi.json"
            described = with_ids(service.get("/openapi.json"), rows(service))
            # While the models are offloaded, scoring is refused with 503. tests/http/offload.rs has its responses.
            del described["paths"]["/v1/engine/offload"]
            document.write_text(json.dumps(described))
            ran = subprocess.run(
                [*program, "run", document, "--url", f"http://127.0.0.1:{service.port}", "--phases", "examples,coverage,fuzzing",
                 "--max-examples", str(arguments.examples), "--seed", str(arguments.seed), "--checks", CHECKS, "--no-shrink",
                 "--continue-on-failure", "--warnings", "off", "--request-timeout", "60", "--workers", "1"],
                cwd=folder, capture_output=True, text=True,
                env=os.environ | {"SCHEMATHESIS_HOOKS": "contract_hooks", "PYTHONPATH": str(HERE)},
            )
            alive = service.process.poll() is None
        finally:
            service.kill()
        errors = [line for line in service.log.read_text(errors="replace").splitlines() if " ERROR " in line or "panicked" in line]
    if ran.returncode != 0 or errors or not alive:
        print(ran.stdout, ran.stderr, *errors, sep="\n")
        return 1
    print(next(line.strip() for line in ran.stdout.splitlines() if "generated" in line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
