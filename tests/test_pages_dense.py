"""The page of a dense run: worst images, classes and curves; in a browser no error, no request, at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests import browser
from tests.test_pages_comparison import check
from tests.test_pages_run import HOSTILE, made_up
from tokenmix.pages.run import run_page, write_run
from tokenmix.tasks.dense.page import MATRIX
from tokenmix.tasks.detection import page as detection_page


def jpeg(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (400, 300), colour).save(file, "JPEG")
    return file.getvalue()


PICTURES = {index: (jpeg("green"), jpeg("navy")) for index in range(5)}


def dense(kind: str, classes: int = 3, masks: bool = False) -> dict[str, Any]:
    """What the watch of a dense run tells."""
    run = made_up(classes=classes)
    for row in run["history"]:
        row.pop("val_top5")
        row["val_mIoU" if kind == "labels" else "val_box_AP"] = row.pop("val_top1")
        row |= {} if kind == "labels" else {"val_box_APs": 1.0}
    run["headline"] = "mIoU" if kind == "labels" else "box_AP"
    run["task"] = "segmentation" if kind == "labels" else "detection"
    rows: list[dict[str, Any]] = [{"class": name} for name in run["facts"]["classes"]]
    for number, row in enumerate(rows):
        if kind == "labels":
            row |= {"IoU": 10.0 + number, "Acc": None if number == 1 else 50.0}
        for part in ("mask", "box") if masks else ("box",):
            if kind == "objects":
                curve = [max(0.0, 100.0 - level) if level < 60 + number else 0.0 for level in range(101)]
                there = number != 1
                row |= {f"{part}_AP": 30.0 - number if there else None, f"{part}_AP50": 50.0 if there else None}
                row |= {f"{part}_AP75": 20.0 if there else None, f"{part}_precision": curve if there else []}
    mistakes: list[dict[str, Any]] = [{"index": index, "name": f"val/{index}.jpg"} for index in range(4)]
    for mistake in mistakes:
        mistake |= (
            {"mIoU": 12.5, "aAcc": 40.0} if kind == "labels" else {"F1": 25.0, "hits": 1, "missed": 2, "false": 4}
        )
    evidence = {"kind": kind, "images": 500, "classes": rows, "mistakes": mistakes}
    if kind == "labels":
        evidence["cells"] = [[label, label, 123456] for label in range(classes)] + [[0, classes - 1, 1000]]
    else:
        evidence |= {"threshold": 0.345, "hits": 70, "missed": 30, "false": 12}
    return run | {"evidence": evidence}


def words(page: str) -> str:
    return re.sub(r"\s*<[^>]+>\s*", "|", page)


def test_objects() -> None:
    page = run_page(dense("objects", masks=True), PICTURES)
    ids = check(page).ids
    assert {"mistakes", "classes"} <= set(ids)
    assert "confusion" not in ids
    text = words(page)
    assert "70 of 100 objects in 500 validation images are found, with 12 false detections" in text
    assert "from a score of 0.34 on" in text or "from a score of 0.35 on" in text
    assert "1 found, 2 missed, 4 false" in text
    assert page.count("data:image/jpeg;base64,") == 8
    assert page.count("precision against recall, masks AP50 50.0 %, boxes AP50 50.0 %") == 2  # one has no object
    assert re.search(r"class 1\|+–\|+–\|", text)
    order = re.findall(r'<th scope="row" data-value="([^"]+)"', page)
    assert order == ["class 2", "class 0", "class 1"]  # the lowest first, those without a number last
    assert "APs" not in "".join(re.findall(r'<figcaption class="key">.*?</figcaption>', page))
    assert not re.search(r"\b(nan|None)\b", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_labels() -> None:
    page = run_page(dense("labels"), PICTURES)
    assert {"mistakes", "classes", "confusion"} <= set(check(page).ids)
    text = words(page)
    assert "mean IoU 12.5 %|, 40.0 % of the pixels right" in text
    assert page.count('class="swatch"') == 3
    assert "Precision against recall" not in page
    assert "confusion" not in check(run_page(dense("labels", classes=MATRIX + 1), PICTURES)).ids


def test_nothing_wrong_no_pictures_and_hostile_names() -> None:
    run = dense("objects")
    run["facts"]["classes"][0] = run["evidence"]["classes"][0]["class"] = run["evidence"]["mistakes"][0]["name"] = (
        HOSTILE
    )
    page = run_page(run, {0: None})
    check(page)
    assert page.count("<script") == 2
    assert page.count('class="blank"') == 4
    run["evidence"]["mistakes"] = []
    assert "every validation image is right" in run_page(run)


def test_numbers_in_drawings_are_told(monkeypatch) -> None:
    monkeypatch.setattr(detection_page, "numbered", lambda names: {1: "猫"})
    assert "<b>1</b>猫" in run_page(dense("objects"), PICTURES)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.chromium() as driver:
        yield driver


@pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
@pytest.mark.parametrize(("kind", "classes"), [("objects", 80), ("labels", 20)])
def test_in_a_browser(driver, tmp_path, kind, classes) -> None:
    path = tmp_path / "report.html"
    write_run(dense(kind, classes=classes, masks=True), path, PICTURES)
    browser.requests(driver)
    for width, dark in ((375, True), (1280, False)):
        browser.screen(driver, width, 800, dark)
        driver.get(path.as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        first = driver.find_elements("css selector", ".pair img")[:2]
        assert (first[0].location["y"] == first[1].location["y"]) == (width > 600)
        assert all(one.size["width"] > 200 for one in first)
    button = driver.find_elements("css selector", "#classes .sortable button")[0]
    driver.execute_script("arguments[0].click()", button)
    names = driver.execute_script(
        "return Array.from(document.querySelectorAll('#classes tbody th'), c => c.textContent)"
    )
    assert names == [f"class {number}" for number in range(classes)]
    if kind == "objects":
        curves = driver.find_elements("css selector", ".recalls svg")
        assert len(curves) == 79
        assert sum(curve.is_displayed() for curve in curves) == 30
    else:
        cells = driver.find_elements("css selector", "#matrix rect[data-tip]")
        assert len(cells) == 21
        assert "pixels" in cells[0].get_attribute("data-tip")
    assert driver.get_log("browser") == []
    assert set(browser.requests(driver)) == {path.as_uri()}
