"""What the recipes of detectors say, with masks and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenmix.tasks.dense.options import DenseOptions


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(DenseOptions):
    """How detectors are trained; what else they need stands in the arguments of their heads."""

    name: ClassVar[str] = "detection"


@dataclass(frozen=True, kw_only=True)
class InstancesOptions(DenseOptions):
    """How detectors that find masks are trained; what else they need stands in the arguments of their heads."""

    name: ClassVar[str] = "instances"
