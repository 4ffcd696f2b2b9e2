"""The examples of docs/PYTHON.md run as they are written, one after the other."""

import re
import sys
import textwrap
import types

import numpy
import pytest
from conftest import PROGRAM, ROOT
from rewards_stand_in import answer
from test_dataset import stellar  # noqa: F401

from stellar_score import Client

PAGE = (ROOT / "docs/PYTHON.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def image(seed=0):
    return numpy.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=numpy.uint8)


@pytest.fixture
def logged(monkeypatch):
    """Stand-ins of the trackers, and what was logged to them."""
    found = {}
    for name, function in (("wandb", "log"), ("mlflow", "log_metrics"), ("trackio", "log")):
        module = types.ModuleType(name)
        setattr(module, function, lambda numbers, name=name: found.setdefault(name, numbers))
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_every_example_runs(service, stand_in, stellar, goldens, logged, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("STELLAR_PROGRAM", str(PROGRAM))
    monkeypatch.setenv("STELLAR_URL", f"http://127.0.0.1:{service.port}")
    monkeypatch.delenv("STELLAR_KEY", raising=False)
    monkeypatch.chdir(ROOT)
    # Tables need a library that the tests do without.
    monkeypatch.setattr("stellar_score.frame", lambda document: document)
    (tmp_path / "broken.jpg").write_bytes((goldens / "coffee.jpg").read_bytes()[:500])
    stand_in.otherwise = answer
    written = {}

    class Writer:
        def add_scalar(self, name, value, step):
            written[name] = value

    photo = goldens / "astronaut-face.jpg"
    pairs = [(image(at), "a person on a horse") for at in range(3)]
    names = {
        **sys.modules,
        "asyncio": __import__("asyncio"),
        "images": numpy.stack([image(at) for at in range(4)]),
        "prompts": ["a", "b", "c", "d"],
        "photos": [image(9)] * 4,
        "groups": ["g1", "g1", "g2", "g2"],
        "generated": lambda: ((str(at), pixels, prompt, photo) for at, (pixels, prompt) in enumerate(pairs)),
        "pipeline": lambda prompt, image, seed: globals()["image"](seed % 1000),
        "train_one_step": lambda: None,
        "writer": Writer(),
        "step": 1,
        "pairs": pairs,
        "image": image(1),
        "prompt": "a person",
    }
    replaced = {
        "http://127.0.0.1:8080": f"http://127.0.0.1:{service.port}",
        '"data/stellar"': repr(str(stellar)),
        '"generations"': repr(str(tmp_path / "generations")),
        '"broken.jpg"': repr(str(tmp_path / "broken.jpg")),
    }
    with Client(stand_in.url, key="") as trainer:
        for block in BLOCKS:
            for here, there in replaced.items():
                block = block.replace(here, there)
            if "seed-1" in block and "compare" in block:
                with names["client"].run("mine", "seed-1") as run:
                    run.add("0", image(5), "a person on a horse", reference=photo)
                    run.wait(timeout=60, progress=False)
            of_trainer = {"client": trainer} if "reward" in block else {}
            if "async with" in block:
                body = textwrap.indent(block.split("\n\n", 1)[1], "    ")
                block = f"{block.split(chr(10) * 2, 1)[0]}\nasync def use():\n{body}\nasyncio.run(use())"
            scope = {**names, **of_trainer}
            exec(compile(block, f"docs/PYTHON.md: {block[:60]!r}", "exec"), scope)
            for name in set(scope) - set(names) - set(of_trainer):
                names[name] = scope[name]
            if "ddpo" in block:
                assert scope["ddpo"](names["images"], names["prompts"], [{}] * 4)[1] == {}
                assert len(scope["grpo"](list(names["images"]), prompts=names["prompts"])) == 4
    assert len(BLOCKS) >= 8
    assert len(list((tmp_path / "generations").glob("*.png"))) == len(names["dataset"]) == 24
    assert set(logged) == {"wandb", "mlflow", "trackio"}
    assert set(logged["wandb"]) == {f"eval/{name}" for name in logged["mlflow"]}
    assert written == logged["mlflow"]
    assert "clip_t" in logged["trackio"]
    printed = capsys.readouterr().out
    assert "| clip_t" in printed
    assert "image_" in printed


def test_every_class_of_errors_is_described():
    import stellar_score

    for name in stellar_score.__all__:
        kind = getattr(stellar_score, name)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning):
            assert f"`{name}`" in PAGE or name == "Problem", name
