"""Reading files of text that anybody may have written: whole, of a limited size, or one message that names the file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tokenmix_runtime.untrusted import regular_file

MOST_BYTES = 2**24  # of the annotation of a picture, or of a list; a JSON file of all pictures may be larger


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, too long or with a null byte, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path, what: str = "", *, most: float = MOST_BYTES) -> str:
    """The text of an annotation file.

    Args:
        path: The file.
        what: What a message calls its content, such as ``"the class names in "``.
        most: Bytes; a larger one is not read.

    Raises:
        ValueError: It is missing, no file, too large, or no text in UTF-8; the message names it.
    """
    try:
        content = read_bytes(path, most=most)
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds null bytes: it is no text, or damaged")
    except (OSError, ValueError) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(f"cannot read {what}{path}: {error}{hint}") from error
    return text


def read_bytes(path: Path, *, most: float = MOST_BYTES) -> bytes:
    """The bytes of an annotation file.

    Raises:
        ValueError: It is no file, or larger than ``most`` bytes.
        OSError: The system does not let us read it.
    """
    with open(regular_file(path), "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise ValueError(f"it is of {size:,} bytes, and at most {most:,} are read")
        return file.read()


def read_json(path: Path) -> Any:
    """The value in a JSON file, of any size.

    Raises:
        ValueError: As `read_text`, or it is no JSON, nested too deeply, or with a number of thousands of digits.
    """
    text = read_text(path, most=math.inf)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} cannot be read as JSON: it is nested too deeply") from None
