"""Everything that can be wrong with pictures and files is said, and the page goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bad_pictures import bomb
from tests.runtime_files import KINDS, MISTAKEN, manifest
from tests.web_page.page import Bundle, Open, Serve, call, check_top, choose, photo, text, wait, wanted


def test_bad_pictures_are_said_and_the_page_goes_on(
    show: Open, bundle: Bundle, models: dict[str, Any], tmp_path: Path
) -> None:
    driver = show("toy")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    photo(50, 50).save(tmp_path / "x.png")
    photo(50, 50).save(tmp_path / "x.jpg")
    for name in ("x.png", "x.jpg"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) // 2])
    bomb(tmp_path / "bomb.png")
    (tmp_path / "model.jpg").write_bytes(bundle("toy")["model.onnx"])
    (tmp_path / "image.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    Image.new("1", (11000, 9500)).save(tmp_path / "huge.png")
    unreadable = ("notes.txt", "empty.png", "cut-x.png", "cut-x.jpg", "image.svg", "bomb.png", "model.jpg")
    for name in (*unreadable, "huge.png"):
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


def test_models_of_another_task_are_said(show: Open) -> None:
    driver = show("toy")
    files = {
        kind: {name: {"dims": value.shape, "data": value.ravel().tolist()} for name, value in outputs.items()}
        for kind, (outputs, _, _) in KINDS.items()
    }
    manifests = {
        kind: manifest(task, rules, [1, 3, 8, 8], labels=["a", "b", "c"]) for kind, (_, task, rules) in KINDS.items()
    }
    said = call(
        driver,
        "decode.js",
        """a[2].map(([own, told]) => {
          const typed = ([name, {dims, data}]) => [name, {dims, data: Float32Array.from(data)}];
          const input = {dims: [1, 3, 8, 8], frame: {height: 8, width: 8, left: 0, top: 0, scaleX: 1, scaleY: 1}};
          const outputs = Object.fromEntries(Object.entries(a[0][own]).map(typed));
          try { return m.answer(outputs, a[1][told], input, {height: 8, width: 8}).kind; }
          catch (error) { return error.message; }
        })""",
        *(files, manifests, [(own, told) for own in KINDS for told in KINDS]),
    )
    answers = dict(zip(((own, told) for own in KINDS for told in KINDS), said, strict=True))
    refusal = "the outputs are not those that model.json describes: "
    assert [pair for pair, text in answers.items() if text.startswith(refusal)] == MISTAKEN
    assert {text for pair, text in answers.items() if pair not in MISTAKEN} == {"classes", "map", "objects"}


def test_outputs_for_no_such_picture_are_said(show: Open) -> None:
    """No finite numbers, answers for several pictures, and a map of another size than the input's."""
    cases = [
        ("logits", "logits", [1, 3], [1, None, 2], "the model computes no finite numbers for this picture."),
        ("maps", "logits", [1, 1, 1, 2], [1, "NaN"], "the model computes no finite numbers for this picture."),
        ("logits", "logits", [2, 3], [0] * 6, "model.json describes: logits has the shape 2 × 3."),
        ("classes", "classes", [1, 2, 2], [0] * 4, "model.json describes: classes has the shape 1 × 2 × 2."),
        ("maps", "logits", [2, 1, 1, 1], [0] * 2, "model.json describes: logits has the shape 2 × 1 × 1 × 1."),
    ]
    for kind, name, dims, data, message in cases:
        told = call(
            show("toy"),
            "decode.js",
            """(() => {
              const input = {dims: [1, 3, 8, 8], frame: {height: 8, width: 8, left: 0, top: 0, scaleX: 1, scaleY: 1}};
              const data = Float32Array.from(a[2], (value) => value ?? Infinity);
              try { return m.answer({[a[0]]: {dims: a[1], data}}, a[3], input, {height: 8, width: 8}).kind; }
              catch (error) { return error.message; }
            })()""",
            *(name, dims, data, manifest(KINDS[kind][1], KINDS[kind][2], [1, 3, 8, 8])),
        )
        assert told.endswith(message)


def test_the_failure_of_an_earlier_picture_is_not_that_of_a_newer_one(show: Open, tmp_path: Path) -> None:
    driver = show("toy")
    photo(50, 50).save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    driver.execute_script("document.getElementById('latency-text').textContent = 'Median 2 ms'")
    answered = int(driver.execute_script("return document.body.dataset.answered"))
    fail = (
        "engine.dispatchEvent(new MessageEvent('message',"
        " {data: {type: 'failed', job: 'look', id: arguments[0], text: 'no'}}));"
        " return document.getElementById('problem').hidden"
    )
    assert driver.execute_script(fail, answered - 1)
    assert text(driver, "status") != "No answer."
    assert not driver.execute_script(fail, answered)
    assert text(driver, "status") == "No answer."
    assert text(driver, "latency-text") == "Median 2 ms"


@pytest.mark.slow
def test_bad_files_of_the_page_are_said(driver: Any, bundle: Bundle, serve: Serve) -> None:
    files = bundle("toy")
    content = json.loads(files["model.json"])
    other = {**content, "outputs": [{"name": "other"}]}
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


@pytest.mark.slow
def test_a_description_of_another_task_is_said(driver: Any, bundle: Bundle, serve: Serve, tmp_path: Path) -> None:
    files = bundle("toy")
    content = json.loads(files["model.json"]) | {"task": "segmentation"}
    content["postprocess"] = {"kind": "argmax", "inside": False, "multiple": 1, "align_corners": False}
    driver.get(serve({**files, "model.json": json.dumps(content).encode()}))
    wait(driver, "document.body.dataset.ready")
    photo(50, 50).save(tmp_path / "x.png")
    driver.find_element("id", "file").send_keys(str(tmp_path / "x.png"))
    wait(driver, "!document.getElementById('problem').hidden")
    assert text(driver, "problem").startswith("The model could not answer: the outputs are not those that model.json")
    assert text(driver, "status") == "No answer."
