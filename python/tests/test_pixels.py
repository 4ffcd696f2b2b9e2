"""Conversion of images of any kind, compared with Pillow and NumPy."""

import io
import warnings
from pathlib import Path

import numpy
import pytest
from PIL import Image

from stellar_score import PixelRangeWarning, Pixels, pixels

RGB = numpy.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=numpy.uint8)


def array(found):
    return numpy.frombuffer(found.data, numpy.uint8).reshape(found.height, found.width, 3)


def same(image, expected=RGB):
    return numpy.array_equal(array(pixels.one(image)), expected)


def test_arrays_of_bytes_are_taken_as_they_are():
    assert same(RGB)
    assert same(RGB[None])
    assert same(numpy.asfortranarray(RGB))
    assert same(RGB[::-1, ::-1], RGB[::-1, ::-1])
    assert [array(each).tolist() for each in pixels.to_images(numpy.stack([RGB, 255 - RGB]))] == [
        RGB.tolist(),
        (255 - RGB).tolist(),
    ]


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_floats_round_to_the_nearest_level_and_halves_to_even(kind):
    assert same((RGB / 255).astype(kind))
    levels = numpy.array([[[0.5 / 255, 1.5 / 255, 2.5 / 255]]], kind)
    assert array(pixels.one(levels)).tolist() == numpy.rint(levels * 255).astype(numpy.uint8).tolist() == [[[0, 2, 2]]]


def test_half_precision_is_converted_in_32_bits():
    image = (RGB / 255).astype(numpy.float16)
    expected = numpy.rint(image.astype(numpy.float32) * 255)
    assert same(image, expected.astype(numpy.uint8))


def test_nan_is_black_and_floats_are_clamped():
    values = numpy.array([[[numpy.nan, -0.2, 1.2]], [[0.5, 1.0, 0.0]]], numpy.float32)
    assert array(pixels.one(values)).tolist() == [[[0, 0, 255]], [[128, 255, 0]]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert array(pixels.one(numpy.full((2, 2, 3), numpy.nan))).sum() == 0


@pytest.mark.parametrize("factor", [255.0, float("inf")])
def test_floats_of_another_range_give_a_warning(factor):
    with pytest.warns(PixelRangeWarning, match=r"clamped to \[0, 1\]: convert \[-1, 1\] with"):
        assert array(pixels.one(numpy.full((2, 2, 3), factor))).min() == 255
    with pytest.warns(PixelRangeWarning):
        pixels.one(numpy.full((2, 2, 3), -1.0))


def test_grey_is_repeated_and_alpha_dropped():
    grey = RGB[..., :1]
    assert same(grey, numpy.repeat(grey, 3, axis=2))
    assert same(grey[..., 0], numpy.repeat(grey, 3, axis=2))
    assert same(numpy.concatenate([RGB, numpy.zeros_like(grey)], axis=2))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_pil_images_are_what_pillow_converts_them_to(mode):
    image = Image.fromarray(numpy.dstack([RGB, RGB[..., 0]]), "RGBA") if mode == "RGBA" else Image.fromarray(RGB)
    image = image.convert(mode)
    assert same(image, numpy.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_pil_images_is_applied(orientation):
    from PIL import ImageOps

    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(file, "PNG", exif=exif)
    image = Image.open(file)
    expected = numpy.asarray(ImageOps.exif_transpose(image))
    assert same(image, expected)
    assert (orientation == 1) == numpy.array_equal(expected, RGB)


def test_files_are_sent_as_they_are(tmp_path):
    data = b"not even an image"
    (tmp_path / "a.png").write_bytes(data)
    for image in (data, bytearray(data), memoryview(data), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert pixels.to_file(image) == data
    with pytest.raises(FileNotFoundError):
        pixels.to_file(tmp_path / "b.png")


@pytest.mark.parametrize("compression", [0, 1, 9])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 33)])
def test_png_files_are_lossless(compression, shape, monkeypatch):
    values = numpy.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=numpy.uint8)
    given = Pixels(shape[1], shape[0], values.tobytes())
    with_numpy = pixels.encode_png(given, compression)
    monkeypatch.delitem(pixels.sys.modules, "numpy")
    without = pixels.encode_png(given, compression)
    monkeypatch.undo()
    for file in (with_numpy, without):
        image = Image.open(io.BytesIO(file))
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert numpy.array_equal(numpy.asarray(image), values)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (numpy.zeros((3, 8, 8), numpy.uint8), ValueError, r"shape \(3, 8, 8\).*moveaxis"),
        (numpy.zeros((8, 8, 2), numpy.uint8), ValueError, "1, 3 or 4 channels$"),
        (numpy.zeros((0, 8, 3), numpy.uint8), ValueError, "no pixels"),
        (numpy.zeros((8, 8, 3), numpy.int64), TypeError, "int64: convert it to uint8"),
        (numpy.zeros((8, 8, 3), bool), TypeError, "bool"),
        (numpy.zeros((2, 8, 8, 3), numpy.uint8), ValueError, "not a batch of 2"),
        (Pixels(2, 2, b"123"), ValueError, "2x2 RGB pixels are not 3 bytes"),
        ([RGB, RGB], TypeError, "one image is expected here, not a list of 2"),
        (3, TypeError, "int is not an image: give a path"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(image, error, words):
    with pytest.raises(error, match=words):
        pixels.one(image)


def test_importing_the_client_imports_no_other_library():
    import subprocess
    import sys

    source = str(Path(pixels.__file__).parent.parent)
    code = "import sys, stellar_score; print({'numpy', 'PIL', 'torch', 'pandas', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
