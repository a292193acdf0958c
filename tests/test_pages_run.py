"""The report of a training run: escaping, any number of classes, and in a browser no error and no request."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests import browser
from tests.comparison_results import drawn_pictures
from tests.test_pages_comparison import check
from tokenmix.pages.run import run_page, write_run
from tokenmix.recipes import make_recipe
from tokenmix.tasks.classification.page import MATRIX

needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
HOSTILE = "</script><script>alert(1)</script><!--"


def made_up(classes: int = 10, epochs: int = 12, status: str = "finished") -> dict[str, Any]:
    """What the watch of a run tells."""
    rng = random.Random(0)
    cells = [[label, label, 20] for label in range(classes)]
    cells += [[label, (label + 1) % classes, rng.randint(1, 9)] for label in range(0, classes, 2) if classes > 1]
    mistakes = [
        {
            "index": index,
            "name": f"val/{index}.jpg",
            "truth": index,
            "prediction": index - 1,
            "confidence": 0.99 - index / 100,
            "truth_confidence": 0.001 * index,
        }
        for index in range(min(12, classes))
    ]
    history = [
        {"epoch": epoch, "step": 50 * epoch, "place": float(epoch), "loss": 3 / epoch, "val_loss": 2 / epoch}
        | {"val_top1": 100 - 60 / epoch, "val_top5": 100 - 20 / epoch, "lr": 1e-3, "seconds": 60.0 * epoch}
        | {"images_per_second": 900.0 + epoch, "data_wait": 3.0, "memory_mb": 2048.0}
        for epoch in range(1, epochs + 1)
    ]
    curve = [
        {"step": step, "epoch": step / 50, "loss": 150 / step, "lr": 1e-3 * (1 - step / 1000)}
        for step in range(5, 50 * epochs + 1, 5)
    ]
    return {
        "name": "photos",
        "status": status,
        "reason": "the loss is not finite" if status == "stopped" else "",
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": "top1",
        "epochs": 20,
        "epoch": float(epochs),
        "seconds": 60.0 * epochs,
        "left": 480.0,
        "history": history,
        "curve": curve,
        "best_epoch": epochs,
        "evidence": {"images": sum(count for *_, count in cells), "cells": cells, "mistakes": mistakes},
        "task": "classification",
        "noun": "images",
        "facts": {"classes": [f"class {label}" for label in range(classes)]},
        "data": {"name": "photos", "train images": 5000, "val images": 500, "test images": 500},
        "recipe": make_recipe("basic").flat(),
        "workers": 2,
        "versions": {"torch": "2.14"},
        "device": "cpu",
        "processes": 1,
        "made": False,
    }


def test_the_page_is_whole_and_self_contained() -> None:
    pictures = dict(enumerate(drawn_pictures(12).values()))
    page = run_page(made_up(), pictures)
    checker = check(page)
    assert {"curves", "speed", "confusion", "mistakes", "recipe"} <= set(checker.ids)
    assert page.count('class="chart curves"') == 6
    assert page.count("data:image/png;base64,") == 10  # a mistake of each class
    assert "Finished after 12 epochs of 20: the validation had not become better" in page
    assert "tokenmix train photos/recipe.json --out photos-again" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"\b(nan|None|Infinity)\b", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_numbers_of_the_tables() -> None:
    run = made_up(classes=4)
    run["evidence"]["cells"] = [[0, 0, 8], [0, 3, 2], [1, 1, 9], [1, -1, 1], [2, 1, 5]]
    run["evidence"]["images"] = 25
    text = re.sub(r"\s*<[^>]+>\s*", "|", run_page(run))
    assert "8 of 25 validation images wrong" in text
    assert re.search(r"class 2\|+class 1\|+5 of 5\|", text)
    assert re.search(r"class 1\|+not a number\|+1 of 10\|", text)
    assert re.search(r"class 2\|+0\xa0of\xa05\|+0\.0 %\|+class 0\|+8\xa0of\xa010\|+80\.0 %\|+class 1", text)


def test_no_name_leaves_its_place() -> None:
    run = made_up(status="stopped")
    run["name"] = run["reason"] = run["data"]["name"] = run["facts"]["classes"][0] = HOSTILE
    run["evidence"]["mistakes"][0]["name"] = HOSTILE
    page = run_page(run)
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page
    check(page)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["confusion"]["classes"][0] == HOSTILE


@pytest.mark.parametrize(("classes", "matrix"), [(1, True), (2, True), (MATRIX, True), (MATRIX + 1, False)])
def test_a_matrix_only_where_its_cells_can_be_seen(classes, matrix) -> None:
    page = run_page(made_up(classes=classes))
    check(page)
    assert ('id="matrix"' in page) == matrix
    assert ("top-5" in re.sub(r"<script>.*", "", page, flags=re.DOTALL)) == (classes > 5)


def test_a_run_that_has_just_begun_and_one_of_another_task() -> None:
    run = made_up(epochs=0, status="running") | {"evidence": None, "left": None, "best_epoch": 0}
    page = run_page(run)
    check(page)
    assert "the first points come with the first checkpoint" in page
    other = made_up(status="running") | {"evidence": None, "task": "segmentation", "headline": "mIoU"}
    for row in other["history"]:
        row["val_mIoU"] = row.pop("val_top1")
    page = run_page(other)
    check(page)
    assert "Best validation mIoU" in page
    assert 'id="mistakes"' not in page


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.chromium() as driver:
        yield driver


@needs_browser
@pytest.mark.parametrize(("classes", "status"), [(10, "finished"), (40, "stopped"), (1000, "running")])
def test_in_a_browser(driver, tmp_path, classes, status) -> None:
    path = tmp_path / "report.html"
    write_run(made_up(classes=classes, status=status), path, dict(enumerate(drawn_pictures(12).values())))
    browser.requests(driver)
    for width, dark in ((1280, False), (375, True)):
        browser.screen(driver, width, 800, dark)
        driver.get(path.as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    cells = driver.execute_script("return document.querySelectorAll('#matrix rect[data-tip]').length")
    assert cells == (0 if classes == 1000 else 1.5 * classes)
    chart = driver.find_element("css selector", "svg.curves")
    chart.send_keys("\ue012")  # left
    lines = driver.find_element("id", "tip").text.splitlines()
    assert lines[0] == "epoch 11.9"
    assert [line.split()[1] for line in lines[1:]] == ["validation", "training"]
    assert driver.get_log("browser") == []
    assert set(browser.requests(driver)) == {path.as_uri()}


@pytest.mark.slow
@needs_browser
def test_a_running_page_follows_and_notices_silence(driver, tmp_path) -> None:
    path = tmp_path / "report.html"
    run = made_up(status="running")
    write_run(run, path)
    driver.get(path.as_uri())
    assert "this page follows." in driver.find_element("id", "live").text
    assert "may have died" not in driver.find_element("id", "live").text
    write_run(made_up(), path)
    driver.execute_script("window.old = true")
    finished = "return !window.old && document.querySelector('.lead').textContent.startsWith('Finished')"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30).until(lambda page: page.execute_script(finished))
    run["updated"] = (datetime.now(UTC) - timedelta(hours=3)).isoformat(timespec="seconds")
    write_run(run, path)
    driver.get(path.as_uri())
    assert "Written 3 h ago" in driver.find_element("id", "live").text
    assert "may have died" in driver.find_element("id", "live").text
