"""What dense models share as files: a head, whose registration tells how its outputs are read."""

from __future__ import annotations

from typing import Any

from tokenmix.heads import HEADS, HeadInfo
from tokenmix.tasks.picture_form import PictureForm


class DenseForm(PictureForm):
    """A model with a head as a file."""

    @property
    def head(self) -> HeadInfo:
        """Its head."""
        return HEADS[str(self.loaded.head)]

    @property
    def title(self) -> str:
        return f"{self.loaded.name} with {self.loaded.head}"

    @property
    def read_inside(self) -> bool:
        """Whether the file reads its outputs itself."""
        raise NotImplementedError

    def reading(self) -> dict[str, Any]:
        return {**self.head.decoding(self.loaded.model), "inside": self.read_inside}
