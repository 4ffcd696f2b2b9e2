#!/usr/bin/env python3
"""Writes the images and expected results for tests/vision.

All expected results come from Pillow (and torchvision for the float letterbox), never from the code of this
repository. Images are drawn here or cropped from scikit-image's `astronaut` (Eileen Collins, NASA, public domain).

    pip install 'pillow>=13' numpy                # decode, resize, geometry
    pip install torch torchvision                 # letterbox, area; unchanged if it is missing
    pip install transformers==4.33.3              # bounded; unchanged if it is missing
    python scripts/vision_fixtures.py [--astronaut PATH_OF_astronaut.png]

The crop of the astronaut is committed as tests/data/vision/decode/astronaut.png and is the source of later runs. Run the
script after adding a case; the digests of the other cases must not change. It needs Pillow 13 or later: earlier versions
resize tall images in another order (see `is_vertical_first` in crates/stellar-vision/src/resample/mod.rs).
"""

import argparse
import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy
from PIL import Image, ImageCms

ROOT = Path(__file__).resolve().parent.parent / "tests" / "data" / "vision"


def drawn(seed: int, width: int, height: int) -> numpy.ndarray:
    """An image of 16-pixel tiles of noise, stripes, gradients and faint noise; the same as `drawn` in tests/vision/main.rs."""
    index = numpy.arange(3 * width * height, dtype=numpy.uint32).reshape(height, width, 3)
    value = index * numpy.uint32(2654435761) + numpy.uint32(seed)
    value ^= value >> numpy.uint32(15)
    value *= numpy.uint32(2246822519)
    value ^= value >> numpy.uint32(13)
    noise = value >> numpy.uint32(24)
    y, x, c = numpy.indices((height, width, 3), dtype=numpy.uint32)
    tile = (x // 16 + y // 16 + seed) % 4
    stripes = (x // 3 + y // 5) % 2 * 255
    gradient = (x * 5 + y * 3 + c * 80) % 256
    return numpy.choose(tile, [noise, stripes, gradient, 128 + noise // 16]).astype(numpy.uint8)


def digest(pixels: numpy.ndarray) -> str:
    return hashlib.sha256(numpy.ascontiguousarray(pixels).tobytes()).hexdigest()


# --- PNG, written by hand: Pillow cannot write everything it reads -----------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed_rows(samples: numpy.ndarray, depth: int) -> bytes:
    """Filters (cycling through all five filters) and packs rows of (height, width, channels) samples."""
    height, width, channels = samples.shape
    if width == 0 or height == 0:
        return b""
    if depth == 16:
        rows = samples.astype(">u2").view(numpy.uint8).reshape(height, -1)
    elif depth == 8:
        rows = samples.astype(numpy.uint8).reshape(height, -1)
    else:
        bits = numpy.unpackbits(samples.astype(numpy.uint8).reshape(height, -1, 1), axis=2)[:, :, 8 - depth :]
        rows = numpy.packbits(bits.reshape(height, -1), axis=1)
    step = max(1, channels * depth // 8)
    out = bytearray()
    above = numpy.zeros(rows.shape[1], numpy.int32)
    for y, row in enumerate(rows.astype(numpy.int32)):
        left = numpy.concatenate([numpy.zeros(step, numpy.int32), row[:-step]])[: row.size]
        corner = numpy.concatenate([numpy.zeros(step, numpy.int32), above[:-step]])[: row.size]
        guess = left + above - corner
        near = [abs(guess - left), abs(guess - above), abs(guess - corner)]
        paeth = numpy.where(
            (near[0] <= near[1]) & (near[0] <= near[2]), left, numpy.where(near[1] <= near[2], above, corner)
        )
        prediction = [0, left, above, (left + above) // 2, paeth][y % 5]
        out.append(y % 5)
        out += ((row - prediction) % 256).astype(numpy.uint8).tobytes()
        above = row
    return bytes(out)


def png(samples, depth, colour, interlaced=False, palette=None, before=(), after=()) -> bytes:
    height, width, _ = samples.shape
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        raw = b"".join(packed_rows(samples[y::dy, x::dx], depth) for x, y, dx, dy in passes)
    else:
        raw = packed_rows(samples, depth)
    compressed = zlib.compress(raw, 9)
    half = len(compressed) // 2
    out = b"\x89PNG\r\n\x1a\n"
    out += chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(numpy.uint8).tobytes())
    for kind, data in before:
        out += chunk(kind, data)
    out += chunk(b"IDAT", compressed[:half]) + chunk(b"IDAT", compressed[half:])
    for kind, data in after:
        out += chunk(kind, data)
    return out + chunk(b"IEND", b"")


def exif_block(orientation: int, order: str = "<") -> bytes:
    """A TIFF header and one directory with the orientation between two other tags."""
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)), (0x0128, 3, 1, struct.pack(order + "HH", 2, 0))]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in entries:
        out += struct.pack(order + "HHI", tag, kind, count) + value
    return out + struct.pack(order + "I", 0)


def colour_profile(name: str) -> bytes:
    """An ICC profile without its creation time (bytes 24 to 36), so that files are reproducible."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def png_files(photo: numpy.ndarray) -> dict[str, bytes]:
    rng = numpy.random.default_rng(1)
    small = drawn(3, 37, 29)
    deep = (small.astype(numpy.uint16) << 8) | rng.integers(0, 256, small.shape, dtype=numpy.uint16)
    # 16-bit grey around the value at which Pillow clips it.
    dim = (deep[:, :, :1] % 400).astype(numpy.uint16)
    alpha = rng.integers(0, 256, (29, 37, 1), dtype=numpy.uint8)
    deep_alpha = rng.integers(0, 65536, (29, 37, 1), dtype=numpy.uint16)
    palette = rng.integers(0, 256, (256, 3))
    files = {}
    for tag, interlaced in (("", False), ("_interlaced", True)):
        for depth in (1, 2, 4, 8):
            grey = small[:, :, :1] >> (8 - depth)
            files[f"grey{depth}{tag}.png"] = png(grey, depth, 0, interlaced)
            files[f"palette{depth}{tag}.png"] = png(grey, depth, 3, interlaced, palette[: 1 << depth])
        files[f"grey16{tag}.png"] = png(dim, 16, 0, interlaced)
        files[f"grey_alpha8{tag}.png"] = png(numpy.concatenate([small[:, :, :1], alpha], 2), 8, 4, interlaced)
        files[f"grey_alpha16{tag}.png"] = png(numpy.concatenate([deep[:, :, :1], deep_alpha], 2), 16, 4, interlaced)
        files[f"rgb8{tag}.png"] = png(small, 8, 2, interlaced)
        files[f"rgb16{tag}.png"] = png(deep, 16, 2, interlaced)
        files[f"rgba8{tag}.png"] = png(numpy.concatenate([small, alpha], 2), 8, 6, interlaced)
        files[f"rgba16{tag}.png"] = png(numpy.concatenate([deep, deep_alpha], 2), 16, 6, interlaced)
    # tRNS: an alpha for each palette entry, or one transparent colour.
    files["palette8_transparent.png"] = png(small[:, :, :1], 8, 3, False, palette, [(b"tRNS", bytes(range(0, 250, 2)))])
    files["palette4_transparent.png"] = png(small[:, :, :1] >> 4, 4, 3, False, palette[:16], [(b"tRNS", b"\0\x80\xff\x40")])
    for depth in (1, 2, 4, 8):
        grey = small[:, :, :1] >> (8 - depth)
        files[f"grey{depth}_transparent.png"] = png(grey, depth, 0, before=[(b"tRNS", struct.pack(">H", int(grey[5, 5, 0])))])
    files["grey16_transparent.png"] = png(dim, 16, 0, before=[(b"tRNS", struct.pack(">H", int(dim[5, 5, 0])))])
    files["rgb8_transparent.png"] = png(small, 8, 2, before=[(b"tRNS", struct.pack(">3H", *map(int, small[5, 5])))])
    files["rgb16_transparent.png"] = png(deep, 16, 2, before=[(b"tRNS", struct.pack(">3H", *map(int, deep[5, 5])))])
    files["palette_short.png"] = png(small[:, :, :1] % 5, 8, 3, False, palette[:5])
    # Chunks that must not change the pixels.
    profile = colour_profile("sRGB")
    files["metadata.png"] = png(
        small,
        8,
        2,
        before=[
            (b"gAMA", struct.pack(">I", 100000)),
            (b"iCCP", b"profile\0\0" + zlib.compress(profile)),
            (b"tEXt", b"Comment\0a text"),
            (b"zTXt", b"Comment\0\0" + zlib.compress(b"long text " * 1000)),
            (b"iTXt", b"Comment\0\0\0\0\0" + "größer".encode()),
            (b"abCd", b"private"),
        ],
        after=[(b"tEXt", b"Comment\0after the picture")],
    )
    files["orientation6.png"] = png(small, 8, 2, before=[(b"eXIf", exif_block(6))])
    files["orientation5_after_data.png"] = png(small, 8, 2, after=[(b"eXIf", exif_block(5, ">"))])
    files["grey16_orientation8.png"] = png(dim, 16, 0, before=[(b"eXIf", exif_block(8, ">"))])
    for width, height in ((1, 1), (1, 9), (9, 1), (3, 2)):
        files[f"size{width}x{height}_interlaced.png"] = png(drawn(4, width, height), 8, 2, True)
    frames = [Image.fromarray(drawn(seed, 33, 21)) for seed in (5, 6, 7)]
    for name, options in (("animated", {}), ("animated_default", {"default_image": True})):
        buffer = io.BytesIO()
        frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=50, **options)
        files[f"{name}.png"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(photo[:64, :96]).save(buffer, "PNG", optimize=True)
    files["photo.png"] = buffer.getvalue()
    return files


# --- JPEG ------------------------------------------------------------------------------------------------------


def jpeg(pixels, mode="RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segments(data: bytes):
    """Yields (offset of the marker, marker, offset of the content, length of the content) up to the first scan."""
    at = 2
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        yield at, data[at + 1], at + 4, length - 2
        at += 2 + length


def with_sampling(data: bytes, factor: int) -> bytes:
    """Changes the sampling factor of the first component: the image is scrambled but valid."""
    out = bytearray(data)
    for _, marker, content, _ in segments(data):
        if marker in (0xC0, 0xC1, 0xC2):
            out[content + 7] = factor
    return bytes(out)


def with_adobe_transform(data: bytes, transform) -> bytes:
    for at, marker, content, length in segments(data):
        if marker == 0xEE and data[content : content + 5] == b"Adobe":
            if transform is None:
                return data[:at] + data[content + length :]
            return data[: content + 11] + bytes([transform]) + data[content + 12 :]
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) + data[2:]


def without_jfif(data: bytes) -> bytes:
    return data[:2] + b"".join(
        data[at : content + length] for at, marker, content, length in segments(data) if marker != 0xE0
    ) + data[data.index(b"\xff\xda") :]


def jpeg_files(photo: numpy.ndarray) -> dict[str, bytes]:
    files = {}
    odd = photo[10:101, 20:143]
    square = photo[:160, :160]
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        for quality in (30, 75, 95):
            files[f"s{name}_q{quality}.jpg"] = jpeg(odd, subsampling=subsampling, quality=quality)
        files[f"s{name}_progressive.jpg"] = jpeg(odd, subsampling=subsampling, quality=80, progressive=True)
    s422, s420 = jpeg(square, subsampling=1, quality=60), jpeg(square, subsampling=2, quality=60)
    progressive = jpeg(square, subsampling=2, quality=60, progressive=True)
    files["s440.jpg"] = with_sampling(s422, 0x12)
    files["s411.jpg"] = with_sampling(s420, 0x41)
    files["s441.jpg"] = with_sampling(s420, 0x14)
    files["s411_progressive.jpg"] = with_sampling(progressive, 0x41)
    files["noise_q100.jpg"] = jpeg(drawn(8, 61, 43), quality=100, subsampling=0)
    files["noise_q1.jpg"] = jpeg(drawn(8, 61, 43), quality=1, subsampling=2)
    files["optimized.jpg"] = jpeg(odd, optimize=True)
    files["restarts.jpg"] = jpeg(odd, restart_marker_blocks=3)
    files["restart_rows.jpg"] = jpeg(odd, restart_marker_rows=1, progressive=True)
    files["grey.jpg"] = jpeg(odd, "L")
    files["grey_progressive.jpg"] = jpeg(odd, "L", progressive=True)
    files["stored_rgb.jpg"] = without_jfif(jpeg(odd, keep_rgb=True, quality=85))
    files["adobe_rgb.jpg"] = with_adobe_transform(without_jfif(jpeg(odd, subsampling=0)), 0)
    files["adobe_ycc.jpg"] = with_adobe_transform(without_jfif(jpeg(odd)), 1)
    files["cmyk.jpg"] = jpeg(odd, "CMYK", quality=85)
    files["cmyk_progressive.jpg"] = jpeg(odd, "CMYK", quality=85, progressive=True)
    files["cmyk_without_adobe.jpg"] = with_adobe_transform(files["cmyk.jpg"], None)
    files["ycck.jpg"] = with_adobe_transform(files["cmyk.jpg"], 2)
    ycck = with_adobe_transform(jpeg(square, "CMYK", quality=85, subsampling=2), 2)
    files["ycck_subsampled.jpg"] = ycck
    for width, height in ((1, 1), (2, 3), (7, 5), (8, 8), (9, 17), (16, 1), (1, 33)):
        files[f"size{width}x{height}.jpg"] = jpeg(photo[50 : 50 + height, 60 : 60 + width], subsampling=2)
    for orientation in range(1, 9):
        files[f"orientation{orientation}.jpg"] = jpeg(
            photo[:24, :40], exif=b"Exif\0\0" + exif_block(orientation, "<>"[orientation % 2])
        )
    profile = colour_profile("LAB")
    files["metadata.jpg"] = jpeg(photo[:30, :30], icc_profile=profile, comment=b"a comment", dpi=(72, 72))
    files["trailing_bytes.jpg"] = jpeg(photo[:30, :30]) + b"appended by a phone\xff\xd8\xff"
    plain = jpeg(photo[:30, :30])
    files["padding_before_end.jpg"] = plain[:-2] + b"\0\0\0\0" + plain[-2:]
    files["fill_bytes.jpg"] = plain[:2] + b"\xff\xff\xff" + plain[2:]
    return files


# --- WebP ------------------------------------------------------------------------------------------------------


def webp(pixels, mode="RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "WEBP", **options)
    return buffer.getvalue()


def riff(chunks) -> bytes:
    body = b"WEBP"
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def partial_animation(pixels, canvas, offset) -> bytes:
    """An animation with one frame that covers only a part of the canvas."""
    height, width, channels = pixels.shape
    plain = webp(pixels, "RGBA" if channels == 4 else "RGB", lossless=True, exact=True)
    kind, length = plain[12:16], struct.unpack("<I", plain[16:20])[0]
    bitstream = plain[20 : 20 + length]
    frame = u24(offset[0] // 2) + u24(offset[1] // 2) + u24(width - 1) + u24(height - 1) + u24(100) + b"\0"
    frame += kind + struct.pack("<I", length) + bitstream + b"\0" * (length % 2)
    flags = b"\x12\0\0\0" if channels == 4 else b"\x02\0\0\0"
    return riff(
        [
            (b"VP8X", flags + u24(canvas[0] - 1) + u24(canvas[1] - 1)),
            (b"ANIM", b"\x10\x20\x30\xff\0\0"),
            (b"ANMF", frame),
        ]
    )


def webp_files(photo: numpy.ndarray) -> dict[str, bytes]:
    rng = numpy.random.default_rng(2)
    odd = photo[10:101, 20:143]
    rgba = numpy.concatenate([odd, rng.integers(0, 256, odd.shape[:2] + (1,), dtype=numpy.uint8)], 2)
    rgba[20:40, :, 3] = 0
    files = {}
    for quality in (10, 50, 80, 100):
        files[f"lossy_q{quality}.webp"] = webp(odd, quality=quality)
    files["lossy_noise.webp"] = webp(drawn(9, 67, 45), quality=90, method=6)
    files["lossy_alpha.webp"] = webp(rgba, "RGBA", quality=60, exact=True)
    files["lossless.webp"] = webp(photo[:48, :61], lossless=True)
    files["lossless_noise.webp"] = webp(drawn(10, 31, 27), lossless=True)
    files["lossless_few_colours.webp"] = webp(odd // 64 * 64, lossless=True)
    files["lossless_alpha.webp"] = webp(rgba[:40, :40], "RGBA", lossless=True, exact=True)
    for width, height in ((1, 1), (2, 3), (17, 5), (1, 33)):
        files[f"size{width}x{height}.webp"] = webp(photo[50 : 50 + height, 60 : 60 + width], quality=75)
    for orientation in (3, 6, 7):
        files[f"orientation{orientation}.webp"] = webp(photo[:24, :40], exif=exif_block(orientation), quality=70)
    files["orientation8_prefixed.webp"] = webp(photo[:24, :40], exif=b"Exif\0\0" + exif_block(8, ">"), lossless=True)
    profile = colour_profile("sRGB")
    files["metadata.webp"] = webp(photo[:24, :40], icc_profile=profile, xmp=b"<x/>", quality=70)
    frames = [Image.fromarray(drawn(seed, 33, 21)) for seed in (5, 6, 7)]
    for name, options in (("lossy", {"quality": 70}), ("lossless", {"lossless": True})):
        buffer = io.BytesIO()
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=50, **options)
        files[f"animated_{name}.webp"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "WEBP", save_all=True, append_images=[Image.fromarray(rgba[::-1])], quality=50)
    files["animated_alpha.webp"] = buffer.getvalue()
    files["animated_partial.webp"] = partial_animation(drawn(11, 12, 9), (30, 20), (6, 4))
    files["animated_partial_alpha.webp"] = partial_animation(rgba[:9, :12], (30, 20), (18, 10))
    return files


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(data: bytes) -> numpy.ndarray:
    """Decodes a file with Pillow and applies the EXIF orientation."""
    image = Image.open(io.BytesIO(data))
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    rgb = image.convert("RGB")
    return numpy.asarray(rgb.transpose(TURNS[orientation]) if orientation in TURNS else rgb)


def write_decode(photo_file: Path) -> None:
    photo = numpy.asarray(Image.open(photo_file).convert("RGB"))
    cases = []
    files = {**png_files(photo), **jpeg_files(photo), **webp_files(photo)}
    for path in (ROOT / "decode").iterdir():
        if path != photo_file:
            path.unlink()
    files[photo_file.name] = photo_file.read_bytes()
    for name, data in sorted(files.items()):
        (ROOT / "decode" / name).write_bytes(data)
        pixels = upright(data)
        cases.append({"file": name, "width": pixels.shape[1], "height": pixels.shape[0], "sha256": digest(pixels)})
    write_json("decode.json", cases)


# --- resizing --------------------------------------------------------------------------------------------------

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def write_resize() -> None:
    cases = []

    def add(width, height, size, box=None, filters=("bicubic", "bilinear")):
        seed = len(cases)
        image = Image.fromarray(drawn(seed, width, height))
        box = box or (0, 0, width, height)
        for name in filters:
            resized = numpy.asarray(image.crop(box).resize(size, FILTERS[name]))
            cases.append(
                {
                    "seed": seed,
                    "width": width,
                    "height": height,
                    "box": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "size": list(size),
                    "filter": name,
                    "sha256": digest(resized),
                }
            )

    for width, height in ((1, 1), (2, 2), (3, 1), (1, 5), (7, 3), (16, 16), (223, 224), (224, 224), (225, 224)):
        add(width, height, (224, 224))
    for width, height in ((512, 512), (640, 480), (1024, 1024), (1000, 1500), (1023, 769), (2000, 1333)):
        add(width, height, (224, 224))
    add(3000, 100, (224, 224))
    add(100, 3000, (224, 224))
    add(5000, 200, (224, 224))
    add(200, 5000, (224, 7))
    add(1, 20000, (224, 224))
    add(20000, 1, (224, 224))
    add(4096, 4096, (3, 2), filters=("bicubic",))
    add(640, 480, (840, 840), filters=("bicubic",))
    add(300, 400, (299, 401))
    add(300, 400, (300, 224))
    add(300, 400, (224, 400))
    add(60, 50, (1, 1))
    add(60, 50, (1, 700))
    add(61, 47, (122, 94))
    add(61, 47, (183, 23))
    for box in ((0, 0, 160, 160), (40, 30, 199, 221), (299, 239, 300, 240), (0, 200, 300, 240), (13, 0, 14, 240), (7, 9, 90, 31)):
        add(300, 240, (160, 160), box, ("bilinear",))
        add(300, 240, (24, 24), box, ("bicubic",))
    # Around Pillow 13's choice of the first pass: the vertical one if rows removed > 2 * columns removed.
    for size in ((100, 199), (100, 200), (100, 201), (220, 299), (220, 100), (150, 301), (150, 300), (1, 1)):
        add(200, 400, size)
    add(200, 401, (100, 201), filters=("bicubic",))
    add(130, 300, (90, 40), (7, 9, 70, 300))
    add(333, 2000, (224, 1345), filters=("bicubic",))
    for size in ((320, 320), (640, 480), (64, 64), (1, 1), (1500, 900)):
        add(640, 480, size, filters=("lanczos",))
    add(320, 320, (1000, 1500), filters=("lanczos",))
    add(5, 3, (320, 320), filters=("lanczos",))
    write_json("resize.json", cases)


def margin_offset(margin: int, crop: str) -> int:
    return margin // 2 if crop == "floor" else round(margin / 2)


def write_geometry() -> None:
    cases = []
    sizes = [(224, 224), (225, 224), (224, 227), (227, 224), (231, 224), (1, 1), (1, 40), (50, 1), (333, 500)]
    sizes += [(500, 333), (640, 480), (1024, 1024), (1961, 1635), (3000, 100), (100, 3000), (448, 451), (451, 449)]
    sizes += [(17, 19), (223, 1000), (800, 601), (1080, 2400), (300, 601), (300, 600), (600, 1301)]
    for seed, (width, height) in enumerate(sizes):
        image = Image.fromarray(drawn(seed, width, height))
        for side, name, crop in ((224, "bicubic", "floor"), (224, "bicubic", "half_even"), (49, "bilinear", "floor")):
            short, long = min(width, height), max(width, height)
            long = int(side * long / short)
            new = (side, long) if width <= height else (long, side)
            left, top = (margin_offset(value - side, crop) for value in new)
            square = image.resize(new, FILTERS[name]).crop((left, top, left + side, top + side))
            table = {"resize": "shortest_edge", "height": side, "width": side, "filter": name, "crop": crop, "dtype": "u8"}
            cases.append({"seed": seed, "width": width, "height": height, "geometry": table, "sha256": digest(numpy.asarray(square))})
        for rows, columns, name in ((224, 224, "bilinear"), (40, 84, "bicubic")):
            table = {"resize": "exact", "height": rows, "width": columns, "filter": name, "crop": "none", "dtype": "u8"}
            resized = numpy.asarray(image.resize((columns, rows), FILTERS[name]))
            cases.append({"seed": seed, "width": width, "height": height, "geometry": table, "sha256": digest(resized)})
    write_json("geometry.json", cases)


def write_bounded() -> None:
    """Sizes and pixels by DETR's own processor, which prepares images for scene graphs."""
    try:
        from transformers import DeformableDetrImageProcessor
        from transformers.models.detr.image_processing_detr import get_size_with_aspect_ratio
    except ImportError:
        print("bounded.json is unchanged: transformers is not installed")
        return
    random = numpy.random.default_rng(0)
    sizes = {(1024, 1024), (1, 1), (640, 480), (480, 640), (800, 1000), (6016, 4000), (1961, 1635), (3840, 5760), (5000, 200)}
    sizes |= {(200, 5000), (1920, 1080), (9700, 100), (800, 800), (800, 1333), (1333, 800), (1334, 800), (799, 1333), (3000, 100)}
    for high in (40, 1500, 8000):
        sizes |= {tuple(int(side) for side in random.integers(1, high, 2)) for _ in range(120)}
    for _ in range(100):  # around the ratio at which the longer side is bounded
        short = int(random.integers(100, 4000))
        long = round(short * 1333 / 800) + int(random.integers(-3, 4))
        sizes.add((long, short) if random.random() < 0.5 else (short, long))
    cases = []
    for width, height in sorted(sizes):
        rows, columns = get_size_with_aspect_ratio((height, width), 800, 1333)
        if rows and columns:  # otherwise the original fails
            cases.append({"width": width, "height": height, "bounds": [800, 1333], "rows": rows, "columns": columns})
    processor = DeformableDetrImageProcessor(
        size={"shortest_edge": 160, "longest_edge": 266}, do_rescale=False, do_normalize=False
    )
    for seed, (width, height) in enumerate(
        ((1024, 1024), (640, 480), (480, 640), (1961, 1635), (3000, 100), (100, 3000), (17, 19), (160, 266), (1, 1), (5, 3), (266, 159))
    ):
        seen = processor(Image.fromarray(drawn(seed, width, height)), input_data_format="channels_last", return_tensors="np")
        pixels = seen["pixel_values"][0].transpose(1, 2, 0).astype(numpy.uint8)
        case = {"width": width, "height": height, "bounds": [160, 266], "rows": pixels.shape[0], "columns": pixels.shape[1]}
        cases.append(case | {"seed": seed, "sha256": digest(numpy.ascontiguousarray(pixels))})
    write_json("bounded.json", cases)


def write_letterbox() -> None:
    try:
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional
    except ImportError:
        print("letterbox.json is unchanged: torch and torchvision are not installed")
        return
    torch.set_num_threads(1)
    cases = []
    sizes = [(1024, 1024), (512, 512), (224, 224), (224, 100), (101, 224), (225, 223), (1, 1), (3, 200), (640, 480)]
    sizes += [(1500, 1000), (97, 31), (2000, 333), (500, 4000), (30, 3000)]
    for seed, (width, height) in enumerate(sizes):
        image = functional.to_tensor(Image.fromarray(drawn(seed, width, height)))
        scale = 224 / float(max(height, width))
        new = tuple(max(1, round(side * scale)) for side in (height, width))
        resized = functional.resize(image, list(new), InterpolationMode.BICUBIC, antialias=True)
        below, right = 224 - new[0], 224 - new[1]
        padding = [right // 2, below // 2, right - right // 2, below - below // 2]
        square = functional.pad(resized, padding, fill=0).permute(1, 2, 0).numpy()
        # The step is coprime to the row length, so that all columns and channels are covered.
        values = square.reshape(-1)[::331]
        cases.append(
            {
                "seed": seed,
                "width": width,
                "height": height,
                "step": 331,
                "values": [float(f"{value:.9g}") for value in values],
                "sum": float(square.astype(numpy.float64).sum()),
            }
        )
    write_json("letterbox.json", cases)


def write_area() -> None:
    try:
        import torch
    except ImportError:
        print("area.json is unchanged: torch is not installed")
        return
    torch.set_num_threads(1)
    cases = []

    def add(width, height, size, box=None):
        seed = len(cases)
        left, top, right, bottom = box or (0, 0, width, height)
        image = torch.from_numpy(drawn(seed, width, height)[top:bottom, left:right]).float()
        resized = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=size[::-1], mode="area")
        values = resized[0].permute(1, 2, 0).numpy().reshape(-1)
        step = 1 + values.size // 400
        cases.append(
            {
                "seed": seed,
                "width": width,
                "height": height,
                "box": [left, top, right - left, bottom - top],
                "size": list(size),
                "step": step,
                "values": [float(f"{value:.9g}") for value in values[::step]],
            }
        )

    for factor in (0.6, 0.4254, 0.3016, 0.0271):
        add(1024, 768, (int(1024 * factor + 1), int(768 * factor + 1)))
    for box in ((0, 0, 24, 24), (10, 20, 57, 61), (100, 0, 640, 480), (3, 3, 20, 21), (630, 470, 640, 480), (0, 5, 1, 6)):
        add(640, 480, (24, 24), box)
        add(640, 480, (48, 48), box)
    add(1, 1, (5, 3))
    add(7, 5, (7, 5))
    add(300, 2000, (3, 5))
    add(2000, 300, (13, 1))
    write_json("area.json", cases)


def write_json(name: str, cases: list) -> None:
    (ROOT / name).write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{name}: {len(cases)} cases")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--astronaut", type=Path, help="scikit-image's astronaut.png, to crop the photo again")
    arguments = parser.parse_args()
    (ROOT / "decode").mkdir(parents=True, exist_ok=True)
    photo = ROOT / "decode" / "astronaut.png"
    if arguments.astronaut:
        face = Image.open(arguments.astronaut).convert("RGB").crop((142, 20, 302, 180))
        face.save(photo, optimize=True)
    write_decode(photo)
    write_resize()
    write_geometry()
    write_bounded()
    write_letterbox()
    write_area()


if __name__ == "__main__":
    main()
