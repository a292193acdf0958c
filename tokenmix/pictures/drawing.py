"""Boxes, masks and maps of classes drawn onto pictures, with names and scores that can be read at any size.

A name that no font here has is drawn as its number, see `tokenmix.pictures.fonts.numbered`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from tokenmix.pictures.colours import class_colour, palette
from tokenmix.pictures.fonts import font_for

SMALLEST_PX = 640  # the long side to which a smaller picture is enlarged
BACKGROUND = "background"  # a class of this name is left as the picture is
_FILL = 0.45  # how much of a mask's colour covers the picture
_MOST_PIXELS = 16_000_000  # of a drawing, which takes a hundred bytes for each
_LONGEST = 16  # times the short side: lines and letters of longer pictures are no larger
_MOST = 40  # letters of a name
_Box = tuple[float, float, float, float]


def draw_objects(
    picture: Image.Image,
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    scores: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    long_side: int | None = None,
) -> Image.Image:
    """The picture with a box around each object, its name and score, and its mask as a translucent area.

    Args:
        picture: (H, W) pixels.
        boxes: (N, 4), left, top, right, bottom in its pixels.
        labels: (N,), the class from 1 on, as detectors count.
        classes: The names; a label beyond them is a number.
        scores: (N,) of 0..1; objects with a higher one are drawn above others.
        masks: (N, H, W) booleans.
        long_side: Of the result in pixels; None: that of the picture, at least 640. At most 16 megapixels are drawn.
    """
    canvas = _scaled(picture, long_side)
    factors = np.array([canvas.width / picture.width, canvas.height / picture.height] * 2)
    places = np.asarray(boxes, np.float64).reshape(-1, 4) * factors
    numbers = np.asarray(labels, np.int64).reshape(-1)
    shares = None if scores is None else np.asarray(scores, np.float64).reshape(-1)
    order = range(len(numbers)) if shares is None else np.argsort(shares, kind="stable").tolist()
    line, letters = _strokes(canvas)
    if masks is not None:
        canvas = _with_masks(canvas, np.asarray(masks, bool), numbers, order, line)
    draw = ImageDraw.Draw(canvas)
    for row in order:
        _frame(draw, places[row], class_colour(int(numbers[row]) - 1), line)
    taken: list[_Box] = []
    for row in reversed(order):  # the surest have the first choice of a place
        number, more = int(numbers[row]) - 1, "" if shares is None else f" {shares[row]:.2f}"
        text, font = _lettered(name_of(classes, number), number, more, letters)
        _tag(draw, text, places[row], class_colour(number), font, canvas.size, taken)
    return canvas


def draw_labels(
    picture: Image.Image,
    label: ArrayLike,
    classes: Sequence[str],
    *,
    legend: bool = True,
    long_side: int | None = None,
) -> Image.Image:
    """The picture under a map of classes, translucent with outlines; below it what the colours mean.

    A class named "background" is left as the picture is; pixels whose label is none of the classes are dark.

    Args:
        picture: (H, W) pixels.
        label: (H, W) or of another size, the class of each pixel from 0 on.
        classes: The names.
        legend: Whether to add the names and the share of the pixels that each has.
        long_side: Of the picture in the result in pixels; None: its own, at least 640. At most 16 megapixels.
    """
    canvas = _scaled(picture, long_side)
    values = np.asarray(label, np.uint8)
    numbers = np.asarray(Image.fromarray(values).resize(canvas.size, Image.Resampling.NEAREST))
    line, _ = _strokes(canvas)
    known = numbers < len(classes)
    plain = [number for number, name in enumerate(classes) if name == BACKGROUND]
    share = np.where(known, np.where(_edges(numbers, line), 1.0, _FILL), 0.6)[..., None]
    share[np.isin(numbers, plain)] = 0
    colours = palette()[numbers] * known[..., None]
    pixels = np.asarray(canvas) * (1 - share) + colours * share
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    return _with_legend(drawn, shares_of(values, classes)) if legend else drawn


def shares_of(label: ArrayLike, classes: Sequence[str]) -> list[tuple[int, str, float]]:
    """(number, name, share of the pixels that are of a class) of the classes in a map, the largest first."""
    counts = np.bincount(np.asarray(label).reshape(-1), minlength=len(classes))[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return [(int(k), name_of(classes, int(k)), float(counts[k] / counts.sum())) for k in order if counts[k]]


def name_of(classes: Sequence[str], number: int) -> str:
    """The name of a class, from 0 on, cut where it is very long; of one that has none its number."""
    name = classes[number] if 0 <= number < len(classes) else f"class {number}"
    return name if len(name) <= _MOST else name[: _MOST - 1] + "…"


def _scaled(picture: Image.Image, long_side: int | None) -> Image.Image:
    """A copy as RGB, its long side as wanted."""
    longest = max(picture.size)
    factor = (long_side or max(SMALLEST_PX, longest)) / longest
    factor = min(factor, math.sqrt(_MOST_PIXELS / (picture.width * picture.height)))
    sides = [max(1, round(side * factor)) for side in picture.size]
    return picture.convert("RGB").resize((sides[0], sides[1]), Image.Resampling.BICUBIC)


def _strokes(canvas: Image.Image) -> tuple[int, int]:
    """The width of lines and the height of letters in pixels, for a picture of that size."""
    side = min(max(canvas.size), _LONGEST * min(canvas.size))
    return max(2, round(side / 300)), max(14, round(side / 45))


def _lettered(name: str, number: int, more: str, height: int) -> tuple[str, Any]:
    """What is drawn of a name, with ``more`` behind it, and its font: the number where no font has the letters."""
    font = font_for(name + more, height)
    return (name + more, font) if font else (f"{number}{more}", font_for(f"{number}{more}", height))


def _with_masks(
    canvas: Image.Image, masks: NDArray[np.bool_], labels: NDArray[np.int64], order: Sequence[int], line: int
) -> Image.Image:
    pixels = np.array(canvas)
    for row in order:
        grey = Image.fromarray(masks[row].astype(np.uint8) * 255).resize(canvas.size, Image.Resampling.BILINEAR)
        area = Image.fromarray(np.asarray(grey) >= 128).getbbox()
        if area is None:
            continue
        inside = np.asarray(grey.crop(area)) >= 128
        edge = inside & _edges(np.pad(inside, line), line)[line:-line, line:-line]
        share = np.where(edge, 1.0, _FILL * inside)[..., None]
        part = pixels[area[1] : area[3], area[0] : area[2]]
        part[:] = (part * (1 - share) + np.array(class_colour(int(labels[row]) - 1)) * share).round()
    return Image.fromarray(pixels)


def _edges(values: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """(H, W): whether a pixel has another value within that many pixels above, below, left or right of it."""
    found = np.zeros(values.shape, bool)
    for step in range(1, width + 1):
        down, right = values[step:] != values[:-step], values[:, step:] != values[:, :-step]
        found[step:] |= down
        found[:-step] |= down
        found[:, step:] |= right
        found[:, :-step] |= right
    return found


def _frame(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], colour: tuple[int, int, int], line: int) -> None:
    """A rectangle of the colour between thin black ones, which can be seen on any ground."""
    left, top, right, bottom = box.tolist()
    for inset, ink, width in ((0, (0, 0, 0), line + 2), (1, colour, line)):
        edges = (left + inset, top + inset, max(left, right - 1) - inset, max(top, bottom - 1) - inset)
        if edges[2] >= edges[0] and edges[3] >= edges[1]:
            draw.rectangle(edges, outline=ink, width=width)


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: NDArray[np.float64],
    colour: tuple[int, int, int],
    font: Any,
    size: tuple[int, int],
    taken: list[_Box],
) -> None:
    """The text on its colour at the first free corner of the box: above it, inside, below."""
    _, _, wide, high = draw.textbbox((0, 0), text, font=font)
    wide, high = wide + 6, high + 4
    left, top, right, bottom = box.tolist()
    corners = [(left, top - high), (left, top), (left, bottom - high), (right - wide, top), (left, bottom)]
    places = []
    for x, y in corners:
        x, y = max(0.0, min(x, size[0] - wide)), max(0.0, min(y, size[1] - high))
        places.append((x, y, x + wide, y + high))
    place = next((one for one in places if not any(_meet(one, other) for other in taken)), places[0])
    taken.append(place)
    draw.rectangle(place, fill=colour)
    draw.text((place[0] + 3, place[1] + 1), text, fill=_ink(colour), font=font)


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whatever has more contrast (WCAG's) with the colour."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255, 255, 255)


def _with_legend(drawn: Image.Image, shares: Sequence[tuple[int, str, float]]) -> Image.Image:
    """The picture with a white strip below it: each class's colour, name and share, the largest first."""
    _, letters = _strokes(drawn)
    draw = ImageDraw.Draw(drawn)
    height = round(1.6 * letters)
    places: list[tuple[int, int, int, str, str, Any]] = []
    x = first = height // 2
    y, width = drawn.height + height // 4, drawn.width
    for number, name, share in shares:
        text, font = _lettered(name, number, f" {100 * share:.1f} %", letters)
        wide = 2 * height + round(draw.textlength(text, font=font))
        if x > first and x + wide > drawn.width:
            x, y = first, y + height
        places.append((x, y, number, name, text, font))
        x, width = x + wide, max(width, first + wide)
    result = Image.new("RGB", (width, y + height + height // 4), "white")
    result.paste(drawn)
    draw = ImageDraw.Draw(result)
    for x, y, number, name, text, font in places:
        swatch = (x, y + height // 6, x + 2 * height // 3, y + 5 * height // 6)
        draw.rectangle(swatch, fill="white" if name == BACKGROUND else class_colour(number), outline="black")
        draw.text((x + height, y + height // 6), text, fill="black", font=font)
    return result
