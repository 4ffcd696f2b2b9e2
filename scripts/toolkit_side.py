"""The reference toolkit's side of scripts/toolkit_bench.py, in its own process.

It uses the toolkit's metric classes with their own constructors, the loop of its command line, and its dataset class.
Files that a constructor would download come from the folder of checkpoints. Models of unpublished sizes are built by the
exporter's reference code, with the same packages.

Each line of input is a JSON document, and so is each line of output: {"load": METRIC, "device", "dtype"} and
{"score": FOLDER, "batch": N}.
"""

import argparse
import contextlib
import functools
import gc
import inspect
import json
import os
import sys
import tempfile
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))


def import_toolkit(checkout: Path) -> types.ModuleType:
    """Imports the toolkit's package; stubs replace imports of its dependencies that no score uses."""
    from stellar_export.reference import shims

    shims.import_hpsv2()
    shims.import_image_reward()
    shims.import_dreamsim()
    sys.path.append(str(checkout / "src"))
    import stellar_metrics

    return stellar_metrics


class Loader:
    """Creates the toolkit's objects from a folder of checkpoints."""

    def __init__(self, toolkit: types.ModuleType, root: Path, clip: str, device: str, dtype: str, reload_hpsv2: bool):
        import torch

        self.toolkit, self.root, self.clip, self.device, self.reload_hpsv2 = toolkit, root, clip, device, reload_hpsv2
        self.kept: list = []
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16}[dtype]
        self.original_load = torch.load

    def load(self, metric: str):
        """Returns the function that scores a batch: it takes lists by the toolkit's names and returns columns by ours."""
        import torch
        from stellar_export.reference.shims import replaced

        with replaced(torch, load=self.torch_load):
            return getattr(self, metric)()

    def torch_load(self, path, *rest, **options):
        """Loads the file of that name under the root onto the device; the toolkit would use the device of the writer."""
        own = self.root / "files" / os.path.basename(path)
        return self.original_load(own if own.is_file() else path, *rest, **{"map_location": self.device} | options)

    def reference(self, model: str) -> dict:
        """Model and preprocessing as the exporter's reference code loads them for its own scores."""
        from stellar_export.checkpoints import Checkpoints
        from stellar_export.reference import makers

        score = makers(Checkpoints(self.root), self.clip, "v2.0")[model]()
        found = dict(inspect.getclosurevars(inspect.unwrap(score)).nonlocals)
        found["model"].to(self.device)
        return found

    # ---- the metrics

    def clip_metric(self):
        from stellar_export.reference.shims import replaced
        from transformers import CLIPModel

        # Two copies of bigG/14 would need 20 GB of memory.
        once = types.SimpleNamespace(from_pretrained=functools.partial(CLIPModel.from_pretrained, low_cpu_mem_usage=True))
        with replaced(sys.modules["stellar_metrics.models.clip.clip"], CLIPModel=once):
            return self.toolkit.CLIPMetrics(self.device, self.dtype, self.clip)

    def aesthetic(self):
        return only("aesthetic", self.toolkit.AestheticPredictor(self.device, self.dtype))

    def hpsv1(self):
        from stellar_export.reference.shims import replaced
        from stellar_metrics.models.hpc import hpc

        found = self.reference("hpsv1")
        with replaced(hpc.clip, load=lambda *_, **__: (found["model"], found["preprocess"])):
            # As in HumanPreferenceScore, which always computes both versions.
            score = hpc.HumanPreferenceClassifier(self.root / "files" / "hpc.pt", device=self.device)

        def hpsv1(syn_img, prompt):
            return {"hpsv1": score(syn_img, prompt)["human_preference_classifier"]}

        return hpsv1

    def hpsv2(self):
        import hpsv2
        from hpsv2 import img_score

        found = self.reference("hpsv2")
        found["model"].output_dict = True  # the option of the package's create_model_and_transforms call
        img_score.model_dict.update(model=found["model"], preprocess_val=found["preprocess"])
        file = self.root / "files" / "HPS_v2_compressed.pt"
        img_score.huggingface_hub = types.SimpleNamespace(hf_hub_download=lambda *_, **__: str(file))
        if not self.reload_hpsv2:
            # The package reads its checkpoint again for every image. The comparison excludes loading.
            found["model"].load_state_dict = lambda _: None
            img_score.torch = Overlaid(img_score.torch, load=lambda *_, **__: {"state_dict": None})

        def hpsv2_score(syn_img, prompt):
            # The expression in HumanPreferenceScore.
            return {"hpsv2": [hpsv2.score(image, words)[0] for image, words in zip(syn_img, prompt, strict=True)]}

        return hpsv2_score

    def pick_score(self):
        return self.toolkit.PickScore(self.device)

    def image_reward(self):
        from stellar_export.reference.shims import replaced

        model = self.reference("image_reward")["model"]
        model.device = self.device
        with replaced(sys.modules["stellar_metrics.image_reward"], ir_load=lambda *_: model):
            return self.toolkit.ImageReward(self.device)

    def dreamsim(self):
        from stellar_export.reference.shims import replaced

        found = self.reference("dreamsim")
        with replaced(
            sys.modules["stellar_metrics.dreamsim_distance"], dreamsim=lambda **_: (found["model"], found["preprocess"])
        ):
            return self.toolkit.DreamsimDistance(self.device)

    def dino(self):
        return self.toolkit.DINOFidelity(self.device, self.dtype)

    def goa(self):
        return only("goa", self.toolkit.ObjectFaithfulness(self.device, self.dtype))

    def ips(self):
        return only("ips", self.faces(self.toolkit.IdentityPreservation))

    def sis(self):
        return only("sis", self.faces(self.toolkit.IdentityStability))

    def aps(self):
        # It caches classifiers between calls by the paths of the images, which no two rounds share.
        cache = tempfile.TemporaryDirectory(prefix="toolkit-aps-")
        self.kept.append(cache)
        metric = self.faces(lambda device: self.toolkit.AttributePreservation(device, cache_dir=cache.name, batch_size=2))

        def aps(dataset):
            """The predictions for the attributes that differ among the samples: constant ones cannot be learnt."""
            table = metric(dataset, clean=True).set_index("name")
            names = [column.removesuffix("_pred") for column in table if column.endswith("_pred")]
            return {f"aps {name}": table[f"{name}_pred"] for name in names if table[f"{name}_target"].nunique() > 1}

        return aps

    def faces(self, kind):
        from stellar_export.faces import EMBEDDING
        from stellar_export.reference.faces import embedding_model
        from stellar_export.reference.shims import replaced

        model = embedding_model(self.root.joinpath(*EMBEDDING))
        module = sys.modules["stellar_metrics.models.retina_face.model"]
        with replaced(module, InceptionResnetV1=lambda **_: model):
            return kind(self.device)


class Overlaid(types.ModuleType):
    """A module that overrides some names of another one."""

    def __init__(self, below: types.ModuleType, **names):
        super().__init__(below.__name__)
        self.__dict__.update(names, _below=below)

    def __getattr__(self, name: str):
        return getattr(self.__dict__["_below"], name)


def only(code: str, score):
    """Wraps a class of the toolkit that returns one array, with its signature."""

    @functools.wraps(score.__call__)
    def named(**batch):
        return {code: score(**batch)}

    return named


# Our codes for the toolkit's columns, where they differ.
CODES = {"dino_fidelity": "dino", "dreamsim_distance": "dreamsim"}


def score(folder: Path, metric, batch: int) -> dict:
    """Runs the toolkit's loop over a dataset: its time, the part for reading images, and the scores by sample."""
    from stellar_metrics.syn_dataset import SynImageDataset

    started, cpu, read, read_cpu = time.perf_counter(), time.process_time(), 0.0, 0.0
    data = SynImageDataset(folder / "images", folder / "photos")
    wanted, scores = set(inspect.signature(metric).parameters), {}
    if "dataset" in wanted:  # this metric reads all images itself
        for column, values in metric(dataset=data).items():
            for name, value in values.items():
                scores.setdefault(name, {})[column] = float(value)
        wanted = set()
    for first in range(0, len(data) if wanted else 0, batch):
        before, before_cpu = time.perf_counter(), time.process_time()
        samples = [data[i] for i in range(first, min(first + batch, len(data)))]
        read += time.perf_counter() - before
        read_cpu += time.process_time() - before_cpu
        columns = metric(**{name: [sample[name] for sample in samples] for name in samples[0] if name in wanted})
        for column, values in columns.items():
            for sample, value in zip(samples, values, strict=True):
                scores.setdefault(sample["name"], {})[CODES.get(column, column)] = float(value)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    return dict(cpu=cpu, wall=wall, read=read, read_cpu=read_cpu, scores=scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toolkit", type=Path, required=True)
    parser.add_argument("--check", action="store_true", help="only import the toolkit")
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--clip", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--reload-hpsv2", action="store_true")
    a = parser.parse_args()
    # Packages print while they load; keep their output out of the responses.
    responses = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    toolkit = import_toolkit(a.toolkit)
    if a.check:
        print(f"{len(toolkit.METRICS)} metrics of {a.toolkit} can be imported", file=responses)
        return
    import torch

    if a.device != "cpu" and not torch.cuda.is_available():
        sys.exit("--device cuda: PyTorch finds no GPU; leave the option out to compare on the CPU")
    torch.set_num_threads(a.threads)
    loader = Loader(toolkit, a.checkpoints, a.clip, a.device, a.dtype, a.reload_hpsv2)
    os.chdir(a.checkpoints / "hub")  # here the toolkit's hub ids are folders
    metric = None
    print(json.dumps("ready"), file=responses)
    for line in sys.stdin:
        asked = json.loads(line)
        if "load" in asked:
            metric = None
            gc.collect()
            with contextlib.redirect_stdout(sys.stderr):
                metric = loader.load({"clip": "clip_metric"}.get(asked["load"], asked["load"]))
            response = dict(loaded=asked["load"])
        else:
            response = score(Path(asked["score"]), metric, asked["batch"])
        print(json.dumps(response), file=responses)


if __name__ == "__main__":
    main()
