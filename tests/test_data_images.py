"""Every kind of file that people have becomes the right RGB picture, or one error that says why not."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tokenmix_runtime import images
from tokenmix_runtime.images import ImageError, open_image


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth picture, so that JPEG keeps it nearly as it is."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.mode == b.mode == "RGB"
    assert a.size == b.size
    return float(np.abs(np.asarray(a, int) - np.asarray(b, int)).mean())


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "gif", "jpg", "jp2", "tga"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    photo().save(path, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    assert difference(open_image(path), photo()) <= (8 if suffix in ("gif", "jpg", "webp") else 0)


def test_exif_rotation_is_applied(tmp_path):
    path = tmp_path / "x.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned clockwise
    photo().save(path, exif=exif)
    assert difference(open_image(path), photo().transpose(Image.Transpose.ROTATE_270)) == 0


def test_palette_with_transparency_lies_over_white(tmp_path):
    path = tmp_path / "x.png"
    picture = Image.new("P", (4, 2))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1] * 4)
    picture.save(path, transparency=bytes([0, 255]))
    pixels = np.asarray(open_image(path))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("mode", "colour", "expected"), [("RGBA", (200, 0, 0, 128), 227), ("LA", (200, 128), 227)])
def test_alpha_lies_over_white(tmp_path, mode, colour, expected):
    path = tmp_path / "x.png"
    Image.new(mode, (3, 3), colour).save(path)
    assert abs(open_image(path).getpixel((1, 1))[0] - expected) <= 1


def test_one_transparent_grey_level(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.array([[7, 9]], np.uint8)).save(path, transparency=7)
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [255, 9]


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "x.jpg"
    photo().convert("CMYK").save(path, quality=95)
    assert difference(open_image(path), photo()) < 6


def test_one_bit(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.array([[True, False]])).save(path)
    assert np.asarray(open_image(path))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_gradient_is_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.tile((np.arange(256) * 257).astype(np.uint16), (2, 1))).save(path)
    assert np.asarray(open_image(path))[1, :, 0].tolist() == list(range(256))


def test_dark_16_bit_stays_dark(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(path)
    assert open_image(path).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[np.nan, 5.0, 5.0]], np.float32), [0, 5, 5]),
        (np.array([[-3.0, -3.0, -3.0]], np.float32), [0, 0, 0]),
    ],
)
def test_32_bit_modes(tmp_path, values, expected):
    path = tmp_path / "x.tif"
    Image.fromarray(values).save(path)
    assert np.asarray(open_image(path))[0, :, 0].tolist() == expected


def tiff(path, channels: int, tags: dict) -> None:
    """A TIFF as programs for satellites' pictures write it, of so many 8-bit channels."""
    entries = {256: (4, 8), 257: (4, 6), 258: (3, (8,) * channels), 259: (3, 1), 262: (3, 2), 273: (4, 8)}
    entries |= {277: (3, channels), 278: (4, 6), 279: (4, 48 * channels)} | tags
    pixels = bytes(range(48)) * channels
    body, more = b"", b""
    at = 8 + len(pixels) + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I' if kind == 4 else 'd'}", *values)
        if len(packed) > 4:
            place, more = struct.pack("<I", at + len(more)), more + packed
        else:
            place = packed.ljust(4, b"\0")
        body += struct.pack("<HHI", tag, kind, len(values)) + place
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    path.write_bytes(head + pixels + struct.pack("<H", len(entries)) + body + bytes(4) + more)


@pytest.mark.parametrize(
    ("channels", "tags", "refused"),
    [
        (3, {}, False),
        (3, {33550: (12, (1.0, 1.0, 0.0))}, False),  # with a place on the earth
        (4, {338: (3, 2)}, False),  # transparency
        (4, {338: (3, 2), 33550: (12, (1.0, 1.0, 0.0))}, True),
        (4, {338: (3, 0)}, True),  # anything
        (4, {}, True),
        (5, {338: (3, (0, 0))}, True),
    ],
)
def test_channels_that_would_be_lost_are_refused(tmp_path, channels, tags, refused):
    tiff(tmp_path / "x.tif", channels, tags)
    if not refused:
        assert open_image(tmp_path / "x.tif").size == (8, 6)
        return
    with pytest.raises(ImageError, match=rf"a TIFF of {channels} channels, of which 3 would be read"):
        open_image(tmp_path / "x.tif")


def test_broken_files_say_their_name_and_reason(tmp_path):
    photo(200, 200).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture at all\n" * 10)
    (tmp_path / "huge.png").write_bytes(png_header(60_000, 60_000))
    (tmp_path / "hollow.png").write_bytes(png_header(64, 64))
    for name, reason in {
        "truncated.jpg": "truncated",
        "empty.jpg": "empty",
        "text.jpg": "not a picture",
        "huge.png": "over the limit",
        "hollow.png": "",
        "missing.jpg": "No such file",
    }.items():
        for at_least in (None, 1):
            with pytest.raises(ImageError, match=name) as caught:
                open_image(tmp_path / name, at_least=at_least)
            assert reason in caught.value.reason
            assert name not in caught.value.reason


def test_pillows_warning_about_large_pictures_stays_inside(tmp_path, monkeypatch):
    photo().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 32 - 1)  # Pillow warns from here on, and pytest would raise
    assert open_image(tmp_path / "x.png").size == (48, 32)


def test_jpeg_over_the_limit_is_reduced_and_others_are_refused(tmp_path, monkeypatch):
    for suffix in ("jpg", "png"):
        photo(480, 320).save(tmp_path / f"x.{suffix}")
    monkeypatch.setattr(images, "MAX_PIXELS", 240 * 160)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as Pillow does with a picture far over its own limit
    assert open_image(tmp_path / "x.jpg").size == (240, 160)
    with pytest.raises(ImageError, match="over the limit of 0 megapixels"):
        open_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="480 x 320 pixels are over the limit"):
        open_image(tmp_path / "x.png")


def test_reduced_jpeg_keeps_what_is_needed(tmp_path):
    photo(480, 320).save(tmp_path / "x.jpg", quality=95)
    assert open_image(tmp_path / "x.jpg", at_least=80).size == (120, 80)
    assert open_image(tmp_path / "x.jpg", at_least=81).size == (240, 160)
    assert open_image(tmp_path / "x.jpg", at_least=1000).size == (480, 320)
    small = open_image(tmp_path / "x.jpg", at_least=80)
    assert difference(small, photo(480, 320).resize((120, 80), Image.Resampling.BOX)) < 3
