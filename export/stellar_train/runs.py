"""From a configuration to a trained method: reads what is needed, trains, and says what was excluded."""

import json
from pathlib import Path

from . import base as bases
from . import data, files, loop
from .configuration import Configuration
from .errors import TrainError
from .personal import FromPhotos
from .photos import Photos, Towers
from .report import say

FINISHED = "finished.json"


def provenance(configuration: Configuration, base: Path, found: data.TrainingData) -> dict:
    """What follows the weights into pack, method and leaderboard (training.json of a generator pack)."""
    training = configuration.training
    return {
        "schema": 1,
        "base": base.resolve().name,
        "seed": training.seed,
        "batch": training.batch * training.accumulate,
        "resolution": configuration.data.resolution,
        "dataset_digest": found.digest,
        "images": len(found.items),
        "held_out_identities": configuration.data.held_out,
        "excluded_identities": found.excluded,
        "excludes_evaluation": True,
        "prompts": "templates",
    }


def from_photos(configuration: Configuration, out: Path, quiet: bool = False) -> None:
    """Trains `stellarnet` or `elite`."""
    prepared = prepare(configuration, out, quiet)
    if prepared is None:
        return say(f"{out} is finished already", quiet)
    method, about = prepared
    loop.train(method, configuration, out, about, quiet)
    files.write_json(out / FINISHED, {"configuration": configuration.digest(), **about})


def prepare(
    configuration: Configuration, out: Path, quiet: bool = False, kind: type[bases.Base] = bases.Base
) -> tuple[FromPhotos, dict[str, str]] | None:
    """The method with its models and data, and what its checkpoints are valid for; `None` if `out` is finished."""
    folder = configuration.need("data", "folder", "--data")
    base_folder = configuration.need("base", "folder", "--base")
    found = data.read(folder)
    train_items, held_out_items = found.split(configuration.data.held_out)
    device = bases.device(configuration.training.device)
    is_stellarnet = configuration.method == "stellarnet"
    names = configuration.model.towers if is_stellarnet else ["image_encoder"]
    towers = {name: tower(configuration, base_folder, name) for name in names}
    about = {"base": bases.digest(base_folder, *towers.values()), "data": found.digest}
    if is_finished(out, configuration, about):
        return None
    precision = configuration.training.precision
    base = kind(base_folder, device, precision)
    layers = configuration.model.layers
    given = layers if is_stellarnet or not layers else [layers]
    read = Towers(towers, given, configuration.model.words, device, precision, last_first=not is_stellarnet)
    is_cached = configuration.data.features == "cached"
    common = {
        "side": configuration.data.resolution,
        "cache": Path(configuration.data.cache or out / "cache"),
        "cached_views": configuration.data.views if is_cached else None,
        "augment": configuration.data.augment,
        "generator": lambda *place: loop.generator(configuration.training.seed, *place),
        "say": lambda line: say(line, quiet),
    }
    train, held_out = (Photos(items, base, read, **common) for items in (train_items, held_out_items))
    about_weights = provenance(configuration, base_folder, found)
    method: FromPhotos
    if is_stellarnet:
        from .stellarnet import StellarNet

        method = StellarNet(configuration, base, train, held_out, about_weights)
    else:
        from .elite import Elite

        method = Elite(configuration, base, train, held_out, about_weights)
    if configuration.training.gradient_checkpointing:
        base.checkpoint_gradients()
    return method, about


def is_finished(out: Path, configuration: Configuration, about: dict[str, str]) -> bool:
    """Whether OUT has the result of this very training; the result of another one is refused."""
    path = out / FINISHED
    if not path.is_file():
        return False
    if json.loads(path.read_text()) != {"configuration": configuration.digest(), **about}:
        raise TrainError(f"{out} has the result of another training: give another --out")
    return True


def tower(configuration: Configuration, base: Path, name: str) -> Path:
    """The folder of a vision tower: the one that `[base]` names, or that beside the base model."""
    given = configuration.values["base"].get(name)
    if given is None:
        raise TrainError(f"model.towers: {name!r} is not known; choose of image_encoder and image_encoder_2")
    return Path(given) if given else base / name
