"""What programs call the columns of a cloud, in the headers of PLY and text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# In small letters; CloudCompare puts ``scalar_`` before what is no coordinate, colour or normal.
NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "coord": (("x", "y", "z"),),
    "color": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"), ("normalx", "normaly", "normalz")),
    "strength": (("intensity",), ("reflectance",), ("strength",)),
    "segment": (("label",), ("class",), ("segment",), ("semantic",), ("classification",)),
}


def known_columns(names: Sequence[str]) -> dict[str, list[int]]:
    """Which columns are what: the parts of a cloud, and the places of their columns; other names are left out."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name.lower().removeprefix("scalar_"), place)
    found = {}
    for part, candidates in NAMES.items():
        own = next((own for own in candidates if places.keys() >= set(own)), None)
        if own is not None:
            found[part] = [places[name] for name in own]
    return found
