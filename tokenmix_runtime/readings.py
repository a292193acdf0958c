"""From a graph's outputs to an answer: one entry for each ``kind`` that a manifest's ``postprocess`` may have.

What the parameters of a kind mean is said in ``tokenmix/heads/decoding.py``, which reads them off the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime import boxes, maps
from tokenmix_runtime.results import Classification, Detections, Enlarged, Result, SegmentMap

if TYPE_CHECKING:
    from tokenmix_runtime.manifest import Manifest

Array = NDArray[Any]
Outputs = Mapping[str, Array]
Decoder = Callable[[Array, Array, Sequence[int], Sequence[int], Mapping[str, Any]], boxes.Found]


class View(NamedTuple):
    """How a picture went into the graph; all are (height, width).

    Attributes:
        size: Of the picture.
        seen: Of the picture in the input.
        canvas: Of the input, which may be padded on the right and below.
    """

    size: tuple[int, int]
    seen: tuple[int, int]
    canvas: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """How outputs of one kind are read.

    Attributes:
        tasks: Those whose models have such outputs.
        read: The answers for the pictures of a batch, which are several only where answers have no places.
        placed: An answer tells places in the picture. If not, a picture may be decoded at a reduced size, and several
            may be answered at once.

        enlarges: The answer is a larger picture, and large ones go through the graph in parts: ``read`` gets what they
            make together, ``(s H, s W, 3)`` uint8, see `tokenmix_runtime.enlarging`.

    Raises:
        KeyError: ``read`` misses an output or an entry of the manifest.
        ValueError: The outputs are not those of the manifest.
    """

    tasks: tuple[str, ...]
    read: Callable[[Outputs, Manifest, Sequence[View]], Sequence[Result]]
    placed: bool = True
    enlarges: bool = False


def _classes(outputs: Outputs, manifest: Manifest, views: Sequence[View]) -> list[Classification]:
    if manifest.postprocess["inside"]:
        rows = outputs["probabilities"].astype(np.float32)
    else:
        rows = boxes.softmax(outputs["logits"].astype(np.float32))
    if rows.ndim != 2 or len(rows) != len(views):
        raise ValueError(f"a classifier's have the shape ({len(views)} pictures, classes), not {rows.shape}")
    labels = manifest.names(range(rows.shape[1]), whole=True)
    return [Classification(row, labels) for row in rows]


def _segments(outputs: Outputs, manifest: Manifest, views: Sequence[View]) -> list[SegmentMap]:
    ((size, seen, canvas),) = views
    rules = manifest.postprocess
    if rules["inside"]:
        (classes,) = outputs["classes"]
        if classes.shape != canvas:
            raise ValueError(f"a map of {classes.shape} for an input of {canvas}")
        labels = manifest.names(range(int(classes.min()), int(classes.max()) + 1))
        kept = classes[: seen[0], : seen[1]].astype(np.uint8 if len(labels) <= 256 else np.int32)
        return [SegmentMap(maps.nearest(kept, size), labels)]
    (logits,) = outputs["logits"].astype(np.float32)
    whole = maps.bilinear(logits, canvas, align_corners=rules["align_corners"])
    labels = manifest.names(range(len(logits)), whole=True)
    return [SegmentMap(maps.classes_of(whole[:, : seen[0], : seen[1]], size), labels)]


def _objects(
    outputs: Outputs,
    manifest: Manifest,
    views: Sequence[View],
    *,
    decode: Decoder | None = None,
    background: int = 0,
    masks: bool = False,
) -> list[Detections]:
    """What is found.

    Args:
        outputs: The graph's.
        manifest: Its.
        views: Of the one picture.
        decode: Of raw outputs; None: the graph always decodes.
        background: How many classes of raw outputs stand for no object.
        masks: Whether each object has one.
    """
    ((size, seen, canvas),) = views
    rules = manifest.postprocess
    if rules["inside"] or decode is None:
        found = boxes.Found(*(outputs[name] for name in ("boxes", "scores", "labels")))
    else:
        (scores,), (offsets,) = (outputs[name].astype(np.float32) for name in ("scores", "boxes"))
        manifest.names(range(scores.shape[1] - background), first=1, whole=True)
        found = decode(scores, offsets, seen, canvas, rules)
    down, right = size[0] / seen[0], size[1] / seen[1]
    enlarged = boxes.clip(found.boxes.astype(np.float32) * np.array([right, down, right, down], np.float32), size)
    indices = found.labels.astype(np.int64)
    labels = manifest.names(range(int(indices.min(initial=1)) - 1, int(indices.max(initial=0))), first=1)
    names = tuple(labels[label - 1] for label in indices)
    patches = outputs["masks"][:, 0].astype(np.float32) if masks else None
    return [Detections(enlarged, found.scores.astype(np.float32), indices, names, size, patches)]


def _enlarged(outputs: Outputs, manifest: Manifest, views: Sequence[View]) -> list[Enlarged]:
    return [Enlarged(Image.fromarray(outputs["enlarged"]), manifest.postprocess["scale"])]


READINGS: Mapping[str, Reading] = {
    "softmax": Reading(("classification",), _classes, placed=False),
    "argmax": Reading(("segmentation",), _segments),
    "ssdlite": Reading(("detection",), partial(_objects, decode=boxes.ssdlite, background=1)),
    "retinanet": Reading(("detection",), partial(_objects, decode=boxes.retinanet)),
    "rcnn": Reading(("instances",), partial(_objects, masks=True)),
    "enlarged": Reading(("super_resolution",), _enlarged, enlarges=True),
}
