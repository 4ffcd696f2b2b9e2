#!/usr/bin/env python3
"""Compares reports with `policy=toolkit` to the analysis of the reference toolkit.

    python3.11 -m venv .runtime/analysis
    .runtime/analysis/bin/pip install pandas==2.1.4 'numpy<2' scikit-learn==1.3.2 tabulate
    .runtime/analysis/bin/python scripts/analysis_fixtures.py --toolkit STELLAR_METRICS goldens
    .runtime/analysis/bin/python scripts/analysis_fixtures.py --toolkit STELLAR_METRICS compare SAVE_DIR http://127.0.0.1:8080

STELLAR_METRICS is a checkout of the toolkit. With pandas 3 its attribute penalty has no effect, hence the pinned version.

`goldens` writes tests/data/analysis/toolkit.json: 20 random result sets with penalised samples, and the toolkit's table of
each. Seeds are fixed: the same versions always write the same file.

`compare` imports the CSV files of a folder, such as the toolkit's tests/assets/save_dir, into a new run of a running
service, finishes the run and compares the report with the toolkit's table. The toolkit's files have a research licence, so
they are not in this repository.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys
import tempfile
import time
import types
import urllib.request
import warnings

import numpy as np

OUT = pathlib.Path(__file__).parent.parent / "tests/data/analysis/toolkit.json"
ATTRIBUTES = ["Young", "Male", "High_Cheekbones", "Pointy_Nose", "Narrow_Eyes", "Double_Chin", "Big_Lips", "Big_Nose"]
# Our metric codes for the toolkit's rows.
CODES = {
    "attr": "aps",
    "object_faithfulness": "goa",
    "clip_t": "clip_t",
    "clip_n": "clip_n",
    "clip_i": "clip_i",
    "aesthetic_score": "aesthetic",
    "pick_score": "pick_score",
    "image_reward": "image_reward",
    "human_preference_score_v1": "hpsv1",
    "human_preference_score_v2": "hpsv2",
    "dino_fidelity": "dino",
    "dreamsim_distance": "dreamsim",
    "identity_preservation": "ips",
    "identity_stability": "sis",
}
FILES = {
    "clip_random": ["clip_t", "clip_n", "clip_i"],
    "identity_preservation": ["identity_preservation"],
    "identity_stability": ["identity_stability"],
    "object_faithfulness": ["object_faithfulness"],
    "dino": ["dino_fidelity"],
    "dreamsim": ["dreamsim_distance"],
    "human_preference_score": ["human_preference_score_v1", "human_preference_score_v2"],
}


def toolkit(checkout):
    """Loads the toolkit's analysis without the models, which an import of the package would load."""
    package = types.ModuleType("stellar_metrics")
    package.__path__ = [str(pathlib.Path(checkout) / "src/stellar_metrics")]
    sys.modules["stellar_metrics"] = package
    from stellar_metrics.analysis.__main__ import make_table

    return make_table


def table(make_table, folder):
    """Returns the toolkit's numbers by our codes: [mean, std]."""
    with warnings.catch_warnings():
        # The attribute penalty assigns to a view; pandas 2 does this, with a warning.
        warnings.simplefilter("ignore")
        rows = make_table(folder, save=False)
    number = lambda value: None if np.isnan(value) else float(value)
    return {CODES[name]: [number(row["value"]), number(row["std"])] for name, row in rows.iterrows()}


def random_set(seed):
    """A result set of several identities in which some samples miss their prompt: columns by file."""
    rng = np.random.default_rng(seed)
    identities, prompts = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    names = [f"{identity:03}-{photo}-{prompt:02}" for identity in range(identities) for photo in (0, 1)
             for prompt in range(prompts)]
    size = len(names)
    noise = lambda mean, std: np.round(rng.normal(mean, std, size), 4).tolist()
    # About a third of the samples are below clip_n + 2 std.
    clip_n = np.array(noise(0.2, 0.04))
    clip_t = np.round(clip_n + rng.normal(0.12, 0.1, size), 4)
    values = {"clip_t": clip_t.tolist(), "clip_n": clip_n.tolist(), "clip_i": noise(0.5, 0.1),
              "identity_preservation": noise(0.2, 0.3), "identity_stability": noise(0.1, 0.3),
              "object_faithfulness": noise(0.3, 0.1), "dino_fidelity": noise(0.5, 0.1),
              "dreamsim_distance": noise(0.4, 0.1), "human_preference_score_v1": noise(0.2, 0.02),
              "human_preference_score_v2": noise(0.27, 0.02)}
    files = {name: {column: values[column] for column in columns} for name, columns in FILES.items()
             # Not every run has every metric.
             if name in ("clip_random", "identity_preservation", "identity_stability") or rng.random() < 0.7}
    # Labels belong to the identity; some attributes are constant and do not count.
    owner = [int(name[:3]) for name in names]
    attributes = {}
    for attribute in rng.choice(ATTRIBUTES, size=int(rng.integers(2, 9)), replace=False).tolist():
        labels = rng.choice([-1, 1], size=identities, p=[0.4, 0.6])
        target = [int(labels[identity]) for identity in owner]
        attributes[f"{attribute}_target"] = target
        attributes[f"{attribute}_pred"] = [int(t * s) for t, s in zip(target, rng.choice([-1, 1], size, p=[0.25, 0.75]))]
    if rng.random() < 0.9:
        files["attribute_preservation_syn"] = attributes
    # The order of rows may differ between files.
    orders = {name: rng.permutation(size).tolist() for name in files}
    return {"names": names, "files": files, "orders": orders}


def csv(results, file):
    columns = results["files"][file]
    lines = [",".join(["", "name", *columns])]
    for index, at in enumerate(results["orders"][file]):
        lines.append(",".join([str(index), results["names"][at], *(str(values[at]) for values in columns.values())]))
    return "\n".join(lines) + "\n"


def goldens(make_table):
    sets, seed = [], 0
    while len(sets) < 20:
        seed += 1
        results = random_set(seed)
        with tempfile.TemporaryDirectory() as folder:
            for file in results["files"]:
                (pathlib.Path(folder) / f"{file}.csv").write_text(csv(results, file))
            expected = table(make_table, pathlib.Path(folder))
            from stellar_metrics.analysis.utils import parse_exclusion

            excluded = int((~parse_exclusion(pathlib.Path(folder))).sum())
        # If every attribute is constant, the toolkit averages over nothing.
        if excluded == 0 or ("aps" in expected and expected["aps"][0] is None):
            continue
        sets.append({"seed": seed, **results, "excluded": excluded, "expected": expected})
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pandas", "scikit-learn")}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"versions": versions, "sets": sets}, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(sets)} sets, excluded {[results['excluded'] for results in sets]}")


def ask(method, url, body=None, media_type="application/json"):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": media_type})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def compare(make_table, folder, server):
    expected = table(make_table, folder)
    run = ask("POST", f"{server}/v1/runs", {"method": "toolkit-comparison", "run": str(time.time_ns())})["run_id"]
    for path in sorted(folder.glob("*.csv")):
        ask("POST", f"{server}/v1/runs/{run}/import?source=toolkit&file={path.name}", path.read_bytes(), "text/csv")
    ask("POST", f"{server}/v1/runs/{run}/finish", {})
    while ask("GET", f"{server}/v1/runs/{run}")["state"] != "finished":
        time.sleep(0.1)
    report = ask("GET", f"{server}/v1/runs/{run}/report?policy=toolkit")
    ours = {row["metric"]: [row["mean"], row["std"]] for row in report["rows"]}
    worst = 0.0
    for code, numbers in expected.items():
        for kind, theirs, mine in zip(("mean", "std"), numbers, ours.pop(code, [None, None])):
            difference = 0.0 if theirs is None and mine is None else abs((theirs or 0) - (mine or 0))
            if (theirs is None) != (mine is None):
                difference = float("inf")
            worst = max(worst, difference)
            print(f"{code:16} {kind:4} toolkit {theirs} ours {mine} difference {difference:.2e}")
    print(f"penalised {report['penalised']} of {report['samples']}; only ours: {sorted(ours)}; largest difference {worst:.2e}")
    sys.exit(0 if worst <= 1e-6 and not ours else 1)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--toolkit", required=True, help="a checkout of the reference toolkit")
    commands = arguments.add_subparsers(dest="command", required=True)
    commands.add_parser("goldens")
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder", type=pathlib.Path)
    comparing.add_argument("server")
    given = arguments.parse_args()
    if given.command == "goldens":
        goldens(toolkit(given.toolkit))
    else:
        compare(toolkit(given.toolkit), given.folder, given.server)
