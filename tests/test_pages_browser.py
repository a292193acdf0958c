"""The page in a real browser: no error, no request, and every control does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.comparison_results import drawn_pictures, made_up
from tests.test_bench_command import made_up as made_up_bench
from tokenmix.pages.bench import bench_page
from tokenmix.pages.comparison import write_comparison

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

_SORTED = """
const headers = Array.from(document.querySelectorAll('.sortable th[aria-sort]'));
const header = headers.find(h => h.textContent === arguments[0]);
return [header.getAttribute('aria-sort'),
        Array.from(document.querySelector('.sortable').tBodies[0].rows, r => r.cells[header.cellIndex].dataset.value)];
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    results = made_up(compiled=True)
    del results["mixers"]["pool"]["latency_ms"]["compile"]
    write_comparison(results, path, drawn_pictures())
    return path


@pytest.fixture
def page(driver: Any, path: Path) -> Iterator[Any]:
    browser.requests(driver)
    browser.screen(driver, 1280, 900)
    driver.get(path.as_uri())
    yield driver
    assert driver.get_log("browser") == []
    assert set(browser.requests(driver)) <= {path.as_uri()}


def _click(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def _button(driver: Any, title: str) -> Any:
    buttons = driver.find_elements("css selector", ".sortable thead button")
    return next(button for button in buttons if button.text == title)


def test_table_sorts_by_click_and_by_key(page: Any) -> None:
    direction, values = page.execute_script(_SORTED, "top-1, %")
    assert direction == "descending"
    assert [float(value) for value in values] == sorted(map(float, values), reverse=True)
    _button(page, "params, M").click()
    direction, values = page.execute_script(_SORTED, "params, M")
    assert direction == "ascending"
    assert [float(value) for value in values] == sorted(map(float, values))
    _button(page, "params, M").send_keys("\ue007")  # Enter
    direction, values = page.execute_script(_SORTED, "params, M")
    assert direction == "descending"
    assert [float(value) for value in values] == sorted(map(float, values), reverse=True)
    _button(page, "mixer").send_keys(" ")
    direction, values = page.execute_script(_SORTED, "mixer")
    assert direction == "ascending"
    assert values == sorted(values)
    assert (
        page.execute_script("return document.querySelectorAll('.sortable [aria-sort]:not([aria-sort=none])').length")
        == 1
    )


def test_missing_values_sort_last_either_way(page: Any) -> None:
    index = page.execute_script(
        "return Array.from(document.querySelectorAll('.sortable th[aria-sort]'))"
        ".findIndex(h => document.querySelector(`.sortable tbody td:nth-child(${h.cellIndex + 1}):not([data-value])`))"
    )
    for _ in range(2):
        page.execute_script("document.querySelectorAll('.sortable thead button')[arguments[0]].click()", index)
        rows = "return document.querySelector('.sortable').tBodies[0].lastChild.cells[0].dataset.value"
        assert page.execute_script(rows) == "pool"


def test_plots_show_every_mixer(page: Any) -> None:
    visible = "return Array.from(document.querySelectorAll('svg.scatter')).filter(s => s.checkVisibility())"
    drawings = page.execute_script(visible)
    assert len(drawings) == 1
    assert len(drawings[0].find_elements("css selector", "circle.dot")) == 11
    assert len(page.find_elements("css selector", "svg.curves")) == 3
    assert len(page.find_elements("css selector", "svg.curves path.curve")) == 33
    _click(page, "input[name=runtime][value=compile]")
    drawings = page.execute_script(visible)
    assert len(drawings) == 1
    assert "torch.compile" in drawings[0].get_attribute("aria-label")
    assert len(drawings[0].find_elements("css selector", "circle.dot")) == 10


def test_a_point_tells_its_numbers_by_mouse_and_by_key(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    point = next(
        p for p in page.find_elements("css selector", "svg.scatter .point[data-mixer='0']") if p.is_displayed()
    )
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", point)
    ActionChains(page).pause(0.2).move_to_element(point.find_element("css selector", ".dot")).perform()
    assert "top-1 98.61 %" in page.find_element("id", "tip").text
    page.execute_script(
        "hideTip(); scrollTo({top: 0, behavior: 'instant'});document.querySelector('input[name=batch]:checked').focus()"
    )
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert "95 % interval" in page.find_element("id", "tip").text


def test_legend_and_cursor_of_the_curves(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    shown = "return Array.from(document.querySelectorAll('.curves .curve')).filter(c => c.checkVisibility()).length"
    _click(page, "#legend [data-mixer='0']")
    assert page.execute_script(shown) == 30
    _click(page, "#legend [data-all]")
    assert page.execute_script(shown) == 0
    _click(page, "#legend [data-all]")
    assert page.execute_script(shown) == 33
    chart = page.find_element("css selector", "svg.curves")
    chart.send_keys(Keys.ARROW_LEFT)
    lines = page.find_element("id", "tip").text.splitlines()
    assert lines[0] == "epoch 29"
    assert len(lines) == 12


def test_confusion_matrix_follows_the_choice(page: Any) -> None:
    def state() -> tuple[int, str]:
        cells = "return document.querySelectorAll('#matrix rect[data-tip]').length"
        return page.execute_script(cells), page.find_element("id", "errors").text

    assert state()[1] == "5 of 360 images wrong."
    page.execute_script(
        "const s = document.getElementById('confusion-mixer'); s.value = '10'; s.dispatchEvent(new Event('change'))"
    )
    assert state()[1].startswith("25 of 360 images wrong")
    assert state()[0] > 15


def test_phone_and_dark(page: Any) -> None:
    def colour() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = colour()
    for width in (320, 375, 820):
        browser.screen(page, width, 800)
        wide = "return [document.documentElement.scrollWidth, document.body.scrollWidth]"
        assert max(page.execute_script(wide)) <= width
    assert page.execute_script("const b = document.querySelector('.scroll'); return b.scrollWidth > b.clientWidth")
    browser.screen(page, 375, 800, dark=True)
    assert colour() != light


def test_a_benchmark_on_a_phone(driver: Any, tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    path.write_text(bench_page(made_up_bench()))
    for width in (390, 1440):
        browser.screen(driver, width, 800, dark=width == 390)
        driver.get(path.as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        charts = driver.find_elements("css selector", "svg.scatter")
        assert ["narrow" in chart.get_attribute("class") for chart in charts if chart.is_displayed()] == [width == 390]
    assert driver.get_log("browser") == []


@pytest.mark.parametrize(("mixers", "classes"), [(1, 2), (3, 100)])
def test_other_sizes_make_no_errors(driver: Any, tmp_path: Path, mixers: int, classes: int) -> None:
    path = tmp_path / "report.html"
    results = made_up(mixers=mixers, classes=classes, epochs=1)
    results["data"]["classes"] = [f"a rather long class name, number {index}" for index in range(classes)]
    results["mixers"]["aff"]["mixer"] = "</script><b>my_package.my_file:MyMixer(option=1)"
    write_comparison(results, path)
    browser.screen(driver, 375, 800)
    driver.get(path.as_uri())
    assert driver.get_log("browser") == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 375
    diagonal = "return document.querySelectorAll('#matrix rect[data-tip]').length"
    assert driver.execute_script(diagonal) >= classes
