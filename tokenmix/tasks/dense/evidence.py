"""What the evidence of detectors and segmenters has in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

IMAGES = 12  # that are kept, the worst
DRAWN_PX = 400  # the long side of a picture with objects or labels


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """None for what does not exist, and one digit where there are a hundred numbers: the points of curves."""

    def kept(value: Any) -> Any:
        if isinstance(value, list):
            return [round(point, 1) for point in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: kept(value) for name, value in row.items()}
