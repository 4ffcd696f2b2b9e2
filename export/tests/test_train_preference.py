"""Reward-weighted training: weights of a group, what is refused, and a reward that rises."""

import base64
import json

import numpy as np
import pytest
import torch
from conftest import REPO
from safetensors.torch import load_file
from training import SIDE, configuration, stellarnet

from stellar_train import lora, mapper, preference, runs
from stellar_train.errors import TrainError


def test_weights_prefer_the_better_pictures_of_a_group():
    found = preference.weights_of([1.0, 2.0, None, 4.0], temperature=0.5)
    assert float(found.sum()) == pytest.approx(1)
    assert found[2] == 0
    assert found[0] < found[1] < found[3]
    # Only differences within the group count.
    assert torch.allclose(found, preference.weights_of([101.0, 102.0, None, 104.0], temperature=0.5))
    assert (preference.weights_of([3.0, 3.0, None], 1.0) == 0).all()
    assert (preference.weights_of([None, 3.0], 1.0) == 0).all()


@pytest.fixture
def settings(tiny_base, training_data, training_cache, tmp_path):
    short = stellarnet(tiny_base, training_data, training_cache, training={"steps": 1})
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    runs.from_photos(short, checkpoint, quiet=True)
    (tmp_path / "prompts.txt").write_text("{} by the sea\n\na drawing of {}\n")
    found = configuration(
        "preference",
        training={"steps": 2, "batch": 4, "accumulate": 1, "rate": 2e-3},
        sampling={"steps": 3, "guidance": 1.0},
    )
    found.values["base"]["folder"] = str(tiny_base)
    found.values["data"] |= {"folder": str(training_data), "prompts": str(tmp_path / "prompts.txt"), "resolution": SIDE}
    found.values["model"]["checkpoint"] = str(checkpoint)
    return found


def redness(images, prompt, photo):
    assert photo.is_file()
    assert "a person" in prompt
    pixels = [np.asarray(image, dtype=np.float64) / 255 for image in images]
    return [float(p[..., 0].mean() - p[..., 1:].mean()) for p in pixels]


def test_only_the_lora_of_the_checkpoint_is_trained_and_the_file_says_on_what(settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    preference.train(settings, out, quiet=True, reward=redness)
    before, after = (tmp_path / "checkpoint"), out
    assert (before / "mapper.safetensors").read_bytes() == (after / "mapper.safetensors").read_bytes()
    first, last = load_file(before / lora.FILE), load_file(after / lora.FILE)
    assert first.keys() == last.keys()
    assert any(not torch.equal(first[key], last[key]) for key in first)
    _, about = mapper.load(out)
    assert about["training"]["preference"]["rewards"] == {"pick_score": 1.0}
    # No evaluation was given, so its prompts may be among these.
    assert about["training"]["excludes_evaluation"] is None
    assert "data.evaluation was not given" in about["training"]["excludes_evaluation_note"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["away"] < 1e-10 < lines[1]["away"]
    # Targets are its own pictures: the photos have no latents to store.
    assert not list(out.rglob("*latents*"))
    # Another address of the service, and files in another place, are the same training.
    (tmp_path / "moved").mkdir()
    settings.values["data"]["prompts"] = str((tmp_path / "prompts.txt").rename(tmp_path / "moved" / "prompts.txt"))
    settings.values["model"]["checkpoint"] = str(before.rename(tmp_path / "moved" / "checkpoint"))
    settings.values["reward"]["service"] = "http://127.0.0.1:9"
    preference.train(settings, out, quiet=True, reward=None)
    # Other prompts are another one.
    (tmp_path / "moved" / "prompts.txt").write_text("{} by the sea\n")
    with pytest.raises(TrainError, match="another training"):
        preference.train(settings, out, quiet=True, reward=redness)


def test_pictures_without_a_reward_change_nothing(settings, tmp_path):
    out = tmp_path / "out"
    preference.train(settings, out, quiet=True, reward=lambda images, *_: [None] * len(images))
    first, last = load_file(tmp_path / "checkpoint" / lora.FILE), load_file(out / lora.FILE)
    assert all((first[key] - last[key]).abs().max() < 1e-3 for key in first)
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert line["without_reward"] == 4
    assert line["gradient"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "no prompts"), ("a person by the sea", "must have {} once"), ("{} and {}", "must have {} once")],
)
def test_prompts_that_cannot_be_used_are_refused(settings, tmp_path, text, problem):
    (tmp_path / "prompts.txt").write_text(text)
    with pytest.raises(TrainError, match=problem.replace("{", r"\{").replace("}", r"\}")):
        preference.train(settings, tmp_path / "out", quiet=True, reward=redness)


def evaluation(tmp_path, *prompts):
    lines = [json.dumps({"photo": "p.png", "identity": "a"}), *(json.dumps({"prompt": each}) for each in prompts)]
    (tmp_path / "dataset.jsonl").write_text("\n".join(lines))
    (tmp_path / "p.png").write_bytes(b"")
    return str(tmp_path)


@pytest.mark.parametrize(
    "prompt", ["a drawing of {}", "A  Drawing of {}.", "a drawing of a person", "a drawing of {0}"]
)
def test_a_prompt_of_the_evaluation_is_refused(settings, tmp_path, prompt):
    settings.values["data"]["evaluation"] = evaluation(tmp_path, "{} in a hat", prompt)
    with pytest.raises(TrainError, match="is a prompt of the evaluation"):
        preference.train(settings, tmp_path / "out", quiet=True, reward=redness)


def test_an_evaluation_without_prompts_is_refused(settings, tmp_path):
    settings.values["data"]["evaluation"] = evaluation(tmp_path)
    with pytest.raises(TrainError, match="no prompts"):
        preference.train(settings, tmp_path / "out", quiet=True, reward=redness)


@pytest.mark.parametrize("before", [True, False])
def test_compared_prompts_inherit_what_the_checkpoint_says(settings, tmp_path, before):
    path = tmp_path / "checkpoint" / mapper.CONFIG
    about = json.loads(path.read_text())
    about["training"]["excludes_evaluation"] = before
    path.write_text(json.dumps(about))
    settings.values["training"]["steps"] = 1
    if before:
        settings.values["data"]["evaluation"] = evaluation(tmp_path, "{} in a hat")
    preference.train(settings, tmp_path / "out", quiet=True, reward=redness)
    training = mapper.load(tmp_path / "out")[1]["training"]
    assert training["excludes_evaluation"] is before
    assert "excludes_evaluation_note" not in training


def test_the_rewards_of_a_running_service_are_those_of_its_route(settings, tmp_path, program, monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "scripts"))
    from service import Service

    weights = {"pick_score": 1.0, "clip_i": 2.0, "dreamsim": -0.5}
    out, calls = tmp_path / "out", []
    packs = {"STELLAR_PACK": str(REPO / "packs" / "demo"), "OMP_NUM_THREADS": "1"}
    service = Service(program, tmp_path / "service", settings=packs).start()
    try:
        service.ready(120)
        address = f"http://127.0.0.1:{service.port}"
        settings.values["reward"] |= {"service": address, "names": list(weights), "weights": list(weights.values())}
        of_service = preference.service

        def stored(configuration):
            compute = of_service(configuration)

            def reward(images, prompt, photo):
                files = [tmp_path / f"{len(calls)}-{n}.png" for n in range(len(images))]
                for image, file in zip(images, files, strict=True):
                    image.save(file)
                calls.append((files, prompt, photo))
                return compute(images, prompt, photo)

            return reward

        monkeypatch.setattr(preference, "service", stored)
        preference.train(settings, out, quiet=True)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == len(calls) == 2
        for line, (files, prompt, photo) in zip(lines, calls, strict=True):
            found = rewards_of(service, list(weights), files, prompt, photo)
            sums = sum(weight * np.array(found[name]) for name, weight in weights.items())
            # The pictures of a group differ, or there would be nothing to learn.
            assert len(sums) == 4 and sums.std() > 1e-4
            assert line["reward"] == pytest.approx(sums.mean(), abs=1e-5)
            assert line["without_reward"] == 0
    finally:
        service.stop()
    first, last = load_file(tmp_path / "checkpoint" / lora.FILE), load_file(out / lora.FILE)
    assert any(not torch.equal(first[key], last[key]) for key in first)
    assert mapper.load(out)[1]["training"]["preference"]["rewards"] == weights


def rewards_of(service, names, files, prompt, photo):
    """What POST /v1/rewards gives for pictures that are stored."""
    coded = lambda path: base64.b64encode(path.read_bytes()).decode()  # noqa: E731
    items = [{"image": coded(file), "prompt": prompt, "references": [coded(photo)]} for file in files]
    status, text, _ = service.call("POST", "/v1/rewards", json.dumps({"rewards": names, "items": items}))
    assert status == 200, text[:500]
    return json.loads(text)["rewards"]
