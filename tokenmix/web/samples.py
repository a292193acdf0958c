"""Pictures to try a model with, drawn here, so that nobody's photograph is copied."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_OVERSAMPLED = 2


def sample_pictures() -> dict[str, bytes]:
    """File name -> PNG: balls and blocks on a table, a handwritten seven, and a pattern of many frequencies."""
    return {"sample-shapes.png": _shapes(), "sample-digit.png": _digit(), "sample-waves.png": _waves()}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _shapes() -> bytes:
    width, height, scale = 400, 300, _OVERSAMPLED
    sky = np.linspace([206, 222, 236], [240, 236, 228], height * scale * 3 // 5)
    table = np.linspace([178, 144, 108], [134, 100, 70], height * scale - len(sky))
    rows = np.concatenate([sky, table]).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None], (height * scale, width * scale, 3))))
    balls = [(110, 170, 52, (205, 62, 48)), (318, 196, 38, (52, 112, 178))]
    shade = Image.new("L", image.size, 0)
    for x, y, radius, _ in balls:
        box = (x - radius, y + radius * 0.72, x + radius * 1.5, y + radius * 1.22)
        ImageDraw.Draw(shade).ellipse([side * scale for side in box], fill=110)
    ImageDraw.Draw(shade).polygon([(side * scale) for side in (180, 246, 262, 246, 300, 226, 240, 214)], fill=110)
    image.paste((60, 42, 28), mask=shade.filter(ImageFilter.GaussianBlur(5 * scale)))
    draw = ImageDraw.Draw(image)
    faces = [((176, 150), (246, 160), (246, 248), (176, 238), (222, 166, 52))]
    faces += [((246, 160), (276, 142), (276, 222), (246, 248), (168, 116, 28))]
    faces += [((176, 150), (210, 132), (276, 142), (246, 160), (244, 204, 104))]
    for *corners, colour in faces:
        draw.polygon([(x * scale, y * scale) for x, y in corners], fill=colour)
    down, right = np.mgrid[: height * scale, : width * scale] / scale
    pixels = np.asarray(image).astype(np.float64)
    for x, y, radius, colour in balls:
        inside = (right - x) ** 2 + (down - y) ** 2 < radius**2
        light = np.hypot(right - x + radius * 0.35, down - y + radius * 0.4) / radius
        lit = np.clip(1.15 - 0.55 * light, 0.25, 1)[..., None] * np.array(colour)
        lit += 150 * np.clip(1 - 3 * light, 0, 1)[..., None] ** 2
        pixels = np.where(inside[..., None], lit, pixels)
    return _png(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BOX))


def _digit() -> bytes:
    size, scale = 240, _OVERSAMPLED
    image = Image.new("L", (size * scale, size * scale), 0)
    draw = ImageDraw.Draw(image)
    strokes = [[(62, 62), (120, 54), (178, 58), (146, 118), (118, 192)], [(88, 126), (162, 116)]]
    for stroke in strokes:
        for (x0, y0), (x1, y1) in itertools.pairwise(stroke):
            for step in np.linspace(0, 1, 60):
                x, y, radius = x0 + step * (x1 - x0), y0 + step * (y1 - y0), 10 + 2 * math.sin(3 * step)
                draw.ellipse([side * scale for side in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    return _png(image.filter(ImageFilter.GaussianBlur(2 * scale)).resize((size, size), Image.Resampling.BOX))


def _waves() -> bytes:
    down, right = np.mgrid[:240, :320] / 240
    planes = []
    for phase in (0.0, 0.9, 1.8):
        rings = np.cos(2 * math.pi * (3 + 16 * np.hypot(right - 0.45, down - 0.5)) ** 1.25 / 3 + phase)
        stripes = np.cos(2 * math.pi * (9 * right + 5 * down) - phase)
        planes.append(128 + 70 * rings + 45 * stripes)
    return _png(Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8)))
