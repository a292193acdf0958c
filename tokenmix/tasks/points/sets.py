"""Sets of clouds: the embedded rooms, S3DIS and ScanNet as Pointcept prepares them, and folders of files.

* S3DIS: a folder with ``Area_1`` to ``Area_6``, each with a folder (or ``.pth`` file) for each room. The fifth area is
  held out, as nearly everybody does, or the one that ``:area=N`` behind the folder says.
* ScanNet: a folder with ``train`` and ``val``, perhaps ``test``, in which each scene is a folder of arrays with
  ``segment20.npy``; ``:classes=200`` behind the folder takes ``segment200.npy``.
* Any other: clouds of the kinds that `tokenmix.tasks.points.readers` reads, in ``train``, ``val`` and ``test``, or
  in one folder, of which then 15 % are held out to choose by and 25 % to judge by. ``classes.txt`` in it may name the
  classes, one in a line in the order of the labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.data.dataset import DataSet, Samples, Skipped
from tokenmix.data.file_identity import file_identities
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import permutation
from tokenmix.data.split_words import split_of
from tokenmix.tasks.points import rooms
from tokenmix.tasks.points.cloud import Cloud, CloudError
from tokenmix.tasks.points.options import FEATURES
from tokenmix.tasks.points.readers import SEGMENTS, SEGMENTS_200, is_cloud, read_cloud
from tokenmix_runtime.names import unknown

Log = Callable[[str], None]
Names = tuple[str, ...]
S3DIS: Names = ("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase")
S3DIS += ("board", "clutter")
SCANNET: Names = ("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture")
SCANNET += ("counter", "desk", "curtain", "refridgerator", "shower curtain", "toilet", "sink", "bathtub")
SCANNET += ("otherfurniture",)
NAMED = {"s3dis": "s3dis:area=5", "scannet": "scannet:classes=20", "scannet200": "scannet:classes=200"}
ROOMS = (96, 16, 32)  # of the embedded set: to learn from, to choose by, to judge by
MOST_CLASSES = 10_000
_MOST_FILES = 1_000_000
_HELD_OUT = (0.15, 0.25)


class CloudSet(Samples):
    """Clouds with names, read when asked for.

    Args:
        names: Of the clouds, relative to their set.
        read: The cloud of that number.
        paths: Of their files or folders; None where they are computed.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], Cloud], paths: Sequence[Path] | None = None) -> None:
        super().__init__(names)
        self.read, self.paths = read, paths

    def load(self, index: int) -> Cloud:
        """A cloud.

        Raises:
            CloudError: It cannot be read.
        """
        return self.read(index)

    def contents(self) -> NDArray[np.uint64]:
        """64 bits of each cloud's file, or of the coordinates in its folder, (N,)."""
        if self.paths is None:
            return super().contents()
        return file_identities([path / "coord.npy" if path.is_dir() else path for path in self.paths])

    def subset(self, rows: Sequence[int]) -> CloudSet:
        """Some of the clouds."""
        paths = None if self.paths is None else [self.paths[row] for row in rows]
        return CloudSet([self.names[row] for row in rows], lambda index: self.read(rows[index]), paths)


@dataclass
class PointData(DataSet):
    """Sets of clouds of one kind.

    Attributes:
        classes: Names, in the order of the labels.
        features: What every point has, of `tokenmix.tasks.points.options.FEATURES`; judged by the first cloud where
            not all are read.
        voxel: The usual side of a voxel in metres.
    """

    train: CloudSet
    val: CloudSet
    test: CloudSet
    classes: list[str]
    features: list[str]
    voxel: float

    def summary(self) -> str:
        """Also what the points have, as it was found in the files, and the number of classes."""
        return f"{super().summary()}; points with {', '.join(self.features)}; {len(self.classes):,} classes"

    @property
    def facts(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "features": list(self.features), "voxel": self.voxel}


def open_clouds(spec: str, *, seed: int = 0, check: bool = True, log: Log = print) -> PointData:
    """The set that ``spec`` names: ``rooms``, or a folder with settings behind a colon.

    Args:
        spec: See the module's description; ``s3dis``, ``scannet`` and ``scannet200`` are folders in `data_root`.
        seed: Of which clouds of an undivided folder are held out.
        check: Read every cloud once, and leave out those that cannot be used.
        log: Told of clouds that are left out.

    Raises:
        ValueError: There is no such set, or nothing in it can be used.
    """
    if spec == "rooms":
        return embedded_rooms()
    folder, settings = _settings(os.fspath(data_root() / NAMED[spec]) if spec in NAMED else spec)
    if not folder.is_dir():
        raise ValueError(
            f"{spec} is no folder of clouds, and the embedded set is called rooms; a folder is that of S3DIS or "
            "ScanNet as Pointcept prepares them, or has clouds in train/ and val/, or has clouds"
        )
    areas = sorted(path for path in folder.iterdir() if re.fullmatch(r"Area_\d", path.name) and path.is_dir())
    if areas:
        if "classes" in settings:
            raise ValueError(f"{spec}: classes= is for ScanNet, and {folder} has the areas of S3DIS")
        return _s3dis(folder, areas, settings, check, log)
    if "area" in settings:
        raise ValueError(f"{spec}: area= is for S3DIS, and {folder} has no folder Area_1")
    return _folder(folder, settings, seed, check, log)


def embedded_rooms() -> PointData:
    """The rooms of `tokenmix.tasks.points.rooms`, each computed when it is first asked for."""
    made: dict[int, Cloud] = {}

    def of(begin: int, count: int) -> CloudSet:
        def read(index: int) -> Cloud:
            if begin + index not in made:
                made[begin + index] = rooms.room(0, begin + index)
            return made[begin + index]

        return CloudSet([f"rooms/{begin + index}" for index in range(count)], read)

    train, val, test = ROOMS
    learnt, chosen, judged = of(0, train), of(train, val), of(train + val, test)
    return PointData("rooms", learnt, chosen, judged, list(rooms.CLASSES), ["color", "normal"], rooms.VOXEL)


def _settings(spec: str) -> tuple[Path, dict[str, int]]:
    """``folder:area=5`` -> the folder, and numbers by name."""
    name, mark, text = spec.rpartition(":")
    if not mark or "=" not in text or Path(spec).expanduser().exists():
        return Path(spec).expanduser(), {}
    settings = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("area", "classes"):
            raise ValueError(unknown("setting of a set of clouds", key, ("area", "classes")))
        if not value.isdecimal() or len(value) > 6:
            raise ValueError(f"{spec}: {key} must be a number, not {value!r}")
        settings[key] = int(value)
    return Path(name).expanduser(), settings


def _s3dis(folder: Path, areas: Sequence[Path], settings: dict[str, int], check: bool, log: Log) -> PointData:
    held = f"Area_{settings.get('area', 5)}"
    if held not in [area.name for area in areas]:
        raise ValueError(f"{folder} has no {held}, but {', '.join(area.name for area in areas)}: choose with :area=N")
    learnt = [path for area in areas if area.name != held for path in _clouds(area)]
    judged = _clouds(folder / held)
    parts = {"train": learnt, "val": judged, "test": judged}
    return _data(folder, parts, list(S3DIS), 0.02, SEGMENTS, check, log)


def _folder(folder: Path, settings: dict[str, int], seed: int, check: bool, log: Log) -> PointData:
    parts = _parts(folder)
    split_off = not parts["train"]
    if split_off:
        parts = _divided(_clouds(folder), seed)
    if not parts["train"]:
        raise ValueError(f"{folder} has no clouds: files of a kind that can be read, or folders with coord.npy")
    if not parts["val"]:
        if parts["test"]:
            log(f"{folder}: no clouds to validate by: some of train are taken")
        learnt = parts["train"]
        if len(learnt) < 2:
            raise ValueError(f"{folder} has one cloud, and another is needed to judge by: put it into {folder / 'val'}")
        rows, split_off = permutation(len(learnt), seed), True
        count = max(round(_HELD_OUT[0] * len(learnt)), 1)
        parts["val"] = [learnt[row] for row in sorted(rows[:count].tolist())]
        parts["train"] = [learnt[row] for row in sorted(rows[count:].tolist())]
    # ScanNet's test scenes have no labels: then what is chosen by is judged by too.
    parts["test"] = [path for path in parts["test"] if not path.is_dir() or _has_labels(path)] or parts["val"]
    segments: Names = SEGMENTS
    classes = _class_names(folder)
    wanted = settings.get("classes", 20)
    if not (parts["train"][0] / "segment20.npy").exists():
        if "classes" in settings:
            raise ValueError(f"{folder}: classes= is for ScanNet, of which each scene is a folder with segment20.npy")
    elif wanted not in (20, 200):
        raise ValueError(f"{folder}: ScanNet has 20 or 200 classes, not {wanted}")
    else:
        classes = classes or list(SCANNET)
        if wanted == 200:
            segments, classes = SEGMENTS_200, _class_names(folder) or [f"class {number}" for number in range(200)]
    return replace(_data(folder, parts, classes, 0.02, segments, check, log), split_off=split_off)


def _parts(folder: Path) -> dict[str, list[Path]]:
    """The clouds in folders that are called after a part."""
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and split_of(path.name)):
        clouds, part = _clouds(path), split_of(path.name)
        if clouds and parts[part]:
            raise ValueError(f"{folder}: {parts[part][0].parent.name} and {path.name} are both its part {part!r}")
        parts[part] += clouds
    return parts


def _divided(paths: list[Path], seed: int) -> dict[str, list[Path]]:
    """An undivided folder's clouds in three parts, a function of their number and the seed."""
    if len(paths) < 3:
        return {"train": paths, "val": [], "test": []}
    rows = permutation(len(paths), seed).tolist()
    val, test = (max(round(share * len(paths)), 1) for share in _HELD_OUT)
    cuts = {"val": rows[:val], "test": rows[val : val + test], "train": rows[val + test :]}
    return {part: [paths[row] for row in sorted(some)] for part, some in cuts.items()}


def _clouds(folder: Path) -> list[Path]:
    """What in a folder could be a cloud, in the order of names; hidden files are left out."""
    found = []
    for number, path in enumerate(sorted(folder.iterdir())):
        if number > _MOST_FILES:
            raise ValueError(f"{folder} has more than {_MOST_FILES:,} entries")
        if not path.name.startswith(".") and path.name != "classes.txt" and is_cloud(path):
            found.append(path)
    return found


def _has_labels(folder: Path) -> bool:
    return any((folder / f"{name}.npy").exists() for name in (*SEGMENTS, *SEGMENTS_200))


def _class_names(folder: Path) -> list[str]:
    """What ``classes.txt`` says, or nothing."""
    path = folder / "classes.txt"
    if not path.is_file():
        return []
    if path.stat().st_size > 1 << 20:
        raise ValueError(f"{path} is too long for the names of classes")
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not names or len(names) > MOST_CLASSES or len(set(names)) != len(names):
        raise ValueError(f"{path} must name 1 to {MOST_CLASSES:,} classes, each once")
    return names


class _Inspection:
    """What was found in clouds that were read once, each although it may be in two parts."""

    def __init__(self, classes: Sequence[str], segments: tuple[str, ...], log: Log) -> None:
        self.classes, self.segments, self.log = classes, segments, log
        self.highest = -1
        self.features = set(FEATURES)
        self.skipped: list[Skipped] = []
        self._usable: dict[Path, bool] = {}

    def usable(self, path: Path, part: str) -> bool:
        """Whether a cloud can be used; the log is told where it cannot."""
        if path not in self._usable:
            try:
                cloud = read_cloud(path, segments=self.segments)
                self.highest = max(self.highest, _highest(cloud, part, self.classes, path))
                self.features &= {name for name in FEATURES if getattr(cloud, name) is not None}
                self._usable[path] = True
            except CloudError as error:
                self._usable[path] = False
                self.skipped.append(Skipped(path.name, str(error)))
                self.log(f"left out: {error}")
        return self._usable[path]


def _data(
    folder: Path,
    parts: dict[str, list[Path]],
    classes: list[str],
    voxel: float,
    segments: tuple[str, ...],
    check: bool,
    log: Log,
) -> PointData:
    """Sets of these files; each is read once to see that it can be used, and which labels there are."""
    inspection = _Inspection(classes, segments, log)

    def usable(part: str) -> list[Path]:
        paths = parts[part]
        if check or not classes:
            return [path for path in paths if inspection.usable(path, part)]
        if paths:
            inspection.usable(paths[0], part)  # what the points have is asked of one
        return paths

    def of(part: str) -> CloudSet:
        if not used[part]:
            first = f": {inspection.skipped[0].reason}" if inspection.skipped else ""
            raise ValueError(f"{folder}: no cloud to {part} with can be used{first}")
        paths = used[part]

        def read(index: int) -> Cloud:
            cloud = read_cloud(paths[index], segments=segments)
            _highest(cloud, part, names, paths[index])
            return cloud

        return CloudSet([path.relative_to(folder).as_posix() for path in paths], read, paths)

    used = {part: usable(part) for part in ("train", "val", "test")}
    if used["val"] and not used["test"]:
        log(f"{folder}: none of its test clouds can be used: what is chosen by is judged by too")
        used["test"] = used["val"]
    names = classes or [f"class {number}" for number in range(inspection.highest + 1)]
    if used["train"] and not names:
        raise ValueError(f"{folder}: none of its points has a label of 0 or more")
    train, val, test = of("train"), of("val"), of("test")
    usual: list[str] = [name for name in FEATURES if name in inspection.features - {"coord"}] or ["coord"]
    return PointData(folder.name, train, val, test, names, usual, voxel, skipped=inspection.skipped)


def _highest(cloud: Cloud, part: str, classes: Sequence[str], path: Path) -> int:
    """The highest label of a cloud; an error where it has none, or one without a class."""
    if cloud.segment is None:
        raise CloudError(f"{path}: its points have no labels, and without them it cannot be used in {part}")
    top, count = int(np.max(cloud.segment)), len(classes) or MOST_CLASSES
    if top >= count:
        raise CloudError(
            f"{path} has the label {top}, and the classes end at {count - 1}: name all classes in classes.txt, or mark "
            "points that count for nothing with -1"
        )
    return top
