"""The leaderboard of generator_demo.py, and how well identity metrics tell the right person from somebody else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from service import FORM, Service, form, without_settings
from stellar_score.dataset import Dataset, Job

IDENTITY = ("ips", "clip_i", "dino", "dreamsim")
# The lower the better.
DISTANCES = ("dreamsim",)
SHOWN = ("ips", "clip_i", "dino", "dreamsim", "clip_t", "goa")


def submit(service: Service, method: str, images: Path, dataset: Path, on_photos: bool) -> None:
    """Submits a folder of images as `stellar-score submit` does for a user."""
    command = [service.program, "submit", "--method", method, "--images", images, "--dataset", dataset]
    command += ["--server", f"http://127.0.0.1:{service.port}", "--metrics", ",".join((*SHOWN, "clip_n"))]
    if on_photos:
        command.append("--trained-on-evaluation-photos")
    print(f"   stellar-score submit --method {method} …", flush=True)
    subprocess.run(command, env=without_settings(), check=True, stdout=subprocess.DEVNULL)


def leaderboard(service: Service) -> dict[str, dict[str, float | None]]:
    """Mean of each metric by method, as measured: the penalty for images that miss their prompt is left out."""
    rows = service.get(f"/v1/leaderboard?policy=none&metrics={','.join(SHOWN)}")["rows"]
    return {row["method"]: {code: of.get("mean") for code, of in row["metrics"].items()} for row in rows}


def areas(service: Service, dataset: Path, folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """By method: AUC of each identity metric, images in which a face was found, and the number of images."""
    return {method: _areas(service, Dataset(dataset, folder, "first")) for method, folder in folders.items()}


def _areas(service: Service, dataset: Dataset) -> dict[str, Any]:
    jobs = [job for job in dataset.all_jobs() if job.kind == "T"]
    people = sorted({job.identity for job in jobs})
    photos = {job.identity: job.photo for job in jobs}
    right: dict[str, list[float]] = {code: [] for code in IDENTITY}
    wrong: dict[str, list[float]] = {code: [] for code in IDENTITY}
    faces = 0
    for number, job in enumerate(jobs):
        # Somebody else, who differs from image to image.
        away = 1 + number % (len(people) - 1)
        other = people[(people.index(job.identity) + away) % len(people)]
        own = _score(service, dataset, job, job.photo)
        faces += "no_face_in_image" not in own["ips"].get("flags", [])
        for scores, lists in ((own, right), (_score(service, dataset, job, photos[other]), wrong)):
            for code in IDENTITY:
                if (value := scores[code]["value"]) is not None:
                    lists[code].append(value)
    for code in DISTANCES:
        right[code], wrong[code] = wrong[code], right[code]
    found = {code: area(right[code], wrong[code]) for code in IDENTITY}
    return {"auc": found, "faces": faces, "images": len(jobs)}


def _score(service: Service, dataset: Dataset, job: Job, photo: Path) -> dict[str, Any]:
    image = (dataset.out / f"{job.name}.png").read_bytes()
    body = form([("image", image), ("reference", photo.read_bytes()), ("metrics", ",".join(IDENTITY))])
    status, text, _ = service.call("POST", "/v1/score", body, FORM)
    if status != 200:
        sys.exit(f"{job.name}: {status} {text[:500]!r}")
    return json.loads(text)["scores"]


def area(right: list[float], wrong: list[float]) -> float | None:
    """Area under the ROC curve of right against wrong scores; ties count half. None without scores."""
    if not right or not wrong:
        return None
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None, :]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def print_table(board: dict[str, dict], found: dict[str, dict], methods: tuple[str, ...]) -> None:
    """Prints both tables in Markdown."""

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    print("\nLeaderboard of the demo pack, means\n")
    print(f"| method | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for method in methods:
        print(f"| {method} | {' | '.join(cell(board.get(method, {}).get(code)) for code in SHOWN)} |")
    print("\nRight person's photo against another person's, area under the ROC curve\n")
    print(f"| method | {' | '.join(IDENTITY)} | faces found |\n|---|{'---|' * (len(IDENTITY) + 1)}")
    for method in methods:
        of = found[method]
        cells = " | ".join(cell(of["auc"][code]) for code in IDENTITY)
        print(f"| {method} | {cells} | {of['faces']} of {of['images']} |")
    print()
