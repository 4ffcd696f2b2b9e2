"""Generated images: those of the real service, and what is sent to a stand-in."""

import asyncio
import email
import io
import json
import sys

import numpy
import pytest
from PIL import Image
from stand_in import problem, response

from stellar_score import (
    AsyncClient,
    Client,
    Forbidden,
    ForeignResponse,
    Generated,
    InvalidImage,
    InvalidRequest,
    NotFound,
    Overloaded,
)

QUICK = {"steps": 2, "width": 64, "height": 32}


def file(side=8):
    content = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(content, "PNG")
    return content.getvalue()


def made(flags="unmasked"):
    return response(body=file(), headers=[("Content-Type", "image/png"), ("stellar-flags", flags)])


def sent(request):
    """The fields of the form that arrived."""
    kind = request.headers["content-type"].encode()
    message = email.message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + request.body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.get_payload()
    }


@pytest.fixture
def waiting(stand_in):
    with Client(stand_in.url, key="", patience=2) as client:
        yield client


def test_the_same_request_gives_the_same_file(client, goldens):
    photo = goldens / "astronaut-face.jpg"
    first = client.generate("{} in a hat", photo, **QUICK)
    assert first.flags == ("unmasked",)
    image = first.image()
    assert image.size == (64, 32)
    about = json.loads(image.text["stellar-score"])
    assert (about["generated"], about["seed"], about["steps"], about["guidance"]) == (True, 42, 2, 5.0)
    assert client.generate("{} in a hat", photo.read_bytes(), seed=42, guidance=5, **QUICK) == first
    other = client.generate("{} in a hat", photo, seed=7, negative_prompt="a hat", **QUICK)
    assert other.png != first.png


def test_pixels_are_those_of_their_file(client, goldens):
    photo = Image.open(goldens / "astronaut-face.jpg").convert("RGB")
    mask = numpy.zeros((photo.height, photo.width), numpy.uint8)
    mask[60:170, 40:140] = 255
    found = client.generate("{} in a hat", photo, mask, **QUICK)
    assert found.flags == ()
    assert client.generate("{} in a hat", goldens / "astronaut-face.jpg", Image.fromarray(mask), **QUICK) == found
    assert client.generate("{} in a hat", photo, **QUICK).png != found.png


def test_a_prompt_without_the_person_needs_no_photo(client):
    assert client.generate("a hat", **QUICK).image().size == (64, 32)


def test_problems_of_the_service(client, goldens):
    with pytest.raises(InvalidRequest, match="reference"):
        client.generate("{} in a hat", **QUICK)
    with pytest.raises(InvalidRequest, match="steps is 151"):
        client.generate("a hat", steps=151)
    with pytest.raises(InvalidImage):
        client.generate("{} in a hat", (goldens / "coffee.jpg").read_bytes()[:500], **QUICK)


def test_of_asyncio(service, goldens):
    async def both():
        async with AsyncClient(f"http://127.0.0.1:{service.port}", key="") as client:
            return await asyncio.gather(*(client.generate("a hat", seed=seed, **QUICK) for seed in (1, 2)))

    first, second = asyncio.run(both())
    assert isinstance(first, Generated)
    assert first.png != second.png


def test_only_what_is_given_is_sent(stand_in, waiting):
    stand_in.otherwise = made()
    assert waiting.generate("ein Hütchen") == Generated(file(), ("unmasked",))
    settings = {"seed": 0, "steps": 3, "guidance": 0.0, "width": 64, "height": 96, "negative_prompt": "ü"}
    waiting.generate("{}", b"photo", b"mask", **settings)
    plain, full = stand_in.requests
    assert (plain.method, plain.path) == ("POST", "/v1/generate")
    assert sent(plain) == {"prompt": "ein Hütchen".encode()}
    fields = sent(full)
    assert json.loads(fields.pop("metadata")) == settings
    assert fields == {"prompt": b"{}", "reference": b"photo", "mask": b"mask"}


@pytest.mark.parametrize(("text", "flags"), [("", ()), ("unmasked", ("unmasked",)), ("a, b", ("a", "b"))])
def test_flags_are_separated(stand_in, waiting, text, flags):
    stand_in.otherwise = made(text)
    assert waiting.generate("a hat").flags == flags


def test_a_busy_service_is_asked_again(stand_in, waiting):
    stand_in.script = [problem(429, "overloaded", [("Retry-After", "0")]), made()]
    assert waiting.generate("a hat").png == file()
    assert len(stand_in.requests) == 2
    stand_in.otherwise = problem(429, "overloaded", [("Retry-After", "60")])
    with pytest.raises(Overloaded):
        waiting.generate("a hat")


@pytest.mark.parametrize(("status", "code", "kind"), [(404, "not_found", NotFound), (403, "scope_missing", Forbidden)])
def test_refusals_have_their_class(stand_in, waiting, status, code, kind):
    stand_in.otherwise = problem(status, code)
    with pytest.raises(kind) as caught:
        waiting.generate("a hat")
    assert (caught.value.code, caught.value.request_id) == (code, "r1")


def test_what_is_no_image_is_no_response(stand_in, waiting):
    stand_in.otherwise = response(document={"image": "…"})
    with pytest.raises(ForeignResponse, match="/v1/generate did not respond with a PNG file"):
        waiting.generate("a hat")


def test_a_mask_without_a_photo_is_not_sent(stand_in, waiting):
    with pytest.raises(ValueError, match="needs its photo"):
        waiting.generate("{}", mask=b"mask")
    assert stand_in.requests == []


def test_without_pillow_there_are_the_bytes(monkeypatch):
    found = Generated(file(), ())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="use png"):
        found.image()
