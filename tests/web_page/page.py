"""What the tests do on the page, the pictures that they show it, and what PyTorch says about these."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests import web_models
from tokenmix.data.prepare import preprocess
from tokenmix_runtime.images import open_image

Open = Callable[..., Any]
Bundle = Callable[[str], dict[str, bytes]]
Serve = Callable[[dict[str, bytes]], str]


def wait(driver: Any, condition: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not driver.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < end, f"{condition}: {text(driver, 'status')} {text(driver, 'problem')}"
        time.sleep(0.05)


def text(driver: Any, place: str) -> str:
    return driver.execute_script("return document.getElementById(arguments[0]).textContent.trim()", place)


def choose(driver: Any, path: Path) -> None:
    """Through the file input, as a person would; returns when there is an answer."""
    before = driver.execute_script("return Number(document.body.dataset.answered ?? 0)")
    driver.find_element("id", "file").send_keys(str(path))
    wait(driver, f"Number(document.body.dataset.answered) > {before}")


def press(driver: Any, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(key).perform()


def rows(driver: Any) -> list[tuple[str, float, str]]:
    """Names, values and titles of the answers."""
    return driver.execute_script(
        "return Array.from(document.querySelectorAll('#answers li'), li => "
        "[li.querySelector('.name').textContent, Number(li.dataset.value), li.title])"
    )


def call(driver: Any, module: str, body: str, *args: Any) -> Any:
    """The value of a JavaScript expression over ``m``, one of the page's modules, and ``a``, the arguments."""
    return driver.execute_async_script(
        "const done = arguments[arguments.length - 1], a = Array.from(arguments).slice(0, -1);"
        f"import('/{module}').then(m => done({body})).catch(error => done('failed: ' + error))",
        *args,
    )


def photo(width: int, height: int, seed: int = 0, chans: int = 3) -> Image.Image:
    """Smooth colours with noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 7, chans), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + generator.integers(-30, 30, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@torch.no_grad()
def wanted(model: Any, path: Path) -> list[float]:
    """PyTorch's probabilities."""
    x = preprocess(
        open_image(path), web_models.SIZE, web_models.MEAN, web_models.STD, crop_pct=0.9, interpolation="bicubic"
    )
    return model(x[None])[0].softmax(0).tolist()


def check_top(driver: Any, probabilities: list[float], tolerance: float = 1e-3) -> None:
    order = np.argsort(probabilities)[::-1][:5]
    found = rows(driver)
    assert [name for name, _, _ in found] == [web_models.CLASSES[i] for i in order]
    np.testing.assert_allclose([value for _, value, _ in found], np.array(probabilities)[order], atol=tolerance)
