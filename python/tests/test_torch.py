"""Conversion of tensors. Runs where torch is installed: `make export-test` has it."""

import pytest

torch = pytest.importorskip("torch")

from stellar_score import PixelRangeWarning, pixels  # noqa: E402

RGB = torch.randint(0, 256, (3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def tensor(found):
    return torch.tensor(list(found.data), dtype=torch.uint8).reshape(found.height, found.width, 3).permute(2, 0, 1)


def same(image, expected=RGB):
    return torch.equal(tensor(pixels.one(image)), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_bytes_are_taken_as_they_are(device):
    image = RGB.to(device)
    assert same(image)
    assert same(image[None])
    assert same(image.to(memory_format=torch.contiguous_format)[:, ::2, ::2], RGB[:, ::2, ::2])
    assert same(image[None].to(memory_format=torch.channels_last))
    first, second = pixels.to_images(torch.stack([image, 255 - image]))
    assert torch.equal(tensor(first), RGB)
    assert torch.equal(tensor(second), 255 - RGB)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_round_to_the_nearest_level(device, kind):
    image = (RGB / 255).to(kind).to(device).requires_grad_()
    expected = (image.detach().double().cpu() * 255).round().to(torch.uint8)
    assert same(image, expected)
    if kind in (torch.float32, torch.float64):
        assert torch.equal(expected, RGB)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_nan_is_black_and_floats_are_clamped(kind):
    image = torch.tensor([float("nan"), -0.2, 1.2], dtype=kind).reshape(3, 1, 1)
    assert list(pixels.one(image).data) == [0, 0, 255]
    assert torch.isnan(image[0]), "the caller's tensor is not changed"


def test_floats_of_another_range_give_a_warning():
    with pytest.warns(PixelRangeWarning, match="from -1 to 1"):
        pixels.one(torch.linspace(-1, 1, 12).reshape(3, 2, 2))
    with pytest.warns(PixelRangeWarning):
        assert set(pixels.one(torch.full((3, 2, 2), float("inf"))).data) == {255}


def test_grey_is_repeated_and_alpha_dropped():
    assert same(RGB[:1], RGB[:1].expand(3, -1, -1))
    assert same(RGB[0], RGB[:1].expand(3, -1, -1))
    assert same(torch.cat([RGB, RGB[:1]]))


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.zeros(8, 8, 3, dtype=torch.uint8), ValueError, "CHW or BCHW.*movedim"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(2, 3, 8, 8), ValueError, "batch of 2"),
    ],
)
def test_other_tensors_are_refused(image, error, words):
    with pytest.raises(error, match=words):
        pixels.one(image)


def test_pixels_equal_those_of_diffusers_for_numpy_and_tensors():
    # diffusers: `(images * 255).round().astype("uint8")` of a decoded image in [0, 1], which torch rounds to even too.
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(2))
    numpy = pytest.importorskip("numpy")
    expected = (image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    assert pixels.one(image).data == expected.tobytes() == pixels.one(image.permute(1, 2, 0).numpy()).data
    assert isinstance(expected, numpy.ndarray)
