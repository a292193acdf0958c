"""The page in a real browser: its answers are PyTorch's, and everything that can go wrong is said."""

from __future__ import annotations

import functools
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import browser, web_models
from tokenmix.data import open_image, preprocess
from tokenmix.export.postprocess import postprocess_of
from tokenmix.web import PageServer, page_files, write_page
from tokenmix.web.samples import sample_pictures

if not browser.missing():
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import Select

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

MODELS: dict[str, dict[str, Any]] = {
    "toy": {},
    "semantic_fpn": {"task": "segmentation", "size": (64, 96), "dynamic": True},
    "ssdlite": {"task": "detection", "size": (96, 96)},
    "retinanet": {"task": "detection", "size": (128, 128)},
}
Open = Callable[..., Any]
Bundle = Callable[[str], dict[str, bytes]]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: web_models.toy() if name == "toy" else web_models.dense_toy(name) for name in MODELS}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """Serves files until the end of the module; returns their address."""
    with ExitStack() as stack:

        def start(files: dict[str, bytes]) -> str:
            server = stack.enter_context(PageServer(files))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return server.url

        yield start


@pytest.fixture(scope="module")
def page_of(bundle: Bundle, serve: Callable[[dict[str, bytes]], str]) -> Callable[[str], str]:
    """The address of a model's page."""
    return functools.cache(lambda name: serve(bundle(name)))


@pytest.fixture
def show(driver: Any, page_of: Callable[[str], str]) -> Iterator[Open]:
    """Opens the page of a model, or goes on with it; afterwards nothing was asked elsewhere, and no error logged."""
    browser.requests(driver)
    driver.get_log("browser")

    def opened(name: str, width: int = 1280, height: int = 900, dark: bool = False, fresh: bool = False) -> Any:
        browser.screen(driver, width, height, dark)
        if fresh or driver.current_url != page_of(name):
            driver.get(page_of(name))
        wait(driver, "document.body.dataset.ready")
        return driver

    yield opened
    asked = [url for url in browser.requests(driver) if not url.startswith("blob:")]
    assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []
    # Chromium itself notes that this machine has no GPU.
    assert [entry for entry in driver.get_log("browser") if "No available adapters" not in entry["message"]] == []


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
        f"import('/{module}').then(m => done({body}), error => done('failed: ' + error))",
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


def test_resizing_is_pillows_to_the_bit(show: Open) -> None:
    driver = show("toy")
    resized_data = "Array.from(m.resize({data: Uint8ClampedArray.from(a[0]), width: a[1], height: a[2]}, ...a[3]).data)"
    for number, (size, target) in enumerate(
        [((37, 23), (48, 48)), ((110, 70), (34, 23)), ((60, 101), (13, 47)), ((16, 16), (16, 5)), ((3, 1), (9, 9))]
    ):
        image = photo(*size, seed=number)
        rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
        for name in ("bilinear", "bicubic"):
            resized = image.resize(target, Image.Resampling[name.upper()])
            got = call(driver, "resample.js", resized_data, rgba, *size, [*target[::-1], name])
            pixels = np.reshape(got, (*target[::-1], 4))[..., :3]
            assert np.array_equal(pixels, np.asarray(resized)), (size, name)


@pytest.mark.parametrize(("mode", "share"), [("center", 0.9), ("squash", 0.9), ("center", 1.0)])
def test_inputs_are_those_of_evaluation(show: Open, mode: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = show("toy")
    # From Pillow 13 on the order of the two passes depends on the shape; the page resizes along the rows first.
    monkeypatch.setattr(
        "tokenmix.runtime.preprocess._resize",
        lambda image, height, width, name: image.resize((width, image.height), Image.Resampling[name.upper()]).resize(
            (width, height), Image.Resampling[name.upper()]
        ),
    )
    manifest = {
        "input": {"shape": [1, 3, 40, 48], "dtype": "float32"},
        "postprocess": {"kind": "softmax", "multiple": 1},
    }
    settings = {"crop_pct": share, "crop_mode": mode, "interpolation": "bicubic"}
    manifest["preprocess"] = {"image_size": [40, 48], "mean": web_models.MEAN, "std": web_models.STD, **settings}
    for size in ((90, 61), (31, 83), (400, 20), (48, 40)):
        image = photo(*size)
        got = call(
            driver,
            "prepare.js",
            "Array.from(m.prepare({data: Uint8ClampedArray.from(a[0]), width: a[1], height: a[2]}, a[3]).data)",
            *(np.asarray(image.convert("RGBA")).ravel().tolist(), *size, manifest),
        )
        expected = preprocess(image, (40, 48), web_models.MEAN, web_models.STD, **settings)
        np.testing.assert_allclose(np.reshape(got, expected.shape), expected, atol=1e-6)


def test_answers_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("toy")
    photo(90, 130).save(tmp_path / "plain.png")
    photo(640, 480, 1).save(tmp_path / "photo.jpg", quality=92)
    photo(120, 80, 2, chans=4).save(tmp_path / "clear.png")
    turned = photo(120, 80, 3)
    exif = turned.getexif()
    exif[274] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "sample.png").write_bytes(sample_pictures()["sample-shapes.png"])
    for name in ("plain.png", "photo.jpg", "clear.png", "turned.jpg", "sample.png"):
        choose(driver, tmp_path / name)
        # Decoders of JPEG differ by a grey level here and there, and so do ways to lay a picture over white.
        check_top(driver, wanted(models["toy"], tmp_path / name), 1e-3 if name.endswith("n.png") else 5e-3)
    assert text(driver, "name") == "toy"
    assert text(driver, "status").startswith(rows(driver)[0][0])
    assert driver.execute_script("return document.querySelector('#facts').textContent.includes('WebAssembly SIMD')")


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


@torch.no_grad()
@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_boxes_are_decoded_as_pytorch_does(show: Open, models: dict[str, Any], name: str) -> None:
    driver = show("toy")
    model, size = models[name], (128, 256)  # of the input; RetinaNet's picture fills only a part of it
    frame = size if name == "ssdlite" else (110, 200)
    x = torch.zeros(3, *size)
    x[:, : frame[0], : frame[1]] = torch.randn(3, *frame, generator=torch.Generator().manual_seed(1))
    scores, boxes = model.raw(x[None])
    (found,) = model([x[:, : frame[0], : frame[1]]])
    manifest = {"postprocess": postprocess_of(model, name) | {"inside": False}}
    place = {"height": frame[0], "width": frame[1], "left": 3, "top": 5, "scaleX": 2, "scaleY": 0.5}
    tensors = [{"dims": list(t.shape), "data": t.flatten().tolist()} for t in (scores, boxes)]
    typed = "t => ({dims: t.dims, data: Float32Array.from(t.data)})"
    got = call(
        driver,
        "decode.js",
        f"m.answer({{scores: ({typed})(a[0][0]), boxes: ({typed})(a[0][1])}}, a[1], a[2], {{}}).objects",
        *(tensors, manifest, {"dims": [1, 3, *size], "frame": place}),
    )
    assert len(got) == len(found["scores"]) > 20
    np.testing.assert_allclose([one["score"] for one in got], found["scores"], atol=1e-5)
    pixels = (found["boxes"] * torch.tensor([2, 0.5, 2, 0.5]) + torch.tensor([3, 5, 3, 5])).tolist()
    pairs = [(one["label"], pytest.approx(one["box"], abs=1e-2)) for one in got]
    # Sorted by scores that are equal in float32, either may come first.
    assert [pair for pair in zip(found["labels"].tolist(), pixels, strict=True) if pair not in pairs] == []


@torch.no_grad()
@pytest.mark.parametrize("align_corners", [False, True])
def test_segments_are_decoded_as_pytorch_does(show: Open, align_corners: bool) -> None:
    driver = show("toy")
    resize = functools.partial(torch.nn.functional.interpolate, mode="bilinear")
    logits = torch.randn(1, 5, 9, 13, generator=torch.Generator().manual_seed(0))
    inner = resize(logits, (36, 52), align_corners=align_corners)[..., :30, :47]
    classes = resize(inner, (71, 60)).argmax(1).flatten()
    post = {"kind": "argmax", "inside": False, "align_corners": align_corners}
    got = call(
        driver,
        "decode.js",
        "Array.from(m.answer({logits: {dims: [1, 5, 9, 13], data: Float32Array.from(a[0])}}, {postprocess: a[1]}, a[2],"
        "{height: 71, width: 60}).map)",
        *(logits.flatten().tolist(), post, {"dims": [1, 3, 36, 52], "frame": {"height": 30, "width": 47}}),
    )
    assert (torch.tensor(got) == classes).float().mean() > 0.999  # equal logits may round to either side


@pytest.mark.slow
@torch.no_grad()
def test_segment_maps_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("semantic_fpn")
    image = photo(150, 110)
    image.save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    factor = min(64 / 110, 96 / 150)
    small = image.resize((round(150 * factor), round(110 * factor)), Image.Resampling.BILINEAR)
    mean, std = (torch.tensor(v)[:, None, None] for v in (web_models.MEAN, web_models.STD))
    x = (torch.from_numpy(np.asarray(small) / 255).permute(2, 0, 1).float() - mean) / std
    logits = models["semantic_fpn"](x[None])
    classes = torch.nn.functional.interpolate(logits, (110, 150), mode="bilinear")[0].argmax(0)
    shares = {web_models.CLASSES[k]: (classes == k).float().mean().item() for k in classes.unique().tolist()}
    assert {name: value for name, value, _ in rows(driver)} == pytest.approx(shares, abs=1e-3)
    assert len(shares) > 1
    # The map lies on the picture with the opacity that the slider says.
    first = driver.execute_script("return document.getElementById('canvas').toDataURL()")
    driver.find_element("id", "tune").send_keys("\ue012")  # arrow to the left
    assert text(driver, "tune-value") == "50 %"
    assert driver.execute_script("return document.getElementById('canvas').toDataURL()") != first


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_boxes_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path, name: str) -> None:
    driver = show(name)
    image = photo(150, 110)
    image.save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    driver.execute_script("const t = document.getElementById('tune'); t.value = 0; t.dispatchEvent(new Event('input'))")
    size = (96, 96) if name == "ssdlite" else (128, round(110 * 128 / 150))
    mean, std = (torch.tensor(v)[:, None, None] for v in (web_models.MEAN, web_models.STD))
    small = image.resize(size, Image.Resampling.BILINEAR)
    x = (torch.from_numpy(np.asarray(small) / 255).permute(2, 0, 1).float() - mean) / std
    (found,) = models[name]([x])
    scale = torch.tensor([150 / size[0], 110 / size[1]] * 2)
    got = rows(driver)
    assert len(got) == len(found["scores"]) > 20
    np.testing.assert_allclose([score for _, score, _ in got], found["scores"], atol=1e-3)
    boxes = np.array([re.findall(r"-?[\d.]+", title) for _, _, title in got], np.float64)
    labels = [web_models.CLASSES.index(name) + 1 for name, _, _ in got]
    expected = zip((found["boxes"] * scale).numpy(), found["labels"].tolist(), found["scores"], strict=True)
    for box, label, score in expected:
        near = np.abs(boxes - box).max(1) < 0.2  # pixels; the titles have one decimal
        same = [i for i in np.flatnonzero(near) if labels[i] == label and abs(got[i][1] - score) < 1e-3]
        assert same, (box, label)


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


def test_histogram_counts_every_run(show: Open) -> None:
    driver = show("toy")
    times = [10.0] * 30 + [20.0] * 15 + [90.0, 1000.0]
    got = call(driver, "latency.js", "m.summary(a[0])", times)
    assert got == pytest.approx({"n": 47, "least": 10, "median": 10, "p90": np.quantile(times, 0.9), "most": 1000})
    bars = "Array.from(m.histogram(a[0]).querySelectorAll('rect'), r => +r.getAttribute('height'))"
    heights = call(driver, "latency.js", bars, times)
    assert sum(heights) / max(heights) * 30 == pytest.approx(47)


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


def test_bad_pictures_are_said_and_the_page_goes_on(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("toy")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    photo(50, 50).save(tmp_path / "x.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:40])
    (tmp_path / "image.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    Image.new("1", (11000, 9500)).save(tmp_path / "huge.png")
    for name in ("notes.txt", "empty.png", "cut.png", "image.svg", "huge.png"):
        driver.find_element("id", "file").send_keys(str(tmp_path / name))
        wait(driver, f"document.getElementById('problem').textContent.startsWith('{name} ')")
        reason = "too large" if name == "huge.png" else "not a picture that this browser can read"
        assert reason in text(driver, "problem")
    driver.execute_script(
        "const d = new DataTransfer(); d.items.add(new File([new ArrayBuffer(101e6)], 'big.png'));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: d, bubbles: true, cancelable: true }))"
    )
    wait(driver, "document.getElementById('problem').textContent.startsWith('big.png is too large: 101 MB')")
    choose(driver, tmp_path / "x.png")
    assert driver.execute_script("return document.getElementById('problem').hidden")
    check_top(driver, wanted(models["toy"], tmp_path / "x.png"))


@pytest.mark.slow
def test_bad_files_of_the_page_are_said(driver: Any, bundle: Bundle, serve: Callable[[dict[str, bytes]], str]) -> None:
    files = bundle("toy")
    manifest = json.loads(files["model.json"])
    other = {**manifest, "outputs": [{"name": "other"}]}
    for name, content, message in [
        ("model.onnx", files["model.onnx"][:5000], "The model cannot be run; the file may be damaged or incomplete."),
        ("model.json", b"{", "The model’s description (model.json) cannot be read"),
        ("model.json", json.dumps(other).encode(), "model.json describes another model than model.onnx"),
        ("ort-wasm-simd-threaded.asyncify.wasm", b"\0asm", "WebAssembly did not start in this browser"),
    ]:
        driver.get(serve({**files, name: content}))
        wait(driver, "document.body.dataset.failed")
        assert message in text(driver, "problem")
        assert text(driver, "status") == "The model is not running."


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
