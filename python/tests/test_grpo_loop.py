"""A few steps of the example of a training, on the service with batches of one shape."""

import sys

import pytest
from conftest import PROGRAM, ROOT

from stellar_score import Client, Unavailable

numpy = pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "examples"))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A service whose scores do not depend on what shares a batch."""
    from service import Service

    settings = {
        "STELLAR_PACK": str(ROOT / "packs/demo"),
        "STELLAR_ENGINE__BATCHING": "fixed",
        "STELLAR_ENGINE__MAX_BATCH": "4",
        # Repeated scores must be computed again.
        "STELLAR_ENGINE__CACHE_BYTES": "0",
    }
    started = Service(PROGRAM, tmp_path_factory.mktemp("fixed"), settings=settings).start().ready()
    with Client(f"http://127.0.0.1:{started.port}", key="", patience=5) as client:
        yield client
    started.stop()


def test_rewards_of_a_training_are_bit_for_bit_those_of_scoring(fixed):
    import grpo_loop

    history = grpo_loop.train(fixed, steps=5, side=48)
    assert [step["batching"] for step in history] == ["fixed"] * 5
    assert len({reward for step in history for reward in step["rewards"]}) > 100, "the images differ"
    assert grpo_loop.largest_difference(fixed, "aesthetic", history, of_a_step=4) == 0.0
    assert history[-1]["mib"] - history[1]["mib"] < 64


def test_the_memory_of_the_models_can_be_lent(fixed):
    image = numpy.zeros((32, 32, 3), numpy.uint8)
    before = fixed.rewards("aesthetic", [image])["rewards"]
    with fixed.offloaded() as freed:
        assert freed["state"] == "offloaded"
        assert freed["changed"]
        assert freed["resident_bytes_after"] < freed["resident_bytes_before"]
        assert not fixed.ready()
        with pytest.raises(Unavailable) as caught, Client(fixed.transport.base, key="", patience=0) as hasty:
            hasty.rewards("aesthetic", [image])
        assert caught.value.code == "engine_offloaded"
        assert caught.value.retry_after
    assert fixed.ready()
    assert not fixed.reload()["changed"]
    assert fixed.rewards("aesthetic", [image])["rewards"] == before


def test_the_models_are_loaded_again_after_an_error(fixed):
    with pytest.raises(RuntimeError, match="the training failed"), fixed.offloaded():
        raise RuntimeError("the training failed")
    assert fixed.models()["state"] == "resident"
