#!/usr/bin/env python3
"""Trains five generators on drawings, generates the same dataset with each, and scores the images with the demo pack.

    make generator-demo
    .runtime/export/bin/python scripts/generator_demo.py [--work target/generator-demo] [--small]
        [--program target/release/stellar-score] [--drawings FOLDER]

Drawings → a benchmark of a few people and training data of everyone else → a tiny SDXL and a tiny Stable Diffusion 1.x
→ StellarNet-like, the same without training, ELITE-like, Textual Inversion and DreamBooth → packs → images → a service
→ its leaderboard. At the end, each image is scored against the photo it was made from and against the photo of somebody
else: the area under the ROC curve says how well identity metrics tell the two apart. Needs the exporter's environment
(`make export-setup`).

A step that is done is not done again. `--small` proves in a few minutes that everything runs, and learns nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "export"), str(ROOT / "python" / "src")]

from generator_demo_data import captions, keep_people, mask_model, overlap, tiny_base, without_masks  # noqa: E402
from generator_demo_scores import areas, leaderboard, print_table, submit  # noqa: E402
from service import Service, without_settings  # noqa: E402


@dataclass(frozen=True)
class Sizes:
    """How much of everything. People of the download are divided into those evaluated and those trained on."""

    side: int = 128
    drawn_people: int = 160
    pictures: int = 1600
    people: int = 200
    evaluated: int = 12
    prompts: int = 8  # for each person; half of them are of kind T, which are used
    vae_steps: int = 4000
    base_steps: int = 5000
    stellarnet_steps: int = 2000
    personal_steps: int = 100
    mask_steps: int = 300
    denoising_steps: int = 20
    guidance: float = 3.0


SMALL = Sizes(
    side=64,
    drawn_people=4,
    pictures=24,
    people=12,
    evaluated=3,
    prompts=2,
    vae_steps=2,
    base_steps=4,
    stellarnet_steps=4,
    personal_steps=2,
    mask_steps=2,
    denoising_steps=2,
)

TRAINED, UNTRAINED, ELITE = "stellarnet-like", "stellarnet-untrained", "elite-like"
# The file of the segmentation model.
MASKS = "masks.onnx"
# The folders of the tiny bases, trained.
XL, SD = "base", "base-sd"
INVERSION, DREAMBOOTH = "textual-inversion", "dreambooth"
# The trained StellarNet again: with the masks that its pack makes, and with whole photos.
MADE, WHOLE = f"{TRAINED}-made-masks", f"{TRAINED}-no-masks"
# The pack of the base alone, for learned words.
PLAIN = "sdxl"


class Demo:
    """The steps in their order. Each writes below `work` and leaves a mark when it is done."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work.resolve()
        self.program: Path = arguments.program.resolve()
        self.drawings: Path = (arguments.drawings or self.work / "drawings").resolve()
        self.sizes = SMALL if arguments.small else Sizes()
        self.methods = (TRAINED, MADE, WHOLE, UNTRAINED, ELITE, INVERSION, DREAMBOOTH)
        self.total = 0.0

    def run(self) -> None:
        if not self.program.is_file():
            sys.exit(f"{self.program} is not there: build it with `make build`, or give --program")
        self.refuse_other_sizes()
        if not (self.drawings / "train.jsonl").is_file() and self.drawings != self.work / "drawings":
            sys.exit(f"{self.drawings} has no train.jsonl: leave --drawings out to make drawings")
        steps: list[tuple[str, Callable[[], None]]] = [
            ("drawings", self.draw),
            ("dataset and training data", self.dataset),
            ("base", lambda: self.base(XL)),
            (TRAINED, lambda: self.stellarnet(TRAINED, self.sizes.stellarnet_steps)),
            (UNTRAINED, lambda: self.stellarnet(UNTRAINED, 0)),
            (INVERSION, self.inversion),
            (DREAMBOOTH, self.dreambooth),
            ("mask model", lambda: mask_model(self.work / "training", self.work / MASKS, self.sizes.mask_steps)),
            *((f"pack of {name}", lambda name=name: self.pack(name)) for name in (TRAINED, UNTRAINED, PLAIN)),
            ("masks", self.masks),
            *((f"images of {name}", lambda name=name: self.generate(name)) for name in (TRAINED, UNTRAINED)),
            (f"images of {MADE}", lambda: self.generate(MADE, dataset="unmasked")),
            (f"images of {WHOLE}", lambda: self.generate(WHOLE, "--no-masks")),
            (f"images of {INVERSION}", lambda: self.generate(INVERSION, "--words", self.work / INVERSION)),
            ("base of Stable Diffusion 1.x", lambda: self.base(SD)),
            (ELITE, self.elite),
            (f"images of {ELITE}", self.elite_images),
        ]
        for name, step in steps:
            self.step(name, step)
        self.score()
        print(f"all steps of this run: {self.total:.0f} s")

    def refuse_other_sizes(self) -> None:
        path, wanted = self.work / "sizes.json", asdict(self.sizes)
        if path.is_file() and json.loads(path.read_text()) != wanted:
            sys.exit(f"{self.work} was begun with other sizes: give another --work, or delete it")
        self.work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted, indent=1) + "\n")

    def step(self, name: str, work: Callable[[], None]) -> None:
        mark = self.work / "done" / name.replace(" ", "-")
        if mark.is_file():
            print(f"== {name}: done before, in {mark.read_text().strip()}", flush=True)
            return
        print(f"== {name}", flush=True)
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        self.total += seconds
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(f"{seconds:.0f} s\n")
        print(f"== {name}: {seconds:.0f} s", flush=True)

    # ---- the commands

    def call(self, *command: object, cwd: Path = ROOT) -> None:
        """Runs a command with one thread for PyTorch; ends the demo if it fails."""
        words = [str(word) for word in command]
        environment = without_settings() | {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path[1:3])
        shown = " ".join(Path(word).name if word.startswith("/") else word for word in words)
        print(f"   {shown}", flush=True)
        status = subprocess.run(words, cwd=cwd, env=environment).returncode
        if status:
            sys.exit(f"failed with status {status}: {shown}\nRepeat the command to go on from here.")

    def stellar(self, *arguments: object) -> None:
        self.call(self.program, *arguments)

    def python(self, module: str, *arguments: object) -> None:
        self.call(sys.executable, "-W", "ignore", "-m", module, *arguments, cwd=ROOT / "export")

    def train(self, method: str, out: str, base: str, data: Path, *options: object, **settings: object) -> None:
        pairs = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in settings.items()]
        given = [part for pair in pairs for part in ("--set", pair)]
        place = ("--base", self.work / base, "--data", data, "--out", self.work / out)
        self.python("stellar_train", method, *place, "--quiet", *options, *given)

    # ---- the steps

    def draw(self) -> None:
        if self.drawings != self.work / "drawings":
            return
        example = ("cargo", "run", "--quiet", "--locked", "-p", "stellar-drawings", "--example", "drawings", "--")
        self.call(*example, self.drawings, self.sizes.drawn_people, 1)

    def dataset(self) -> None:
        world, sizes = self.work / "world", self.sizes
        shutil.rmtree(world, ignore_errors=True)
        people = ("--identities", sizes.people, "--prompts", sizes.prompts)
        self.stellar("dataset", "synthesize", "--out", world, *people)
        keep_people(world / "prompts", sizes.evaluated)
        folders = ("--download", world / "download", "--prompts", world / "prompts")
        out = ("--out", self.work / "dataset", "--training", self.work / "training")
        self.stellar("dataset", "prepare", *folders, *out)

    def base(self, name: str) -> None:
        sizes, pictures = self.sizes, self.work / "captions"
        tiny = self.work / ("tiny" if name == XL else "tiny-sd")
        shutil.rmtree(tiny, ignore_errors=True)
        tiny_base(tiny, sizes.side, name == XL)
        if name == SD:
            # The same pictures, so the same latents.
            shutil.rmtree(tiny / "vae")
            shutil.copytree(self.work / XL / "vae", tiny / "vae")
        captions(self.drawings, pictures, sizes.pictures)
        self.train(
            "base", name, tiny.name, pictures,
            data__resolution=sizes.side, vae__steps=sizes.vae_steps if name == XL else 0, vae__rate=2e-3,
            training__steps=sizes.base_steps, training__decay=sizes.base_steps // 4, training__batch=24,
            training__device="cpu",
        )  # fmt: skip

    def stellarnet(self, name: str, steps: int) -> None:
        """With 0 steps one at a rate of 0: the mapper as it is initialised, and a LoRA that changes nothing."""
        rate = 1e-3 if steps else 0.0
        self.from_photos(
            "stellarnet", name, XL, max(steps, 1), model__lora_rank=8, model__lora_alpha=8.0,
            training__mapper_rate=rate, training__lora_rate=rate,
        )  # fmt: skip

    def elite(self) -> None:
        self.from_photos("elite", ELITE, SD, self.sizes.stellarnet_steps, training__rate=1e-3, training__accumulate=1)

    def from_photos(self, method: str, name: str, base: str, steps: int, **settings: object) -> None:
        """Trains a mapper on the people who are not in the benchmark, and prints its losses on held-out ones."""
        self.train(
            method, name, base, self.work / "training",
            data__resolution=self.sizes.side, data__features="cached", data__augment=False,
            data__held_out=min(8, self.sizes.people // 4), data__cache=str(self.work / "cache"),
            # The colours of a picture are decided early. Losses of this world are small: next to them, the usual
            # regularisation of 0.01 holds the words at zero.
            loss__timesteps=[500, 1000], loss__regularisation=3e-4, model__hidden=128,
            training__steps=steps, training__decay=steps // 4, training__batch=16, training__device="cpu",
            output__validate_every=max(steps // 4, 1), output__validation_steps=0, **settings,
        )  # fmt: skip
        lines = (self.work / name / "metrics.jsonl").read_text().splitlines()
        for line in (line for line in lines if "swapped" in line):
            print(f"   {line}")

    def personal(self, method: str, **settings: object) -> None:
        self.train(
            method, method, XL, self.work / "dataset",
            data__photos="first", data__resolution=self.sizes.side,
            training__steps=self.sizes.personal_steps, training__batch=4, training__accumulate=1,
            training__device="cpu", **settings,
        )  # fmt: skip

    def inversion(self) -> None:
        self.personal(INVERSION, model__words=5, training__rate=1e-2)

    def dreambooth(self) -> None:
        out = str(self.images(DREAMBOOTH))
        self.personal(DREAMBOOTH, training__rate=1e-3, generation__out=out, **self.generation())

    def elite_images(self) -> None:
        checkpoint = ("--checkpoint", self.work / ELITE)
        settings = {"data__photos": "first", "generation__device": "cpu", **self.generation()}
        self.train("images", f"images/{ELITE}", SD, self.work / "dataset", *checkpoint, **settings)

    def generation(self) -> dict[str, object]:
        """Settings of images that stellar_train generates."""
        sizes = self.sizes
        return {
            "generation__kind": "T",
            "generation__steps": sizes.denoising_steps,
            "generation__guidance": sizes.guidance,
            "generation__size": sizes.side,
        }

    def images(self, method: str) -> Path:
        return self.work / "images" / method

    def pack(self, name: str) -> None:
        pack = self.work / "packs" / name
        base = ["--base", self.work / XL]
        if name != PLAIN:
            base += ["--stellarnet", self.work / name]
        # The others have the same graphs as the trained one, which is compared with diffusers and finds the person.
        own = ("--mask-model", self.work / MASKS) if name == TRAINED else ("--no-goldens",)
        self.python("stellar_export", "generator", *base, "--out", pack, "--name", name, *own)
        if name == TRAINED:
            self.stellar("pack", "verify", pack)

    def masks(self) -> None:
        """Makes the masks that a dataset of one's own photos would lack."""
        dataset, unmasked = self.work / "dataset", self.work / "unmasked"
        without_masks(dataset, unmasked)
        self.stellar("dataset", "masks", "--pack", self.work / "packs" / TRAINED, unmasked)
        print(f"   overlap with the dataset's masks (IoU): {overlap(unmasked, dataset):.3f}")

    def generate(self, name: str, *options: object, dataset: str = "dataset") -> None:
        sizes = self.sizes
        pack = {MADE: TRAINED, WHOLE: TRAINED, INVERSION: PLAIN}.get(name, name)
        self.stellar(
            "generate", "--pack", self.work / "packs" / pack, "--dataset", self.work / dataset, "--kind", "T",
            "--photos", "first", "--method", name, "--steps", sizes.denoising_steps, "--guidance", sizes.guidance,
            "--size", sizes.side, "--out", self.images(name), *options,
        )  # fmt: skip

    def score(self) -> None:
        """Scores all systems with a service of their own; its database is made anew each time."""
        print("== scores", flush=True)
        began = time.monotonic()
        shutil.rmtree(self.work / "service", ignore_errors=True)
        settings = {"STELLAR_PACK": str(ROOT / "packs" / "demo"), "OMP_NUM_THREADS": "1"}
        service = Service(str(self.program), self.work / "service", settings=settings).start()
        try:
            service.ready(120)
            for method in self.methods:
                submit(service, method, self.images(method), self.work / "dataset", method in (INVERSION, DREAMBOOTH))
            board = leaderboard(service)
            found = areas(service, self.work / "dataset", {m: self.images(m) for m in self.methods})
        finally:
            service.stop()
        (self.work / "results.json").write_text(json.dumps({"leaderboard": board, "areas": found}, indent=1) + "\n")
        print_table(board, found, self.methods)
        print(f"== scores: {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "generator-demo", help="folder of all results")
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "stellar-score")
    parser.add_argument("--drawings", type=Path, help="drawings of an earlier run; default: made in WORK/drawings")
    parser.add_argument("--small", action="store_true", help="a test that everything runs, in a few minutes")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    Demo(arguments).run()


if __name__ == "__main__":
    main()
