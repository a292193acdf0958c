"""Files from strangers: how large anything may be that one asks for, and how its text is read.

The other half of the rule, who says that code, addresses and paths in a file may be used, is `tokenmix.safety`.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# The largest of each that a file may ask for: above what any published model, data set or training needs, and low
# enough that nothing is asked of the machine before it is checked.
LIMITS: Mapping[str, float] = {
    "json_bytes": 64 << 20,  # of a manifest, a recipe or the metadata of weights
    "nesting": 32,  # brackets in brackets of such JSON
    "classes": 1_000_000,
    "depth": 1_000,  # blocks of a model, over all stages
    "width": 16_384,  # channels, sizes and whatever else counts something in a model
    "parameters": 1_000_000_000,  # of a model that comes without its weights
    "entries": 1_000,  # of a list of a model's arguments
    "text": 1_000,  # characters of one of them
    "side": 8_192,  # pixels of an image
    "pixels": 1 << 26,  # of an image before it is cropped
    "batch": 1_048_576,  # images of an optimiser step
    "epochs": 1_000_000,
    "steps": 1_000_000_000_000,  # of a run, or whatever else is counted over it
    "factor": 1e38,  # learning rates, decays and the like: of float32
    "seed": (1 << 63) - 1,
    "norm": 1_000.0,  # mean and standard deviation of values in 0..1, as absolute numbers
}
LEAST_STD = 1e-6
LEAST_CROP = 0.05

_KINDS = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be read to its end; links are followed.

    Raises:
        ValueError: It is a fifo, a device, a socket or a folder, which would never end or answer.
        OSError: There is nothing of this name.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{os.fspath(path)} is a {_KINDS.get(stat.S_IFMT(mode), 'special file')}, not a file")
    return Path(path)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON value that a regular file of bounded size holds.

    Raises:
        ValueError: It is no such file, or no JSON; see `parse_json`.
        OSError: It cannot be read.
    """
    file = regular_file(path)
    size, most = file.stat().st_size, int(LIMITS["json_bytes"])
    if size > most:
        raise ValueError(f"{file} has {size:,} bytes, and at most {most:,} are read as JSON")
    try:
        return parse_json(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 ({error.reason})") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text of bounded size and nesting, which has no NaN and no infinite numbers.

    Raises:
        ValueError: It is none.
    """
    if len(text) > LIMITS["json_bytes"]:
        raise ValueError(f"{len(text):,} characters, and at most {LIMITS['json_bytes']:,.0f} are read as JSON")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(_nested()) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if _deeper(value, int(LIMITS["nesting"])):
        raise ValueError(_nested())
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 20:  # what no field takes, and Python reads thousands of digits slowly
        raise ValueError(f"the number {text[:20]}... is too large")
    return int(text)


def _nested() -> str:
    return f"more than {LIMITS['nesting']:g} brackets in one another"


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested deeper; no recursion beyond that."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(part, levels - 1) for part in inner)


def shown(value: object, most: int = 100) -> str:
    """A value from a file in a message: quoted, its control characters escaped, and not long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        text = f"a {type(value).__name__} beyond all measure"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def image_problem(image_size: Sequence[int], crop_pct: float = 1.0) -> str | None:
    """Why no pictures of this (height, width), in pixels, are made when that share of them is kept; None if they are.

    A share that is no number, or outside (0, 1], is one too.
    """
    if not LEAST_CROP <= crop_pct <= 1:
        return f"crop_pct is {shown(crop_pct)}, and not between {LEAST_CROP} and 1"
    height, width = image_size
    if not (1 <= height <= LIMITS["side"] and 1 <= width <= LIMITS["side"]):
        return f"image_size is {shown([height, width])}, and its sides are not between 1 and {LIMITS['side']:g} pixels"
    if height * width / crop_pct**2 > LIMITS["pixels"]:
        return f"pictures of {height} x {width} pixels, cropped to {crop_pct:g}, are larger than {LIMITS['pixels']:,}"
    return None


def norm_problem(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Why pixels are not normalised by these, one number for each channel; None if they are."""
    most = LIMITS["norm"]
    if not all(isinstance(value, int | float) and -most <= value <= most for value in mean):
        return f"mean is {shown(list(mean))}, and not of numbers between {-most:g} and {most:g}"
    if not all(isinstance(value, int | float) and LEAST_STD <= value <= most for value in std):
        return f"std is {shown(list(std))}, and not of numbers between {LEAST_STD:g} and {most:g}"
    return None
