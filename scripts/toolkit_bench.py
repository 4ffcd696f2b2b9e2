#!/usr/bin/env python3
"""Compares this service with the reference toolkit, stellar-gen-ai/stellar-metrics, on the same models and images.

    scripts/toolkit_setup.sh .runtime/toolkit CHECKOUT
    .runtime/toolkit/bin/python scripts/toolkit_bench.py --toolkit CHECKOUT --make demo            # a trial in two minutes
    .runtime/toolkit/bin/python scripts/toolkit_bench.py --toolkit CHECKOUT --make published --checkpoints ROOT --pack PACKS

The toolkit's metric classes run in one process, the service in another. They alternate round by round, on samples with new
files and prompts; --prompts samples share each photo. Every metric is measured alone, then all of --together in one
request, then faces. A ratio is the toolkit's seconds per sample divided by the service's; the table has the median of the
rounds' ratios. Loading and the first sample after it do not count on either side.

Reading the images counts on both sides: the toolkit's dataset class decodes the image of a sample and all photos of its
identity for every metric, even for those that do not use them. The table shows this part of its time.

ROOT has checkpoints, PACK is the pack made from them, or a folder of packs with some of the models each. --make writes
both with random weights if they are missing: in `demo` sizes, or in the `published` ones, which take 45 GB of disk, and for
bigG/14 17 GB of memory and an hour.

The largest difference of scores shows that both did the same work; above the tolerance the exit status is 1.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from service import FORM, Service, form
from toolkit_packs import DEFAULT_CLIP, make, view
from toolkit_samples import Samples, Sources

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Metric:
    """A unit that the toolkit computes together."""

    codes: tuple[str, ...]
    family: str
    """The exporter's name of its model."""
    roles: str
    """The role prefix of its graphs."""
    tolerance: float
    batch: int | None = None
    """The only batch size that gives the right score, or that the toolkit supports."""


# Tolerances are those of docs/METRICS.md, from file to score.
METRICS = {
    "dino": Metric(("dino",), "dino", "dino.", 1e-4),
    "aesthetic": Metric(("aesthetic",), "aesthetic", "clip_l.", 1e-3),
    "hpsv1": Metric(("hpsv1",), "hpsv1", "hpsv1.", 1e-4),
    "dreamsim": Metric(("dreamsim",), "dreamsim", "dreamsim.", 1e-4),
    # The toolkit computes it one by one.
    "image_reward": Metric(("image_reward",), "image_reward", "image_reward.", 1e-3, 1),
    "pick_score": Metric(("pick_score",), "pick_score", "pick.", 1e-4),
    "hpsv2": Metric(("hpsv2",), "hpsv2", "hpsv2.", 1e-4, 1),
    "ips": Metric(("ips",), "faces", "faces.", 5e-3, 1),
    "sis": Metric(("sis",), "faces", "faces.", 5e-3, 1),
    # For a whole run. The predictions are compared, and they are either equal or not.
    "aps": Metric(("aps",), "faces", "faces.", 0.0, 1),
    # In a batch, the words of other images compete for the patches of an image.
    "goa": Metric(("goa",), "owlvit", "owlvit.", 2e-3, 1),
    "clip": Metric(("clip_t", "clip_i", "clip_n"), "clip", "clip.", 1e-4),
}
FACES = ("ips", "sis")
# Batch sizes of the toolkit to try; the best one is used.
TRIED = (1, 4, 8)


class Failure(Exception):
    """An error that the user must fix."""


@dataclass
class Spent:
    """Seconds of one side in one round."""

    cpu: float = 0.0
    wall: float = 0.0
    read: float = 0.0
    """The part of `cpu` for reading images; known only for the toolkit."""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu + other.cpu, self.wall + other.wall, self.read + other.read)


Scores = dict[str, dict[str, float | None]]
"""By sample, then by metric."""


class Toolkit:
    """The reference toolkit in its own process."""

    def __init__(self, a: argparse.Namespace):
        self.a, self.process, self.loaded, self.batches = a, None, "", {}

    def start(self) -> None:
        a = self.a
        command = [sys.executable, ROOT / "scripts" / "toolkit_side.py", "--toolkit", a.toolkit, "--checkpoints", a.checkpoints]
        command += ["--clip", a.clip, "--threads", str(a.threads), "--device", a.device, "--dtype", a.dtype]
        command += ["--reload-hpsv2"] if a.reload_hpsv2 else []
        environment = os.environ | {
            # Spinning threads make PyTorch many times slower on shared cores.
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(a.threads),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # Deprecation warnings of the pinned packages would hide errors.
            "PYTHONWARNINGS": "ignore",
            "HPS_ROOT": str(a.scratch / "hpsv2"),
            "TORCH_HOME": str(a.checkpoints / "torch"),
        }
        self.log = (a.scratch / "toolkit.log").open("a")
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.response()

    def response(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Failure(f"the toolkit's process ended:\n{Path(self.log.name).read_text()[-4000:]}")
        return json.loads(line)

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.response()

    def load(self, metric: str, folder: Path) -> None:
        """Replaces the loaded metric, and scores the samples in `warm` with the new one."""
        if metric == self.loaded:
            return
        if self.process is None:
            self.start()
        self.ask(load=metric)
        self.loaded = metric
        self.ask(score=str(folder / "warm"), batch=1)
        if metric not in self.batches:
            self.batches[metric] = METRICS[metric].batch or self.a.batch or self.best_batch(folder / "tries")

    def best_batch(self, tries: Path) -> int:
        """Returns the batch size with the fewest CPU seconds on the samples in `tries`."""
        spent = {n: self.ask(score=str(tries), batch=n)["cpu"] for n in TRIED}
        return min(spent, key=spent.get)

    def score(self, metrics: list[str], samples: Path, folder: Path) -> tuple[Spent, Scores]:
        """Scores one metric after another, like the toolkit's command line. Warm-up samples are in `folder`."""
        spent, scores = Spent(), {}
        for metric in metrics:
            self.load(metric, folder)
            found = self.ask(score=str(samples), batch=self.batches[metric])
            spent += Spent(found["cpu"], found["wall"], found["read_cpu"])
            for name, values in found["scores"].items():
                scores.setdefault(name, {}).update(values)
        return spent, scores

    def stop(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.log.close()
        self.process, self.loaded = None, ""


class Ours:
    """The service in its own process, with a pack of only the graphs of the metrics."""

    def __init__(self, a: argparse.Namespace):
        self.a, self.service, self.started, self.runs = a, None, 0, 0

    def start(self, metrics: list[str], warm: list) -> None:
        if self.service is not None:
            return
        a = self.a
        self.started += 1
        folder = a.scratch / f"service-{self.started}"
        pack = view(a.pack, [METRICS[metric].roles for metric in metrics], a.views / f"view-{self.started}")
        settings = {
            "STELLAR_PACK": str(pack),
            "STELLAR_ENGINE__PROVIDER": a.device,
            # With large models on few cores, a batch may take minutes.
            "STELLAR_SERVER__DEADLINE_SECONDS": "3600",
        }
        self.service = Service(a.program, folder, settings=settings).start().ready(1800)
        self.metrics = ",".join(code for metric in metrics for code in METRICS[metric].codes)
        self.whole_run = metrics == ["aps"]
        self.process = psutil.Process(self.service.process.pid)
        self.score(warm)

    def score(self, samples: list) -> tuple[Spent, Scores]:
        extra = [] if self.whole_run else [("metrics", self.metrics)]
        forms = {sample.name: form([*sample.form(), *extra]) for sample in samples}
        before, started = self.cpu(), time.perf_counter()
        scores = self.run(forms) if self.whole_run else self.requests(forms)
        wall = time.perf_counter() - started
        time.sleep(0.1)  # include what it writes after a response
        return Spent(self.cpu() - before, wall), scores

    def requests(self, forms: dict[str, bytes]) -> Scores:
        """Sends each sample in its own request."""

        def ask(body: bytes) -> dict[str, float | None]:
            return {code: score["value"] for code, score in self.call("POST", "/v1/score", body, FORM)["scores"].items()}

        with ThreadPoolExecutor(self.a.at_once) as clients:
            return dict(zip(forms, clients.map(ask, forms.values()), strict=True))

    def run(self, forms: dict[str, bytes]) -> Scores:
        """Submits a run and returns the predicted attributes of its images."""
        self.runs += 1
        # The classifiers use the embeddings of ips.
        asked = dict(method="toolkit_bench", run=str(self.runs), metrics=["ips"])
        path = f"/v1/runs/{self.call('POST', '/v1/runs', json.dumps(asked))['run_id']}"
        with ThreadPoolExecutor(self.a.at_once) as clients:
            list(clients.map(lambda item: self.call("PUT", f"{path}/samples/{item[0]}", item[1], FORM), forms.items()))
        self.call("POST", f"{path}/finish")
        while self.call("GET", path)["state"] != "finished":
            time.sleep(0.05)
        judged = self.call("GET", f"{path}/attributes?limit={len(forms)}")["samples"]
        sign = lambda each: None if each.get("prediction") is None else 1.0 if each["prediction"] else -1.0
        return {s["name"]: {f"aps {each['attribute']}": sign(each) for each in s["predictions"]} for s in judged}

    def call(self, method: str, path: str, body=None, kind: str = "application/json"):
        status, text, _ = self.service.call(method, path, body, kind, timeout=3600)
        if status not in (200, 201, 202):
            raise Failure(f"{method} {path}: the service returned {status}: {text.decode(errors='replace')[:2000]}")
        return json.loads(text)

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        if self.service is not None:
            self.service.stop()
        self.service = None


@dataclass
class Round:
    toolkit: Spent
    service: Spent
    samples: int


@dataclass
class Case:
    """Metrics that are measured together."""

    name: str
    metrics: list[str]
    identities: int
    prompts: int
    known: bool = False
    """True if the service has seen the photos before the first round."""
    rounds: list[Round] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    unequal: list[str] = field(default_factory=list)
    """Samples for which one side has no score."""

    def ratios(self, what: str) -> list[float]:
        return [getattr(r.toolkit, what) / max(getattr(r.service, what), 1e-9) for r in self.rounds]

    def quickest(self, what: str) -> float:
        """The ratio of the fastest rounds of both sides: all rounds do the same work, and other load only adds time."""
        least = lambda side: min(getattr(getattr(r, side), what) / r.samples for r in self.rounds)
        return least("toolkit") / max(least("service"), 1e-9)

    def compare(self, theirs: Scores, ours: Scores) -> None:
        for name, values in theirs.items():
            for code, value in values.items():
                own = ours[name].get(code)
                if own is None or value != value:
                    self.unequal.append(f"{name} {code}: toolkit {value}, service {own}")
                else:
                    self.differences[code] = max(self.differences.get(code, 0.0), abs(value - own))

    def beyond(self) -> list[str]:
        """Metrics whose scores differ by more than their tolerance."""
        allowed = {code: METRICS[metric].tolerance for metric in self.metrics for code in METRICS[metric].codes}
        return [code for code, found in self.differences.items() if not found <= allowed[code.split()[0]]]

    def row(self) -> str:
        n = sum(r.samples for r in self.rounds)
        mean = lambda side, what: sum(getattr(getattr(r, side), what) for r in self.rounds) / n
        each = lambda what: " ".join(f"{ratio:.1f}" for ratio in self.ratios(what))
        share = mean("toolkit", "read") / max(mean("toolkit", "cpu"), 1e-9)
        worst = max(self.differences.values(), default=float("nan"))
        batch = "/".join(str(n) for n in sorted(set(self.batches.values())))
        return (
            f"| {self.name} | {len(self.rounds)} × {self.rounds[0].samples} | {batch} | {mean('toolkit', 'cpu'):.2f} | {100 * share:.0f} % "
            f"| {mean('service', 'cpu'):.2f} | **{statistics.median(self.ratios('cpu')):.1f}** ({each('cpu')}) | {self.quickest('cpu'):.1f} "
            f"| {mean('toolkit', 'wall'):.2f} | {mean('service', 'wall'):.2f} | {statistics.median(self.ratios('wall')):.1f} | {worst:.0e} |"
        )


HEAD = (
    "| metric | rounds × samples | toolkit's batch | toolkit, processor s | of it reading | service, processor s | ratio, median (rounds) | of the quickest rounds "
    "| toolkit, wall s | service, wall s | wall ratio | scores within |\n"
    "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|"
)


def measure(case: Case, a: argparse.Namespace, sources: Sources, toolkit: Toolkit, ours: Ours) -> None:
    samples = Samples(sources, case.identities, case.prompts, a.photos, a.side)
    apart = a.apart & set(case.metrics)
    with tempfile.TemporaryDirectory(dir=a.scratch) as folder:
        folder = Path(folder)
        # aps needs two identities: it cannot learn from one.
        warm = Samples(sources, 2 if case.metrics == ["aps"] else 1, 1, a.photos, a.side).make(folder / "warm", "warm")
        if not a.batch and any(METRICS[metric].batch is None for metric in case.metrics):
            Samples(sources, 1, max(TRIED), a.photos, a.side).make(folder / "tries", "tries")

        def theirs(at: int):
            found = toolkit.score(case.metrics, folder / str(at), folder)
            if apart:
                toolkit.stop()
            return found

        def mine(at: int, these):
            ours.start(case.metrics, warm)
            if case.known and at == 0:
                ours.score(samples.make(folder / "seen", "seen", "known"))
            found = ours.score(these)
            if apart:
                ours.stop()
            return found

        try:
            for at in range(a.rounds):
                these = samples.make(folder / str(at), f"round {at}", "known" if case.known else None)
                # The order alternates, so that neither side always runs after the other.
                if at % 2:
                    (service, own), (reference, expected) = mine(at, these), theirs(at)
                else:
                    (reference, expected), (service, own) = theirs(at), mine(at, these)
                case.compare(expected, own)
                case.rounds.append(Round(reference, service, len(these)))
                print(
                    f"{case.name}, round {at + 1}: toolkit {reference.cpu:.2f} s, service {service.cpu:.2f} s, "
                    f"ratio {reference.cpu / max(service.cpu, 1e-9):.2f} ({len(these)} samples)",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            ours.stop()
    case.batches = {metric: toolkit.batches[metric] for metric in case.metrics}


def cases_of(a: argparse.Namespace) -> list[Case]:
    prompts = lambda metric: a.prompts_of.get(metric, a.prompts)
    people = lambda metric: max(a.identities, 2) if metric == "aps" else a.identities  # that differ in an attribute
    cases = [Case(metric, [metric], people(metric), prompts(metric)) for metric in a.metrics] if "alone" in a.cases else []
    if "together" in a.cases and a.together:
        named = f"together: {', '.join(a.together)}" if set(a.together) != set(METRICS) - {"aps"} else "all together"
        cases.append(Case(named, a.together, a.identities, min(map(prompts, a.together))))
    if "faces" in a.cases:
        n = a.identities * a.prompts
        cases.append(Case("ips and sis, every photo new", list(FACES), n, 1))
        cases.append(Case(f"ips and sis, a photo new every {a.prompts} samples", list(FACES), a.identities, a.prompts))
        cases.append(Case("ips and sis, photos known", list(FACES), a.identities, a.prompts, known=True))
    return cases


def total(cases: list[Case]) -> str:
    """The sum over the metrics that were measured alone, in seconds per sample."""
    rounds = []
    for at in range(min(len(case.rounds) for case in cases)):
        of = [case.rounds[at] for case in cases]
        rounds.append([sum(getattr(getattr(r, side), what) / r.samples for r in of) for side in ("toolkit", "service") for what in ("cpu", "wall")])
    cpu, wall = [r[0] / r[2] for r in rounds], [r[1] / r[3] for r in rounds]
    mean = [statistics.mean(column) for column in zip(*rounds, strict=True)]
    each = " ".join(f"{ratio:.1f}" for ratio in cpu)
    lowest = [min(column) for column in zip(*rounds, strict=True)]
    least = lowest[0] / lowest[2]
    return (
        f"| sum of the {len(cases)} above | {len(rounds)} | | {mean[0]:.2f} | | {mean[2]:.2f} | **{statistics.median(cpu):.1f}** ({each}) | {least:.1f} "
        f"| {mean[1]:.2f} | {mean[3]:.2f} | {statistics.median(wall):.1f} | |"
    )


def report(cases: list[Case], a: argparse.Namespace) -> int:
    """Prints the table and returns the exit status."""
    alone = [case for case in cases if len(case.metrics) == 1]
    print(HEAD)
    for case in alone:
        print(case.row())
    if len(alone) > 1:
        print(total(alone))
    for case in cases:
        if len(case.metrics) > 1:
            print(case.row())
    print(f"\n{a.threads} threads, {a.device}, toolkit in {a.dtype}, images of {', '.join(f'{side}²' for side in a.side)}.")
    status = 0
    for case in cases:
        for line in case.unequal[:3]:
            print(f"{case.name}: only one side has a score for {len(case.unequal)} samples, such as {line}", file=sys.stderr)
        if a.dtype == "fp32" and (case.beyond() or case.unequal):
            print(f"{case.name}: scores differ: {case.differences}", file=sys.stderr)
            status = 1
    return status


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: [name for name in text.split(",") if name]
    parser.add_argument("--toolkit", type=Path, required=True, help="checkout of stellar-gen-ai/stellar-metrics")
    parser.add_argument("--checkpoints", type=Path, help="folder of checkpoints (default with --make: a temporary one)")
    parser.add_argument("--pack", type=Path, help="pack, or folder of packs (default with --make: a temporary one)")
    parser.add_argument("--make", choices=("demo", "published"), help="make missing checkpoints and packs, with random weights of these sizes")
    parser.add_argument("--metrics", type=names, default=list(METRICS), help=f"of: {','.join(METRICS)} (default: all)")
    parser.add_argument("--together", type=names, help="metrics of the case `together` (default: --metrics)")
    parser.add_argument("--cases", type=names, default=["alone", "together", "faces"], help="of: alone,together,faces (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--identities", type=int, default=1, help="identities per round (default: 1)")
    parser.add_argument("--prompts", type=int, default=10, help="samples per identity (default: 10)")
    parser.add_argument("--prompts-of", type=names, default=[], metavar="METRIC=N,…", help="other numbers, for slow metrics")
    parser.add_argument("--photos", type=int, default=3, help="photos per identity, including the reference (default: 3)")
    parser.add_argument("--side", type=names, default=["512", "768", "1024"], help="sides of the images, in turn (default: 512,768,1024)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores per side (default: all)")
    parser.add_argument("--batch", type=int, default=0, help="the toolkit's batch size (default: the best of 1, 4 and 8, measured)")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="the toolkit's precision for clip, aesthetic, dino and goa; its command line uses fp16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--at-once", type=int, default=8, help="requests in flight (default: 8)")
    parser.add_argument("--apart", type=names, default=[], help="metrics whose model is in memory on only one side at a time")
    parser.add_argument("--reload-hpsv2", action="store_true", help="include hpsv2's repeated reading of its checkpoint for every image")
    parser.add_argument("--clip", default=DEFAULT_CLIP, help="hub id of the CLIP of clip_t, clip_i and clip_n")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/stellar-score")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    a = parser.parse_args()
    check(a, parser)
    return a


def check(a: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses invalid arguments, and converts the others into the form that the program uses."""
    if a.together is None:
        a.together = [metric for metric in a.metrics if metric != "aps"]
    if "aps" in a.together:
        parser.error("--together: aps is of a whole run, not of a request")
    a.apart = set(a.apart)
    try:
        a.prompts_of = {name: int(n) for name, n in (word.split("=") for word in a.prompts_of)}
        a.side = [int(side) for side in a.side]
    except ValueError:
        parser.error("--prompts-of takes METRIC=N,…, --side takes numbers")
    if unknown := ({*a.metrics, *a.together, *a.apart, *a.prompts_of} - set(METRICS)):
        parser.error(f"unknown metrics {', '.join(sorted(unknown))}; known are {', '.join(METRICS)}")
    if unknown := set(a.cases) - {"alone", "together", "faces"}:
        parser.error(f"--cases: unknown {', '.join(sorted(unknown))}")
    if not (a.toolkit / "src" / "stellar_metrics").is_dir():
        parser.error(f"--toolkit: {a.toolkit} has no src/stellar_metrics: name a checkout of stellar-gen-ai/stellar-metrics")
    if not a.program.is_file():
        parser.error(f"{a.program} is missing: cargo build --release, or name it with --program")
    if not a.make and not (a.checkpoints and a.pack):
        parser.error("--checkpoints and --pack are needed, or --make")
    for name in ("checkpoints", "pack"):
        path = getattr(a, name)
        if path and not a.make and not path.is_dir():
            parser.error(f"--{name}: {path} is not a folder; --make demo or --make published writes one")
    if not 1 <= a.threads <= len(os.sched_getaffinity(0)):
        parser.error(f"--threads: this process may use {len(os.sched_getaffinity(0))} cores")
    if a.rounds < 1 or a.identities < 1 or a.prompts < 1 or a.photos < 1:
        parser.error("--rounds, --identities, --prompts and --photos are at least 1")


def main() -> int:
    a = arguments()
    # Ends like any error, which stops both sides.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    a.toolkit = a.toolkit.resolve()
    # Both sides inherit the affinity and choose their threads by it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as scratch:
        a.scratch = Path(scratch)
        a.checkpoints = (a.checkpoints or a.scratch / "checkpoints").resolve()
        a.pack = (a.pack or a.scratch / "packs").resolve()
        cases = cases_of(a)
        used = list(dict.fromkeys(metric for case in cases for metric in case.metrics))
        if a.make:
            make(a.make, list(dict.fromkeys(METRICS[metric].family for metric in used)), a.checkpoints, a.pack, a.clip)
        # In the folder of the packs, so that files can be linked.
        with tempfile.TemporaryDirectory(prefix=".toolkit-bench-", dir=a.pack.parent) as views:
            a.views = Path(views)
            toolkit, ours = Toolkit(a), Ours(a)
            try:
                sources = Sources.of(a.toolkit)
                for case in cases:
                    measure(case, a, sources, toolkit, ours)
                    if a.json:
                        a.json.write_text(json.dumps([asdict(c) for c in cases if c.rounds], indent=1) + "\n")
            except (Failure, FileNotFoundError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            finally:
                toolkit.stop()
        return report(cases, a)


if __name__ == "__main__":
    sys.exit(main())
