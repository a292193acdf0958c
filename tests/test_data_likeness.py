"""Pictures that look nearly alike are found across parts; others are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.dense_toys import write_coco
from tokenmix.cli import main
from tokenmix.data import likeness
from tokenmix.data.likeness import alike, look_of, told_alike
from tokenmix.sources import load_data


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft shapes with grain, as photographs have them."""
    draws = np.random.default_rng(seed)
    soft = Image.fromarray(draws.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = draws.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8))


def altered(picture: Image.Image, how: str, folder: Path) -> Image.Image:
    if how == "compressed":
        picture.save(folder / "x.jpg", quality=30)
        return Image.open(folder / "x.jpg").convert("RGB")
    if how == "smaller":
        return picture.resize((picture.width // 3, picture.height // 3), Image.Resampling.LANCZOS)
    if how == "brighter":
        return ImageEnhance.Brightness(picture).enhance(1.02)
    return picture.crop((1, 1, picture.width, picture.height))  # a moment later


@pytest.mark.parametrize("how", ["compressed", "smaller", "brighter", "moved"])
def test_changes_that_leave_a_picture_the_same_are_seen_through(tmp_path, how) -> None:
    first = [look_of(photo(seed)) for seed in range(30)]
    later = [look_of(photo(seed + 100)) for seed in range(20)] + [look_of(altered(photo(7), how, tmp_path))]
    assert alike(later, first) == [(20, 7)]


def test_pictures_that_show_nothing_are_not_alike() -> None:
    empty = [look_of(Image.new("RGB", (40, 30), (level, level, level))) for level in (120, 121, 122)]
    assert alike(empty, empty) == []
    assert alike([], empty) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (9, 8), (8, 9), (3000, 2)])
def test_any_size_has_a_look(size) -> None:
    assert look_of(Image.new("RGB", size, "red")).shape == (8, 9, 3)


def test_too_many_are_said_not_to_be_looked_at(monkeypatch) -> None:
    looks = {str(seed): look_of(photo(seed % 3)) for seed in range(6)}
    parts = {"train": ["0", "1", "2"], "test": ["3", "4", "5"]}
    assert told_alike(parts, looks) == ["3 of 3 test pictures look nearly like train pictures, the first: 3 like 0"]
    assert told_alike(parts, looks, {"3"}) == [
        "2 of 3 test pictures look nearly like train pictures, the first: 4 like 1"
    ]
    monkeypatch.setattr(likeness, "MOST_PAIRS", 8)
    assert "too many" in told_alike(parts, looks)[0]


def test_frames_of_one_scene_in_two_parts_are_told(tmp_path, capsys) -> None:
    """In the check with the count and the first pair, and before training."""
    for part, begin in (("train", 0), ("test", 50)):
        for label in ("cat", "dog"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(6):
                photo(begin + number + 10 * (label == "dog")).save(folder / f"{number}.png")
    altered(photo(3), "moved", tmp_path).save(tmp_path / "test" / "cat" / "frame.png")
    told = "1 of 13 test pictures look nearly like train pictures, the first: test/cat/frame.png like train/cat/3.png"
    lines: list[str] = []
    data = load_data(tmp_path, log=lines.append)
    in_train = "train/cat/3.png" in data.train.names  # it may have been split off as val
    told = told if in_train else told.replace("train pictures", "val pictures")
    assert data.warnings == [told]
    assert f"warning: {tmp_path}: {told}" in lines
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {"level": "warning", "kind": "alike", "message": told} in found


def test_dense_sets_are_looked_at_too(tmp_path) -> None:
    root = write_coco(tmp_path)
    for part, number in (("train", "001"), ("val", "104")):
        photo(1).resize((48, 32)).save(root / f"{part}2017" / f"{number}.png")
    altered(Image.open(root / "val2017" / "104.png"), "brighter", tmp_path).save(root / "val2017" / "104.png")
    data = load_data(root, task="detection", log=lambda line: None)
    assert data.warnings == [
        "1 of 6 val pictures look nearly like train pictures, the first: val2017/104.png like train2017/001.png"
    ]
