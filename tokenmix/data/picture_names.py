"""Pictures by the names that tables have for them."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence

from tokenmix.data.split_words import split_in
from tokenmix_runtime.images import EXTENSIONS
from tokenmix_runtime.terminal import shown


class PictureFinder:
    """Pictures by what tables call them: their path, their name, or their name without its ending, or zeros in front.

    Args:
        pictures: Their paths, with forward slashes.
    """

    def __init__(self, pictures: Sequence[str]) -> None:
        self.paths = set(pictures)
        self.ways: list[dict[str, list[str]]] = [defaultdict(list), defaultdict(list), defaultdict(list)]
        for path in pictures:
            name = path.rpartition("/")[2]
            stem = name.rpartition(".")[0]
            for way, key in zip(self.ways, (name, stem, _number(stem)), strict=True):
                way[key].append(path)

    def find(self, cell: str, file: str, hint: str, *, sure: bool = True) -> str:
        """The picture, ``""`` where there is none.

        Args:
            cell: Of the table.
            file: The table.
            hint: The split that its name tells: it means no picture in another split's folder.
            sure: Refuse what can be two pictures; else take any.

        Raises:
            ValueError: It can be two pictures.
        """
        path = cell.strip().replace("\\", "/").removeprefix("./")
        for folder in (file.rpartition("/")[0], ""):
            if (whole := posixpath.normpath(posixpath.join(folder, path))) in self.paths:
                return whole
        bare = path[: -len(ending)] if (ending := posixpath.splitext(path)[1]).lower() in EXTENSIONS else path
        stem, told = bare.rpartition("/")[2], split_of_path(path) or hint
        for way, key in zip(self.ways, (path.rpartition("/")[2], stem, _number(stem)), strict=True):
            found = [one for one in way.get(key, []) if not told or split_of_path(one) in ("", told)]
            if len(found) > 1 and "/" in bare:
                found = [one for one in found if f"/{one.rpartition('.')[0]}".endswith(f"/{bare}")] or found
            if len(found) > 1 and told:
                found = [one for one in found if split_of_path(one) == told] or found
            if len(found) > 1 and sure:
                raise ValueError(f"{file}: {cell!r} can be {shown(found[0])} or {shown(found[1])}: write their paths")
            if found:
                return found[0]
        return ""


def _number(stem: str) -> str:
    """A number without the zeros that programs of tables take away."""
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem


def split_of_path(path: str) -> str:
    """The split that one of the folders above a picture speaks of."""
    return next((split for folder in path.split("/")[:-1] if (split := split_in(folder))), "")
