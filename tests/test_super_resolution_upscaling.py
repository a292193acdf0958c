"""Enlarging photographs: tiles equal to the whole, what a file holds is kept, and what cannot be done is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

import tokenmix
from tests.mixer_cases import thorough
from tests.scramble import scramble
from tokenmix.mixers import MIXERS
from tokenmix.tasks.super_resolution.model import Upscaler, create_upscaler, upscaler
from tokenmix.tasks.super_resolution.photographs import WRITERS, read_photograph
from tokenmix.tasks.super_resolution.receptive import receptive_radii
from tokenmix.tasks.super_resolution.resize import Bicubic, resize
from tokenmix.tasks.super_resolution.tiles import bytes_per_pixel, choose_tiling
from tokenmix.tasks.super_resolution.upscaling import upscale, upscale_file
from tokenmix_runtime.images import ImageError

LOCAL = {"ffnified": 4 + 3, "pool": 1, "depthwise": 3, "identity": 0, "inception": 5, "partial": 1, "shift": 1}
LOCAL |= {"gated_conv": 3, "large_kernel": 2 + 9, "star": 3 + 3}


def network(seed: int = 0, **kwargs) -> Upscaler:
    model = upscaler(**{"dim": 8, "depth": 2, **kwargs})
    scramble(model, seed)
    return model.eval()


def photograph(height: int, width: int, channels: int = 3, *, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width, channels))
    if np.dtype(dtype).kind == "u":
        return (values * np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


@torch.no_grad()
def whole(model: torch.nn.Module, picture: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(1, 40),
    scale=st.integers(1, 4),
    norm=st.sampled_from(["none", "layer", "batch"]),
)
def test_tiles_equal_the_whole(height: int, width: int, tile: int, scale: int, norm: str) -> None:
    model, picture = network(scale=scale, norm=norm), photograph(height, width)
    tile = max(tile, height * width // 300)  # not too many
    assert np.abs(upscale(picture, model, tile=tile) - whole(model, picture)).max() < 1e-5


def test_tiles_equal_the_whole_for_networks_as_deep_as_the_published() -> None:
    torch.manual_seed(0)
    model, picture = upscaler(16, 36).eval(), photograph(24, 150)
    assert np.abs(upscale(picture, model, tile=24) - whole(model, picture)).max() < 1e-5


@pytest.mark.parametrize("mixer", [thorough(mixer, quick=mixer == "window") for mixer in sorted(MIXERS)])
def test_how_far_mixers_look(mixer: str) -> None:
    radii = receptive_radii(network(mixers=mixer, depth=1))
    assert radii == ([1, LOCAL[mixer] - (mixer == "ffnified"), 1, 1] if mixer in LOCAL else None)


def test_published_networks_look_as_far_as_their_kernels_say() -> None:
    for name, depth in (("ffnet_sr", 48), ("ffnet_sr_light", 36)):
        radii = receptive_radii(create_upscaler(name))
        assert radii is not None
        assert sum(radii) == 2 + 3 * depth  # two 3x3 in a token mixer, one in a channel mixer


def test_networks_that_see_everything_are_blended() -> None:
    model, picture = network(mixers="aff"), photograph(50, 60)
    tiling = choose_tiling(model, 50, 60)
    assert (tiling.halo, tiling.overlap) == (0, 0)  # at once
    assert np.array_equal(upscale(picture, model), upscale(picture, model, tile=1000))
    parts = upscale(picture, model, tile=24)
    assert parts.shape == (100, 120, 3)
    constant = upscale(np.full((80, 90, 3), 0.5, np.float32), Seen(), tile=24)
    assert np.abs(constant - 0.5).max() < 1e-6  # the weights of tiles that overlap add up to 1


class Seen(torch.nn.Module):
    """Looks everywhere, and repeats the pixels."""

    scale = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_memory_chooses_the_tiles() -> None:
    model = upscaler(96, 4).eval()
    tiling = choose_tiling(model, 10_000, 10_000)
    window = tiling.tile + 2 * tiling.halo
    assert window**2 * bytes_per_pixel(model) < 1.05e9
    assert choose_tiling(model, 10_000, 10_000, memory_mb=8000).tile == 512
    assert choose_tiling(model, 10_000, 10_000, memory_mb=1).tile == 64
    with pytest.raises(ValueError, match="a tile has at least 1 pixel, not 0"):
        choose_tiling(model, 10, 10, tile=0)


def test_progress_counts_to_the_end() -> None:
    heard: list[tuple[int, int]] = []
    upscale(photograph(20, 30), Bicubic(2), tile=10, progress=lambda done, count: heard.append((done, count)))
    assert heard == [(done, 6) for done in range(1, 7)]
    heard.clear()
    upscale(photograph(20, 30), Bicubic(2), scale=4, tile=10, progress=lambda done, count: heard.append((done, count)))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (1000, 1000)


@pytest.mark.parametrize(
    ("scale", "size"), [(1, (20, 31)), (1.5, (30, 46)), (2, (40, 62)), (3, (60, 93)), (4, (80, 124))]
)
def test_any_scale(scale: float, size: tuple[int, int], tmp_path: Path) -> None:
    picture = photograph(20, 31, dtype=np.uint8)
    result = upscale(picture, Bicubic(2), scale=scale)
    assert result.shape == (*size, 3)
    smooth = np.linspace(0, 1, 31 * 20).reshape(20, 31, 1).astype(np.float32)
    expected = resize(smooth, size=size)
    assert np.abs(upscale(smooth, Bicubic(2), scale=scale) - expected)[4:-4, 4:-4].max() < 0.02
    Image.fromarray(picture).save(tmp_path / "in.png")
    assert upscale_file(tmp_path / "in.png", tmp_path / "out.png", Bicubic(2), scale=scale) == size
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), result)


def test_networks_of_one_channel_take_colours_one_by_one() -> None:
    model, picture = network(in_chans=1), photograph(12, 13)
    result = upscale(picture, model)
    for channel in range(3):
        part = picture[..., channel : channel + 1]
        assert np.abs(result[..., channel : channel + 1] - whole(model, part)).max() < 1e-5
    with pytest.raises(ValueError, match="the network takes 4 channels, and the picture has 3"):
        upscale(picture, network(in_chans=4))


def test_grey_stays_grey_and_transparency_is_kept() -> None:
    model = network()
    grey = photograph(12, 13, 1)
    expected = whole(model, np.repeat(grey, 3, axis=2)).mean(2)
    assert np.abs(upscale(grey[..., 0], model) - expected).max() < 1e-5
    both = photograph(12, 13, 4, dtype=np.uint8)
    both[..., 3] = 255
    result = upscale(both, model, tile=5)
    assert np.array_equal(result[..., :3], upscale(both[..., :3], model, tile=5))
    assert (result[..., 3] == 255).all()
    both[..., 3] = np.arange(13) * 20
    assert np.array_equal(upscale(both, model, tile=5)[..., 3], resize(both[..., 3], 2))


def save(path: Path, pixels: np.ndarray) -> None:
    """Of 16 bits with other libraries than the ones that are tested."""
    if pixels.dtype == np.uint8:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    else:
        colour = "rgb" if pixels.shape[2] > 2 else "minisblack"
        if pixels.shape[2] == 1:
            tifffile.imwrite(path, pixels[..., 0], photometric=colour)
        else:
            tifffile.imwrite(path, pixels, photometric=colour, planarconfig="contig")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_keep_bits_and_channels(channels: int, dtype: Any, tmp_path: Path) -> None:
    pixels = photograph(21, 30, channels, dtype=dtype)
    if dtype == np.uint16:
        pytest.importorskip("imagecodecs")
    source = tmp_path / ("in.png" if dtype == np.uint8 else "in.tif")
    save(source, pixels)
    expected = upscale(pixels, Bicubic(2))
    for ending in (".png", ".tif"):
        target = tmp_path / f"out{ending}"
        assert upscale_file(source, target, Bicubic(2), tile=8) == (42, 60)
        again = read_photograph(target).pixels
        assert (again.dtype, again.shape) == (dtype, (42, 60, channels))
        assert np.array_equal(again, expected)
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif").reshape(expected.shape), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, "out.png", "out.tif"])


def test_lossless_webp_jpeg_and_profiles(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = photograph(21, 30, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png", icc_profile=profile)
    for ending in WRITERS:
        target = tmp_path / f"out{ending}"
        upscale_file(tmp_path / "in.png", target, Bicubic(2))
        with Image.open(target) as image:
            assert image.size == (60, 42)
            assert image.info["icc_profile"] == profile
            if not ending.startswith(".jp"):
                assert np.array_equal(np.asarray(image), upscale(pixels, Bicubic(2)))


def test_cameras_rotation_is_applied(tmp_path: Path) -> None:
    pixels = photograph(8, 11, dtype=np.uint16)
    for orientation in range(1, 9):
        tag = [(ExifTags.Base.Orientation.value, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extratags=tag)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "in.png", exif=exif)
        upright = read_photograph(tmp_path / "in.png").pixels
        assert np.array_equal(read_photograph(tmp_path / "in.tif").pixels >> 8, upright)
        assert upright.shape == ((8, 11, 3) if orientation < 5 else (11, 8, 3))


def test_other_kinds_of_pictures(tmp_path: Path) -> None:
    pixels = photograph(9, 12, dtype=np.uint8)
    picture = Image.fromarray(pixels)
    transparent = picture.quantize(16)
    transparent.info["transparency"] = 3
    kinds = {
        "palette.png": (picture.quantize(16), 3),
        "transparent.png": (transparent, 4),
        "black-and-white.png": (picture.convert("1"), 1),
        "cmyk.jpg": (picture.convert("CMYK"), 3),
        "grey16.png": (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), 1),
    }
    for name, (image, channels) in kinds.items():
        image.save(tmp_path / name)
        found = read_photograph(tmp_path / name).pixels
        assert found.shape == (9, 12, channels), name
        assert upscale(image, Bicubic(2)).shape[:2] == (18, 24)
    assert np.array_equal(read_photograph(tmp_path / "grey16.png").pixels[..., 0], pixels[..., 0] * np.uint16(257))


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"cannot read .*text\.png: not a picture of a known format"):
        upscale(tmp_path / "text.png", Bicubic(2))
    with pytest.raises(ImageError, match=r"cannot read .*gone\.png: No such file or directory"):
        upscale(tmp_path / "gone.png", Bicubic(2))
    save(tmp_path / "alpha.png", photograph(9, 9, 4, dtype=np.uint8))
    save(tmp_path / "deep.tif", photograph(9, 9, dtype=np.uint16))
    for source, target, reason in (
        ("alpha.png", "out.jpg", "JPEG holds no transparency: write PNG, TIFF or WebP"),
        ("deep.tif", "out.webp", "webp holds 8 bits, and the picture has 16: write PNG or TIFF"),
        ("alpha.png", "out.gif", "pictures are written as .png"),
        ("alpha.png", "out", "not as a file without an ending"),
    ):
        with pytest.raises(ValueError, match=reason):
            upscale_file(tmp_path / source, tmp_path / target, Bicubic(2))
    for scale in (0.5, 65, float("nan")):
        with pytest.raises(ValueError, match="scale must be from 1 to 64"):
            upscale(photograph(5, 5), Bicubic(2), scale=scale)
    with pytest.raises(ValueError, match="the model enlarges 1 times, which never makes 2"):
        upscale(photograph(5, 5), network(scale=1), scale=2)
    with pytest.raises(ValueError, match="a picture has the shape"):
        upscale(np.zeros((2, 2, 5), np.uint8), Bicubic(2))
    with pytest.raises(ValueError, match="not of int64"):
        upscale(np.zeros((2, 2, 3), np.int64), Bicubic(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha.png", "deep.tif", "text.png"]


def test_a_broken_file_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path / "in.png", photograph(40, 40, dtype=np.uint8))
    content = (tmp_path / "in.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError):
        upscale_file(tmp_path / "half.png", tmp_path / "out" / "half.png", Bicubic(2))

    class Failing(Bicubic):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        upscale_file(tmp_path / "in.png", tmp_path / "out" / "in.png", Failing(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.png", "in.png"]


def test_one_call_does_what_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        save(tmp_path / "in" / f"{number}.png", photograph(9, 12, seed=number, dtype=np.uint8))
    out = tmp_path / "out"
    assert tokenmix.upscale("bicubic_x2", tmp_path / "in", out) == [out / "0-x2.png", out / "1-x2.png"]
    expected = upscale(tmp_path / "in" / "1.png", Bicubic(2))
    assert np.array_equal(read_photograph(out / "1-x2.png").pixels, expected)
    (written,) = tokenmix.upscale("bicubic_x2", tmp_path / "in" / "0.png", tmp_path / "large.png", scale=3, tile=5)
    assert (written, read_photograph(written).pixels.shape) == (tmp_path / "large.png", (27, 36, 3))
    with pytest.raises(ValueError, match="2 pictures cannot go into one file"):
        tokenmix.upscale("bicubic_x2", tmp_path / "in", tmp_path / "large.png")
