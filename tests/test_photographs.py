"""The example's folders of photographs: nothing leaks between their parts, and a fine-tune on them works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="the photographs come with scikit-image")
pytest.importorskip("sklearn", reason="two of them come with scikit-learn")

from examples import photographs
from tokenmix.cli import main
from tokenmix.sources import load_data


def test_no_pixel_is_in_two_parts() -> None:
    width, height = 250, 300  # cells of 50 x 60 pixels, each of its own grey
    column, row = np.meshgrid(np.arange(width) // 50, np.arange(height) // 60)
    picture = Image.fromarray((row * 5 + column).astype(np.uint8))
    found: dict[str, set[int]] = {}
    for split, cells in photographs.CELLS.items():
        taken = photographs.crops(picture, split, 2 * cells, "seed")
        greys = [set(np.unique(crop)) for crop in taken]
        assert all(len(grey) == 1 for grey in greys)
        assert {crop.width == crop.height and 40 <= crop.width <= 50 for crop in taken} == {True}
        found[split] = set.union(*greys)
        assert len(found[split]) == cells
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 25


def test_a_seed_gives_the_same_folder_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(photographs, "TEXTURES", ("brick", "moon"))
    monkeypatch.setattr(photographs, "SCENES", ("coffee", "flower.jpg"))

    def contents(name: str, seed: int) -> dict[str, bytes]:
        photographs.build(tmp_path / name, seed, textures=3, scenes=2)
        files = sorted((tmp_path / name).rglob("*.png"))
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    first = contents("one", 0)
    assert first == contents("two", 0)
    assert first != contents("one", 1)
    data = load_data(str(tmp_path / "two" / "scenes"), log=print)
    assert (data.classes, len(data.train), len(data.val), len(data.test)) == (["coffee", "flower"], 4, 24, 60)


@pytest.mark.slow
def test_fine_tuning_on_photographs(tmp_path, monkeypatch, capsys) -> None:
    """The commands of ``docs/finetune.md``, with fewer images and epochs; guessing would be right in 12.5 %."""
    monkeypatch.chdir(tmp_path)
    photographs.build(Path("photos"), textures=60)
    small = ["model=mixernet_pico", "model_args.mixers=aff", "image_size=64"]
    first = ["train", "basic", *small, "epochs=8", "--data", "photos/textures", "--out", "runs/textures"]
    assert main(first) == 0
    start = ["weights=runs/textures", "--data", "photos/scenes", "--out", "runs/scenes"]
    assert main(["train", "finetune", *small, "epochs=12", *start]) == 0
    capsys.readouterr()
    assert main(["eval", "runs/scenes", "--data", "photos/scenes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] > 25
