"""Photographs of two classes, small and few enough to train on in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SETTINGS = ("epochs=2", "warmup_epochs=0", "batch_size=8", "image_size=16", "augment=none")


def make_photos(folder: Path) -> str:
    """Twelve pictures of 16 x 16 pixels per class to learn from and four to choose by."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4), ("test", 4)):
        for label, name in enumerate(("dark", "light")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(60 * label, 180 + 60 * label, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return str(folder)
