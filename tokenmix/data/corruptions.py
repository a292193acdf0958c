"""What is done to pictures to see how an answer holds: noise of a band of frequencies, blur, JPEG, light, and moves.

The kinds follow ImageNet-C (arXiv:1903.12261) where they are also there, and Yin et al. (arXiv:1906.08988) for noise of
one band; **the strengths are ours**, chosen for pictures of any size, so that no number here can be compared with one
that was published. Each function takes the pixels (H, W, 3) uint8 as the network will see them, a strength from 1 to 5
and a generator of random numbers, and returns pixels of the same shape. A picture's noise is the same at all strengths
but for its size, and depends on nothing but the seed, the kind and the picture's place in its set.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tokenmix_runtime.images import decode

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, int, np.random.Generator], Pixels]

STRENGTHS = (1, 2, 3, 4, 5)
BANDS = {
    "noise_low": (0.0, 1 / 16),
    "noise_mid_low": (1 / 16, 1 / 8),
    "noise_mid_high": (1 / 8, 1 / 4),
    "noise_high": (1 / 4, 1 / 2),
}
"""The bands of noise: from and below how many cycles per pixel; half a cycle is the highest that pixels can show."""


def band_noise(pixels: Pixels, strength: int, random: np.random.Generator, *, band: tuple[float, float]) -> Pixels:
    """Adds normal noise of one band of frequencies, of each channel by itself.

    Its standard deviation is 6, 12, 20, 30 or 44 of 255 whatever the band: the energy is the same. Of pictures so small
    that the band has no frequency nothing is added.

    Args:
        pixels: (H, W, 3).
        strength: From 1 to 5.
        random: Where the noise comes from.
        band: From and below how many cycles per pixel, by the distance from zero.
    """
    height, width, _ = pixels.shape
    spectrum = np.fft.rfft2(random.standard_normal(pixels.shape), axes=(0, 1))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    inside = (radius >= band[0]) & (radius < band[1]) & (radius > 0)
    noise = np.fft.irfft2(spectrum * inside[..., None], (height, width), axes=(0, 1))
    noise *= (6, 12, 20, 30, 44)[strength - 1] / max(float(noise.std()), 1e-9)
    return _levels(pixels + noise) if inside.any() else pixels


def blur(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Gaussian blur with a standard deviation of 0.6, 1, 1.6, 2.4 or 3.4 % of the longer side; nothing is random."""
    radius = (0.006, 0.010, 0.016, 0.024, 0.034)[strength - 1] * max(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def jpeg(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Stores the picture as JPEG of the quality 40, 25, 15, 9 or 5, and reads it again; nothing is random."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=(40, 25, 15, 9, 5)[strength - 1])
    return np.asarray(decode(file.getvalue(), "a corrupted picture"))


def brightness(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Adds 25, 50, 75, 100 or 125 of 255 to all levels, or takes it off, for about half of the pictures each."""
    amount = (25, 50, 75, 100, 125)[strength - 1]
    return _levels(pixels.astype(np.float64) + (amount if random.random() < 0.5 else -amount))


def shift(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Moves the picture by 3, 6, 10, 15 or 21 % of its sides, in a random direction; the border is mirrored."""
    share, angle = (0.03, 0.06, 0.10, 0.15, 0.21)[strength - 1], 2 * np.pi * random.random()
    return _moved(pixels, shift=(share * np.sin(angle), share * np.cos(angle)))


def scale(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Makes the picture 1.1, 1.2, 1.35, 1.55 or 1.8 times larger, or as much smaller, about its middle.

    About half of the pictures are made larger; around those that are made smaller the border is mirrored.
    """
    factor = (1.1, 1.2, 1.35, 1.55, 1.8)[strength - 1]
    factor = factor if random.random() < 0.5 else 1 / factor
    height, width, _ = pixels.shape
    half_h, half_w = height / (2 * factor), width / (2 * factor)
    wide = _mirrored(pixels)
    middle_h, middle_w = wide.shape[0] / 2, wide.shape[1] / 2
    box = (middle_w - half_w, middle_h - half_h, middle_w + half_w, middle_h + half_h)
    return np.asarray(Image.fromarray(wide).resize((width, height), Image.Resampling.BICUBIC, box=box))


def rotation(pixels: Pixels, strength: int, random: np.random.Generator) -> Pixels:
    """Turns the picture by 5, 10, 17, 26 or 37 degrees about its middle, to either side; the border is mirrored."""
    degrees = (5, 10, 17, 26, 37)[strength - 1]
    return _moved(pixels, degrees=degrees if random.random() < 0.5 else -degrees)


IN_PLACE: dict[str, Change] = {
    **{name: partial(band_noise, band=band) for name, band in BANDS.items()},
    "blur": blur,
    "jpeg": jpeg,
    "brightness": brightness,
}
"""Those that leave everything where it is."""
MOVES: dict[str, Change] = {"shift": shift, "scale": scale, "rotation": rotation}
"""Those that move what is on the picture."""
CORRUPTIONS: dict[str, Change] = {**IN_PLACE, **MOVES}


def corrupted(pixels: Pixels, name: str, strength: int, *, seed: int, index: int) -> Pixels:
    """A picture after one corruption; equal for equal arguments, on every machine and in any order.

    Args:
        pixels: (H, W, 3) uint8.
        name: Of `CORRUPTIONS`.
        strength: From 1 to 5.
        seed: Of all random numbers.
        index: The picture's place in its set.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), index])
    return CORRUPTIONS[name](pixels, strength, random)


def _levels(values: NDArray[np.float64]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


def _mirrored(pixels: Pixels) -> Pixels:
    """The picture with itself mirrored on all sides, at least as wide as it is and as its corners need."""
    height, width, _ = pixels.shape
    corner = math.ceil(math.hypot(height, width) / 2) + 2
    top, left = max(height, corner), max(width, corner)
    return np.pad(pixels, ((top, top), (left, left), (0, 0)), mode="symmetric")


def _moved(pixels: Pixels, *, shift: tuple[float, float] = (0.0, 0.0), degrees: float = 0.0) -> Pixels:
    """The picture shifted down and right by shares of its sides, or turned about its middle; the border is mirrored."""
    height, width, _ = pixels.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width * (0.5 + shift[1]), height * (0.5 + shift[0])  # where the middle goes
    wide = _mirrored(pixels)
    middle_h, middle_w = wide.shape[0] / 2, wide.shape[1] / 2
    terms = (cos, sin, middle_w - cos * x - sin * y, -sin, cos, middle_h + sin * x - cos * y)
    method, resample = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(wide).transform((width, height), method, terms, resample))
