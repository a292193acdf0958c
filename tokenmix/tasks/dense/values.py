"""Values in label files: converted where that cannot be wrong, refused with entry, field and value otherwise.

Entries of files in JSON and XML are read into pydantic's models. The conversions are written here, as pydantic's own
take ``True`` for 1 and ``"t"`` for yes, and keep ``"7"`` and 7 apart where an id may be a text.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, ValidationError

from tokenmix.data.text_files import MOST_BYTES, read_bytes

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MOST_SHOWN = 40  # letters of a wrong value
_TRUE, _FALSE = ("1", "true", "yes", "y"), ("0", "false", "no", "n", "")


def _shown(value: Any) -> str:
    """A wrong value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def key_of(value: Any) -> int | str:
    """An id: ``7``, ``7.0``, ``"7"`` and ``" 7 "`` are the same one.

    Raises:
        ValueError: It is neither a number nor a text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is no id")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{_shown(value)} is no id")
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
        raise ValueError(f"{_shown(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:
        raise ValueError(f"{_shown(value)} is no number") from None


def truth_of(value: Any) -> bool:
    """A yes or no: ``1``, ``True``, ``"true"``, ``"0"``, ...

    Raises:
        ValueError: It is none.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(int(value)) if isinstance(value, int | float) and value in (0, 1) else str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{_shown(value)} is neither yes nor no")
    return text in _TRUE


def whole_of(value: Any) -> int:
    """A whole number, also as a float or a text.

    Raises:
        ValueError: It is none.
    """
    number = number_of(value)
    if not math.isfinite(number) or number % 1:
        raise ValueError(f"{_shown(value)} is no whole number")
    return int(number)


def _side(value: Any) -> int | None:
    try:
        return whole_of(value)
    except ValueError:
        return None


Id = Annotated[int | str, BeforeValidator(key_of)]
Number = Annotated[float, BeforeValidator(number_of)]
_Kind = TypeVar("_Kind")
Many = Annotated[list[_Kind], FailFast()]  # whose first wrong entry is told; a large file may hold a million
Side = Annotated[int | None, BeforeValidator(_side)]  # of a picture, as a file claims it; None if it is no number


class Entry(BaseModel):
    """An entry of a label file; fields that it does not name are ignored, and numbers may be texts and names."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


_Entry = TypeVar("_Entry", bound=Entry)


def entry_of(kind: type[_Entry], value: Any, place: str = "") -> _Entry:
    """A value of JSON, or the attributes of an XML element, as an entry of a kind; ``place`` is where it stands.

    Raises:
        ValueError: A field lacks or is wrong; the message says where, which field, and its value.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    where = [*first["loc"]]
    at = max((number for number, part in enumerate(where) if isinstance(part, str)), default=0)
    entry, field = _path(place, where[:at]), _path("", where[at:])
    if first["type"] == "missing":
        raise ValueError(f"{entry or 'it'} lacks {field!r}")
    own = first["msg"].replace("Input", "it", 1).partition(" or instance of ")[0]  # what follows names a class of ours
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else own
    value = "" if first["type"] == "value_error" else f", not {_shown(first['input'])}"
    told = ", ".join(part for part in (entry, f"field {field!r}" if field else "") if part)
    raise ValueError(f"{told or 'it'}: {reason}{value}")


def _path(begin: str, parts: list[int | str]) -> str:
    """``"shapes[1].points"``"""
    for part in parts:
        begin += f"[{part}]" if isinstance(part, int) else f".{part}" if begin else part
    return begin


def text_of(path: Path, most: float = MOST_BYTES) -> str:
    """The text of a label file, whatever program wrote it: UTF-8, or UTF-16 by its mark, or else Latin letters.

    Raises:
        ValueError: It is no file, or too large.
        OSError: The system does not let us read it.
    """
    content = read_bytes(path, most=most)
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def rows_of(path: Path, most: float = MOST_BYTES) -> list[list[str]]:
    """The rows of a table whose columns stand between commas, semicolons, tabs or colons, without empty ones.

    Raises:
        ValueError: It cannot be read.
    """
    text = text_of(path, most)
    counts = {sign: text.count(sign) for sign in ",;\t"}
    sign = max(counts, key=counts.__getitem__)
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=sign) if any(row)]
