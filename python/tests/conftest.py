"""The real service and a scripted stand-in, for the tests."""

import os
import sys
from pathlib import Path

import pytest
from stand_in import StandIn

from stellar_score import Client

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDENS = ROOT / "packs/demo/goldens"
PROGRAM = Path(os.environ.get("STELLAR_PROGRAM", ROOT / "target/debug/stellar-score"))

sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """The service with the demo packs and an empty database, from the root of the repository."""
    from service import Service

    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing: build it with cargo build, or name another in STELLAR_PROGRAM")
    packs = {"STELLAR_PACK": "demo", "STELLAR_GENERATOR__PACK": "demo-generator"}
    settings = {key: str(ROOT / "packs" / name) for key, name in packs.items()}
    started = Service(PROGRAM, tmp_path_factory.mktemp("service"), settings=settings)
    started.start().ready(120)
    yield started
    started.stop()


@pytest.fixture
def client(service):
    with Client(f"http://127.0.0.1:{service.port}", patience=10, key="") as client:
        yield client


@pytest.fixture
def stand_in():
    with StandIn() as server:
        yield server


@pytest.fixture(scope="session")
def goldens():
    return GOLDENS
