"""What commands print for programs."""

from __future__ import annotations

import json
from typing import Any

from tokenmix.files import finite


def print_json(value: Any) -> None:
    """One JSON document on standard output; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(finite(value), indent=1, allow_nan=False))
