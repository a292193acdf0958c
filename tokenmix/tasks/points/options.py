"""What the recipes of points say: the task's own options, and the augmentation by name and in parts.

``augment`` is a name:

* ``none``: nothing.
* ``standard``: turned about the vertical, tilted a little, scaled, mirrored, jittered; points dropped; colours changed.
* ``elastic``: as ``standard``, and bent elastically: Pointcept's changes for ScanNet, which FFNet's 3-D recipe has.

The other fields of `Augment` change parts of these. Numbers and order are those of Pointcept's configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tokenmix.checked_values import FACTOR, RATE, SHARE, Checked, choice, not_negative, positive, rule
from tokenmix.tasks.options import TaskAugment, TaskOptions

FEATURES = {"color": 3, "normal": 3, "coord": 3, "strength": 1}  # what can be read of a point, and its columns
VIEWS = ("quick", "none", "scannet", "s3dis")


@dataclass(frozen=True, kw_only=True)
class PointsOptions(TaskOptions):
    """How points are learnt and looked at.

    Args:
        voxel: Side of a voxel in metres; None: the data set's own.
        features: What the network reads of each point, of ``color``, ``normal``, ``coord`` and ``strength``; None: what
            the data set has.
        lovasz_weight: Of the Lovász loss beside the cross-entropy.
        block_lr: Factor on the learning rate of the blocks.
        views: How evaluations look at a cloud: ``quick``, one point for each voxel; ``none``, every point in fragments;
            ``scannet`` and ``s3dis``, fragments of the cloud turned, scaled and mirrored, as published.
    """

    name: ClassVar[str] = "points"
    voxel: float | None = field(default=None, metadata=positive("factor"))
    features: tuple[str, ...] | None = field(
        default=None,
        metadata=rule(
            f"some of {', '.join(FEATURES)}, each once",
            lambda value: 0 < len(value) == len(set(value)) and set(value) <= FEATURES.keys(),
        ),
    )
    lovasz_weight: float = field(default=1.0, metadata=not_negative("factor"))
    block_lr: float = field(default=1.0, metadata=FACTOR)
    views: str = field(default="quick", metadata=choice(VIEWS))


@dataclass(frozen=True, kw_only=True)
class CloudAugment(Checked):
    """The random changes, in the order in which they are made.

    Args:
        drop: Share of the clouds that lose points.
        drop_ratio: Share of its points that such a cloud loses.
        turn: Share of the clouds that are turned about the vertical axis, by any angle.
        tilt: Share of the clouds that are turned about x, and of those about y, by up to ``tilt_angle``.
        tilt_angle: In degrees.
        scale: Smallest and largest factor on the coordinates.
        flip: Share of the clouds that are mirrored along x, and of those along y.
        jitter: Standard deviation of what is added to each coordinate, in metres, cut off at four of them.
        elastic: Granularity and magnitude in metres, one after the other, of smooth random fields that bend 95 % of
            the clouds.
        contrast: Share of the clouds whose colours are stretched, by a drawn part, to the whole range.
        shift: Share of the clouds whose colours are shifted.
        shift_ratio: By how much at most, of 255.
        noise: Share of the clouds whose colours get noise.
        noise_std: Its standard deviation, of 255.
        sample_rate: Share of a cloud's voxels that a crop keeps; 1 for no crop.
        max_voxels: The most voxels that a crop keeps, 0 for any number; those nearest to a drawn one are kept.
        mix: Share of the batches whose neighbouring clouds are laid into one another, two by two (Mix3D,
            arXiv:2110.02210).

    Raises:
        ValueError: A value is out of range.
    """

    part: ClassVar[str] = "augment"
    drop: float = field(default=0.0, metadata=SHARE)
    drop_ratio: float = field(default=0.2, metadata=RATE)
    turn: float = field(default=0.0, metadata=SHARE)
    tilt: float = field(default=0.0, metadata=SHARE)
    tilt_angle: float = field(default=180 / 64, metadata=rule("from 0 to 180", lambda value: 0 <= value <= 180))
    scale: tuple[float, float] = field(
        default=(1.0, 1.0), metadata=rule("in order and above 0", lambda value: 0 < value[0] <= value[1])
    )
    flip: float = field(default=0.0, metadata=SHARE)
    jitter: float = field(default=0.0, metadata=not_negative("factor"))
    elastic: tuple[float, ...] = field(
        default=(),
        metadata=rule("pairs of numbers above 0", lambda value: len(value) % 2 == 0 and min(value, default=1) > 0),
    )
    contrast: float = field(default=0.0, metadata=SHARE)
    shift: float = field(default=0.0, metadata=SHARE)
    shift_ratio: float = field(default=0.05, metadata=SHARE)
    noise: float = field(default=0.0, metadata=SHARE)
    noise_std: float = field(default=0.05, metadata=SHARE)
    sample_rate: float = field(default=1.0, metadata=FACTOR)
    max_voxels: int = field(default=0, metadata=not_negative("steps"))
    mix: float = field(default=0.0, metadata=SHARE)


_STANDARD = CloudAugment(
    drop=0.2,
    turn=0.5,
    tilt=0.5,
    scale=(0.9, 1.1),
    flip=0.5,
    jitter=0.005,
    contrast=0.2,
    shift=0.95,
    noise=0.95,
)
CLOUD_AUGMENTS: Mapping[str, CloudAugment] = {
    "none": CloudAugment(),
    "standard": _STANDARD,
    "elastic": dataclasses.replace(_STANDARD, elastic=(0.2, 0.4, 0.8, 1.6)),
}
PARTS = tuple(entry.name for entry in dataclasses.fields(CloudAugment))


@dataclass(frozen=True, kw_only=True)
class Augment(TaskAugment):
    """An augmentation by its name, with some of its parts changed; those that are None are as the name says.

    Args:
        name: One of `CLOUD_AUGMENTS`.
        drop: See `CloudAugment`, also for the others.
        drop_ratio: Share of its points that a cloud loses.
        turn: Share of the clouds that are turned.
        tilt: Share of the clouds that are tilted.
        tilt_angle: In degrees.
        scale: Smallest and largest factor.
        flip: Share of the clouds that are mirrored.
        jitter: In metres.
        elastic: Granularities and magnitudes in metres.
        contrast: Share of the clouds whose colours are stretched.
        shift: Share of the clouds whose colours are shifted.
        shift_ratio: By how much at most.
        noise: Share of the clouds whose colours get noise.
        noise_std: Of that noise.
        sample_rate: Share of a cloud's voxels that a crop keeps.
        max_voxels: The most voxels that a crop keeps.
        mix: Share of the batches whose clouds are mixed.

    Raises:
        ValueError: There is no such name, or a value is out of range.
    """

    name: str = field(default="standard", metadata=choice(CLOUD_AUGMENTS))
    drop: float | None = None
    drop_ratio: float | None = None
    turn: float | None = None
    tilt: float | None = None
    tilt_angle: float | None = None
    scale: tuple[float, float] | None = None
    flip: float | None = None
    jitter: float | None = None
    elastic: tuple[float, ...] | None = None
    contrast: float | None = None
    shift: float | None = None
    shift_ratio: float | None = None
    noise: float | None = None
    noise_std: float | None = None
    sample_rate: float | None = None
    max_voxels: int | None = None
    mix: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.parts  # which checks the values

    @property
    def parts(self) -> CloudAugment:
        """All parts, the changed ones and those of the name."""
        changes = {part: value for part in PARTS if (value := getattr(self, part)) is not None}
        return dataclasses.replace(CLOUD_AUGMENTS[self.name], **changes)
