"""Pictures of more than 8 bits: whether one scale has made 8 of them all, and whether anything is left to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image

from tokenmix.data.inventory import summary
from tokenmix_runtime.images import DECLARED, OWN_RANGE, SCALE

DARK = 32  # of 255: the brightest level of a picture of more than 8 bits, from which on it is not named


class Depth(NamedTuple):
    """How a picture of more than 8 bits became one of 8.

    Attributes:
        scale: What was white, see `tokenmix_runtime.images.to_rgb`.
        dark: Whether only a small part of the range is used.
    """

    scale: str
    dark: bool


def depth_of(picture: Image.Image) -> Depth | None:
    """That of a decoded picture; None of one that was stored with 8 bits."""
    scale = picture.info.get(SCALE)
    if scale is None:
        return None
    brightest: tuple[float, float] = picture.getextrema()[0]  # type: ignore[assignment]  # of a picture with bands
    return Depth(scale, brightest[1] < DARK)


def told_depths(depths: Mapping[str, Depth]) -> list[str]:
    """What is to be said of a set's pictures of more than 8 bits, by their names: a line for each thing that is odd."""
    told = []
    dark = sorted(name for name, depth in depths.items() if depth.dark)
    if len(dark) > len(depths) / 2:  # a few may have been taken at night
        told.append(
            f"{len(dark):,} pictures of more than 8 bits have no level above {DARK} of 255 when scaled, as 12-bit "
            f"cameras write them ({summary(dark)}): stretch them to the whole range, all by the same factor"
        )
    by_scale: dict[str, list[str]] = {}
    for name, depth in depths.items():
        if depth.scale != DECLARED:
            by_scale.setdefault(depth.scale, []).append(name)
    if len(by_scale) > 1 or OWN_RANGE in by_scale:
        scales = "; ".join(
            f"{len(names):,} by {scale if scale == OWN_RANGE else f'{scale} as white'}, such as {min(names)}"
            for scale, names in sorted(by_scale.items())
        )
        told.append(
            f"pictures of floats or 32-bit integers are scaled in different ways, so that one brightness means "
            f"different values ({scales}): save them all by the same scale, in 16 bits or within 0..1"
        )
    return told
