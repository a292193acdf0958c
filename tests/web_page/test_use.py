"""The page in the hands of people: pictures from everywhere, the camera, the keyboard, a phone, a static host."""

from __future__ import annotations

import functools
import io
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.web_page.page import Bundle, Open, check_top, choose, photo, press, rows, text, wait, wanted
from tokenmix.web import write_page


def test_pictures_are_dropped_and_pasted(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("toy")
    script = """
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(arguments[1])], "x.png", { type: "image/png" }));
    const event = arguments[0] === "drop"
      ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
    document.body.dispatchEvent(event);"""
    before = driver.execute_script("return Number(document.body.dataset.answered ?? 0)")
    for number, kind in enumerate(("drop", "paste"), before + 1):
        buffer = io.BytesIO()
        photo(70, 60, number).save(buffer, "PNG")
        (tmp_path / "x.png").write_bytes(buffer.getvalue())
        driver.execute_script(script, kind, list(buffer.getvalue()))
        wait(driver, f"document.body.dataset.answered == {number}")
        check_top(driver, wanted(models["toy"], tmp_path / "x.png"))


def test_masks_of_the_picture_are_drawn(show: Open, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import Select

    driver = show("toy", fresh=True)
    assert driver.execute_script("return document.getElementById('masks').hidden")
    pictures = []
    for number in range(2):
        photo(60, 60, number).save(tmp_path / "x.png")
        choose(driver, tmp_path / "x.png")
        select = Select(driver.find_element("id", "layer"))
        pictures.append(driver.execute_script("return document.getElementById('mask').toDataURL()"))
    assert pictures[0] != pictures[1]
    size = driver.execute_script("const c = document.getElementById('mask'); return [c.width, c.height]")
    assert size == [12, 12]
    assert [option.text for option in select.options] == ["filter", "spectrum"]
    select.select_by_visible_text("spectrum")
    assert "cosine" in text(driver, "mask-text")
    assert driver.execute_script("return document.getElementById('mask').toDataURL()") != pictures[1]


def test_latency_is_measured_and_can_be_stopped(show: Open, tmp_path: Path) -> None:
    driver = show("toy", fresh=True)
    button = driver.find_element("id", "measure")
    assert not button.is_enabled()
    photo(50, 50).save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    button.click()
    wait(driver, "document.querySelector('#histogram svg')")
    said = text(driver, "latency-text")
    numbers = re.match(r"Median ([\d.]+) ms, p90 ([\d.]+) ms, fastest ([\d.]+) ms, n = 50 \(WebAssembly", said)
    assert numbers, said
    median, p90, fastest = map(float, numbers.groups())
    assert fastest <= median <= p90
    driver.execute_script("const b = document.getElementById('measure'); b.click(); b.click()")
    wait(driver, "/Stopped|n = \\d+ /.test(document.getElementById('latency-text').textContent)")
    assert button.text == "Measure 50 runs"


def test_works_by_keyboard(show: Open) -> None:
    driver = show("toy", fresh=True)
    reached = []
    for _ in range(30):
        press(driver, "\ue004")  # Tab
        outlined = driver.execute_script(
            "const e = document.activeElement, shown = e.id === 'file' ? e.nextElementSibling : e;"
            "return [e.id || e.querySelector('img')?.alt || e.tagName, getComputedStyle(shown).outlineStyle]"
        )
        if outlined[0] == "BODY" or outlined[0] in dict(reached):
            break
        reached.append(outlined)
        if outlined[0] == "Sample: digit":
            press(driver, "\ue007")  # Enter
            wait(driver, "document.body.dataset.answered")
    assert [name for name, _ in reached] == [
        *("file", "camera", "Sample: shapes", "Sample: digit", "Sample: waves", "measure", "layer")
    ]
    assert {style for _, style in reached} == {"solid"}


def test_speaks_to_those_who_do_not_see_it(show: Open, tmp_path: Path) -> None:
    driver = show("toy")
    photo(50, 50).save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    unnamed = driver.execute_script("""
    const named = e => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()
      || e.querySelector("img[alt]")?.alt;
    return Array.from(document.querySelectorAll("button, input, select, canvas, svg, progress, section, output"))
      .filter(e => e.checkVisibility() && !named(e)).map(e => e.outerHTML.slice(0, 90));""")
    assert unnamed == []
    assert driver.find_element("id", "status").get_attribute("aria-live") == "polite"
    assert driver.find_element("id", "problem").get_attribute("role") == "alert"
    assert rows(driver)[0][0] in driver.find_element("id", "canvas").get_attribute("aria-label")


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone_and_is_legible(show: Open, tmp_path: Path, dark: bool) -> None:
    driver = show("toy", 360, 740, dark, fresh=True)
    before = _places(driver)
    photo(300, 900).save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    wide = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide == [360, 360]
    # What was there stays where it was: only the masks come, further down.
    assert _places(driver) == before
    small = driver.execute_script("""
    return Array.from(document.querySelectorAll("button, .button, select")).filter(e => e.checkVisibility())
      .filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML);""")
    assert small == []
    ratios = driver.execute_script("""
    const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = css => {
      const [r, g, b] = css.match(/[\\d.]+/g).map(v => linear(v / 255));
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = e => {
      const own = getComputedStyle(e).backgroundColor;
      return /, 0\\)|transparent/.test(own) ? behind(e.parentElement) : own;
    };
    return Array.from(document.querySelectorAll("h1, h2, p, button, .button, .name, .value, dt, dd, select"))
      .filter(e => e.checkVisibility() && !e.disabled && e.textContent.trim())
      .map(e => { const pair = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
        return [e.outerHTML.slice(0, 60), (pair[0] + .05) / (pair[1] + .05)]; });""")
    assert [pair for pair in ratios if pair[1] < 4.5] == []
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark


def _places(driver: Any) -> Any:
    return driver.execute_script(
        "return ['canvas', 'file', 'samples', 'status', 'answers', 'measure', 'histogram'].map(id => "
        "Math.round(document.getElementById(id).getBoundingClientRect().top + scrollY))"
    )


def test_the_camera_runs_until_it_is_stopped(show: Open) -> None:
    driver = show("toy")
    button = driver.find_element("id", "camera")
    before = driver.execute_script("return Number(document.body.dataset.answered ?? 0)")
    button.click()
    wait(driver, f"Number(document.body.dataset.answered) >= {before + 3}")
    assert (button.text, button.get_attribute("aria-pressed")) == ("Stop camera", "true")
    assert driver.find_element("id", "status").get_attribute("aria-live") == "off"
    assert len(rows(driver)) == 5
    button.click()
    assert driver.execute_script("return document.getElementById('video').srcObject") is None
    assert (button.text, button.get_attribute("aria-pressed")) == ("Start camera", "false")
    for error, message in [("NotAllowedError", "The camera was not allowed"), ("NotFoundError", "No camera was found")]:
        driver.execute_script(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', arguments[0]))", error
        )
        button.click()
        wait(driver, f"document.getElementById('problem').textContent.startsWith('{message}')")
        assert button.is_enabled()


@pytest.mark.slow
def test_static_files_work_under_a_path(driver: Any, bundle: Bundle, models: dict[str, Any], tmp_path: Path) -> None:
    write_page(bundle("toy"), tmp_path / "demo" / "mixer")
    photo(50, 50).save(tmp_path / "x.png")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.screen(driver, 1280, 900)
        driver.get(f"http://127.0.0.1:{server.server_port}/demo/mixer/")
        wait(driver, "document.body.dataset.ready")
        choose(driver, tmp_path / "x.png")
        check_top(driver, wanted(models["toy"], tmp_path / "x.png"))
        server.shutdown()
