"""A data set of pictures in which something has a class: the picture, its pixels, or objects on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenmix.data.dataset import PictureData
from tokenmix.text_tables import counted


@dataclass
class ClassedPictures(PictureData):
    """Pictures, and the names of the classes."""

    classes: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        """``classes``: their names."""
        return {"classes": list(self.classes)}

    def summary(self) -> str:
        """One line: sizes of the sets, number of classes, number of pictures left out."""
        skipped = f", {len(self.skipped):,} skipped" if self.skipped else ""
        return (
            f"{self.name}: {len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} test "
            f"images of {counted(len(self.classes), 'class', 'classes')}{skipped}"
        )
