"""The embedded data set: 1,797 handwritten digits, real scans, that come with scikit-learn.

Source: the test part of UCI's "Optical Recognition of Handwritten Digits", 8 x 8 pixels of 17 grey levels, CC BY 4.0.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from tokenmix.data.random_numbers import stratified
from tokenmix.tasks.classification.images import ArrayImages, ClassData

MEAN = (0.3085,) * 3  # over the training pixels at 32 px
STD = (0.3491,) * 3
_SPLIT_SEED = 0  # one split for everybody, whatever the seed of a run: results of different seeds can be compared


def load_digits(*, image_size: int = 32) -> ClassData:
    """The digits, upsampled smoothly (bicubic) to ``image_size`` pixels, split into about 60, 15 and 25 percent.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as scans
    except ImportError as error:
        raise ValueError("the digits come with scikit-learn: pip install 'tokenmix[compare]'") from error
    bunch = scans()
    pixels = torch.from_numpy(np.stack([_upsample(image, image_size) for image in bunch.images]))
    pixels = pixels[:, None].expand(-1, 3, -1, -1)
    labels = [int(label) for label in bunch.target]
    (val, test, train), _ = stratified(labels, (0.15, 0.25), _SPLIT_SEED)

    def part(rows: list[int]) -> ArrayImages:
        names = [f"digits/{row}" for row in rows]
        return ArrayImages(pixels[rows], [labels[row] for row in rows], names, flip=False, glyphs=True, crop_pct=1.0)

    classes = [str(digit) for digit in range(10)]
    return ClassData("digits", part(train), part(val), part(test), image_size, classes, mean=MEAN, std=STD)


def _upsample(scan: np.ndarray, image_size: int) -> np.ndarray:
    """(8, 8) of 0..16 -> (image_size, image_size) uint8 of 0..255"""
    large = Image.fromarray(scan.astype(np.float32)).resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.rint(np.asarray(large, np.float64).clip(0, 16) * (255 / 16)).astype(np.uint8)
