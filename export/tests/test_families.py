"""Every family against the package that defines its score, at other sizes than the demo pack's; and what is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import build, make, needs_reference_packages, request, silent
from pipeline import OF_FACES, Pipeline, of_modules
from safetensors.torch import load_file, save_file

from stellar_export import goldens, reference
from stellar_export.checkpoints import Checkpoints
from stellar_export.clip_models import DEFAULT_CLIP
from stellar_export.errors import ExportError, MissingCheckpoint
from stellar_export.families import FAMILIES
from stellar_export.onnx_graph import run_torch, session

MODELS = tuple(FAMILIES)
TOLERANCE = {"image_reward": 1e-4}  # from equal pixels, a tenth of the contract


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    sizes = dict(vision_width=64, vision_heads=4, vision_layers=2, text_width=128, text_heads=2, text_layers=2)
    sizes["owl_patch"] = 60
    return make(
        tmp_path_factory.mktemp("families") / "root", MODELS, seed=11, projection=48, dreamsim_width=32, **sizes
    )


@pytest.fixture(scope="module")
def jobs(root):
    return [job for model in MODELS for job in FAMILIES[model](request(root, MODELS))]


def test_every_score_is_the_original_codes(root, jobs):
    needs_reference_packages()
    pipeline, checkpoints = Pipeline(root, DEFAULT_CLIP, of_modules(jobs)), Checkpoints(root, say=silent)
    samples = [g for g in goldens.GOLDENS if g.name in ("portrait", "cup-non-ascii", "wide")]
    worst: dict[str, float] = {}
    for maker in reference.makers(checkpoints, DEFAULT_CLIP, "v2.0", MODELS).values():
        scorer = maker()
        for g in samples:
            sample = reference.Sample(
                goldens.PICTURES / g.picture, g.prompt, goldens.PICTURES / g.reference, (), g.detectables, g.relations
            )
            ours = pipeline.scores(sample.image(), g.prompt, sample.reference_image(), g.detectables, g.relations)
            for metric, value in scorer(sample).items():
                if metric not in OF_FACES:
                    worst[metric] = max(worst.get(metric, 0), abs(value - ours[metric]))
    assert set(worst) == set(goldens.TOLERANCE) - OF_FACES
    assert {m: d for m, d in worst.items() if d > TOLERANCE.get(m, 1e-5)} == {}


def test_half_precision_stays_near_single_precision(root, jobs):
    for model in MODELS:
        for half in FAMILIES[model](request(root, MODELS, "fp16")):
            full = next(j for j in jobs if j.roles == half.roles)
            for probe in full.probes:
                for spec, a, b in zip(
                    full.outputs, run_torch(full.module, probe), run_torch(half.module, probe), strict=True
                ):
                    assert b.dtype == np.float32
                    limit = 2e-2 if spec.name in ("aesthetic", "reward", "tokens") else 5e-3
                    assert np.abs(a - b).max() < limit * max(1, np.abs(a).max()), half.roles


def test_half_precision_graphs_run(root, tmp_path):
    # every build holds its graphs to PyTorch; here the types inside and outside
    out = build(root, tmp_path / "pack", ("image_reward",), "fp16")
    graph = session(out / "graphs/image_reward.score.onnx")
    assert [i.type for i in graph.get_inputs()] == ["tensor(float)", "tensor(int64)", "tensor(int64)"]
    assert [o.type for o in graph.get_outputs()] == ["tensor(float)"]
    assert 'precision = "fp16"' in (out / "pack.toml").read_text()


def test_weights_that_overflow_half_precision_are_refused(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["dino"])
    path = own / FILES["dino"][2]
    state = load_file(path)
    state["encoder.layer.1.output.dense.weight"][0, 0] = 1e5
    save_file(state, path)
    load("dino", own)
    with pytest.raises(ExportError, match="too large for half precision"):
        list(FAMILIES["dino"](request(own, ("dino",), "fp16")))


def copy_of(root, tmp_path, *parts):
    """A root with only one file of another; tests break the copy."""
    for part in parts:
        target = tmp_path / "root" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / part).read_bytes())
    return tmp_path / "root"


def load(model: str, root) -> None:
    list(FAMILIES[model](request(root, (model,))))


def edit_pickle(path, change, inside: str | None = None) -> None:
    content = torch.load(path, weights_only=True)
    change(content[inside] if inside else content)
    torch.save(content, path)


FILES = {
    "hpsv1": ("files/hpc.pt",),
    "hpsv2": ("files/HPS_v2_compressed.pt", "files/hpsv2_open_clip_config.json"),
    "image_reward": (
        "files/ImageReward.pt",
        "files/med_config.json",
        "files/imagereward_tiny.json",
        "hub/bert-base-uncased/vocab.txt",
    ),
    "dreamsim": (
        "files/dino_vitbase16_pretrain.pth",
        "files/dreamsim_tiny.json",
        "hub/.dreamsim_cache/clip_vitb16_pretrain.pth.tar",
        "hub/.dreamsim_cache/open_clip_vitb16_pretrain.pth.tar",
        "hub/.dreamsim_cache/ensemble_lora/adapter_config.json",
        "hub/.dreamsim_cache/ensemble_lora/adapter_model.safetensors",
    ),
    "dino": tuple(
        f"hub/facebook/dino-vits16/{n}" for n in ("config.json", "preprocessor_config.json", "model.safetensors")
    ),
}


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("hpsv1", "transformer.resblocks.1.attn.in_proj_bias"),
        ("hpsv2", "visual.ln_post.weight"),
        ("image_reward", "blip.text_encoder.encoder.layer.1.crossattention.self.value.bias"),
        ("image_reward", "mlp.layers.7.bias"),
    ],
)
def test_a_missing_or_unexpected_key_is_named(root, tmp_path, model, key):
    own = copy_of(root, tmp_path, *FILES[model])
    inside = None if model == "image_reward" else "state_dict"
    edit_pickle(own / FILES[model][0], lambda s: s.update(extra=torch.zeros(1)), inside)
    with pytest.raises(ExportError, match="unexpected key extra"):
        load(model, own)
    edit_pickle(own / FILES[model][0], lambda s: (s.pop("extra"), s.pop(key)), inside)
    with pytest.raises(ExportError, match=f"key {key} is missing"):
        load(model, own)


def test_every_key_of_dino_is_accounted_for(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["dino"])
    path = own / FILES["dino"][2]
    state = load_file(path)
    save_file(state | {"pooler.dense.weight": torch.zeros(64, 64)}, path)
    load("dino", own)  # in some files, and used by no score
    save_file(state | {"encoder.layer.0.odd": torch.zeros(1)}, path)
    with pytest.raises(ExportError, match=r"unexpected key encoder\.layer\.0\.odd"):
        load("dino", own)


def test_every_key_of_the_dreamsim_adapter_is_accounted_for(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["dreamsim"])
    path = own / FILES["dreamsim"][-1]
    state = load_file(path)
    at = "base_model.model.extractor_list.1.model.blocks.3.attn.qkv.lora_B.weight"
    save_file({k: v for k, v in state.items() if k != at}, path)
    with pytest.raises(ExportError, match=f"key {at} is missing"):
        load("dreamsim", own)
    save_file(state | {"base_model.model.odd.lora_A.weight": torch.zeros(1)}, path)
    with pytest.raises(ExportError, match=r"unexpected key base_model\.model\.odd\.lora_A\.weight"):
        load("dreamsim", own)


@pytest.mark.parametrize(
    "change", [{"bias": "all"}, {"use_rslora": True}, {"target_modules": ["qkv", "proj"]}], ids=str
)
def test_an_adapter_that_is_not_merged_as_it_says_is_refused(root, tmp_path, change):
    own = copy_of(root, tmp_path, *FILES["dreamsim"])
    path = own / FILES["dreamsim"][-2]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ExportError, match=next(iter(change))):
        load("dreamsim", own)


def test_what_dreamsim_lacks_is_named_with_where_to_get_it(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["dreamsim"])
    (own / FILES["dreamsim"][3]).unlink()
    with pytest.raises(
        MissingCheckpoint, match=r"lacks open_clip_vitb16_pretrain\.pth\.tar.*dreamsim_ensemble_checkpoint\.zip"
    ):
        load("dreamsim", own)


def test_both_versions_of_hpsv2_load_and_are_named(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["hpsv2"])
    (own / "files/HPS_v2_compressed.pt").rename(own / "files/HPS_v2.1_compressed.pt")
    asked = request(own, ("hpsv2",))
    asked.hps = "v2.1"
    image, text = FAMILIES["hpsv2"](asked)
    assert image.source.checkpoint == text.source.checkpoint == "xswu/HPSv2 v2.1"
    assert image.geometry["resize"] == "letterbox" and image.inputs[0].dtype == "f32"


def test_another_bert_vocabulary_is_refused(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["image_reward"])
    path = own / FILES["image_reward"][-1]
    path.write_text(path.read_text().replace("\nthe\n", "\nder\n"))
    with pytest.raises(ExportError, match="not the 30522 of bert-base-uncased"):
        load("image_reward", own)


def test_a_damaged_file_is_named(root, tmp_path):
    own = copy_of(root, tmp_path, *FILES["hpsv1"])
    (own / "files/hpc.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ExportError, match=r"hpc\.pt: not a readable PyTorch file"):
        load("hpsv1", own)
    torch.save({"weights": {}}, own / "files/hpc.pt")
    with pytest.raises(ExportError, match=r"hpc\.pt: no 'state_dict' in the file"):
        load("hpsv1", own)
