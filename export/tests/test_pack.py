"""The builder: manifest, hashes, what is left out, what is never overwritten."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from conftest import Mean, build, manifest, request

from stellar_export import cli, clip_models, pack, preprocess
from stellar_export.checkpoints import Checkpoints, _weight_patterns
from stellar_export.clip_models import CLIP_L, DEFAULT_CLIP
from stellar_export.errors import ExportError, MissingCheckpoint
from stellar_export.jobs import embedding_image_job, picture_probe
from stellar_export.manifest import Source
from stellar_export.onnx_graph import save, session, to_onnx


def test_the_manifest_names_every_file_with_its_hash(shared_pack):
    m = manifest(shared_pack)
    assert [g["role"] for g in m["graph"]] == ["clip.image", "clip.text", "clip_l.image"]
    listed = {f["path"]: f["sha256"] for g in m["graph"] for f in g["files"]}
    listed |= {t["file"]: t["sha256"] for t in m["tokenizer"]}
    there = {p.relative_to(shared_pack).as_posix() for p in shared_pack.rglob("*") if p.is_file()} - {"pack.toml"}
    assert there == set(listed)
    for path, digest in listed.items():
        assert hashlib.sha256((shared_pack / path).read_bytes()).hexdigest() == digest, path


def test_the_manifest_describes_the_graphs(shared_pack):
    names = {"u8": onnx.TensorProto.UINT8, "i64": onnx.TensorProto.INT64, "f32": onnx.TensorProto.FLOAT}
    for graph in manifest(shared_pack)["graph"]:
        model = onnx.load(shared_pack / graph["files"][0]["path"])
        onnx.checker.check_model(model, full_check=True)
        for listed, found in ((graph["inputs"], model.graph.input), (graph["outputs"], model.graph.output)):
            assert [i["name"] for i in listed] == [f.name for f in found]
            for i, f in zip(listed, found, strict=True):
                batch, *shape = f.type.tensor_type.shape.dim
                assert f.type.tensor_type.elem_type == names[i["dtype"]]
                assert batch.dim_param and [d.dim_value or -1 for d in shape] == i["shape"]


def test_graphs_tell_nothing_of_the_machine_they_were_made_on(shared_pack):
    for path in (shared_pack / "graphs").iterdir():
        content = path.read_bytes()
        for word in (b"stack_trace", b".py", str(shared_pack.parent.parent).encode()):
            assert word not in content


def test_the_same_checkpoints_give_the_same_bytes(shared_root, shared_pack, tmp_path):
    again = build(shared_root, tmp_path / "pack", ("clip", "aesthetic"))
    for path in shared_pack.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(shared_pack)).read_bytes(), path.name


def test_large_weights_go_to_a_file_beside_the_graph(shared_root, tmp_path):
    job = next(iter(clip_models.aesthetic_graphs(request(shared_root, ("aesthetic",)))))
    model = to_onnx(job.module, job.inputs, job.outputs, job.example, job.shortest, job.longest)
    whole, split = save(model, tmp_path / "whole.onnx"), save(model, tmp_path / "split.onnx", external_above=0)
    assert [f.name for f in whole] == ["whole.onnx"]
    assert [f.name for f in split] == ["split.onnx", "split.onnx.data"]
    assert split[1].stat().st_size > 100_000
    assert split[0].stat().st_size < whole[0].stat().st_size - 100_000
    inputs = dict(picture_probe(2, 224, 224).inputs)
    a, b = (session(files[0]).run(None, inputs) for files in (whole, split))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_the_clip_of_the_aesthetic_head_is_exported_once(shared_root, tmp_path):
    out = build(shared_root, tmp_path / "pack", ("clip", "aesthetic"), clip=CLIP_L)
    graphs = {g["role"]: g for g in manifest(out)["graph"]}
    assert set(graphs) == {"clip.image", "clip.text", "clip_l.image"}
    assert graphs["clip.image"]["files"] == graphs["clip_l.image"]["files"]
    assert len(list((out / "graphs").iterdir())) == 2


def test_the_aesthetic_head_is_the_published_mlp(shared_root, shared_pack):
    from stellar_export.reference.clip import AestheticHead

    head = AestheticHead(768)
    head.load_state_dict(torch.load(shared_root / "files/sac+logos+ava1-l14-linearMSE.pth", weights_only=True))
    graph = session(shared_pack / "graphs/clip_l.image.onnx")
    embedding, score = graph.run(["embedding", "aesthetic"], dict(picture_probe(3, 224, 224).inputs))
    with torch.inference_mode():
        expected = head.eval()(torch.from_numpy(embedding)).squeeze(-1).numpy()
    assert score.shape == (3,)
    np.testing.assert_allclose(score, expected, atol=1e-5)


# ---- the builder itself, with a family that costs nothing


@pytest.fixture
def tiny_family(monkeypatch):
    """`clip` becomes a family of one graph without weights; `aesthetic` stays what it is."""

    def graphs(req):
        geometry = preprocess.exact(8, 8, "bilinear")
        yield embedding_image_job(["tiny.image"], Mean(), 3, geometry, Source("x", "local", "x", "0" * 64), True)

    monkeypatch.setitem(pack.FAMILIES, "clip", graphs)


def test_only_packs_and_empty_folders_are_overwritten(tiny_family, tmp_path):
    precious, out = tmp_path / "precious", tmp_path / "pack"
    precious.mkdir()
    (precious / "thesis.txt").write_text("…")
    with pytest.raises(ExportError, match="is not a pack"):
        build(None, precious)
    assert (precious / "thesis.txt").exists()
    out.mkdir()
    build(None, out, name="first")
    (out / "graphs/old.onnx").write_text("left over")
    build(None, out, name="second")
    assert manifest(out)["name"] == "second" and not (out / "graphs/old.onnx").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"precious", "pack"}


def test_a_failed_build_leaves_the_pack_that_was_there(tiny_family, tmp_path):
    out = build(None, tmp_path / "pack")
    before = (out / "pack.toml").read_bytes()
    with pytest.raises(MissingCheckpoint):
        build(tmp_path, out, ("clip", "aesthetic"))
    assert (out / "pack.toml").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"pack"}


def test_a_model_without_checkpoints_is_left_out_unless_it_was_asked_for(tiny_family, tmp_path):
    lines = []
    out = build(tmp_path, tmp_path / "pack", ("clip", "aesthetic"), named=False, say=lines.append)
    assert [g["role"] for g in manifest(out)["graph"]] == ["tiny.image"]
    assert any("left out" in line and "sac+logos" in line for line in lines)
    with pytest.raises(MissingCheckpoint, match=r"files/sac\+logos\+ava1-l14-linearMSE\.pth is missing"):
        build(tmp_path, tmp_path / "other", ("aesthetic",))
    assert not (tmp_path / "other").exists()


def test_a_pack_without_any_model_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="nothing to build"):
        build(tmp_path, tmp_path / "pack", ("aesthetic",), named=False)


def test_a_pack_is_official_only_by_published_sizes_and_an_unmarked_root(tiny_family, shared_pack, make_root, tmp_path):
    assert manifest(build(tmp_path, tmp_path / "published"))["weights"] == "official"
    assert manifest(build(make_root(()), tmp_path / "marked"))["weights"] == "demo"
    assert manifest(build(tmp_path, tmp_path / "flagged", demo=True))["weights"] == "demo"
    assert manifest(shared_pack)["weights"] == "demo"


def test_sizes_that_nobody_published_are_not_official(shared_root):
    assert not next(iter(clip_models.clip_graphs(request(shared_root)))).official


# ---- the hub


def test_a_hub_id_that_cannot_be_had_is_named_with_its_files_and_place(tmp_path, monkeypatch):
    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.list_repo_files", offline)
    with pytest.raises(MissingCheckpoint) as error:
        build(tmp_path, tmp_path / "pack")
    for part in (DEFAULT_CLIP, "no network", "config.json", str(tmp_path / "hub"), "model.safetensors"):
        assert part in str(error.value)


def test_the_hub_is_asked_for_what_is_needed_and_its_commit_is_kept(own_root, tmp_path, monkeypatch):
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.parent.mkdir()
    (own_root / "hub" / DEFAULT_CLIP).rename(snapshot)
    asked = []

    def download(hub_id, allow_patterns):
        asked.append((hub_id, allow_patterns))
        return str(snapshot)

    listed = ["model.safetensors", "pytorch_model.bin", "open_clip/x.bin"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda _: listed)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    job = next(iter(clip_models.clip_graphs(request(None))))
    assert job.source.revision == "0123abc" and job.source.file == "model.safetensors"
    assert asked[0][0] == DEFAULT_CLIP and {"config.json", "model*.safetensors"} <= set(asked[0][1])
    assert not any("bin" in pattern for pattern in asked[0][1])


def test_of_the_weights_on_the_hub_only_transformers_own_are_taken():
    assert _weight_patterns(["model-00001-of-00002.safetensors", "pytorch_model.bin"])[0] == "model*.safetensors"
    assert _weight_patterns(["open_clip_model.safetensors", "pytorch_model.bin"])[0] == "pytorch_model*.bin"


def test_a_single_file_comes_from_the_hub_where_the_root_lacks_it(tmp_path, monkeypatch):
    cached = tmp_path / "snapshots" / "4567def" / "ImageReward.pt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: str(cached))
    file = Checkpoints(tmp_path, say=lambda _: None).file("ImageReward.pt", "THUDM/ImageReward")
    assert (file.checkpoint, file.revision, file.path) == ("THUDM/ImageReward", "4567def", cached)


# ---- the command line


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    assert cli.main(["build", "--out", str(tmp_path / "p"), "--only", "clip,clop"]) == 1
    assert "unknown clop; known are clip, aesthetic" in capsys.readouterr().err
    assert cli.main(["build", "--out", str(tmp_path / "p"), "--checkpoints", str(tmp_path / "nowhere")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_the_command_line_builds_a_random_pack_with_goldens(tmp_path, capsys):
    out, root = tmp_path / "pack", tmp_path / "root"
    options = ["--random", "--checkpoints", str(root), "--seed", "3", "--only", "dino", "--vision-layers", "1"]
    assert cli.main(["build", "--out", str(out), *options]) == 0
    m = manifest(out)
    goldens = json.loads((out / m["goldens"]["file"]).read_text())
    assert m["weights"] == "demo" and m["graph"][0]["source"]["checkpoint"] == "facebook/dino-vits16"
    assert m["graph"][0]["geometry"]["resize"] == "exact" and m["graph"][0]["geometry"]["filter"] == "bilinear"
    assert hashlib.sha256((out / m["goldens"]["file"]).read_bytes()).hexdigest() == m["goldens"]["sha256"]
    assert all((out / s["image"]).is_file() for s in goldens["samples"])
    assert goldens["tolerance"] == {"dino": 1e-4}
    assert "demo pack of 1 graphs" in capsys.readouterr().out
    assert (root / "hub/facebook/dino-vits16/model.safetensors").is_file()
