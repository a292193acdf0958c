"""Pairs of pictures: the layouts that people have, patches that are a function of their keys, and the cache."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenmix.tasks.super_resolution.data import ArrayPairs, FilePairs, map_plain, shrunk, to_tensor
from tokenmix.tasks.super_resolution.layouts import find_pairs, speaking_folders
from tokenmix.tasks.super_resolution.model import create_upscaler
from tokenmix.tasks.super_resolution.photographs import picture_pixels
from tokenmix.tasks.super_resolution.upscaling import upscale
from tokenmix_runtime.images import ImageError


def picture(height: int = 24, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def put(path: Path, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path)


def told(folder: Path, scale: int = 2) -> dict[str, list[tuple[str, str | None]]]:
    found = find_pairs(folder, scale)
    return {
        split: [
            (pair.high.relative_to(folder).as_posix(), pair.low and pair.low.relative_to(folder).as_posix())
            for pair in pairs
        ]
        for split, pairs in found.items()
    }


def test_div2k_as_it_is_unpacked(tmp_path: Path) -> None:
    put(tmp_path / "DIV2K_train_HR/0001.png")
    put(tmp_path / "DIV2K_train_HR/0002.png")
    for name in ("0001x2", "0002x2"):
        put(tmp_path / f"DIV2K_train_LR_bicubic/X2/{name}.png")
    put(tmp_path / "DIV2K_valid_HR/0801.png")
    put(tmp_path / "DIV2K_valid_LR_bicubic_X2/DIV2K_valid_LR_bicubic/X2/0801x2.png")
    train, valid = "DIV2K_train_LR_bicubic/X2", "DIV2K_valid_LR_bicubic_X2/DIV2K_valid_LR_bicubic/X2"
    assert told(tmp_path) == {
        "train": [(f"DIV2K_train_HR/{name}.png", f"{train}/{name}x2.png") for name in ("0001", "0002")],
        "val": [("DIV2K_valid_HR/0801.png", f"{valid}/0801x2.png")],
    }
    # Of another scale nothing is given, so the small ones are made.
    assert told(tmp_path, 4)["val"] == [("DIV2K_valid_HR/0801.png", None)]


def test_df2k_is_two_sets_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "DIV2K/DIV2K_train_HR/0001.png")
    put(tmp_path / "Flickr2K/Flickr2K_HR/000001.png")
    put(tmp_path / "Flickr2K/Flickr2K_LR_bicubic/X3/000001x3.png")
    assert told(tmp_path, 3) == {
        "train": [
            ("DIV2K/DIV2K_train_HR/0001.png", None),
            ("Flickr2K/Flickr2K_HR/000001.png", "Flickr2K/Flickr2K_LR_bicubic/X3/000001x3.png"),
        ]
    }


def test_pairs_benchmarks_and_flat_folders(tmp_path: Path) -> None:
    put(tmp_path / "Set5/HR/baby.png")
    put(tmp_path / "Set5/LR_bicubic/X2/babyx2.png")
    assert told(tmp_path / "Set5") == {"train": [("HR/baby.png", "LR_bicubic/X2/babyx2.png")]}
    assert told(tmp_path / "Set5", 3) == {"train": [("HR/baby.png", None)]}
    put(tmp_path / "SR/image_SRF_2/img_001_SRF_2_HR.png")
    put(tmp_path / "SR/image_SRF_2/img_001_SRF_2_LR.png")
    one = "image_SRF_2/img_001_SRF_2_"
    assert told(tmp_path / "SR") == {"train": [(f"{one}HR.png", f"{one}LR.png")]}
    assert told(tmp_path / "SR", 4) == {"train": [(f"{one}HR.png", None)]}
    assert [pair.name for pair in find_pairs(tmp_path / "SR", 2)["train"]] == ["img_001"]
    for split in ("train", "valid"):
        put(tmp_path / f"pairs/{split}/high/a b.png")
        put(tmp_path / f"pairs/{split}/low/a b.jpg")
    assert told(tmp_path / "pairs")["val"] == [("valid/high/a b.png", "valid/low/a b.jpg")]
    put(tmp_path / "flat/one.jpg")
    put(tmp_path / "flat/deep/er/two10.png")
    put(tmp_path / "flat/deep/er/two9.png")
    put(tmp_path / "flat/.hidden.png")
    names = ["deep/er/two9.png", "deep/er/two10.png", "one.jpg"]
    assert told(tmp_path / "flat") == {"train": [(name, None) for name in names]}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        find_pairs(tmp_path / "gone", 2)
    with pytest.raises(ValueError, match="no pictures in it"):
        find_pairs(tmp_path, 2)
    for name in ("a", "b"):
        put(tmp_path / f"high/{name}.png")
    put(tmp_path / "low/a.png")
    with pytest.raises(ValueError, match=r"1 of 2 large pictures have no small one .*\(high/b\.png\): add them"):
        find_pairs(tmp_path, 2)


def test_what_speaks_for_super_resolution() -> None:
    assert speaking_folders(["DIV2K/DIV2K_train_HR/1.png"]) == "a folder DIV2K_train_HR"
    assert speaking_folders(["train/HR/1.png", "train/lr/1.png"]) == "folders HR and lr"
    assert speaking_folders(["train/cat/1.png", "high/1.png"]) == ""


def test_patches_are_a_function_of_their_keys() -> None:
    pairs = ArrayPairs([picture(40, 50), picture(60, 44, 1)], ["a", "b"], 2)
    keys = {"seed": 1, "epoch": 2, "draw": 3}
    first, again = (pairs.patch(1, 8, **keys) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    for key in keys:
        assert not np.array_equal(first[1], pairs.patch(1, 8, **{**keys, key: 9})[1])
    assert [part.shape for part in first] == [(8, 8, 3), (16, 16, 3)]


def test_patches_are_parts_of_the_picture_in_all_eight_positions() -> None:
    rows, columns = np.mgrid[:24, :28].astype(np.uint8)
    high = np.stack((rows, columns, np.zeros_like(rows)), axis=2)

    class Pairs(ArrayPairs):
        def low(self, index: int) -> np.ndarray:
            return high[::2, ::2]

    pairs, seen, places = Pairs([high], ["a"], 2), set(), set()
    for draw in range(400):
        low, patch = pairs.patch(0, 4, seed=0, epoch=0, draw=draw)
        assert np.array_equal(low // 2, patch[::2, ::2] // 2)  # the same part, and turned alike
        down, right = patch[-1, 0].astype(int) - patch[0, 0], patch[0, -1].astype(int) - patch[0, 0]
        seen.add((*np.sign(down[:2]).tolist(), *np.sign(right[:2]).tolist()))
        places.add((patch[..., 0].min(), patch[..., 1].min()))
    assert len(seen) == 8
    assert {place[0] for place in places} == set(range(0, 17, 2))
    assert {place[1] for place in places} == set(range(0, 21, 2))
    plain = [pairs.patch(0, 4, seed=0, epoch=0, draw=draw, flip=False, rotate=False)[1] for draw in range(50)]
    assert all((patch[0, 0, :2] < patch[-1, -1, :2]).all() for patch in plain)


def test_small_pictures_are_mirrored() -> None:
    low, high = ArrayPairs([picture(7, 40)], ["a"], 2).patch(0, 8, seed=0, epoch=0, flip=False, rotate=False)
    assert (low.shape, high.shape) == ((8, 8, 3), (16, 16, 3))
    assert np.array_equal(high[6:12], high[5::-1])
    assert np.array_equal(low[3:6], low[2::-1])


def test_files_equal_arrays_and_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = [picture(31, 42, seed) for seed in range(3)]
    for number, one in enumerate(pixels):
        put(tmp_path / f"{number}.{('png', 'bmp', 'png')[number]}", one)
    found = find_pairs(tmp_path, 3)["train"]
    order = [int(pair.high.stem) for pair in found]
    files = FilePairs(found, 3, cache=tmp_path / ".cache")
    arrays = ArrayPairs([pixels[number] for number in order], files.names, 3)

    def compare() -> None:
        for index in range(3):
            for ours, other in zip(
                (*files.picture(index), *files.patch(index, 5, seed=0, epoch=index)),
                (*arrays.picture(index), *arrays.patch(index, 5, seed=0, epoch=index)),
                strict=True,
            ):
                assert np.array_equal(ours, other)

    compare()
    kept = sorted((tmp_path / ".cache").iterdir())
    assert len(kept) == 5  # two decoded pictures and three small ones

    def never(path: Path) -> None:
        raise AssertionError(path)

    with monkeypatch.context() as patch:
        patch.setattr("tokenmix.tasks.super_resolution.data.open_image", never)
        compare()
    kept[0].write_bytes(b"damaged")
    compare()
    os.utime(tmp_path / "0.png", (1, 1))  # as if it had changed
    compare()
    assert len(list((tmp_path / ".cache").iterdir())) == 7


def test_without_room_for_the_cache_it_still_works(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "file").touch()
    files = FilePairs(find_pairs(tmp_path, 2)["train"], 2, cache=tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="decoded pictures cannot be kept there"):
        assert files.picture(0)[0].shape == (12, 15, 3)


def test_plain_files_are_mapped(tmp_path: Path) -> None:
    pixels = picture(7, 5)  # lines of BMP are padded to four bytes
    for name in ("a.bmp", "a.ppm", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        mapped = map_plain(tmp_path / name)
        assert mapped is not None
        assert not mapped.flags.owndata
        assert np.array_equal(mapped, pixels)
    Image.fromarray(pixels).save(tmp_path / "b.tif", compression="tiff_lzw")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "b.bmp")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    assert [map_plain(tmp_path / name) for name in ("b.tif", "b.bmp", "b.png", "gone.bmp")] == [None] * 4
    content = (tmp_path / "a.bmp").read_bytes()
    (tmp_path / "short.bmp").write_bytes(content[:-20])
    assert map_plain(tmp_path / "short.bmp") is None


def test_sizes_must_fit(tmp_path: Path) -> None:
    put(tmp_path / "high/a.png", picture(25, 31))
    put(tmp_path / "low/a.png", picture(12, 15))
    low, high = FilePairs(find_pairs(tmp_path, 2)["train"], 2, cache=tmp_path / ".c").picture(0)
    assert (low.shape, high.shape) == ((12, 15, 3), (24, 30, 3))
    with pytest.raises(
        ImageError, match=r"high/a\.png: the large and the small picture, of 31 x 25 and 15 x 12 pixels"
    ):
        FilePairs(find_pairs(tmp_path, 3)["train"], 3, cache=tmp_path / ".c").picture(0)
    with pytest.raises(ImageError, match="too few for the factor 4"):
        shrunk(picture(3, 30), 4)


def test_to_tensor() -> None:
    pixels = picture(4, 6)
    tensor = to_tensor(pixels[::-1])
    assert tensor.shape == (3, 4, 6)
    assert tensor[1, 0, 2].item() == pytest.approx(pixels[3, 2, 1] / 255)
    with warnings.catch_warnings():
        pixels.flags.writeable = False
        to_tensor(pixels)


def test_small_pictures_are_found_by_their_own_names_first(tmp_path: Path) -> None:
    for name in ("fo", "fox2", "box2"):
        put(tmp_path / f"HR/{name}.png")
    for name in ("fo", "fox2", "box2x2"):
        put(tmp_path / f"LR/{name}.png")
    assert told(tmp_path)["train"] == [
        ("HR/box2.png", "LR/box2x2.png"),
        ("HR/fo.png", "LR/fo.png"),
        ("HR/fox2.png", "LR/fox2.png"),
    ]
    put(tmp_path / "LR/fo.jpg")
    with pytest.raises(ValueError, match=r"could both go with HR/fo\.png"):
        told(tmp_path)


@pytest.mark.parametrize(
    ("mode", "values"), [("F", np.full((20, 20), 0.5, np.float32)), ("I", np.full((20, 20), 40_000, np.int32))]
)
def test_pictures_of_pillow_keep_their_range(mode: str, values: np.ndarray) -> None:
    image = Image.fromarray(values)
    assert image.mode == mode
    assert float(picture_pixels(image).max()) == values.max()
    larger = upscale(image, create_upscaler("ffnet_sr_tiny").eval())
    assert larger.dtype == (np.float32 if mode == "F" else np.uint16)
