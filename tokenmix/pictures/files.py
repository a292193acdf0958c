"""Pictures as the bytes of a file."""

from __future__ import annotations

import io

from PIL import Image


def picture_file(picture: Image.Image, kind: str) -> bytes:
    """The picture as ``"PNG"`` or ``"JPEG"``."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return file.getvalue()
