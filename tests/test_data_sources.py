"""Where data sets come from: the embedded one and folders."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenmix.sources import load_data
from tokenmix.tasks.classification.digits import MEAN, STD


def silent(line: str) -> None:
    pass


def fill(folder: Path, count: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (12, 10), (i * 20 % 256, 0, 0)).save(folder / f"{i}.{suffix}")


def parts(data) -> list[set[str]]:
    return [set(images.names) for images in (data.train, data.val, data.test)]


def test_digits():
    data, again = load_data("digits", log=silent), load_data("digits", seed=9, log=silent)
    names = parts(data)
    assert [len(part) for part in names] == [1078, 269, 450]
    assert len(set.union(*names)) == 1797
    assert parts(again) == names  # the same split for every seed
    for images in (data.train, data.val, data.test):
        shares = np.bincount(images.labels) / len(images)
        assert np.abs(shares - 0.1).max() < 0.01
        assert images.pixels.shape[1:] == (3, 32, 32)
    assert (data.flip, data.crop_pct, data.image_size, data.in_chans) == (False, 1.0, 32, 3)
    assert data.classes == list("0123456789")
    levels = data.train.pixels.double() / 255
    assert abs(levels.mean() - MEAN[0]) < 1e-3
    assert abs(levels.std() - STD[0]) < 1e-3
    assert data.train.load(0).size == (32, 32)
    assert load_data("digits", image_size=8, log=silent).train.pixels.shape[-1] == 8


def test_folder_with_splits(tmp_path):
    for split, count in (("train", 3), ("valid", 2), ("Test", 1)):
        for label in ("class10", "class2"):
            fill(tmp_path / split / label / "deeper", count)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "class2" / ".DS_Store.png").write_bytes(b"x")
    (tmp_path / "train" / "class2" / "notes.txt").write_text("x")
    data = load_data(tmp_path, log=silent)
    assert data.classes == ["class2", "class10"]
    assert [len(part) for part in parts(data)] == [6, 4, 2]
    assert data.test.names == ["Test/class2/deeper/0.png", "Test/class10/deeper/0.png"]
    assert data.test.labels == [0, 1]
    assert data.test.load(0).size == (12, 10)
    assert (data.skipped, data.image_size) == ([], 224)


def test_flat_folder_is_split_by_seed(tmp_path):
    fill(tmp_path / "a", 40)
    fill(tmp_path / "b", 20)
    fill(tmp_path / "rare", 2)
    lines: list[str] = []
    data = load_data(str(tmp_path), seed=1, image_size=64, log=lines.append)
    assert [np.bincount(images.labels, minlength=3).tolist() for images in (data.train, data.val, data.test)] == [
        [28, 14, 2],
        [6, 3, 0],
        [6, 3, 0],
    ]
    assert not set.intersection(*parts(data))
    assert len(set.union(*parts(data))) == 62
    assert any("'rare'" in line and "fewer than 3" in line for line in lines)
    assert data.image_size == 64
    assert parts(load_data(tmp_path, seed=1, log=silent)) == parts(data)
    assert parts(load_data(tmp_path, seed=2, log=silent)) != parts(data)


def test_file_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "a") + b"\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    fill(Path(os.fsdecode(folder)), 3)
    fill(tmp_path / "b", 3)
    data = load_data(tmp_path, log=silent)
    assert data.classes == ["a?", "b"]
    assert "\n".join(data.test.names).encode()
    assert all(data.train.load(index).size == (12, 10) for index in range(len(data.train)))


def test_missing_split_comes_from_train(tmp_path):
    for label in "ab":
        fill(tmp_path / "train" / label, 10)
        fill(tmp_path / "test" / label, 2)
    data = load_data(tmp_path, log=silent)
    assert [len(part) for part in parts(data)] == [16, 4, 4]
    assert all(name.startswith("train/") for name in data.val.names)


def test_broken_images_are_skipped_and_named(tmp_path):
    fill(tmp_path / "a", 5, "jpg")
    fill(tmp_path / "b", 5)
    content = (tmp_path / "a" / "0.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "text.jpg").write_text("text")
    lines: list[str] = []
    filters = list(warnings.filters)
    data = load_data(tmp_path, log=lines.append)
    assert warnings.filters == filters  # though threads switched Pillow's warnings off and on
    assert [skipped.name for skipped in data.skipped] == ["a/cut.jpg", "b/empty.png", "c/text.jpg"]
    assert "empty" in data.skipped[1].reason
    assert data.classes == ["a", "b"]
    text = "\n".join(lines)
    assert "skipped 3 of 13 images" in text
    assert "c/text.jpg: not a picture" in text
    assert "class 'c' has no readable image: left out" in text
    assert len(set.union(*parts(data))) == 10


def test_folders_that_cannot_be_used(tmp_path):
    def error(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            load_data(tmp_path, log=silent)

    error("no class folders")
    (tmp_path / "a").mkdir()
    error("no images in the class folders")
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    error(r"none of its 1 images can be read \(first: a/x.jpg: the file is empty\)")
    fill(tmp_path / "a", 5)
    error("only one class, 'a'")
    fill(tmp_path / "b", 1)
    shutil.rmtree(tmp_path / "a")
    fill(tmp_path / "a", 1)
    error("too few images to split off val and test: a class needs at least 3")
    fill(tmp_path / "test" / "a", 1)
    error("'test' can be a part of the data set")
    for label in "ab":
        fill(tmp_path / "train" / label, 4)
    fill(tmp_path / "test" / "zebra", 1)
    error("class 'zebra' is in test but has no readable image in train")
    fill(tmp_path / "val" / "a", 1)
    fill(tmp_path / "valid" / "a", 1)
    error("'val' and 'valid' are the same split")


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'digit'; did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(ValueError, match="no folder of this name"):
        load_data(str(tmp_path / "nowhere"))
    (tmp_path / "file.zip").write_bytes(b"x")
    with pytest.raises(ValueError, match="is a file; a data set is a folder"):
        load_data(tmp_path / "file.zip")
    with pytest.raises(ValueError, match="image_size"):
        load_data("digits", image_size=0)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'tokenmix\[compare\]'"):
        load_data("digits")
