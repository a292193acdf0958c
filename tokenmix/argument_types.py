"""What reads the value of an option, in the same way for all commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from tokenmix_runtime.limits import check_number


def size(text: str) -> tuple[int, int]:
    """``"512"`` or ``"512,1024"``: height and width in pixels."""
    try:
        sides = [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels, such as 512, or height,width")
    for side in sides:
        _check("image_size", side, "pixels")
    return sides[0], sides[-1]


def whole(name: str) -> Callable[[str], int]:
    """What reads a whole number in the range that `tokenmix_runtime.limits` has under ``name``."""

    def integer(text: str) -> int:
        value = int(text)
        _check(name, value, "the number")
        return value

    return integer


def number(name: str) -> Callable[[str], float]:
    """What reads a number in the range that `tokenmix_runtime.limits` has under ``name``."""

    def real(text: str) -> float:
        value = float(text)
        _check(name, value, "the number")
        return value

    return real


def milliseconds(text: str) -> float:
    """``"50ms"`` or ``"0.05s"`` as milliseconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give one with its unit, such as 50ms or 0.5s")
    value = float(match[1]) * (1000.0 if match[2] == "s" else 1.0)
    if value:
        _check("seconds", value / 1000.0, "seconds")
    return value


def _check(name: str, value: float, label: str) -> None:
    try:
        check_number(name, value, label)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
