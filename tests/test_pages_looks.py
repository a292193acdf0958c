"""Each kind of page as wide as a phone and a screen, light and dark: nothing sticks out, all can be read and used.

Contrast is that of WCAG 2.1, 1.4.3 (AA): 4.5, of large text 3. The page of `tokenmix web` is looked at in
tests/web_page.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import browser, looks
from tests.comparison_results import drawn_pictures, made_up
from tests.test_bench_command import made_up as made_up_bench
from tests.test_pages_dense import PICTURES, dense
from tests.test_pages_run import made_up as made_up_run
from tests.test_pages_tasks import of_task
from tokenmix.comparison.statistics import decide
from tokenmix.data.corruptions import CORRUPTIONS
from tokenmix.pages.bench import bench_page
from tokenmix.pages.comparison import write_comparison
from tokenmix.pages.inspection import inspection_page
from tokenmix.pages.robustness import robustness_page
from tokenmix.pages.run import run_page
from tokenmix.pictures.files import picture_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing())),
]


def corrupted() -> dict[str, Any]:
    """What an evaluation of corrupted pictures finds."""
    scores = {name: [90.0 - 4 * step - place for step in range(5)] for place, name in enumerate(CORRUPTIONS)}
    errors = {name: 100 - sum(line) / 5 for name, line in scores.items()}
    found = {"headline": "top1", "plain": 91.0, "mce": 20.0, "drop": 11.0, "seed": 0, "samples": 100}
    return {**found, "errors": errors, "scores": scores}


def compare(path: Path) -> None:
    results = made_up(compiled=True)
    for entry in results["mixers"].values():
        entry["corruptions"] = corrupted()
    write_comparison(results, path, drawn_pictures())


def compare_segmentation(path: Path) -> None:
    """With rows of each class and three seeds."""
    results = of_task(made_up(compiled=True), "segmentation", "mIoU", "%", False, 0.5) | {"seeds": [0, 1, 2]}
    rng = np.random.default_rng(0)
    scores = {name: 100 * rng.random((3, 360)) for name in results["mixers"]}
    for place, (name, entry) in enumerate(results["mixers"].items()):
        mean = float(scores[name].mean())
        entry |= {"test_mIoU": mean, "test_mIoU_per_seed": scores[name].mean(1).tolist()}
        entry["test_mIoU_interval"] = [mean - 1, mean + 1]
        entry["per_class"] = [
            {"class": label, "IoU": 50.0 + place, "Acc": 60.0}
            for label in ("sky", "a-class-with-a-rather-long-name-in-one-word", "car, bus or lorry", "person", "road")
        ]
        entry["per_class"].append({"class": "never there", "IoU": None, "Acc": None})
    write_comparison(results | {"statistics": decide(scores, noun="images")}, path)


def train(path: Path) -> None:
    run = made_up_run(status="stopped")
    run["evidence"]["cells"].append([1, 0, 900])  # as strong as a colour gets
    path.write_text(run_page(run, dict(enumerate(drawn_pictures(12).values()))), encoding="utf-8")


def inspect(path: Path) -> None:
    size = (280, 90)
    picture = picture_file(Image.new("RGB", size, (90, 120, 40)), "PNG")
    names = ["stages.0.blocks.0", "stages.1.blocks.0"]
    figures = [{"file": "one.png", "title": title, "note": "95% within 33 of 96 px", "size": size} for title in names]
    rows = [{"title": f"runs/a-rather-long-name-of-a-run: {number}.png", "figures": figures} for number in range(9)]
    group = {"anchor": "slots", "heading": "Inside the mixers", "text": "What fills them.", "rows": rows}
    model = {
        "mixers": names,
        "slots_differ_by": {names[0]: 1e-6},
        "spectra": {name: [0.0, -1.0, -2.0] for name in names},
    }
    result = {
        "models": {"one": model, "other": model},
        "files": ["cat.jpg"],
        "created": "2026-01-01",
        "groups": [group],
    }
    path.write_text(inspection_page(result, {"one.png": picture}), encoding="utf-8")


def bench(path: Path) -> None:
    path.write_text(bench_page(made_up_bench()), encoding="utf-8")


def evaluate(path: Path) -> None:
    path.write_text(
        robustness_page(corrupted(), model="net", task_name="classification", data="toys"), encoding="utf-8"
    )


def segment(path: Path) -> None:
    path.write_text(run_page(dense("labels"), PICTURES), encoding="utf-8")


def detect(path: Path) -> None:
    path.write_text(run_page(dense("objects", masks=True), PICTURES), encoding="utf-8")


COMPARISONS = [compare, compare_segmentation]
PAGES = [*COMPARISONS, train, segment, detect, inspect, bench, evaluate]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.chromium() as driver:
        yield driver


@pytest.mark.parametrize("write", PAGES, ids=lambda write: write.__name__)
def test_everybody_can_read_and_use_it(driver: Any, write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(path)
    widths = (360, 390, 1440) if write in COMPARISONS else (360, 1440)
    for width, dark in itertools.product(widths, (False, True)):
        browser.screen(driver, width, 900, dark)
        driver.get(path.as_uri())
        where = f"{width} px, {'dark' if dark else 'light'}"
        assert looks.width(driver) <= width, where
        texts = looks.texts(driver)
        assert len(texts) > 20
        assert looks.width(driver) <= width, f"{where}, unfolded"
        assert [text for text in texts if text.contrast < text.needed] == [], where
    assert looks.use_by_keyboard(driver) == []
    assert driver.get_log("browser") == []


def test_what_is_wrong_is_found(driver: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<body style='background: #777'><p style='color: #888'>faint</p><p style='width: 500px; color: #000'>wide</p>"
        "<div style='background: #fff'><span style='color: #777; opacity: .9'>faded</span></div>"
        "<button style='outline: none'>silent</button><button tabindex='-1' class='lost'>lost</button>"
        "<svg width='80' height='30'><rect width='80' height='30' fill='#111'/><text y='20' fill='#222'>cell</text>"
        "</svg>"
        "<p style='color: #000'>fine</p>",
        encoding="utf-8",
    )
    browser.screen(driver, 360, 900)
    driver.get(path.as_uri())
    assert looks.width(driver) > 360
    faint = {text.text: text.contrast for text in looks.texts(driver) if text.contrast < text.needed}
    assert set(faint) == {"faint", "faded", "cell"}
    assert faint["faint"] == pytest.approx(1.26, abs=0.02)  # by any calculator of contrast
    wrong = looks.use_by_keyboard(driver)
    assert "button. shows no focus" in wrong
    assert any("does not reach button.lost" in one for one in wrong)
