"""Generated inputs: good files and command lines, each changed at random places, from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hostile.files import COMMAND, PLAIN_YAML, _coco, _voc, _yolo
from hostile.stock import DETECT, TRAIN, Stock

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, -1e308, 10**30, -(10**30), float("nan"), float("inf"), float("-inf"), 0.5),
    *("", " ", "\x00", "\x1b[31m", "aff", COMMAND, "../../etc/passwd", "http://tokenmix_canary.invalid/x", "9" * 5000),
    *([], {}, [[]], [None], {"a": {}}, [1] * 1000, "x" * 100_000, "\ud800", "NaN", "1e400", [[[[[[[[]]]]]]]]),
)
WORDS = (
    *("train", "eval", "predict", "export", "recipes", "data", "check", "basic", "digits", "mixernet_pico", "--data"),
    *(
        "--out",
        "--device",
        "cpu",
        "epochs=0",
        "epochs=",
        "=",
        "model=",
        "model_args.mixers=",
        "lr=1e-999",
        "--image-size",
    ),
    *("-1", "0", "1,2,3", "999999999999", "--workers", "nan", "--top", "\x00x", "--", "---", "task=points", "head=x"),
    *("--to", "onnx", "--inside", "nms", "--json", "--set", "betas=(1,", "betas=((((", "model_args.depths=[1,2", "é"),
)


def _damaged(value: Any, dice: random.Random, changes: int) -> Any:
    """A copy of a JSON value with entries replaced, dropped, doubled or moved."""
    value = json.loads(json.dumps(value))
    for _ in range(changes):
        places = list(_places(value))
        if not places:
            return dice.choice(STRANGE)
        holder, key = dice.choice(places)
        match dice.randrange(4):
            case 0:
                holder[key] = copy.deepcopy(dice.choice(STRANGE))
            case 1:
                del holder[key]
            case 2 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 2:
                holder[f"{key}x"] = holder[key]
            case _:
                other, place = dice.choice(places)
                holder[key] = json.loads(json.dumps(other[place]))  # a copy, so that no value holds itself
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of a JSON value, as its holder and key."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def _bytes(content: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, cut or repeated."""
    raw = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(max(1, len(raw)))
        match dice.randrange(4):
            case 0:
                raw[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del raw[place : place + dice.randint(1, 40)]
            case 2:
                raw[place:place] = raw[place : place + dice.randint(1, 40)]
            case _:
                raw[place:place] = dice.choice(
                    (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"1e999", b"-", b"{", b"&", b"<", b"\n")
                )
    return bytes(raw)


def _weights(folder: Path, stock: Stock, dice: random.Random) -> Sequence[str]:
    info = {
        "model": "mixernet_pico",
        "model_args": {"mixers": "aff", "drop_path_rate": 0.1},
        "classes": ["dark", "light"],
        "image_size": [32, 32],
        **{"mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center"},
        "task": "classification",
        "head": None,
    }
    text = _text(_damaged(info, dice, dice.randint(1, 3)))
    file = stock.raw_weights(folder / "model.safetensors", text)
    if dice.random() < 0.2:
        file.write_bytes(_bytes(file.read_bytes()[:400], dice) + file.read_bytes()[400:])
    if dice.random() < 0.5:
        return ["convert", str(file), str(folder / "out.safetensors")]
    return ["predict", str(stock.picture()), "--model", str(file), "--device", "cpu"]


def _recipe(folder: Path, stock: Stock, dice: random.Random) -> Sequence[str]:
    values = json.loads((stock.run / "recipe.json").read_text(encoding="utf-8"))
    file = folder / "recipe.json"
    file.write_text(_text(_damaged(values, dice, dice.randint(1, 3))), encoding="utf-8")
    return ["recipes", str(file)]


def _manifest(folder: Path, stock: Stock, dice: random.Random) -> Callable[[], Any]:
    def change(manifest: dict[str, Any]) -> None:
        damaged = _damaged(manifest, dice, dice.randint(1, 3))
        manifest.clear()
        manifest.update(damaged if isinstance(damaged, dict) else {})

    file = stock.exported(folder, change)

    def call() -> None:
        from tokenmix_runtime import Predictor

        try:
            Predictor(file)(stock.picture())
        except (ValueError, TypeError, OSError) as error:
            print(f"refused: {error}")
            raise SystemExit(2) from None

    return call


def _check(root: Path, task: str) -> Callable[[], Any]:
    """Load a set and look at each answer, as training would."""

    def call() -> None:
        from tokenmix.sources import load_data

        try:
            data = load_data(root, task=task)
            for part in (data.train, data.val):
                for index in range(len(part)):
                    part.load(index)
                    part.target(index)
        except (ValueError, OSError) as error:
            print(f"refused: {error}")
            raise SystemExit(2) from None

    return call


def _coco_set(folder: Path, stock: Stock, dice: random.Random) -> Callable[[], Any]:
    root = _coco(folder, [])
    file = root / dice.choice(("train.json", "val.json"))
    if dice.random() < 0.3:
        file.write_bytes(_bytes(file.read_bytes(), dice))
    else:
        file.write_text(_text(_damaged(json.loads(file.read_text()), dice, dice.randint(1, 4))))
    return _check(root, dice.choice(("detection", "instances")))


def _yolo_set(folder: Path, stock: Stock, dice: random.Random) -> Callable[[], Any]:
    root = _yolo(folder, PLAIN_YAML)
    file = dice.choice((root / "data.yaml", root / "labels" / "train" / "train0.txt"))
    file.write_bytes(_bytes(file.read_bytes(), dice))
    return _check(root, "detection")


def _voc_set(folder: Path, stock: Stock, dice: random.Random) -> Callable[[], Any]:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    root = _voc(folder, f"<annotation><object><name>thing</name>{box}</object></annotation>")
    for name in ("p0", "p4"):
        file = root / "Annotations" / f"{name}.xml"
        file.write_bytes(_bytes(file.read_bytes(), dice))
    return _check(root, "detection")


def _command_line(folder: Path, stock: Stock, dice: random.Random) -> Sequence[str]:
    base = [
        [*TRAIN, "--data", str(stock.photos), "--out", str(folder / "out")],
        ["predict", str(stock.picture()), "--model", str(stock.run)],
        ["eval", str(stock.run), "--data", str(stock.photos)],
        ["recipes", "basic"],
        [*DETECT, "--data", str(stock.photos), "--out", str(folder / "out")],
    ]
    words = list(dice.choice(base))
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(1, len(words) + 1)
        match dice.randrange(3):
            case 0:
                words.insert(place, dice.choice(WORDS))
            case 1 if place < len(words):
                del words[place]
            case _ if place < len(words):
                words[place] = words[place][: dice.randrange(len(words[place]) + 1)] + dice.choice(WORDS)
            case _:
                words.append(dice.choice(WORDS))
    return words


KINDS: dict[str, Callable[[Path, Stock, random.Random], Any]] = {
    "weights": _weights,
    "recipe": _recipe,
    "manifest": _manifest,
    "coco": _coco_set,
    "yolo": _yolo_set,
    "voc": _voc_set,
    "command line": _command_line,
}
