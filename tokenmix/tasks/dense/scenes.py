"""The embedded data set: real objects composed on real photographs, with exact boxes, masks and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.data.random_numbers import uniforms
from tokenmix.tasks.dense.cutouts import CLASSES, backgrounds, cutouts
from tokenmix.tasks.dense.sets import DenseData, DenseSet

HEIGHT, WIDTH = 96, 128
COUNTS = {"train": 640, "val": 96, "test": 96}
_MOST = 4  # objects in a picture
_DRAWS = 200  # random numbers per picture, more than it uses
_SEED = 20  # one set for everybody, whatever the seed of a run
_SIZES_PX = {"coin": (22, 44), "face": (26, 48), "digit": (22, 40), "cup": (34, 62), "motorcycle": (44, 76)}
_TURNS_DEGREES = {"coin": 180.0, "face": 15.0, "digit": 12.0, "cup": 15.0, "motorcycle": 10.0}
_HIDDEN = 0.15  # the largest share of an object that later ones may cover


@dataclass(frozen=True)
class Scene:
    """``pixels`` (H, W, 3) uint8; ``owner`` (H, W) uint8: 0 or the object's number; its class is in ``labels``."""

    pixels: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    labels: list[int]


class SceneSet(DenseSet):
    """Scenes in memory; see `ObjectSet` for the target, or `LabelSet` where ``per_pixel``."""

    def __init__(self, scenes: Sequence[Scene], names: Sequence[str], *, per_pixel: bool, masks: bool) -> None:
        super().__init__(names)
        self.scenes, self.per_pixel, self.masks = scenes, per_pixel, masks

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self.scenes[index].pixels)

    def target(self, index: int) -> dict[str, Tensor]:
        scene = self.scenes[index]
        if self.per_pixel:
            return {"label": torch.tensor([0, *scene.labels])[torch.from_numpy(scene.owner).long()]}
        masks = torch.from_numpy(scene.owner) == torch.arange(1, len(scene.labels) + 1)[:, None, None]
        rows, columns = masks.any(2).int(), masks.any(1).int()
        edges = [columns.argmax(1), rows.argmax(1), WIDTH - columns.flip(1).argmax(1), HEIGHT - rows.flip(1).argmax(1)]
        target = {
            "boxes": torch.stack(edges, dim=1).float(),
            "labels": torch.tensor(scene.labels, dtype=torch.int64),
            "iscrowd": torch.zeros(len(scene.labels), dtype=torch.int64),
            "area": masks.sum((1, 2)).float(),
            "image_id": torch.tensor(index),
        }
        return target | ({"masks": masks.to(torch.uint8)} if self.masks else {})


def load_scenes(task: str) -> DenseData:
    """832 pictures of 128 x 96 pixels with one to four coins, faces, digits, cups and motorcycles each.

    They are composed anew each time, always the same. Test pictures share no coin, face, digit and no part of a
    background with training pictures; the motorcycle is seen from another side, the cup is the same.

    Args:
        task: ``"detection"``, ``"instances"`` or ``"segmentation"``, which has a class for the background.

    Raises:
        ValueError: scikit-image or scikit-learn is missing.
    """
    sets = {}
    for place, (split, count) in enumerate(COUNTS.items()):
        pieces, photos = cutouts(split), backgrounds(split)
        draws = uniforms(_DRAWS, _SEED, place, np.arange(count))
        scenes = [_compose(pieces, photos, iter(row)) for row in draws.tolist()]
        names = [f"scenes/{split}/{index}" for index in range(count)]
        sets[split] = SceneSet(scenes, names, per_pixel=task == "segmentation", masks=task == "instances")
    classes = [*(["background"] if task == "segmentation" else []), *CLASSES]
    return DenseData("scenes", sets["train"], sets["val"], sets["test"], WIDTH, classes, task=task)


def _compose(pieces: list[list[Image.Image]], photos: list[Image.Image], draw: Iterator[float]) -> Scene:
    """A scene from numbers in [0, 1)."""
    canvas = _background(_pick(photos, draw), draw)
    dark = np.asarray(canvas).mean() > 110  # ink that can be seen
    owner = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels: list[int] = []
    whole: list[int] = []
    for _ in range(1 + int(next(draw) * _MOST)):
        label = int(next(draw) * len(CLASSES))
        piece = _pose(_pick(pieces[label], draw), CLASSES[label], dark, draw)
        for _ in range(6):  # places to try
            left = int(next(draw) * (WIDTH - piece.width + 1))
            top = int(next(draw) * (HEIGHT - piece.height + 1))
            alpha = Image.new("L", canvas.size)
            alpha.paste(piece.getchannel("A"), (left, top))
            covered = np.asarray(alpha) >= 128
            left_over = np.bincount(owner[~covered], minlength=len(whole) + 1)[1:]
            if all(visible >= (1 - _HIDDEN) * size for visible, size in zip(left_over, whole, strict=True)):
                canvas.paste(piece, (left, top), piece)
                labels.append(label + 1)
                whole.append(int(covered.sum()))
                owner[covered] = len(labels)
                break
    return Scene(np.asarray(canvas), owner, labels)


def _pick(choices: Sequence[Image.Image], draw: Iterator[float]) -> Image.Image:
    return choices[int(next(draw) * len(choices))]


def _background(photo: Image.Image, draw: Iterator[float]) -> Image.Image:
    """A part of a photograph, at the size of a scene, mirrored half of the time."""
    width = round(min(photo.width, photo.height * WIDTH / HEIGHT) * (0.6 + 0.4 * next(draw)))
    height = round(width * HEIGHT / WIDTH)
    left, top = int(next(draw) * (photo.width - width + 1)), int(next(draw) * (photo.height - height + 1))
    part = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if next(draw) < 0.5 else part


def _pose(piece: Image.Image, name: str, dark: bool, draw: Iterator[float]) -> Image.Image:
    """The object turned, mirrored (but no digit), at its size; a digit in a dark or bright colour."""
    if name == "digit":
        tint = [next(draw), next(draw), next(draw)]
        ink = Image.new("RGB", piece.size, tuple(int(60 * t) if dark else 255 - int(90 * t) for t in tint))
        ink.putalpha(piece.getchannel("A"))
        piece = ink
    elif next(draw) < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = _TURNS_DEGREES[name] * (2 * next(draw) - 1)
    low, high = _SIZES_PX[name]
    scale = (low + (high - low) * next(draw)) / max(piece.size)
    large = piece.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    box = large.getchannel("A").getbbox()
    large = large.crop(box)
    sides = [max(1, round(side * scale)) for side in large.size]
    sides = [min(sides[0], WIDTH), min(sides[1], HEIGHT)]
    return large.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
