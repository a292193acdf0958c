"""Corruptions do what they say, the same everywhere, and `eval` and `compare` tell what they come to."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.dense_runs import write_toys
from tests.export_cases import opened, opened_dense, small_net
from tests.train_toys import toy_data
from tokenmix import evaluate
from tokenmix.cli import main
from tokenmix.data.corruptions import BANDS, CORRUPTIONS, IN_PLACE, MOVES, STRENGTHS, corrupted
from tokenmix.data.prepare import normalise
from tokenmix.pages.comparison import comparison_page
from tokenmix.pages.robustness import corruption_text, robustness_page
from tokenmix.robustness import check_corruptible, corruption_errors
from tokenmix.tasks import all_tasks, find_task

SIZE = 64


def picture(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Waves with some grain, neither black nor white."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + 1) + np.cos(y / 7), np.cos(x / 11) * np.sin(y / 8), np.sin((x + y) / 13)]
    grain = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return (128 + 40 * np.stack(waves, -1) + grain).astype(np.uint8)


def far(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(SIZE, SIZE), (48, 33), (8, 8), (1, 1)], ids=str)
def test_every_corruption_keeps_the_form(name: str, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    before = pixels.copy()
    for strength in STRENGTHS:
        changed = corrupted(pixels, name, strength, seed=0, index=3)
        assert (changed.shape, changed.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_is_further_away(name: str) -> None:
    pixels = picture()
    away = [np.mean([far(pixels, corrupted(pixels, name, s, seed=0, index=i)) for i in range(8)]) for s in STRENGTHS]
    assert away[0] > 0
    assert all(a < b for a, b in itertools.pairwise(away)), away


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_is_corrupted_by_seed_kind_and_place(name: str) -> None:
    pixels = picture()
    one = corrupted(pixels, name, 3, seed=1, index=5)
    assert np.array_equal(one, corrupted(pixels, name, 3, seed=1, index=5))
    if name not in ("blur", "jpeg"):  # in which nothing is random
        assert any(not np.array_equal(one, corrupted(pixels, name, 3, seed=1, index=other)) for other in range(8))
        assert any(not np.array_equal(one, corrupted(pixels, name, 3, seed=other, index=5)) for other in range(8))


@pytest.mark.parametrize("name", BANDS)
def test_noise_is_of_its_band_and_strength(name: str) -> None:
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    noise = corrupted(grey, name, 1, seed=0, index=0).astype(float) - 128
    energy = np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2
    radius = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE))
    low, high = BANDS[name]
    inside = energy[(radius >= low) & (radius < high)].sum() / energy.sum()
    assert inside > 0.98  # the rest is from rounding to levels
    assert noise.std() == pytest.approx(6, rel=0.02)


def test_the_bands_join() -> None:
    edges = list(BANDS.values())
    assert edges[0][0] == 0
    assert edges[-1][1] == 0.5
    assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))


def test_moves_are_those_they_say() -> None:
    """A bright spot goes where it should."""
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[46:55, 66:75] = 255  # its middle is 20 to the right of the picture's
    for index in range(4):
        for name, wanted in (("rotation", 20.0), ("scale", None)):
            moved = corrupted(pixels, name, 3, seed=0, index=index)
            rows, columns = np.nonzero(moved[..., 0] > 100)
            y, x = rows.mean() - 50, columns.mean() - 50
            if wanted is not None:
                assert np.hypot(x, y) == pytest.approx(wanted, abs=1)
                assert abs(np.degrees(np.arctan2(y, x))) == pytest.approx(17, abs=2)
            else:
                assert x == pytest.approx(20 * 1.35, abs=1) or x == pytest.approx(20 / 1.35, abs=1)
    middle = np.zeros((101, 101, 3), np.uint8)
    middle[48:53, 48:53] = 255
    rows, columns = np.nonzero(corrupted(middle, "shift", 3, seed=0, index=0)[..., 0] > 100)
    assert np.hypot(rows.mean() - 50, columns.mean() - 50) == pytest.approx(10.1, abs=1)


# ------------------------------------------------------------------------------------------------------------ the tasks


@pytest.mark.parametrize("size", [(20, 160), (160, 20), (1, 50), (32, 32)], ids=str)
def test_what_moves_brings_in_no_other_colour(size: tuple[int, int]) -> None:
    white = np.full((*size, 3), 255, np.uint8)
    for name, strength in itertools.product(MOVES, STRENGTHS):
        assert (corrupted(white, name, strength, seed=0, index=1) == 255).all(), (name, strength)


def test_the_pixels_are_those_that_the_network_sees() -> None:
    task, loaded = find_task("classification"), opened(small_net("aff"), (32, 32))
    pixels = torch.from_numpy(picture(32, 32).copy()).permute(2, 0, 1)[None]
    batch = {"image": normalise(pixels, loaded.mean, loaded.std), "index": torch.tensor([7])}
    found = task.corrupted(loaded, batch, "jpeg", 4, seed=0)["image"]
    expected = torch.from_numpy(corrupted(picture(32, 32), "jpeg", 4, seed=0, index=7).copy()).permute(2, 0, 1)[None]
    assert torch.equal(found, normalise(expected, loaded.mean, loaded.std))


def test_which_tasks_allow_it() -> None:
    allowed = {name: set(task.corruptions) for name, task in all_tasks().items() if task.corruptions}
    assert allowed["classification"] == set(IN_PLACE) | set(MOVES)
    assert allowed["segmentation"] == allowed["detection"] == set(IN_PLACE), "moved pictures need moved answers"
    for name in ("forecasting", "points", "super_resolution"):
        with pytest.raises(ValueError, match="--corruptions: not for "):
            check_corruptible(name)
        with pytest.raises(ValueError, match="there are no corruptions"):
            find_task(name).corrupted(None, {}, "blur", 1, seed=0)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    data = toy_data()
    loaded = opened(small_net("aff"), (16, 16), classes=data.classes)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    return corruption_errors(dataclasses.replace(loaded, model=model), data.test, data.facts, batch_size=5)


def test_errors_are_means_of_scores(found: dict[str, Any]) -> None:
    assert set(found["scores"]) == set(CORRUPTIONS)
    for name, scores in found["scores"].items():
        assert len(scores) == len(STRENGTHS)
        assert found["errors"][name] == pytest.approx(np.mean([100 - score for score in scores]))
    assert found["mce"] == pytest.approx(np.mean(list(found["errors"].values())))
    assert found["drop"] == pytest.approx(found["mce"] - (100 - found["plain"]))
    assert json.loads(json.dumps(found)) == found


def test_the_same_in_other_batches_and_processes(found: dict[str, Any]) -> None:
    data = toy_data()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    loaded = opened(model, (16, 16), classes=data.classes)
    one, other = (corruption_errors(loaded, data.test, data.facts, batch_size=size) for size in (4, 64))
    assert one == other


def test_the_page_and_the_table(found: dict[str, Any]) -> None:
    page = robustness_page(found, model="net", task_name="classification", data="toys")
    assert "noise mid high" in page
    assert f"mean corruption error {found['mce']:.2f} %" in page
    assert 'data-along="strength"' in page
    text = corruption_text(found)
    assert len(text.splitlines()) == 2 + len(CORRUPTIONS) + 1
    results: dict[str, Any] = {
        "mixers": {"aff": {"test_top1": 50.0, "corruptions": found}, "pool": {"test_top1": 40.0}},
        "data": {"test": 10},
    }
    page = comparison_page(results)
    assert "Errors by corruption" in page
    assert "band of noise" in page
    assert "Errors by corruption" not in comparison_page({"mixers": {"aff": {"test_top1": 50.0}}})


def test_a_segmenter_by_the_same_path(tmp_path: Path, monkeypatch) -> None:
    from tokenmix.sources import load_data

    monkeypatch.setattr(find_task("segmentation"), "corruptions", ("blur", "noise_low"))
    loaded = opened_dense("semantic_fpn", "mixernet_pico", (32, 32))
    data = write_toys(tmp_path / "data", "segmentation", 2)
    opened_data: Any = load_data(str(data), task="segmentation", log=lambda line: None)
    found = corruption_errors(loaded, opened_data.train, {"classes": range(3)})
    assert set(found["scores"]) == {"blur", "noise_low"}
    assert found["headline"] == "mIoU"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "abcde":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_the_functions_and_the_command(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(find_task("classification"), "corruptions", ("jpeg", "noise_high"))
    loaded = opened(small_net("aff"), (16, 16), classes=list("abcde"))
    told = evaluate(loaded, folder, split="all", corruptions=True, device="cpu", log=lambda line: None)
    assert told["corruptions"]["plain"] == told["top1"]
    monkeypatch.setattr("tokenmix.cli.eval_command.open_model", lambda source: loaded)
    page = tmp_path / "page.html"
    words = ["eval", "run", "--data", str(folder), "--split", "all", "--device", "cpu"]
    assert main([*words, "--corruptions", "--page", str(page)]) == 0
    assert "mean corruption error" in capsys.readouterr().out
    assert "noise high" in page.read_text()
    assert main([*words, "--corruptions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["corruptions"] == told["corruptions"]
    assert main([*words, "--page", str(page)]) == 2
    assert "add --corruptions" in capsys.readouterr().err
