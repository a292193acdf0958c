"""One browser for all tests of the page, small models, and a server for each page."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import browser, web_models
from tests.web_page.page import Bundle, Open, Serve, wait
from tokenmix.web import PageServer, page_files

MODELS: dict[str, dict[str, Any]] = {
    "toy": {},
    "semantic_fpn": {"task": "segmentation", "size": (64, 96), "dynamic": True},
    "ssdlite": {"task": "detection", "size": (96, 96)},
    "retinanet": {"task": "detection", "size": (128, 128)},
}
# Keeps the worker and its last answer, so that tests can read all of its numbers, and speak in its place.
RECORDER = """
window.Worker = class extends Worker {
  constructor(...rest) {
    super(...rest);
    window.engine = this;
    this.addEventListener("message", ({ data }) => { if (data.type === "answer") window.answer = data.answer; });
  }
};"""


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    return {name: web_models.toy() if name == "toy" else web_models.dense_toy(name) for name in MODELS}


@pytest.fixture(scope="session")
def bundle(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The files of the page of a model, made once."""
    made: dict[str, dict[str, bytes]] = {}

    def files(name: str) -> dict[str, bytes]:
        if name not in made:
            path = tmp_path_factory.mktemp(name) / "model.onnx"
            web_models.write(models[name], path, head=None if name == "toy" else name, **MODELS[name])
            made[name] = page_files(path)
        return made[name]

    return files


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as driver:
        driver.set_script_timeout(60)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RECORDER})
        yield driver


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """Serves files until the end; returns their address."""
    with ExitStack() as stack:

        def start(files: dict[str, bytes]) -> str:
            server = stack.enter_context(PageServer(files))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return server.url

        yield start


@pytest.fixture(scope="session")
def page_of(bundle: Bundle, serve: Serve) -> Callable[[str], str]:
    """The address of a model's page."""
    return functools.cache(lambda name: serve(bundle(name)))


@pytest.fixture
def watched(driver: Any) -> Iterator[Any]:
    """The browser; afterwards nothing was asked elsewhere, and no error logged."""
    browser.requests(driver)
    driver.get_log("browser")
    yield driver
    asked = [url for url in browser.requests(driver) if not url.startswith("blob:")]
    assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []
    # Chromium itself notes that this machine has no GPU.
    assert [entry for entry in driver.get_log("browser") if "No available adapters" not in entry["message"]] == []


@pytest.fixture
def show(watched: Any, page_of: Callable[[str], str]) -> Open:
    """Opens the page of a model, or goes on with it."""

    def opened(name: str, width: int = 1280, height: int = 900, dark: bool = False, fresh: bool = False) -> Any:
        browser.screen(watched, width, height, dark)
        if fresh or watched.current_url != page_of(name):
            watched.get(page_of(name))
        wait(watched, "document.body.dataset.ready")
        return watched

    return opened
