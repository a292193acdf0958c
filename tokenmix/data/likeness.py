"""Pictures that look nearly the same: scaled, compressed again, or taken a moment later.

Pictures of one look in two splits make a judgement too good, and no comparison of files or pixels finds them. A look is
the picture at 9 x 8 pixels; two are alike if the edges between those pixels go the same way (the difference hash, 64
bits) and their colours hardly differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime.terminal import shown

Look = NDArray[np.uint8]  # (8, 9, 3), RGB
MOST_PAIRS = 1_000_000_000  # that are compared, in seconds; 60,000 pictures, split by us, make 0.4
_MOST_BITS = 6  # of 64 that may differ
_MOST_LEVELS = 6.0  # of 255: the mean difference of colours
_LEAST_LEVELS = 8.0  # of 255: the spread of grey below which a picture shows nothing that could be known again
_BLOCK = 2**18  # pairs at a time: they stay in the cache, which is six times as fast as 2**24


def look_of(image: Image.Image) -> Look:
    """The look of an RGB picture, (8, 9, 3) uint8."""
    return np.asarray(image.resize((9, 8), Image.Resampling.BOX, reducing_gap=3.0))


def alike(later: Sequence[Look], earlier: Sequence[Look]) -> list[tuple[int, int]]:
    """Of each of the later looks that is like an earlier one, its place and that of the first such, in order."""
    if not later or not earlier:
        return []
    here, there = np.stack(later), np.stack(earlier)
    bits, others = _bits(here), _bits(there)
    told = _grey(here).std((1, 2)) >= 1000 * _LEAST_LEVELS
    found = []
    step = max(1, _BLOCK // len(others))
    for begin in range(0, len(bits), step):
        near = np.bitwise_count(bits[begin : begin + step, None] ^ others) <= _MOST_BITS  # (step, N)
        for row in np.flatnonzero(near.any(1) & told[begin : begin + step]).tolist():
            places = np.flatnonzero(near[row])
            levels = np.abs(there[places].astype(np.int16) - here[begin + row]).mean((1, 2, 3))
            if (good := places[levels <= _MOST_LEVELS]).size:
                found.append((begin + row, int(good[0])))
    return found


def told_alike(parts: Mapping[str, Sequence[str]], looks: Mapping[str, Look], known: Collection[str] = ()) -> list[str]:
    """What is to be said about pictures of one part that look like pictures of an earlier one.

    Args:
        parts: The names of each part's pictures, the one that is learnt from first.
        looks: Of the pictures that could be looked at, by their names.
        known: Names of pictures that are copies of others, of which something was said already.

    Returns:
        A line per pair of parts, with the count and the first pair; or one that says that there are too many.
    """
    told: list[str] = []
    rows = {part: [name for name in names if name in looks] for part, names in parts.items()}
    for at, (part, names) in enumerate(rows.items()):
        names = [name for name in names if name not in known]
        for other in list(rows)[:at]:
            if len(names) * len(rows[other]) > MOST_PAIRS:
                told.append(
                    f"{len(names):,} {part} and {len(rows[other]):,} {other} pictures: too many to compare looks"
                )
                continue
            pairs = alike([looks[name] for name in names], [looks[name] for name in rows[other]])
            if pairs:
                first, second = names[pairs[0][0]], rows[other][pairs[0][1]]
                told.append(
                    f"{len(pairs):,} of {len(parts[part]):,} {part} pictures look nearly like {other} pictures, the "
                    f"first: {shown(first)} like {shown(second)}"
                )
    return told


def _grey(looks: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(N, 8, 9, 3) -> (N, 8, 9), 0 to 255,000: whole numbers, which every processor compares alike."""
    return looks.astype(np.int32) @ np.array([299, 587, 114], np.int32)


def _bits(looks: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(N, 8, 9, 3) -> (N,): in each bit whether a pixel is brighter than the one on its left."""
    grey = _grey(looks)
    return np.packbits((grey[..., 1:] > grey[..., :-1]).reshape(len(grey), 64), axis=1).view(np.uint64)[:, 0]
