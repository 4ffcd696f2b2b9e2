"""Face graphs against facenet-pytorch."""

import numpy as np
import pytest
import torch
from conftest import build

from stellar_export import faces, random_checkpoints
from stellar_export.checkpoints import Checkpoints
from stellar_export.errors import ExportError
from stellar_export.jobs import pictures
from stellar_export.onnx_graph import session

facenet = pytest.importorskip("facenet_pytorch", reason="pip install --no-deps -r requirements-reference.txt")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    random_checkpoints.make(folder / "root", 3, random_checkpoints.Sizes(), ["faces"])
    build(folder / "root", folder / "pack", ("faces",))
    return folder


def levels(batch: int, height: int, width: int) -> np.ndarray:
    return pictures(batch, height, width, seed=height + width).astype(np.float32)


def standardised(x: np.ndarray, scale: float) -> torch.Tensor:
    return (torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2) - 127.5) * scale


@pytest.mark.parametrize("sides", [(12, 12), (13, 30), (64, 64), (37, 101), (266, 266)])
def test_pnet_equals_the_package_at_any_size(pack, sides):
    x = levels(2, *sides)
    with torch.inference_mode():
        reg, prob = facenet.models.mtcnn.PNet()(standardised(x, 0.0078125))
    got = session(pack / "pack/graphs/faces.pnet.onnx").run(["prob", "reg"], {"pixels": x})
    np.testing.assert_allclose(got[0], prob[:, 1].numpy(), atol=1e-5)
    np.testing.assert_allclose(got[1], reg.numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "side"), [("rnet", 24), ("onet", 48)])
def test_crop_nets_equal_the_package(pack, name, side):
    x = levels(5, side, side)
    model = {"rnet": facenet.models.mtcnn.RNet, "onet": facenet.models.mtcnn.ONet}[name]()
    with torch.inference_mode():
        reg, *landmarks, prob = model(standardised(x, 0.0078125))
    got = session(pack / f"pack/graphs/faces.{name}.onnx").run(None, {"pixels": x})
    for a, b in zip(got, (prob[:, 1], reg, *landmarks), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


def test_the_embedding_equals_the_package(pack):
    from stellar_export.reference.faces import embedding_model

    x = pictures(3, 160, 160)
    with torch.inference_mode():
        expected = embedding_model(pack / "root" / "/".join(faces.EMBEDDING))(standardised(x, 1 / 128))
    got = session(pack / "pack/graphs/faces.embedding.onnx").run(None, {"pixels": x})[0]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    cosines = got @ got.T
    assert cosines[0, 1] < 0.99, "random embeddings of different pictures differ"


def test_the_random_layout_at_full_width_is_the_packages():
    model = facenet.InceptionResnetV1(pretrained=None)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items() if "num_batches" not in k}
    assert faces.embedding_spec(1) == expected


def test_a_key_too_many_is_refused(tmp_path):
    root = tmp_path / "root"
    random_checkpoints.make(root, 0, random_checkpoints.Sizes(face_divisor=16), ["faces"])
    path = root.joinpath(*faces.EMBEDDING)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"conv2d_9z.weight": torch.zeros(1)}, path)
    with pytest.raises(ExportError, match="unexpected key conv2d_9z.weight"):
        build(root, tmp_path / "pack", ("faces",))


def test_mtcnn_weights_of_the_root_come_first(tmp_path):
    package = faces.mtcnn_file(Checkpoints(None), "pnet.pt")
    assert faces.sha256_of(package) == faces.MTCNN_SHA256["pnet.pt"]
    own = tmp_path / "files" / "pnet.pt"
    own.parent.mkdir()
    own.write_bytes(package.read_bytes())
    assert faces.mtcnn_file(Checkpoints(tmp_path), "pnet.pt") == own
