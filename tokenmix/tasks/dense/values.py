"""Values in label files: converted where that cannot be wrong, refused with their place otherwise."""

from __future__ import annotations

import codecs
import csv
import io
import math
from pathlib import Path
from typing import Any

from tokenmix.data.text_files import read_bytes

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_TRUE, _FALSE = ("1", "true", "yes", "y"), ("0", "false", "no", "n", "")


def key_of(value: Any) -> int | str:
    """An id: ``7``, ``7.0``, ``"7"`` and ``" 7 "`` are the same one.

    Raises:
        ValueError: It is neither a number nor a text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no id")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{value!r} is no id")
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        whole = text.removesuffix(".0")
        return int(whole) if whole.lstrip("-").isascii() and whole.lstrip("-").isdigit() else text
    return value


def number_of(value: Any) -> float:
    """A number, also one that is written as a text.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def truth_of(value: Any) -> bool:
    """A yes or no: ``1``, ``True``, ``"true"``, ``"0"``, ...

    Raises:
        ValueError: It is none.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(int(value)) if isinstance(value, int | float) and value in (0, 1) else str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{value!r} is neither yes nor no")
    return text in _TRUE


def whole_of(value: Any) -> int:
    """A whole number, also as a float or a text.

    Raises:
        ValueError: It is none.
    """
    number = number_of(value)
    if not math.isfinite(number) or number % 1:
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def text_of(path: Path) -> str:
    """The text of a label file, whatever program wrote it: UTF-8, or UTF-16 by its mark, or else Latin letters.

    Raises:
        ValueError: It is no file, or too large.
        OSError: The system does not let us read it.
    """
    content = read_bytes(path)
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def rows_of(path: Path) -> list[list[str]]:
    """The rows of a table whose columns stand between commas, semicolons, tabs or colons, without empty ones.

    Raises:
        ValueError: It cannot be read.
    """
    text = text_of(path)
    counts = {sign: text.count(sign) for sign in ",;\t"}
    sign = max(counts, key=counts.__getitem__)
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=sign) if any(row)]
