"""From a detector's raw outputs to its detections: anchors, coding, suppression, as PyTorch's model does them.

What the parameters mean is said in ``tokenmix/heads/decoding.py``, which reads them off the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Found(NamedTuple):
    """Boxes (N, 4) left, top, right, bottom in pixels of the input, scores (N,), labels (N,) from 1 on; best first."""

    boxes: Array
    scores: Array
    labels: Array


def ssdlite(scores: Array, boxes: Array, seen: Sequence[int], canvas: Sequence[int], rules: Mapping[str, Any]) -> Found:
    """Logits (N, 1 + K) and locations (N, 4) of an image -> its detections.

    Args:
        scores: Background first.
        boxes: Coded against the anchors.
        seen: (height, width) of the picture in the input.
        canvas: (height, width) of the input; the graph pads it to the manifest's ``multiple``.
        rules: The manifest's ``postprocess``.

    Raises:
        ValueError: The outputs do not have as many rows as there are anchors.
    """
    cells = [_cells(level, canvas, rules["multiple"]) for level in rules["levels"]]
    anchors = []
    for level, (rows, columns) in zip(rules["levels"], cells, strict=True):
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        anchors.append(_every(np.stack([x, y], -1), np.zeros((len(level["anchors"]), 2)), level["anchors"]))
    corners = _of_anchors(np.concatenate(anchors), scores, boxes)
    probabilities = softmax(scores)
    near, far = rules["variances"]
    decoded = _decode(boxes * np.array([near, near, far, far], boxes.dtype), corners.astype(boxes.dtype))
    places, labels = [], []
    for label in range(1, scores.shape[1]):
        own = _best(probabilities[:, label], rules["score_threshold"], rules["candidates"])
        places.append(own)
        labels.append(np.full(len(own), label))
    place, chosen = np.concatenate(places), np.concatenate(labels)
    found = Found(decoded[place], probabilities[place, chosen], chosen)
    kept = suppress(*found, rules["nms_threshold"])[: rules["max_detections"]]
    height, width = canvas
    pixels = found.boxes[kept] * np.array([width, height, width, height], boxes.dtype)
    return Found(clip(pixels, seen), found.scores[kept], found.labels[kept])


def retinanet(
    scores: Array, boxes: Array, seen: Sequence[int], canvas: Sequence[int], rules: Mapping[str, Any]
) -> Found:
    """Logits (N, K) and offsets (N, 4) of an image -> its detections; see `ssdlite`."""
    levels = []
    for level in rules["levels"]:
        rows, columns = _cells(level, canvas, rules["multiple"])
        y, x = np.meshgrid(np.arange(rows) * level["stride"], np.arange(columns) * level["stride"], indexing="ij")
        own = np.asarray(level["anchors"], np.float64)
        levels.append(_every(np.stack([x, y], -1), (own[:, :2] + own[:, 2:]) / 2, own[:, 2:] - own[:, :2]))
    anchors = _of_anchors(np.concatenate(levels), scores, boxes).astype(boxes.dtype)
    offsets = boxes / np.array(rules["weights"], boxes.dtype)
    offsets[:, 2:] = np.minimum(offsets[:, 2:], boxes.dtype.type(rules["max_log_size"]))
    places, labels = [], []
    begin, classes = 0, scores.shape[1]
    with np.errstate(over="ignore"):  # a logit far below zero is a probability of zero
        probabilities = 1 / (1 + np.exp(-scores))
    for level in levels:
        own = probabilities[begin : begin + len(level)].ravel()
        best = _best(own, rules["score_threshold"], rules["candidates"])
        places.append(begin + best // classes)
        labels.append(best % classes)
        begin += len(level)
    place, chosen = np.concatenate(places), np.concatenate(labels)
    found = Found(clip(_decode(offsets[place], anchors[place]), seen), probabilities[place, chosen], chosen + 1)
    kept = suppress(*found, rules["nms_threshold"])[: rules["max_detections"]]
    return Found(found.boxes[kept], found.scores[kept], found.labels[kept])


def suppress(boxes: Array, scores: Array, labels: Array, threshold: float) -> Array:
    """Which of N boxes remain, best first: none overlaps a better one of its class by more than the threshold."""
    kept = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for label in np.unique(labels):
        (left,) = np.nonzero(labels == label)
        left = left[np.argsort(-scores[left], kind="stable")]
        while len(left):
            best, left = left[0], left[1:]
            kept.append(best)
            with np.errstate(invalid="ignore"):  # of two boxes without an area, or without an end, neither goes
                corner = np.maximum(boxes[left, :2], boxes[best, :2])
                common = (np.minimum(boxes[left, 2:], boxes[best, 2:]) - corner).clip(min=0).prod(1)
                overlap = common / (area[left] + area[best] - common)
            left = left[~(overlap > threshold)]
    chosen = np.array(kept, np.int64)
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def softmax(logits: Array) -> Array:
    """(N, K) logits -> probabilities."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def clip(boxes: Array, size: Sequence[int]) -> Array:
    """Boxes (N, 4) cut at the borders of (height, width)."""
    height, width = size
    return boxes.clip(0, np.array([width, height, width, height], boxes.dtype))


def _cells(level: Mapping[str, Any], canvas: Sequence[int], multiple: int) -> tuple[int, int]:
    if level["stride"] is None:
        return 1, 1
    rows, columns = (math.ceil(math.ceil(side / multiple) * multiple / level["stride"]) for side in canvas)
    return rows, columns


def _every(places: Array, middles: Any, sizes: Any) -> Array:
    """(rows, columns, 2) x, y; (A, 2) middles from there and (A, 2) widths and heights -> (rows * columns * A, 4)."""
    middles, sizes = np.asarray(middles, np.float64), np.asarray(sizes, np.float64)
    centres = places[:, :, None] + middles
    return np.concatenate([centres, np.broadcast_to(sizes, centres.shape)], -1).reshape(-1, 4)


def _of_anchors(anchors: Array, scores: Array, boxes: Array) -> Array:
    """The anchors, if each has its row in the outputs."""
    if not len(anchors) == len(scores) == len(boxes):
        raise ValueError(f"{len(scores)} scores and {len(boxes)} boxes for {len(anchors)} anchors")
    return anchors


def _decode(offsets: Array, anchors: Array) -> Array:
    """(N, 4) offsets of centres, in sizes, and logarithms of sizes; (N, 4) x, y, width, height -> (N, 4) corners."""
    centre = offsets[:, :2] * anchors[:, 2:] + anchors[:, :2]
    with np.errstate(over="ignore"):
        half = np.exp(offsets[:, 2:]) * anchors[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _best(scores: Array, threshold: float, count: int) -> Array:
    """Where the highest scores above the threshold are, so many at most, best first."""
    (above,) = np.nonzero(scores > threshold)
    return above[np.argsort(-scores[above], kind="stable")[:count]]
