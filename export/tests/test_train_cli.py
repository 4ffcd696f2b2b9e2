"""The commands: defaults, errors without a traceback, and a training from the command line."""

import sys
from pathlib import Path

import pytest
from training import configuration

from stellar_train import cli
from stellar_train.configuration import METHODS, Configuration, tomllib


def test_the_digest_does_not_depend_on_places():
    plain = Configuration("preference").digest()
    for key in ("data.folder", "data.prompts", "data.evaluation", "model.checkpoint", "reward.service", "base.folder"):
        assert Configuration("preference", settings=[f"{key}=elsewhere"]).digest() == plain, key
    for setting in ('reward.names=["ips"]', "loss.anchor=0.5", "data.resolution=64", "training.seed=1"):
        assert Configuration("preference", settings=[setting]).digest() != plain, setting


@pytest.mark.parametrize("method", METHODS)
def test_the_printed_configuration_is_the_default_one(method, capsys, tmp_path):
    assert cli.main([method, "--print-config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "a.toml").write_text(printed)
    assert Configuration(method, tmp_path / "a.toml").values == Configuration(method).values == tomllib.loads(printed)


def test_the_help_of_images_says_that_a_file_is_taken(capsys):
    with pytest.raises(SystemExit):
        cli.main(["images", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--checkpoint PATH a folder of `elite`, or a global_mapper.pt (model.checkpoint)" in shown


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["stellarnet"], "--out is missing"),
        (["stellarnet", "--out", "OUT"], "--data is missing"),
        (["stellarnet", "--out", "OUT", "--data", "OUT"], "--base is missing"),
        (["stellarnet", "--out", "OUT", "--data", "OUT", "--base", "OUT"], "has no training.json"),
        (["elite", "--out", "OUT", "--set", "model.lora_rank=4"], "unknown key model.lora_rank"),
        (["elite", "--out", "OUT", "--set", "steps"], "section.key=value"),
        (["dreambooth", "--out", "OUT", "--base", "OUT", "--data", "OUT/none"], "none"),
        (["stellarnet", "--out", "OUT", "--config", "OUT/none.toml"], "none.toml"),
    ],
)
def test_errors_say_what_to_do(arguments, problem, capsys, tmp_path):
    assert cli.main([each.replace("OUT", str(tmp_path)) for each in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert problem in error


def test_a_package_that_is_not_installed_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "stellar_train.subjects", raising=False)
    monkeypatch.setitem(sys.modules, "stellar_score.dataset", None)
    monkeypatch.setattr(cli, "_PACKAGES", {"stellar_score.dataset": "install it"})
    assert cli.main(["dreambooth", "--out", str(tmp_path)]) == 1
    assert "stellar_score.dataset is not installed: install it" in capsys.readouterr().err


def test_a_training_from_the_command_line(tiny_base, training_data, training_cache, tmp_path, capsys):
    short = configuration("stellarnet").values
    path = tmp_path / "short.toml"
    path.write_text(
        f'[data]\nresolution = 64\nfeatures = "cached"\nheld_out = 2\ncache = "{training_cache}"\n'
        f'[model]\nhidden = {short["model"]["hidden"]}\n[training]\nsteps = 9\ndevice = "cpu"\n'
        "[output]\nvalidate_every = 0\n"
    )
    out = tmp_path / "out"
    arguments = ["--config", str(path), "--base", str(tiny_base), "--data", str(training_data), "--out", str(out)]
    assert cli.main(["stellarnet", *arguments, "--set", "training.steps=2", "--set", "training.batch=2"]) == 0
    assert (out / "stellarnet.json").is_file()
    assert "step 2 of 2" in capsys.readouterr().err
    assert Path(out / "metrics.jsonl").read_text().count("\n") == 1
