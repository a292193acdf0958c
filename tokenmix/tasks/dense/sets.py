"""Pictures with objects or with a label for each pixel, and the data set that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.data.dataset import Pictures, printable
from tokenmix.data.file_identity import file_identities
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.picture_data import ClassedPictures
from tokenmix_runtime.images import MAX_PIXELS, open_image, open_known

DENSE_TASKS = ("detection", "instances", "segmentation")
IGNORED = 255  # the label of pixels that count for nothing
_FARTHEST_PX = 10_000_000  # of a polygon's points: five times as much fits into 32 bits
_LONGEST_OUTLINE_PX = 5_000_000  # of an object's polygons: drawing it takes half a gigabyte


class DenseSet(Pictures):
    """Pictures whose answer is more than a class: `target` gives it, at the picture's full size."""

    per_pixel = False  # whether the answer is a label for each pixel, and not objects

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__([printable(name) for name in names])

    def target(self, index: int) -> dict[str, Tensor]:
        """The answer; what is in it, the subclass says."""
        raise NotImplementedError


@dataclass(frozen=True)
class Objects:
    """The N objects in a picture.

    Args:
        boxes: (N, 4) float64, left, top, right, bottom in pixels.
        labels: (N,) int64, the class from 1 on; 0 is the background, as torchvision counts.
        crowd: (N,) bool: whether this is a group that training leaves out and evaluation does not count.
        area: (N,) float64, square pixels, by which evaluation says small, medium and large.
        shapes: A mask each, as COCO writes it (polygons, or a run-length code with its size), or empty: boxes only.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    shapes: tuple[Any, ...] = ()

    def digest(self) -> str:
        """A short hash of all of it."""
        digest = hashlib.blake2b(digest_size=8)
        for values in (self.boxes, self.labels, self.crowd):
            digest.update(values.tobytes())
        for shape in self.shapes:
            digest.update(repr(shape if isinstance(shape, dict) else [line.tolist() for line in shape]).encode())
        return digest.hexdigest()


class ObjectSet(DenseSet):
    """Pictures in files, with objects in them: ``target`` is a dict as torchvision documents it.

    ``boxes`` (N, 4) float32, ``labels`` (N,) int64 from 1 on, ``iscrowd`` (N,) int64, ``area`` (N,) float32,
    ``image_id`` () int64, the index, and with ``masks`` (N, H, W) uint8 where the set has masks.

    Args:
        root: The folder of the files.
        files: Paths of the pictures, relative to ``root``.
        objects: What is in each picture.
        sizes: (height, width) of each picture in pixels.
        masks: Whether targets have masks.
        ids: How the annotations call the pictures; empty: by their place.
        class_ids: How they call the classes; empty: from 1 on.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        objects: Sequence[Objects],
        sizes: Sequence[tuple[int, int]],
        *,
        masks: bool,
        ids: Sequence[int | str] = (),
        class_ids: Sequence[int | str] = (),
    ) -> None:
        super().__init__(files)
        self.root, self.files, self.objects, self.sizes, self.masks = root, list(files), objects, sizes, masks
        self.ids, self.class_ids = list(ids) or list(range(len(self.files))), list(class_ids)

    def contents(self) -> NDArray[np.uint64]:
        return file_identities([self.root / file for file in self.files])

    def answers(self) -> list[str]:
        """A short hash of each picture's objects."""
        return [one.digest() for one in self.objects]

    def load(self, index: int) -> Image.Image:
        return open_image(self.root / self.files[index])

    def target(self, index: int) -> dict[str, Tensor]:
        found = self.objects[index]
        target = {
            "boxes": torch.from_numpy(found.boxes.astype(np.float32)),
            "labels": torch.from_numpy(found.labels),
            "iscrowd": torch.from_numpy(found.crowd.astype(np.int64)),
            "area": torch.from_numpy(found.area.astype(np.float32)),
            "image_id": torch.tensor(index),
        }
        if self.masks:
            height, width = self.sizes[index]
            drawn = [draw(shape, height, width) for shape in found.shapes]
            target["masks"] = torch.from_numpy(np.stack(drawn) if drawn else np.zeros((0, height, width), np.uint8))
        return target

    def subset(self, rows: Sequence[int]) -> ObjectSet:
        """The set of some of the pictures."""
        files, objects = [self.files[row] for row in rows], [self.objects[row] for row in rows]
        sizes, ids = [self.sizes[row] for row in rows], [self.ids[row] for row in rows]
        return ObjectSet(self.root, files, objects, sizes, masks=self.masks, ids=ids, class_ids=self.class_ids)


def coco_tools() -> Any:
    """pycocotools, which draws and reads COCO's masks.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import pycocotools.mask
    except ImportError as error:
        raise ValueError("this needs pycocotools: pip install 'tokenmix[detection]'") from error
    return pycocotools.mask


def draw(shape: Any, height: int, width: int) -> NDArray[np.uint8]:
    """A mask as COCO writes it, of that size -> (height, width) of 0 and 1, drawn by COCO's own tools.

    Raises:
        ValueError: What `mask_problem` says.
    """
    if problem := mask_problem(shape, height, width):
        raise ValueError(problem)
    tools = coco_tools()
    if isinstance(shape, list):
        code = tools.merge(tools.frPyObjects([list(polygon) for polygon in shape], height, width))
    else:
        code = compressed(shape)
    return tools.decode(code)


def compressed(code: dict[str, Any]) -> dict[str, Any]:
    """A run-length code of which `mask_problem` says nothing, as COCO's tools take it, if its counts are a list."""
    return coco_tools().frPyObjects(code, *code["size"]) if isinstance(code["counts"], list) else code


def mask_problem(shape: Any, height: int, width: int) -> str:
    """Why a mask must not reach COCO's tools, which trust what they are given, or nothing.

    They draw polygons five times as large and keep every point of the outline, in numbers of 32 bits: coordinates far
    outside end in a crash or take all memory. Of a run-length code they fill as much as it says.
    """
    if isinstance(shape, list):
        outline = 0.0
        for polygon in shape:
            points = np.asarray(polygon, np.float64).reshape(-1, 2)
            if not (np.abs(points) <= _FARTHEST_PX).all():  # NaN is not either
                return "polygon far outside the picture: left out"
            outline += float(np.abs(points - np.roll(points, 1, 0)).max(1).sum())
        return "polygon with an outline beyond any picture: left out" if outline > _LONGEST_OUTLINE_PX else ""
    if shape["size"] != [height, width] or any(type(side) is not int for side in shape["size"]):
        return "mask of another size: left out"
    try:
        counts = shape["counts"] if isinstance(shape["counts"], list) else _run_lengths(shape["counts"])
    except (TypeError, ValueError):
        return "mask that cannot be read: left out"
    fills = all(type(count) is int and count >= 0 for count in counts) and sum(counts) == height * width
    return "" if fills else "mask that does not fill its size: left out"


def _run_lengths(text: str | bytes) -> list[int]:
    """The numbers in COCO's compressed code: groups of five bits, a sixth says that one more follows.

    From the fourth number on each is the difference to the last but one.

    Raises:
        ValueError: Another letter, or a number beyond all pictures.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii") if isinstance(text, str) else text:
        code = letter - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError("no run-length code")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the code ends within a number")
    return counts


class LabelSet(DenseSet):
    """Pictures in files with a label for each pixel in another file: ``target`` is ``{"label": (H, W) int64}``.

    Args:
        root: The folder of the files.
        files: Paths of the pictures, relative to ``root``.
        labels: Paths of the label files, of one channel.
        table: (65536,) uint8: the class of each value in a file, `IGNORED` for none.
        colours: Of files that are pictures in colour: that of each class.
    """

    per_pixel = True

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        labels: Sequence[str],
        table: NDArray[np.uint8],
        colours: Sequence[tuple[int, int, int]] | None = None,
    ) -> None:
        super().__init__(files)
        self.root, self.files, self.label_files = root, list(files), list(labels)
        self.table, self.colours = table, colours

    def contents(self) -> NDArray[np.uint64]:
        return file_identities([self.root / file for file in self.files])

    def answers(self) -> list[str]:
        """What each label file is, whatever its name."""
        return [f"{identity:x}" for identity in file_identities([self.root / f for f in self.label_files]).tolist()]

    def load(self, index: int) -> Image.Image:
        return open_image(self.root / self.files[index])

    def target(self, index: int) -> dict[str, Tensor]:
        values, _ = labels_of(self.root / self.label_files[index], self.table, self.colours)
        return {"label": torch.from_numpy(values.astype(np.int64))}

    def subset(self, rows: Sequence[int]) -> LabelSet:
        """The set of some of the pictures."""
        files, labels = ([values[row] for row in rows] for values in (self.files, self.label_files))
        return LabelSet(self.root, files, labels, self.table, self.colours)


class UnlabelledSet(DenseSet):
    """Pictures in files of which nobody knows what is on them: no objects, and every pixel ignored.

    Args:
        root: The folder of the files.
        files: Paths of the pictures, relative to ``root``; results call the pictures by them.
        sizes: (height, width) of each picture in pixels.
        per_pixel: Whether the answer would be a label for each pixel.
    """

    def __init__(self, root: Path, files: Sequence[str], sizes: Sequence[tuple[int, int]], *, per_pixel: bool) -> None:
        super().__init__(files)
        self.root, self.files, self.sizes, self.per_pixel, self.ids = root, list(files), sizes, per_pixel, self.names

    def contents(self) -> NDArray[np.uint64]:
        return file_identities([self.root / file for file in self.files])

    def load(self, index: int) -> Image.Image:
        return open_image(self.root / self.files[index])

    def target(self, index: int) -> dict[str, Tensor]:
        if self.per_pixel:
            return {"label": torch.full(self.sizes[index], IGNORED)}
        return {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "iscrowd": torch.zeros(0, dtype=torch.int64),
            "area": torch.zeros(0),
            "image_id": torch.tensor(index),
        }


def read_labels(path: Path) -> NDArray[np.uint16]:
    """(H, W): the values in a label file, palettes and all.

    Raises:
        ValueError: It cannot be read, or has several channels.
    """
    values = read_mask(path)
    if values.ndim != 2:
        raise ValueError("label file is a colour picture, not one number per pixel")
    return values


def labels_of(
    path: Path, table: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]] | None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """(H, W): the classes in a label file, `IGNORED` for none; and the values or colours that are there.

    Raises:
        ValueError: It cannot be read, or is in colour and there is no map of colours.
    """
    values = read_mask(path, grey=colours is None)
    if values.ndim == 2:
        return table[values], np.unique(values)
    if colours is None:
        raise ValueError("label file is a colour picture, not one number per pixel")
    codes = values.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)  # (H, W)
    label = np.full(codes.shape, IGNORED, np.uint8)
    for number, (red, green, blue) in enumerate(colours):
        label[codes == red * 65536 + green * 256 + blue] = number
    return label, np.unique(codes)


def read_mask(path: Path, *, grey: bool = True) -> NDArray[Any]:
    """The values in a label file, palettes and all: (H, W) uint16, or (H, W, 3) uint8 of a picture in colour.

    Args:
        path: The file.
        grey: Whether a picture in colour whose three channels are equal is one of grey; not where colours are classes,
            of which black and white may be some.

    Raises:
        ValueError: It cannot be read, or has values that are no labels.
    """
    try:
        with open_known(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"over the limit of {MAX_PIXELS / 1e6:.0f} megapixels")
            image.load()
            values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "CMYK", "YCbCr") else image)
            if image.mode == "LA":
                values = values[..., 0]
    except Exception as error:  # Pillow's format plugins raise nearly every type on broken files
        raise ValueError(f"label file cannot be read ({error})") from error
    if values.dtype.kind == "f" and values.size and np.array_equal(values, np.rint(values)):
        values = values.astype(np.int64)  # whole numbers in a file of floats
    if values.dtype.kind not in "biu" or (values.size and not 0 <= values.min() <= values.max() < 65536):
        raise ValueError("label file holds no numbers of classes")
    if grey and values.ndim == 3 and (values[..., :1] == values).all():
        values = values[..., 0]
    return values.astype(np.uint16) if values.ndim == 2 else values


@dataclass
class DenseData(ClassedPictures):
    """A data set of `DenseSet` pictures for a task of `DENSE_TASKS`; ``problems`` is what was wrong with it.

    ``image_size`` is the default: a picture is scaled until it fits into such a square.
    """

    train: DenseSet
    val: DenseSet
    test: DenseSet
    task: str = field(default="detection", kw_only=True)
    problems: Problems = field(default_factory=Problems, kw_only=True)

    def summary(self) -> str:
        """One line: sizes of the sets, number of classes, number of problems."""
        found = f", {len(self.problems):,} problems in its annotations" if self.problems else ""
        return super().summary() + found


Log = Callable[[str], None]
