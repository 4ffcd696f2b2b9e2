"""Scores of the client are those of a plain upload of the same file."""

import json

import numpy
import pytest
from PIL import Image

from stellar_score import InvalidImage, InvalidRequest, NotFound, frame, rows, summary

PROMPT = "a person in an orange space suit"


def plain_upload(service, fields):
    """The scores of a form that is not made by the client."""
    from service import FORM, form

    status, text, _ = service.call("POST", "/v1/score", form(fields), FORM)
    assert status == 200, text
    return {code: entry["value"] for code, entry in json.loads(text)["scores"].items()}


def values(response):
    return {code: entry["value"] for code, entry in response["scores"].items()}


@pytest.fixture(scope="module")
def expected(service, goldens):
    photo, other = (goldens / "astronaut-face.jpg").read_bytes(), (goldens / "coffee.jpg").read_bytes()
    image = (goldens / "astronaut.jpg").read_bytes()
    metadata = json.dumps({"detectables": ["helmet"]})
    fields = [("image", image), ("prompt", PROMPT), ("reference", photo), ("auxiliary", other), ("metadata", metadata)]
    found = plain_upload(service, fields)
    assert sum(value is not None for value in found.values()) > 10
    return found


@pytest.fixture(params=["path", "bytes", "pil", "array", "floats"])
def convert(request):
    def of(path):
        if request.param == "path":
            return path
        if request.param == "bytes":
            return path.read_bytes()
        image = Image.open(path)
        if request.param == "pil":
            return image
        pixels = numpy.asarray(image)
        return pixels if request.param == "array" else (pixels / 255).astype(numpy.float32)

    return of


def test_every_kind_of_image_has_the_scores_of_the_file(client, goldens, expected, convert):
    response = client.score(
        convert(goldens / "astronaut.jpg"),
        PROMPT,
        reference=convert(goldens / "astronaut-face.jpg"),
        auxiliary=[convert(goldens / "coffee.jpg")],
        metadata={"detectables": ["helmet"]},
    )
    assert values(response) == expected


@pytest.mark.parametrize("name", ["waves-rgba.png", "waves-palette.png", "chelsea.webp", "stripes-3000x100.png"])
def test_pil_images_of_other_modes_have_the_scores_of_the_file(service, client, goldens, name):
    """Alpha is dropped, and palettes are resolved, as the service does."""
    expected = plain_upload(service, [("image", (goldens / name).read_bytes()), ("prompt", PROMPT)])
    image = Image.open(goldens / name)
    assert values(client.score(image, PROMPT)) == expected
    if image.mode in ("RGB", "RGBA"):
        assert values(client.score(numpy.asarray(image), PROMPT)) == expected


def test_the_orientation_of_a_photo_is_that_of_its_file(service, client, goldens, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(goldens / "astronaut.jpg").save(tmp_path / "turned.jpg", exif=exif, quality=95)
    expected = plain_upload(service, [("image", (tmp_path / "turned.jpg").read_bytes()), ("prompt", PROMPT)])
    assert values(client.score(Image.open(tmp_path / "turned.jpg"), PROMPT)) == expected
    upright = values(client.score(numpy.asarray(Image.open(tmp_path / "turned.jpg")), PROMPT))
    assert upright["clip_t"] != expected["clip_t"]


def test_options_of_a_score(client, goldens):
    image = goldens / "coffee.jpg"
    given = {"metrics": ["clip_t", "aesthetic"], "method": "options", "run": "one", "name": "ü/1", "evidence": True}
    response = client.score(image, "a cup", **given)
    assert set(response["scores"]) == {"clip_t", "aesthetic"}
    assert (response["outcome"], response["method"], response["run"]) == ("created", "options", "one")
    assert response["evidence"]["texts"]
    assert client.score(image, "a cup", **given)["outcome"] == "repeated"
    stored = client.sample(response["sample"])
    assert (stored["name"], stored["prompt"]) == ("ü/1", "a cup")
    assert summary(response, "eval/") == {f"eval/{code}": value for code, value in values(response).items()}
    assert {row["metric"]: row["value"] for row in rows(response)} == values(response)
    assert {row["metric"]: row["value"] for row in rows(stored)} == values(response)


def test_problems_carry_code_detail_and_request_id(client, goldens):
    with pytest.raises(InvalidImage) as caught:
        client.score(b"hello")
    assert (caught.value.status, caught.value.code) == (415, "image_unsupported")
    assert "PNG" in caught.value.detail
    assert len(caught.value.request_id) == 36
    with pytest.raises(InvalidRequest) as caught:
        client.score(goldens / "coffee.jpg", metrics="clip")
    assert caught.value.code == "unknown_metric"
    with pytest.raises(NotFound):
        client.sample("01a22593-79ed-76c2-8bd5-b6373e564056")
    with pytest.raises(NotFound, match="there is no run nobody"):
        client.report("nobody")


def test_lists_and_tables(client, goldens):
    for name in ("coffee.jpg", "rocket.jpg", "chelsea.webp"):
        client.score(goldens / name, "a cup", method="table", run="one", name=name, metrics="clip_t")
    assert "table" in [each["name"] for each in client.methods()]
    assert [each["run"] for each in client.runs("table")] == ["one"]
    (row,) = rows(client.leaderboard(method="table", metrics=["clip_t"]))
    assert (row["method"], row["clip_t.n"]) == ("table", 3)
    report = client.report("table/one", policy="none")
    assert report["rows"][0]["metric"] == "clip_t"
    assert report["rows"][0]["mean"] == row["clip_t"]
    assert client.report_text("table", policy="none").count("|") > 5
    expected = {f"clip_t/{key}": report["rows"][0].get(key) for key in ("low", "high")}
    expected = {key: value for key, value in expected.items() if value is not None}
    assert summary(report) == {"clip_t": row["clip_t"], "clip_t/n": 3.0, **expected}
    assert [each["code"] for each in rows(client.metrics())][:2] == ["clip_t", "clip_i"]
    assert [each["method"] for each in rows(client.runs("table"))] == ["table"]
    (same,) = rows(client.compare("table/one", "table/one", policy="none"))
    assert (same["metric"], same["difference"], same["n"]) == ("clip_t", 0.0, 3)
    assert rows(client.leaderboard(method="nobody")) == []
    assert rows(client.runs("table")[0])[0]["counts.accepted"] == 3
    assert client.metrics()["pack"]["weights"] == client.models()["pack"]["weights"] == "demo"
    assert client.ready()


def test_a_table_needs_a_library(client, monkeypatch):
    document = {"rows": [{"metric": "ips", "mean": 0.5}]}
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(ImportError, match=r"pandas or polars.*rows\(\)"):
        frame(document)
    with pytest.raises(ValueError, match="neither"):
        frame(document, "arrow")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables_of_pandas_and_polars(library):
    pytest.importorskip(library)
    table = frame({"rows": [{"metric": "ips", "mean": None}, {"metric": "sis", "mean": 0.5, "n": 3}]}, library)
    assert type(table).__module__.startswith(library)
    assert list(table.columns) == ["metric", "mean", "n"]
    assert table["mean"].to_list()[1] == 0.5
