"""Clouds on pages: everything in one file, what is shown is what was given, and they can be turned."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from tests import browser
from tokenmix.tasks.points.cloud import Cloud, make_cloud
from tokenmix.tasks.points.picture import PALETTE, class_colors, draw_cloud, own_colors, painted
from tokenmix.tasks.points.viewer import MOST_POINTS, cloud_view, viewer_file, viewer_page

CLASSES = ["floor", "<b>wall</b>"]


def example(points: int = 400) -> tuple[Cloud, np.ndarray]:
    """A floor and a wall, and a prediction with one mistake in four."""
    draw = np.random.default_rng(0)
    u, v = draw.random((2, points))
    wall = np.arange(points) % 2
    coord = np.where(wall[:, None] == 1, np.stack((u, np.ones(points), v), 1), np.stack((u, v, np.zeros(points)), 1))
    normal = np.where(wall[:, None] == 1, [[0, -1, 0]], [[0, 0, 1]])
    cloud = make_cloud(coord, np.full((points, 3), 100), normal, segment=wall)
    guess = wall.copy()
    guess[::4] = 1
    return cloud, guess


def test_a_view_holds_the_cloud_and_nothing_that_is_run():
    cloud, guess = example()
    assert cloud.segment is not None
    view = cloud_view(cloud, CLASSES, {"truth": cloud.segment, "prediction": guess}, label='a "room"')
    assert "<b>" not in view
    assert 'a "room"' not in view
    content = json.loads(re.search(r'<script type="application/json">(.*?)</script>', view)[1])
    place = np.frombuffer(base64.b64decode(content["coord"]), "<u2").reshape(-1, 3) / 65535 * content["size"]
    np.testing.assert_allclose(place, cloud.coord - cloud.coord.min(0), atol=1e-4)
    truth, prediction, errors, colours = content["layers"]
    assert [layer["name"] for layer in content["layers"]] == ["truth", "prediction", "errors", "colours"]
    assert np.array_equal(np.frombuffer(base64.b64decode(prediction["data"]), "u1"), guess)
    assert np.frombuffer(base64.b64decode(errors["data"]), "u1").sum() == (guess != cloud.segment).sum()
    assert set(base64.b64decode(colours["data"])) == {100}
    assert "palette" in truth
    assert "http" not in viewer_page("Rooms", [view])


def test_large_clouds_are_thinned_and_bare_ones_shown():
    draw = np.random.default_rng(0)
    cloud = make_cloud(draw.random((MOST_POINTS + 500, 3)))
    view = cloud_view(cloud, ["a"] * 300, {"truth": np.full(len(cloud), 299)}, label="many")
    content = json.loads(re.search(r'<script type="application/json">(.*?)</script>', view)[1])
    assert len(base64.b64decode(content["coord"])) == 6 * MOST_POINTS
    assert [layer["name"] for layer in content["layers"]] == ["truth", "height"]
    assert "look inside" not in view


def test_pictures():
    cloud, guess = example(4000)
    picture = np.asarray(draw_cloud(cloud.coord, painted(guess, 2), width=120, height=90))
    assert picture.shape == (90, 120, 3)
    shown = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert shown == {PALETTE[0], PALETTE[1], (255, 255, 255)}
    wall = np.asarray(draw_cloud(cloud.coord, painted(guess, 2), -cloud.normal, width=120, height=90))
    assert (wall != 255).sum() < (picture != 255).sum()  # what faces away is left out
    assert len({tuple(color) for color in class_colors(200).tolist()}) == 201
    assert own_colors(make_cloud(cloud.coord)).std() > 10
    assert draw_cloud(cloud.coord[:1], painted(guess[:1], 2)).size == (480, 360)


@pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
def test_a_cloud_is_drawn_and_can_be_turned(tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains

    cloud, guess = example(3000)
    page = viewer_page("Rooms", [cloud_view(cloud, CLASSES, {"truth": cloud.segment, "prediction": guess}, label="a")])
    (tmp_path / "a.html").write_text(page)
    with browser.chromium(width=500, height=700) as driver:
        driver.get((tmp_path / "a.html").as_uri())

        def drawn() -> str:
            script = "requestAnimationFrame(() => arguments[0](document.querySelector('canvas').toDataURL()))"
            driver.set_script_timeout(20)
            return driver.execute_async_script(script)

        first = drawn()
        canvas = driver.find_element("css selector", "canvas")
        ActionChains(driver).drag_and_drop_by_offset(canvas, 60, 5).perform()
        turned = drawn()
        driver.find_elements("css selector", "button")[1].click()
        predicted = drawn()
        assert len({first, turned, predicted}) == 3
        assert driver.get_log("browser") == []


def test_the_script_is_in_the_package():
    assert "cloud-view" in viewer_file("js")
    assert "cloud-view" in viewer_file("css")
