import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import shutil
from pathlib import Path

import pytest
import torch

from stellar_export import pack, random_checkpoints
from stellar_export.checkpoints import Checkpoints
from stellar_export.clip_models import DEFAULT_CLIP
from stellar_export.errors import ExportError
from stellar_export.jobs import Request
from stellar_export.nn import PRECISIONS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

torch.set_num_threads(1)

REPO = Path(__file__).parents[2]
SMALL = dict(vision_layers=1, text_layers=1, distinct_tokens=512)


def silent(_line: str) -> None:
    pass


def build(root: Path | None, out: Path, models=("clip",), precision="fp32", **options) -> Path:
    """Builds a pack without goldens, quietly."""
    settings = dict(named=True, clip=DEFAULT_CLIP, name="test", say=silent) | options
    pack.build(Checkpoints(root, say=silent), out, precision=PRECISIONS[precision], models=models, **settings)
    return out


def request(root: Path | None, models=("clip",), precision="fp32", clip=DEFAULT_CLIP, gpu=False) -> Request:
    """What a family is asked for, without a builder behind it."""
    return Request(
        Checkpoints(root, say=silent), PRECISIONS[precision], clip, models, lambda *_: None, gpu=gpu, say=silent
    )


def manifest(folder: Path) -> dict:
    """What a pack's `pack.toml` says."""
    return tomllib.loads((folder / "pack.toml").read_text())


class Mean(torch.nn.Module):
    """A graph that costs nothing to export: the mean colour of a picture."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean(dim=(1, 2)) / 255


def needs_reference_packages() -> None:
    """Skips a test where the packages of requirements-reference.txt are not installed."""
    from stellar_export import reference

    try:
        reference.require("clip", "hpsv2", "ImageReward", "dreamsim", "timm", "peft", "accelerate")
    except ExportError as error:
        pytest.skip(str(error))


def make(root: Path, models=("clip",), seed=0, clip=DEFAULT_CLIP, **sizes) -> Path:
    random_checkpoints.make(root, seed, random_checkpoints.Sizes(**SMALL | sizes), list(models), clip)
    return root


@pytest.fixture
def make_root(tmp_path):
    """Makes a root of random checkpoints: `make_root(models, seed=…, vision_width=…)`."""
    return lambda models=("clip",), **options: make(tmp_path / "root", models, **options)


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory) -> Path:
    """Checkpoints of clip and aesthetic; not to be changed."""
    return make(tmp_path_factory.mktemp("shared") / "root", ("clip", "aesthetic"))


@pytest.fixture(scope="session")
def shared_pack(shared_root, tmp_path_factory) -> Path:
    """The pack of `shared_root`; not to be changed."""
    return build(shared_root, tmp_path_factory.mktemp("shared-pack") / "pack", ("clip", "aesthetic"))


@pytest.fixture
def own_root(shared_root, tmp_path) -> Path:
    """A copy of `shared_root` to break."""
    return Path(shutil.copytree(shared_root, tmp_path / "root"))


@pytest.fixture(scope="session")
def program() -> str:
    """STELLAR_PROGRAM, or what `cargo build` made last."""
    built = [REPO / "target" / profile / "stellar-score" for profile in ("release", "debug")]
    found = [path for path in built if path.is_file()]
    if given := os.environ.get("STELLAR_PROGRAM"):
        return given
    if not found:
        pytest.skip("stellar-score is not built: cargo build")
    return str(max(found, key=lambda path: path.stat().st_mtime))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A random SDXL folder; not to be changed."""
    pytest.importorskip("diffusers", reason="needs the packages of requirements-reference.txt")
    from stellar_export.generator import tiny_sdxl

    out = tmp_path_factory.mktemp("tiny") / "base"
    tiny_sdxl.make(out)
    return out


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> Path:
    """A random Stable Diffusion 1.x folder; not to be changed."""
    pytest.importorskip("diffusers", reason="needs the packages of requirements-reference.txt")
    from stellar_export.generator import tiny_sd

    out = tmp_path_factory.mktemp("tiny-sd") / "base"
    tiny_sd.make(out)
    return out


@pytest.fixture(scope="session")
def training_data(tmp_path_factory) -> Path:
    """A training folder of six made-up identities; not to be changed."""
    from training import make_data

    return make_data(tmp_path_factory.mktemp("data") / "training")


@pytest.fixture(scope="session")
def training_cache(tmp_path_factory) -> Path:
    """Latents and features that tests share."""
    return tmp_path_factory.mktemp("cache")
