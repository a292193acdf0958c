"""What is wrong with a data set's annotations: counted, named, and told once, when it is loaded."""

from __future__ import annotations

from collections.abc import Callable

from tokenmix.data.dataset import printable


class Problems:
    """Names by kind of problem; a kind says what was done about it, such as ``"zero area: left out"``."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Note one; ``name`` says where: the picture's file, and which of its objects."""
        self.found.setdefault(kind, []).append(printable(name))

    def __len__(self) -> int:
        return sum(len(names) for names in self.found.values())

    def tell(self, log: Callable[[str], None], *, shown: int = 3) -> None:
        """One line per kind, with its count and the first names."""
        for kind, names in self.found.items():
            more = f", and {len(names) - shown:,} more" if len(names) > shown else ""
            log(f"{len(names):,} x {kind}: {', '.join(names[:shown])}{more}")
