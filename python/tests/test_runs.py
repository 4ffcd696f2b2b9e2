"""Runs: uploads in the background, their errors, and progress."""

import asyncio
import sys
import threading
import time

import numpy
import pytest
from stand_in import problem, response

from stellar_score import (
    AsyncClient,
    Client,
    Conflict,
    RunBlocked,
    Unavailable,
    UploadFailed,
    blake3,
)

ID = "01a22593-79ed-76c2-8bd5-b6373e564056"
RUN = {"run_id": ID, "method": "m", "run": "r", "state": "open", "counts": {"accepted": 0, "pending": 0}}

DIGESTS = {
    0: "af1349b9f5f9a1a6",
    1: "2d3adedff11b61f1",
    64: "4eed7141ea4a5cd4",
    65: "de1e5fa0be70df6d",
    1024: "42214739f095a406",
    1025: "d00278ae47eb27b3",
    2048: "e776b6028c7cd22a",
    3073: "7124b49501012f81",
    5120: "9cadc15fed8b5d85",
    31744: "62b6960e1a44bcc1",
    102400: "bc3e3d41a1146b06",
}


def image(seed, side=32):
    return numpy.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=numpy.uint8)


def test_a_run_from_the_first_image_to_the_table(client, goldens):
    photo = goldens / "astronaut-face.jpg"
    with client.run("whole", "seed-0", settings={"steps": 3}, metrics=["clip_t", "ips"]) as run:
        for at in range(12):
            run.add(f"{at:02}", image(at), "a person", reference=photo, metadata={"identity": f"{at % 4}"})
        run.finish()
    info = run.wait(timeout=60)
    assert info["state"] == "finished"
    assert info["counts"] == {"accepted": 12, "pending": 0, "scored": 12, "failed": 0}
    assert [each["name"] for each in run.samples()] == [f"{at:02}" for at in range(12)]
    assert run.failed() == {}
    numbers = run.summary("eval/", policy="none")
    assert numbers["eval/clip_t/n"] == 12
    stored = client.sample(run.samples()[3]["id"])
    direct = client.score(image(3), "a person", reference=photo, metrics=["clip_t"])
    (of_run,) = [each for each in stored["scores"] if each["metric"] == "clip_t"]
    assert of_run["value"] == direct["scores"]["clip_t"]["value"]
    assert client.compare(run, run)["pairs"] == 12
    assert client.open_run("whole/seed-0").id == run.id
    with pytest.raises(Conflict, match="run_finished"), client.run(
        "whole", "seed-0", settings={"steps": 3}, metrics=["clip_t", "ips"]
    ) as again:
        again.add("12", image(12), "a person")


def test_the_same_samples_again_change_nothing(client):
    for _ in range(2):
        with client.run("again") as run:
            for at in range(3):
                run.add(str(at), image(at), "x")
    assert run.wait(timeout=60)["counts"]["accepted"] == 3


def test_refused_samples_are_listed_and_the_others_accepted(client):
    with pytest.raises(UploadFailed) as caught, client.run("refused", metrics=["clip_t"]) as run:
        for at in range(6):
            run.add(str(at), b"not an image" if at in (2, 4) else image(at), "x")
    assert sorted(caught.value.failures) == ["2", "4"]
    assert {error.code for error in caught.value.failures.values()} == {"image_unsupported"}
    run.add("2", image(2), "x")
    assert run.wait(timeout=60)["counts"]["accepted"] == 5
    run.close()


def test_a_text_that_is_not_unicode_is_the_error_of_its_sample(client):
    with pytest.raises(UploadFailed, match=r"1 samples were not accepted: 0: .*surrogates"):
        with client.run("surrogate", metrics=["clip_t"]) as run:
            run.add("0", image(0), "\ud800")
            run.add("1", image(1), "x")
    assert run.wait(timeout=60)["counts"]["accepted"] == 1


def test_an_image_that_cannot_be_decoded_fails_its_sample(client, goldens):
    data = bytearray((goldens / "coffee.jpg").read_bytes())
    with client.run("damaged", metrics=["clip_t"]) as run:
        run.add("good", bytes(data), "x")
        run.add("bad", bytes(data[: len(data) // 2]), "x")
    assert run.wait(timeout=60)["counts"]["failed"] == 1
    assert list(run.failed()) == ["bad"]


def test_a_buffer_may_be_reused_after_add(client):
    buffer = image(0)
    expected = []
    with client.run("buffer", metrics=["aesthetic"]) as run:
        for at in range(8):
            buffer[:] = image(at)
            run.add(str(at), buffer, "x")
            expected.append(client.score(image(at), "x", metrics="aesthetic")["scores"]["aesthetic"]["value"])
    run.wait(timeout=60)
    for entry in run.samples():
        (score,) = client.sample(entry["id"])["scores"]
        assert score["value"] == expected[int(entry["name"])]


def test_a_photo_is_sent_once_and_then_named_by_its_hash(client, goldens, monkeypatch):
    photos = [goldens / "astronaut-face.jpg", goldens / "coffee.jpg"]
    sizes = []
    request = client.transport.request

    def measured(method, path, *args, **options):
        if method == "PUT":
            sizes.append(sum(map(len, options["body"])))
        return request(method, path, *args, **options)

    with client.run("photos", metrics=["aesthetic"], workers=1) as run:
        monkeypatch.setattr(client.transport, "request", measured)
        for at in range(4):
            run.add(str(at), image(at), "x", reference=photos[0], auxiliary=[photos[1], image(99)])
    monkeypatch.undo()
    assert sizes[0] > sum(photo.stat().st_size for photo in photos)
    assert max(sizes[1:]) < 16_000
    run.wait(timeout=60)
    stored = [client.sample(entry["id"]) for entry in run.samples()]
    assert len({tuple(each["references"]) for each in stored}) == 1
    assert len({tuple(each["auxiliary"]) for each in stored}) == 1
    assert stored[0]["references"] == [blake3.hexdigest(photos[0].read_bytes())]


def test_photos_that_the_service_has_lost_are_sent_again(stand_in):
    def lost(request):
        return problem(422, "image_unknown") if b"reference_hash" in request.body else response(202, RUN)

    stand_in.otherwise = lost
    with Client(stand_in.url, key="") as client, client.run("m", workers=1) as run:
        for at in range(3):
            run.add(str(at), image(at), reference=b"photo")
    bodies = [each.body for each in stand_in.requests if each.method == "PUT"]
    assert [b"reference_hash" in body for body in bodies] == [False, True, False, True, False]
    stand_in.otherwise = problem(422, "image_unknown")
    stand_in.script = [response(201, RUN)]
    with Client(stand_in.url, key="") as client, pytest.raises(UploadFailed, match="image_unknown"):
        with client.run("m", workers=1) as run:
            run.add("0", image(0), reference=b"photo")
    assert sum(each.method == "PUT" for each in stand_in.requests) == 7, "as a hash never, as a file twice at most"


@pytest.mark.parametrize("size", [0, 1, 64, 65, 1024, 1025, 2048, 3073, 5120, 31744, 102400])
def test_blake3_is_that_of_the_service_and_of_the_package(size):
    """The digests of the official test vectors' input, made with the package `blake3`."""
    data = bytes(at % 251 for at in range(size))
    assert blake3.hexdigest(data)[:16] == DIGESTS[size]


def test_blake3_needs_numpy(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    assert blake3.hexdigest(b"") is None


@pytest.fixture
def slow(stand_in):
    """A service that accepts samples when the test says so."""
    gate = threading.Event()

    def accept(request):
        if request.method == "PUT":
            gate.wait(20)
        return response(200, RUN)

    stand_in.otherwise = accept
    stand_in.gate = gate
    yield stand_in
    gate.set()


def test_memory_is_bounded(slow):
    with Client(slow.url, key="", connections=2) as client:
        with client.run("m", workers=2, buffer_mib=1) as run:
            size = 3 * 256 * 256
            fits = (1 << 20) // size
            for at in range(fits):
                run.add(str(at), image(at, 256))
            blocked = threading.Thread(target=run.add, args=("more", image(9, 256)))
            blocked.start()
            blocked.join(0.3)
            assert blocked.is_alive(), "add() waits while the buffer is full"
            assert run._bytes <= 1 << 20
            slow.gate.set()
            blocked.join(10)
            assert not blocked.is_alive()
        assert sum(request.method == "PUT" for request in slow.requests) == fits + 1


def test_a_sample_larger_than_the_buffer_is_sent_alone(slow):
    slow.gate.set()
    with Client(slow.url, key="") as client, client.run("m", buffer_mib=1) as run:
        run.add("large", image(0, 1024))
    assert [request.path.split("/")[-1] for request in slow.requests] == ["runs", "large"]


def test_an_error_in_the_block_drops_what_waits(slow):
    with Client(slow.url, key="", connections=1) as client:
        with pytest.raises(RuntimeError, match="mine"), client.run("m", workers=1) as run:
            for at in range(20):
                run.add(str(at), image(at))
            threading.Timer(0.2, slow.gate.set).start()
            raise RuntimeError("mine")
    assert sum(request.method == "PUT" for request in slow.requests) == 1


def test_an_error_of_the_whole_run_stops_it(stand_in):
    stand_in.script = [response(201, RUN)]
    stand_in.otherwise = problem(409, "pack_conflict")
    with Client(stand_in.url, key="") as client, pytest.raises(Conflict, match="pack_conflict"):
        with client.run("m", workers=1) as run:
            for at in range(1000):
                run.add(str(at), image(0))
                time.sleep(0.001)
    assert len(stand_in.requests) < 100


def test_a_service_that_is_away_for_too_long_stops_the_run(stand_in):
    stand_in.script = [response(201, RUN)]
    stand_in.otherwise = problem(503, "unavailable")
    with Client(stand_in.url, key="", patience=0.2) as client, pytest.raises(Unavailable), client.run("m") as run:
        run.add("0", image(0))
    stand_in.otherwise = response(200, RUN)


def test_waiting_ends_with_the_run_its_time_or_its_reason(stand_in):
    def counts(pending, state="open", **more):
        return response(200, {**RUN, "state": state, "counts": {"accepted": 4, "pending": pending}, **more})

    with Client(stand_in.url, key="") as client:
        stand_in.script = [response(201, RUN), counts(4), counts(2), counts(0)]
        run = client.run("m")
        assert run.wait()["counts"]["pending"] == 0
        stand_in.script = [counts(0, "finishing"), counts(0, "finishing"), counts(0, "finished")]
        assert run.wait()["state"] == "finished", "its tables are computed after the last score"
        stand_in.otherwise = counts(4)
        with pytest.raises(TimeoutError, match=r"4 samples .* 0\.3 s"):
            run.wait(timeout=0.3)
        stand_in.script = [counts(4, held={"code": "pack_not_loaded", "detail": "start it with that pack"})]
        with pytest.raises(RunBlocked, match="pack_not_loaded: start it"):
            run.wait()


def test_a_name_is_needed(slow):
    with Client(slow.url, key="") as client, pytest.raises(ValueError, match="needs a name"):
        client.run("m").add("", image(0))


def test_the_run_of_a_method_must_be_unique(stand_in):
    two = [{**RUN, "run": name} for name in ("a", "b")]
    stand_in.otherwise = response(200, {"runs": two})
    with Client(stand_in.url, key="") as client:
        with pytest.raises(ValueError, match="m has several runs: m/a, m/b"):
            client.report("m")
        stand_in.script = [response(200, {"runs": two}), response(200, {"rows": []})]
        assert client.report("m/b") == {"rows": []}


def test_asyncio(service, goldens):
    async def use():
        async with AsyncClient(f"http://127.0.0.1:{service.port}", key="", connections=4) as client:
            responses = await asyncio.gather(*(client.score(image(at), "x", metrics="clip_t") for at in range(6)))
            assert len({each["scores"]["clip_t"]["value"] for each in responses}) == 6
            async with client.run("asyncio", metrics=["clip_t"]) as run:
                await asyncio.gather(*(run.add(str(at), image(at), "x") for at in range(6)))
                await run.finish()
            assert (await run.wait(timeout=60))["counts"]["scored"] == 6
            assert len(await run.samples()) == 6
            opened = await client.open_run(run.id)
            assert opened.id == run.id
            assert (await opened.summary())["clip_t/n"] == 6
            with pytest.raises(UploadFailed):
                async with client.run("asyncio", "refused") as refused:
                    await refused.add("x", b"no image")
            assert client.run("never").failures == {}
            assert "Client" in repr(client)

    asyncio.run(use())


def test_asyncio_is_not_held_up_by_a_slow_request(slow):
    async def use():
        async with AsyncClient(slow.url, key="") as client, client.run("m") as run:
            await run.add("0", image(0))
            flushing = asyncio.ensure_future(run.flush())
            started = time.monotonic()
            await asyncio.gather(*(client.metrics() for _ in range(20)))
            assert time.monotonic() - started < 5
            assert not flushing.done()
            slow.gate.set()
            await flushing

    asyncio.run(use())
