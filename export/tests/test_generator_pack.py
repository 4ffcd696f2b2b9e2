"""The demo generator pack: that this code makes it, and that its graphs give what diffusers gives."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import REPO, manifest, silent
from generator_loop import Loop
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from stellar_export.errors import ExportError
from stellar_export.generator import demo, goldens
from stellar_export.generator.base import Base
from stellar_export.generator.export import Options, build, denoiser_job, describe, fuse_lora, graphs
from stellar_export.nn import ATTENTION_OPSET, FP16, FP32, GELU_OPSET
from stellar_export.onnx_graph import OPSET, session
from stellar_export.pack import Builder, finish
from stellar_train import lora

pytest.importorskip("diffusers", reason="requirements-reference.txt is not installed")

DEMO = REPO / "packs" / "demo-generator"


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Options:
    return demo.checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads((DEMO / goldens.FILE).read_text())


def runner(pack: Path):
    sessions = {p.stem: session(p) for p in (pack / "graphs").glob("*.onnx")}

    def run(role, inputs):
        graph = sessions[role]
        return dict(zip([o.name for o in graph.get_outputs()], graph.run(None, inputs), strict=True))

    return run


def loop(pack: Path, options: Options) -> Loop:
    from transformers import CLIPTokenizer

    tokenizers = [CLIPTokenizer.from_pretrained(options.base / name) for name in ("tokenizer", "tokenizer_2")]
    return Loop(pack, manifest(pack), runner(pack), tokenizers)


def test_the_committed_graphs_give_the_committed_pictures(options, committed):
    ours = loop(DEMO, options)
    assert len(committed["samples"]) == len(goldens.GOLDENS)
    for sample in committed["samples"]:
        latents = ours.latents(sample)
        assert np.abs(latents[0] - np.load(DEMO / sample["latents"])).max() < committed["tolerance"]["latents"] / 2
        picture = np.asarray(Image.open(DEMO / sample["image"]))
        assert picture.shape == (sample["height"], sample["width"], 3)
        assert (ours.picture(latents) == picture).mean() > committed["tolerance"]["bytes"], sample["name"]


def test_the_committed_pictures_are_what_diffusers_says(options, committed):
    names = ("masked", "turned-photo", "negative-prompt", "wide", "too-long", "one-step")
    reference = goldens.Reference(Base.open(options.base), options)
    samples = {s["name"]: s for s in committed["samples"]}
    for golden in goldens.GOLDENS:
        if golden.name not in names:
            continue
        made, sample = reference.generate(golden, 64), samples[golden.name]
        # Another processor's kernels differ in the last bits of noise and of every step.
        np.testing.assert_allclose(made.noise, np.load(DEMO / sample["noise"]), atol=2e-6)
        np.testing.assert_allclose(made.latents, np.load(DEMO / sample["latents"]), atol=5e-5)
        assert (np.asarray(made.image) == np.asarray(Image.open(DEMO / sample["image"]))).mean() > 0.999


def test_the_goldens_tell_photos_and_masks_apart(committed):
    latents = {s["name"]: np.load(DEMO / s["latents"]) for s in committed["samples"]}
    for other in ("same-without-mask", "other-photo"):
        assert np.abs(latents["masked"] - latents[other]).max() > 1000 * committed["tolerance"]["latents"]
    assert {s["guidance"] for s in committed["samples"]} >= {1.0, 5.0} and {
        s["steps"] for s in committed["samples"]
    } == {1, 5, 20}
    assert any(s["width"] != s["height"] for s in committed["samples"])


def test_an_items_noise_does_not_depend_on_its_neighbours():
    """So pictures of different requests and timesteps may share a batch."""
    run = runner(DEMO)
    draw = np.random.default_rng(0)

    def items(height: int, width: int) -> dict[str, np.ndarray]:
        shapes = {"sample": (4, height, width), "context": (77, 72), "pooled": (40,), "time_ids": (6,)}
        made = {name: draw.standard_normal((8, *shape)).astype(np.float32) for name, shape in shapes.items()}
        return made | {"timestep": draw.integers(1, 1000, 8).astype(np.float32)}

    for sides in ((8, 8), (12, 16)):
        given = items(*sides)
        alone = run("generator.denoiser", {k: v[:1] for k, v in given.items()})["noise"][0]
        for batch in (2, 3, 4, 8):
            together = {k: np.concatenate([v[1:batch], v[:1]]) for k, v in given.items()}
            np.testing.assert_array_equal(run("generator.denoiser", together)["noise"][-1], alone)


def test_the_manifest_has_the_roles_of_the_service(committed):
    m = manifest(DEMO)
    assert (m["name"], m["weights"]) == ("demo-generator", "demo")
    shapes = {g["role"]: [(i["name"], i["dtype"], i["shape"]) for i in g["inputs"] + g["outputs"]] for g in m["graph"]}
    assert shapes == {
        "generator.words": [("pixels", "u8", [224, 224, 3]), ("words_1", "f32", [5, 32]), ("words_2", "f32", [5, 40])],
        "generator.text_1": [
            ("input_ids", "i64", [77]),
            ("words", "f32", [-1, 32]),
            ("at", "i64", []),
            ("eos", "i64", []),
            ("hidden", "f32", [77, 32]),
        ],
        "generator.text_2": [
            ("input_ids", "i64", [77]),
            ("words", "f32", [-1, 40]),
            ("at", "i64", []),
            ("eos", "i64", []),
            ("hidden", "f32", [77, 40]),
            ("pooled", "f32", [40]),
        ],
        "generator.denoiser": [
            ("sample", "f32", [4, -1, -1]),
            ("timestep", "f32", []),
            ("context", "f32", [77, 72]),
            ("pooled", "f32", [40]),
            ("time_ids", "f32", [6]),
            ("noise", "f32", [4, -1, -1]),
        ],
        "generator.decoder": [("latents", "f32", [4, -1, -1]), ("image", "f32", [3, -1, -1])],
    }
    assert [g["text"]["pad"] for g in m["graph"] if "text" in g] == [49407, 0]
    assert {g["role"]: g["max_batch"] for g in m["graph"]}["generator.decoder"] == 1
    table = {k: v for k, v in m["generator"].items() if k != "scheduler"}
    assert table == dict(
        system="stellarnet-like",
        placeholder="{}",
        words=5,
        latent_channels=4,
        latent_factor=8,
        scaling_factor=0.13025,
        side_multiple=32,
        default_side=64,
        largest_side=2048,
    )


def test_every_file_is_named_with_its_hash(committed):
    m = manifest(DEMO)
    listed = {f["path"]: f["sha256"] for g in m["graph"] for f in g["files"]}
    listed |= {t["file"]: t["sha256"] for t in m["tokenizer"]}
    listed |= {
        m["generator"]["scheduler"]["path"]: m["generator"]["scheduler"]["sha256"],
        goldens.FILE: m["goldens"]["sha256"],
    }
    for path, digest in listed.items():
        assert hashlib.sha256((DEMO / path).read_bytes()).hexdigest() == digest, path
    used = {s[k] for s in committed["samples"] for k in ("photo", "mask", "noise", "latents", "image")} - {None}
    there = {p.relative_to(DEMO).as_posix() for p in DEMO.rglob("*") if p.is_file()}
    assert there == set(listed) | used | {"pack.toml", "NOTICE"}


def test_the_demo_pack_is_small_and_says_whose_work_is_in_it():
    assert sum(f.stat().st_size for f in DEMO.rglob("*") if f.is_file()) < 3e6
    assert (DEMO / "NOTICE").read_text(encoding="utf-8") == demo.NOTICE


def test_the_committed_graphs_are_what_this_code_makes(options, tmp_path):
    build(replace(options, goldens=False), tmp_path / "pack", "demo-generator", silent)
    for path in sorted((tmp_path / "pack" / "graphs").iterdir()):
        assert str(tmp_path).encode() not in path.read_bytes() and b".py" not in path.read_bytes()
        ours, theirs = (onnx.load(p) for p in (path, DEMO / "graphs" / path.name))
        onnx.checker.check_model(ours, full_check=True)
        attends = any(node.op_type == "MultiHeadAttention" for node in ours.graph.node)
        assert [o.version for o in ours.opset_import if not o.domain] == [GELU_OPSET if attends else OPSET]
        assert list(ours.graph.node) == list(theirs.graph.node), path.name
        for a, b in zip(ours.graph.initializer, theirs.graph.initializer, strict=True):
            assert (a.name, a.data_type, a.dims) == (b.name, b.data_type, b.dims)
            # fused adapters come out of matrix products, whose last bit is the processor's
            np.testing.assert_allclose(numpy_helper.to_array(a), numpy_helper.to_array(b), rtol=1e-6, atol=1e-7)
    for name in ("scheduler.json", "tokenizers/clip-merges.txt"):
        assert (tmp_path / "pack" / name).read_bytes() == (DEMO / name).read_bytes()
    fresh, old = manifest(tmp_path / "pack"), manifest(DEMO)
    assert "goldens" not in fresh and fresh["generator"] == old["generator"]


@pytest.mark.slow
def test_a_pack_for_gpus_in_half_precision(options, committed, tmp_path):
    """All but the words, which are made of the same layers as other packs."""
    base, half = Base.open(options.base), replace(options, precision=FP16, gpu=True)
    builder = Builder(tmp_path, FP16, 100_000, silent, gpu=True)
    builder.needs_tokenizer("clip", base.merges())
    for job in graphs(base, half):
        if job.roles[0] != "generator.words":
            builder.add(job)
    listed = builder.manifest("gpu", True)
    listed.generator = describe(base, half, builder)
    finish(tmp_path, listed, None)
    m = {g["role"].removeprefix("generator."): g for g in manifest(tmp_path)["graph"]}
    models = {role: onnx.load(tmp_path / g["files"][0]["path"]) for role, g in m.items()}
    assert {next(o.version for o in model.opset_import if not o.domain) for model in models.values()} == {ATTENTION_OPSET}
    nodes = {role: [n.op_type for n in model.graph.node] for role, model in models.items()}
    assert nodes["denoiser"].count("Attention") == 14 and nodes["decoder"].count("Attention") == 1
    assert nodes["denoiser"].count("GroupNormalization") > 10
    single = {"softmax_precision", "stash_type"}
    for node in models["denoiser"].graph.node:
        if node.op_type in ("Attention", "GroupNormalization", "LayerNormalization"):
            assert [a.i for a in node.attribute if a.name in single] == [onnx.TensorProto.FLOAT], node.op_type
    assert {role: g["precision"] for role, g in m.items()} == {
        "text_1": "fp16",
        "text_2": "fp16",
        "denoiser": "fp16",
        "decoder": "fp32",
    }
    assert [f["path"] for f in m["denoiser"]["files"]] == [
        f"graphs/generator.denoiser.onnx{end}" for end in ("", ".data")
    ]
    shutil.copytree(DEMO / "goldens", tmp_path / "goldens")
    sample = next(s for s in committed["samples"] if s["name"] == "no-photo")
    ours = loop(tmp_path, options)
    latents, allowed = ours.latents(sample), goldens.TOLERANCE["fp16"]
    assert 1e-4 < np.abs(latents[0] - np.load(DEMO / sample["latents"])).max() < allowed["latents"]
    assert (ours.picture(latents) == np.asarray(Image.open(DEMO / sample["image"]))).mean() > allowed["bytes"]


# ---- adapters


def test_fused_adapters_are_the_adapters(options):
    base = Base.open(options.base)
    plain, fused, beside = base.unet(), base.unet(), base.unet()
    fuse_lora(fused, options.stellarnet)
    lora.inject(beside, demo.LORA_RANK, demo.LORA_RANK)
    lora.restore(beside, load_file(options.stellarnet / lora.FILE))
    probe = denoiser_job(base, Options(options.base), 72, 40).probes[1]
    given = {k: torch.from_numpy(v) for k, v in probe.inputs.items()}

    def noise(unet):
        added = dict(text_embeds=given["pooled"], time_ids=given["time_ids"])
        with torch.no_grad():
            return unet(given["sample"], given["timestep"], given["context"], added_cond_kwargs=added).sample

    assert (noise(fused) - noise(plain)).abs().max() > 0.01
    torch.testing.assert_close(noise(fused), noise(beside), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora.lora_A", "lora.lora_B")])
def test_newer_names_of_adapters_are_read(options, tmp_path, down, up):
    expected, found = (Base.open(options.base).unet() for _ in range(2))
    fuse_lora(expected, options.stellarnet)
    other = Path(shutil.copytree(options.stellarnet, tmp_path / "stellarnet"))
    state = load_file(other / lora.FILE)
    renamed = {k.replace("lora.down", down).replace("lora.up", up): v for k, v in state.items()}
    assert renamed.keys().isdisjoint(state)
    save_file(renamed, other / lora.FILE)
    fuse_lora(found, other)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), found.parameters(), strict=True))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("unet.nowhere.to_q", r"nowhere\.to_q: the UNet has no such linear layer"),
        ("text_encoder.text_model.x", "only adapters of the UNet are supported"),
    ],
)
def test_an_adapter_of_nothing_is_an_error(options, tmp_path, key, says):
    other = Path(shutil.copytree(options.stellarnet, tmp_path / "stellarnet"))
    state = load_file(other / lora.FILE)
    save_file(
        state | {f"{key}.lora.down.weight": torch.zeros(4, 8), f"{key}.lora.up.weight": torch.zeros(8, 4)},
        other / lora.FILE,
    )
    with pytest.raises(ExportError, match=says):
        fuse_lora(Base.open(options.base).unet(), other)


# ---- what a pack needs


def test_without_a_checkpoint_there_are_no_words(options, tmp_path):
    base, plain = Base.open(options.base), Options(options.base)
    roles = [role for job in graphs(base, plain) for role in job.roles]
    assert roles == ["generator.text_1", "generator.text_2", "generator.denoiser", "generator.decoder"]
    table = describe(base, plain, Builder(tmp_path, FP32, 0, silent))
    assert (table["system"], table["words"]) == ("sdxl", 0) and "training" not in table


def test_goldens_without_words_are_about_someone():
    plain = goldens.chosen(with_words=False)
    assert all(g.photo is None and g.mask is None and "{}" not in g.prompt for g in plain)
    assert len({(g.prompt, g.negative_prompt, g.seed, g.steps, g.guidance, g.aspect) for g in plain}) == len(plain)
    assert len(plain) == len(goldens.GOLDENS) - 2, "masked, unmasked and another photo are one"


def test_goldens_that_are_not_finite_are_refused(options, tmp_path, monkeypatch):
    broken = Path(shutil.copytree(options.stellarnet, tmp_path / "stellarnet"))
    state = load_file(broken / lora.FILE)
    state[next(key for key in state if "up" in key)].fill_(float("nan"))
    save_file(state, broken / lora.FILE)
    golden = next(each for each in goldens.GOLDENS if each.name == "no-photo")
    monkeypatch.setattr(goldens, "GOLDENS", (replace(golden, steps=1),))
    (tmp_path / "pack").mkdir()
    builder = Builder(tmp_path / "pack", FP32, 0, silent)
    with pytest.raises(ExportError, match="no-photo has latents that are not finite"):
        goldens.write(builder, Base.open(options.base), replace(options, stellarnet=broken), silent)
    assert not (builder.folder / goldens.FILE).exists()


@pytest.mark.parametrize("name", ["stellarnet.json", "mapper.safetensors", "pytorch_lora_weights.safetensors"])
def test_an_incomplete_checkpoint_is_refused(options, tmp_path, name):
    other = Path(shutil.copytree(options.stellarnet, tmp_path / "stellarnet"))
    (other / name).unlink()
    with pytest.raises(ExportError, match=f"{name} is missing"):
        next(graphs(Base.open(options.base), replace(options, stellarnet=other)))


def test_what_was_trained_on_follows_the_weights(options, tmp_path):
    other = Path(shutil.copytree(options.stellarnet, tmp_path / "stellarnet"))
    training = dict(schema=1, images=12, excludes_evaluation=True)
    path = other / "stellarnet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(training=training)))
    table = describe(Base.open(options.base), replace(options, stellarnet=other), Builder(tmp_path, FP32, 0, silent))
    assert json.loads((tmp_path / table["training"]["path"]).read_text()) == training
    assert table["training"]["sha256"] == hashlib.sha256((tmp_path / "training.json").read_bytes()).hexdigest()


def test_a_missing_image_encoder_is_named(options, tmp_path):
    given = replace(options, image_encoders=(None, tmp_path / "nowhere"))
    with pytest.raises(ExportError, match=r"nowhere is not a folder: .* give --image-encoder-2"):
        next(graphs(Base.open(options.base), given))
    wrong = replace(options, image_encoders=(options.base / "image_encoder_2", None))
    with pytest.raises(ExportError, match=r"hidden states of 40 values, .* was trained with 32"):
        next(graphs(Base.open(options.base), wrong))
