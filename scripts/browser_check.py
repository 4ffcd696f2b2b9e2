#!/usr/bin/env python3
"""Opens every page of the service in Chromium and checks it; with a folder, writes screenshots there.

    scripts/browser_check.py [--program target/debug/stellar-score] [--quick] [--screenshots FOLDER]

Three services: one with a dataset, scored runs, votes, imported runs and hostile names, an empty one, and one with API
keys. tests/browser/check.mjs has the checks. Its two packages from npm are installed under .runtime/browser on first
use. Prints one line on success, or what was left out and how to get it.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from service import FORM, Service, form, without_settings

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests/browser"
MODULES = ROOT / ".runtime/browser"

# Names that a page must show as text.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)> \" ' & {{7*7}}",
    "مولد الصور الشخصية",
    "👩‍🚀 astronaut 🌌 généré",
    "x" * 200,
    "very " * 39 + "long",
]

# Columns of imported files, by the toolkit's layout; a column has a mean and a deviation.
COLUMNS = [
    [("clip_t", 0.3, 0.04), ("clip_n", 0.1, 0.03), ("clip_i", 0.6, 0.1)],
    [("aesthetic_score", 5.6, 0.5)],
    [("pick_score", 0.21, 0.01)],
    [("image_reward", 0.3, 0.8)],
    [("human_preference_score_v1", 0.2, 0.02), ("human_preference_score_v2", 0.26, 0.02)],
    [("dino_fidelity", 0.5, 0.1)],
    [("dreamsim_distance", 0.5, 0.1)],
    [("identity_preservation", 0.5, 0.15)],
    [("identity_stability", 0.35, 0.15)],
    [("object_faithfulness", 0.3, 0.1)],
    [("relation_faithfulness_score", 0.12, 0.05)],
]


def left_out(why):
    print(f"browser_check.py: the pages were not opened in a browser: {why}")
    sys.exit(0)


def browser():
    found = subprocess.run([ROOT / "scripts/browser.sh", "where"], capture_output=True, text=True)
    if found.returncode == 3:
        left_out(found.stderr.strip().splitlines()[-1])
    if found.returncode != 0:
        sys.exit(f"browser_check.py: {found.stderr}")
    return found.stdout.strip()


def modules():
    """Installs the packages of tests/browser if they are missing or of another version."""
    if not shutil.which("node") or not shutil.which("npm"):
        left_out("Node.js 20 or newer with npm is missing (apt-get install nodejs npm)")
    lock = (TESTS / "package-lock.json").read_text()
    mark = MODULES / "installed.json"
    if not mark.exists() or mark.read_text() != lock:
        MODULES.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(TESTS / name, MODULES / name)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=MODULES, check=True)
        mark.write_text(lock)


class Filler:
    """Puts data into a service."""

    def __init__(self, service, program, work):
        self.service, self.program, self.work = service, program, Path(work)

    def call(self, method, path, body=None, kind="application/json"):
        status, text, _ = self.service.call(method, path, body, kind)
        if status not in (200, 201, 202):
            sys.exit(f"browser_check.py: {method} {path}: {status} {text[:500]!r}")
        return json.loads(text)

    def run(self, *arguments):
        server = ["--server", f"http://127.0.0.1:{self.service.port}"] if arguments[0] in ("submit",) or arguments[:2] == ("dataset", "register") else []
        ran = subprocess.run([self.program, *arguments, *server], cwd=self.work, env=without_settings(), capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"browser_check.py: {' '.join(arguments)}: {ran.stdout[-1000:]}{ran.stderr[-3000:]}")

    def dataset(self):
        """A small dataset and three methods: the same prompts and people, with images exchanged within a person."""
        self.run("dataset", "synthesize", "--out", "sample", "--identities", "4", "--prompts", "4")
        self.run("dataset", "prepare", "--download", "sample/download", "--prompts", "sample/prompts", "--out", "stellar")
        self.run("dataset", "register", "stellar")
        images = self.work / "sample/generations"
        for shift, method in enumerate(["StarNet", "Kamon", "Inversion"]):
            folder = self.work / f"of-{method}"
            shutil.copytree(images, folder)
            pictures = sorted(images.rglob("*.png"))
            for at, picture in enumerate(pictures):
                other = pictures[(at + shift) % len(pictures)]
                shutil.copy(other, folder / picture.relative_to(images))
            self.run("submit", "--method", method, "--dataset", "stellar", "--images", folder.name, "--split", "test")

    def imported(self, method, seed, samples=12):
        """A finished run with imported scores of every metric."""
        random_ = random.Random(seed)
        run = self.call("POST", "/v1/runs", json.dumps({"method": method, "run": "imported"}))["run_id"]
        better = random_.gauss(0, 0.5)
        for columns in COLUMNS:
            lines = [",name," + ",".join(name for name, _, _ in columns)]
            for sample in range(samples):
                values = [f"{random_.gauss(mean + better * deviation, deviation):.5f}" for _, mean, deviation in columns]
                lines.append(f"{sample},{sample % 8:03}-{sample // 8}-{sample:02}," + ",".join(values))
            self.call("POST", f"/v1/runs/{run}/import?source=toolkit", "\n".join(lines) + "\n", "text/csv")
        self.call("POST", f"/v1/runs/{run}/finish")
        return run

    def score(self, method, prompt):
        goldens = ROOT / "packs/demo/goldens"
        image, face = (goldens / "astronaut.jpg").read_bytes(), (goldens / "astronaut-face.jpg").read_bytes()
        metadata = json.dumps({"detectables": ["space suit", "flag"]})
        fields = [("image", image), ("prompt", prompt), ("reference", face), ("auxiliary", face), ("method", method), ("metadata", metadata)]
        return self.call("POST", "/v1/score", form(fields), FORM)["sample"]

    def votes(self, runs):
        names = [sample["name"] for sample in self.service.get(f"/v1/runs/{runs[0]}/samples?limit=1000")["items"]]
        random_ = random.Random(7)
        votes = [
            {"question": question, "annotator": annotator, "name": name, "run_a": a, "run_b": b,
             "preferred": random_.choices(["a", "b", "tie"], [5, 3, 2])[0]}
            for question in ("overall", "object")
            for annotator in ("ada", "<b>bob</b>", "eve")
            for name in names
            for a, b in ((runs[0], runs[1]), (runs[1], runs[2]))
        ]
        self.call("POST", "/v1/preferences", json.dumps({"preferences": votes}))

    def study(self, runs):
        """A study of best of three with the answers of two annotators; returns its id."""
        plan = {"name": "which", "title": "Which <b>of</b> three?", "runs": runs, "form": "best_of", "k": 3, "quota": 4}
        study = self.call("POST", "/v1/studies", json.dumps(plan))["id"]
        self.call("PUT", f"/v1/studies/{study}/state", json.dumps({"state": "open"}))
        for at, annotator in enumerate(("ada", "<b>bob</b>")):
            name = urllib.parse.quote(annotator, safe="")
            while task := self.service.get(f"/v1/studies/{study}/next?annotator={name}").get("task"):
                answer = {"annotator": annotator, "item": task["item"], "choice": str(1 + (task["item"] + at) % 3)}
                self.call("POST", f"/v1/studies/{study}/answers", json.dumps(answer))
        return study

    def submissions(self):
        """A verified submission, one that waits, and a withdrawn one."""
        send = lambda run, folder: self.call("POST", "/v1/submissions", self.service.bundle(run, self.work / folder), "application/zip")["id"]
        self.run("submit", "--method", "Submitted", "--dataset", "stellar", "--images", "of-Kamon", "--split", "test")
        verified, _, withdrawn = send("Submitted", "of-Kamon"), send("Kamon", "of-Kamon"), send("StarNet", "of-StarNet")
        run = self.service.get("/v1/runs?method=Submitted")["runs"][0]["run_id"]
        self.call("DELETE", f"/v1/runs/{run}")
        report = {"share": 0.5, "seed": 7, "samples": 8, "note": "<b>all</b> agree"}
        self.call("POST", f"/v1/submissions/{verified}/verification", json.dumps(report))
        self.call("POST", f"/v1/submissions/{withdrawn}/withdrawal", json.dumps({"note": "sent by mistake"}))

    def summarised(self, seconds=60):
        """Waits until all rows of the leaderboard have their intervals."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            rows = self.service.get("/v1/leaderboard?pack=all&limit=1000")["rows"]
            if rows and not any(of["pending"] for row in rows for of in row["metrics"].values()):
                return
            time.sleep(0.3)
        sys.exit(f"browser_check.py: the runs were not summarised within {seconds} s")


def key_of(program, service, *scopes):
    environment = without_settings() | {"STELLAR_STORE__URL": service.store}
    ran = subprocess.run([program, "keys", "create", "-".join(scopes), "--scopes", ",".join(scopes)], env=environment, capture_output=True, text=True)
    key = next((word for word in ran.stdout.split() if word.startswith("stellar_")), None)
    if ran.returncode != 0 or not key:
        sys.exit(f"browser_check.py: keys create: {ran.stdout}{ran.stderr}")
    return key


def pages_with_data(service, sample, hostile, study):
    runs = {run["method"]: run["run_id"] for run in service.get("/v1/runs?limit=1000")["runs"]}
    a, b = runs["StarNet"], runs["Kamon"]
    dataset = service.get("/v1/datasets")["datasets"][0]["name"]
    quoted = urllib.parse.quote(dataset, safe="")
    wide = ["desktop", "dark"]
    return [
        {"name": "score", "path": "/"},
        {"name": "leaderboard", "path": "/leaderboard"},
        {"name": "leaderboard-100", "path": "/leaderboard?pack=toolkit&sort=ips", "views": ["desktop", "phone", "plain"]},
        {"name": "leaderboard-runs", "path": "/leaderboard?pack=all&by=run&published=true&sort=mean_rank", "views": wide},
        {"name": "leaderboard-common", "path": "/leaderboard?dataset=stellar&on=common&policy=none", "views": wide},
        {"name": "pareto", "path": "/leaderboard?pack=toolkit&view=trade-off&x=clip_t&y=ips", "views": wide},
        {"name": "runs", "path": "/runs"},
        {"name": "submissions", "path": "/submissions"},
        {"name": "run", "path": f"/runs/{a}"},
        {"name": "run-hostile", "path": f"/runs/{runs[hostile]}"},
        {"name": "compare", "path": f"/compare?a={a}&b={b}"},
        {"name": "gallery", "path": f"/gallery?runs={a},{b},{runs['Inversion']}"},
        {"name": "gallery-imported", "path": "/gallery", "views": wide},
        {"name": "correlations", "path": "/correlations"},
        {"name": "correlations-within", "path": "/correlations?within=prompt", "views": wide},
        {"name": "leaderboard-benchmark", "path": "/leaderboard?prompt_kind=T&published=true"},
        {"name": "matrix", "path": "/matrix?kind=attribute&min_samples=5&policy=none"},
        {"name": "first-places", "path": "/first-places?dataset=stellar"},
        {"name": "method", "path": "/methods/StarNet"},
        {"name": "method-hostile", "path": f"/methods/{urllib.parse.quote(hostile, safe='')}", "views": wide},
        {"name": "sample", "path": f"/samples/{sample}"},
        {"name": "vote", "path": "/vote"},
        {"name": "study", "path": "/study"},
        {"name": "study-new", "path": "/study?new=true&k=4&target=0.35&answers_per_item=5&price=0.1&seconds=15"},
        {"name": "study-one", "path": f"/study?study={study}"},
        {"name": "study-start", "path": f"/vote?study={study}", "views": ["desktop", "phone"]},
        {"name": "study-vote", "path": f"/vote?study={study}&annotator=eve&consent=yes"},
        {"name": "study-end", "path": f"/vote?study={study}&annotator=ada&consent=yes", "views": wide},
        {"name": "datasets", "path": "/datasets"},
        {"name": "dataset", "path": f"/datasets/{quoted}"},
        {"name": "metrics", "path": "/metrics-guide"},
        {"name": "missing", "path": "/nothing-here", "status": 404, "views": ["desktop"]},
        {"name": "malformed", "path": "/leaderboard?sort=nonsense", "status": 422, "views": ["desktop"]},
    ]


EMPTY = [
    "/",
    "/leaderboard",
    "/runs",
    "/submissions",
    "/gallery",
    "/correlations",
    "/matrix",
    "/first-places",
    "/vote",
    "/study",
    "/datasets",
    "/metrics-guide",
]


def named(path):
    return path.strip("/").replace("/", "-") or "score"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/debug/stellar-score")
    parser.add_argument("--screenshots", help="folder for a picture of each state")
    parser.add_argument("--quick", action="store_true", help="without dark mode and without the views that have no scripts")
    parser.add_argument("--only", default="", help="only pages and visits with this word in their name")
    arguments = parser.parse_args()
    chromium = browser()
    modules()
    program = str(Path(arguments.program).resolve())
    with tempfile.TemporaryDirectory() as work:
        thumbnails = {"STELLAR_STORE__THUMBNAILS": "256"}
        data = Service(program, f"{work}/data", settings=thumbnails).start()
        empty = Service(program, f"{work}/empty").start()
        keyed = Service(program, f"{work}/keyed").start()
        try:
            for service in (data, empty, keyed):
                service.ready()
            filler = Filler(data, program, work)
            filler.dataset()
            filler.submissions()
            for at in range(94):
                filler.imported(f"method {at:02}", at)
            for at, name in enumerate(HOSTILE):
                filler.imported(name, 1000 + at)
            sample = filler.score("mine", "an astronaut <b>in</b> an orange space suit, next to a flag")
            runs = {run["method"]: run["run_id"] for run in data.get("/v1/runs?limit=1000")["runs"]}
            filler.votes([runs["StarNet"], runs["Kamon"], runs["Inversion"]])
            study = filler.study([runs["StarNet"], runs["Kamon"], runs["Inversion"]])
            filler.summarised()
            reader, scorer = (key_of(program, keyed, *scopes) for scopes in (("read",), ("score",)))
            views = ["desktop", "dark", "phone", "plain"]
            url = lambda service: f"http://127.0.0.1:{service.port}"
            closed = [{"name": f"keyless-{named(path)}", "path": path, "status": 401} for path in EMPTY]
            services = [
                {"name": "data", "url": url(data), "views": views, "pages": pages_with_data(data, sample, HOSTILE[0], study)},
                {"name": "empty", "url": url(empty), "views": ["desktop", "phone"],
                 "pages": [{"name": named(path), "path": path} for path in EMPTY]},
                {"name": "keyless", "url": url(keyed), "views": ["desktop"], "pages": closed},
                {"name": "reader", "url": url(keyed), "views": ["desktop"], "key": reader,
                 "pages": [{"name": named(path), "path": path, "status": 403 if path == "/vote" else 200} for path in EMPTY]},
                {"name": "scorer", "url": url(keyed), "views": ["desktop"], "key": scorer,
                 "pages": [{"name": named(path), "path": path, "status": 200 if path == "/" else 403} for path in EMPTY]},
            ]
            if arguments.quick:
                for of in [*services, *(page for service in services for page in service["pages"] if "views" in page)]:
                    of["views"] = [view for view in of["views"] if view in ("desktop", "phone")]
            for service in services:
                service["pages"] = [page for page in service["pages"] if arguments.only in page["name"]]
            config = {
                "chromium": chromium, "modules": str(MODULES), "services": services, "runs": runs, "sample": sample, "study": study, "only": arguments.only,
                "goldens": str(ROOT / "packs/demo/goldens"),
                "screenshots": str(Path(arguments.screenshots).resolve()) if arguments.screenshots else None,
            }
            file = Path(work) / "config.json"
            file.write_text(json.dumps(config))
            ran = subprocess.run(["node", TESTS / "check.mjs", file], capture_output=True, text=True)
        finally:
            for service in (data, empty, keyed):
                service.kill()
        logs = [line for service in (data, empty, keyed) for line in service.log.read_text(errors="replace").splitlines()]
        errors = [line for line in logs if " ERROR " in line or "panicked" in line]
    if ran.returncode != 0 or errors:
        print(ran.stdout, ran.stderr, *errors, sep="\n")
        return 1
    print(ran.stdout.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
