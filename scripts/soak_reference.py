"""What the soak test sends, what an undisturbed service makes of it, and how scores are compared."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from service import FORM, form, scores_of

TOLERANCE = 1e-5
# Seconds without progress after which an undisturbed service is given up.
STUCK = 120


def alike(expected, found):
    """Returns whether scores are equal: numbers within the tolerance, everything else exactly."""
    if expected.keys() != found.keys():
        return False
    for metric, (value, reason, flags) in expected.items():
        other, other_reason, other_flags = found[metric]
        if (reason, flags) != (other_reason, other_flags) or (value is None) != (other is None):
            return False
        if value is not None and abs(value - other) > TOLERANCE:
            return False
    return True


def alike_tables(expected, found):
    """Returns whether reports are equal: numbers within ten times the tolerance, since they are sums."""
    return expected.keys() == found.keys() and all(
        (a is None) == (b is None) and (a is None or abs(a - b) <= 10 * TOLERANCE)
        for metric, row in expected.items()
        for a, b in zip(row, found[metric])
    )


def difference(expected, found):
    """Returns the metrics that differ."""
    names = sorted(expected.keys() | found.keys())
    return {name: (expected.get(name), found.get(name)) for name in names if expected.get(name) != found.get(name)}


def synthesize(program, folder, identities, prompts):
    """Makes `sample/generations`, the images of a method, and their dataset in `stellar`."""

    def run(*command):
        subprocess.run([program, "dataset", *command], check=True, stdout=subprocess.DEVNULL)

    run("synthesize", "--out", str(folder / "sample"), "--identities", str(identities), "--prompts", str(prompts))
    run("prepare", "--download", str(folder / "sample/download"), "--prompts", str(folder / "sample/prompts"),
        "--out", str(folder / "stellar"))


class Inputs:
    """Synthetic samples: portraits, prompts and metadata, in runs of a few identities each."""

    def __init__(self, program, folder, identities, prompts, enrolled=True):
        synthesize(program, folder, identities, prompts)
        self.photos, self.samples = {}, []
        for file in sorted((folder / "sample/generations").glob("*.json")):
            known = json.loads(file.read_text())
            identity = known["save_name"].split("-")[0]
            metadata = {
                "identity": identity,
                # Source of the attribute classifiers: a dataset for some samples, their own run for the others.
                **({"dataset": "people"} if enrolled and len(self.samples) % 3 == 0 else {}),
                "attributes": known["attributes"],
                "categories": known["categories"],
                "detectables": known["detectables"],
                "prompt_kind": "T" if known["is_stellar_t"] else "H",
            }
            fields = [
                ("image", file.with_suffix(".png").read_bytes()),
                ("prompt", known["prompt"].replace("{}", "a person")),
                ("reference", (folder / known["image_path"]).read_bytes()),
                ("metadata", json.dumps(metadata)),
            ]
            self.samples.append((identity, known["save_name"], fields))
            labels = {name: value == 1 for name, value in known["attributes"].items()}
            photo = {"identity": identity, "name": known["image_path"], "attributes": labels}
            self.photos[known["image_path"]] = form([("photo", fields[2][1]), ("metadata", json.dumps(photo))])

    def runs(self, size):
        """Splits the samples into runs of `size`, each evaluated as a whole."""
        return [self.samples[at : at + size] for at in range(0, len(self.samples) - size + 1, size)]


def enrol(call, inputs):
    """Enrols the dataset that some samples name."""
    for _, photo in sorted(inputs.photos.items()):
        status, text, *_ = call("POST", "/v1/datasets/people/photos", photo, FORM)
        assert status in (200, 201), text


class Reference:
    """Results of an undisturbed service: for each sample alone, and for each run."""

    def __init__(self, service, inputs, runs):
        self.samples, self.runs, self.tables = {}, [], []
        enrol(service.call, inputs)
        started = time.monotonic()

        def score(at):
            _, name, fields = inputs.samples[at]
            body = form(fields + [("method", "reference"), ("run", "alone"), ("name", name)])
            status, text, _ = service.call("POST", "/v1/score", body, FORM)
            assert status == 200, text
            return at, scores_of(service.get(f"/v1/samples/{json.loads(text)['sample']}"))

        with ThreadPoolExecutor(4) as pool:
            self.samples = dict(pool.map(score, range(len(inputs.samples))))
        self.rate = len(self.samples) / (time.monotonic() - started)
        for at, members in enumerate(runs):
            scores, table = undisturbed(service, f"run-{at}", members)
            self.runs.append(scores)
            self.tables.append(table)


def undisturbed(service, name, members):
    """Evaluates one run without retries; returns the scores of its samples and its report."""
    run = evaluate(service, name, members)
    return scores_of_run(service, run), table_of(service, run)


def evaluate(service, name, members):
    """Submits and finishes one run, without retries; returns its id."""
    status, text, _ = service.call("POST", "/v1/runs", json.dumps({"method": "reference", "run": name}))
    assert status == 201, text
    run = json.loads(text)["run_id"]
    for _, sample, fields in members:
        status, text, _ = service.call("PUT", f"/v1/runs/{run}/samples/{sample}", form(fields), FORM)
        assert status == 202, text
    service.call("POST", f"/v1/runs/{run}/finish")
    last, changed = None, time.monotonic()
    while (now := service.get(f"/v1/runs/{run}"))["state"] != "finished":
        if now["counts"] != last:
            last, changed = now["counts"], time.monotonic()
        assert time.monotonic() - changed < STUCK, f"nothing is scored, undisturbed: {now}"
        time.sleep(0.2)
    return run


def scores_of_run(service, run):
    """Returns the scores of each sample of a run by name, as a list: more than one entry is a duplicate.

    A sample that is not scored has its state and error instead.
    """
    found = {}
    for item in service.pages(f"/v1/runs/{run}/samples?", "items"):
        state = item["state"]
        scores = scores_of(service.get(f"/v1/samples/{item['id']}")) if state == "scored" else {"state": [state, item.get("error"), None]}
        found.setdefault(item["name"], []).append(scores)
    return found


def table_of(service, run):
    """Extracts the compared parts of a run's report."""
    rows = service.get(f"/v1/runs/{run}/report")["rows"]
    return {row["metric"]: [row[key] for key in ("mean", "std", "low", "high", "n")] for row in rows}
