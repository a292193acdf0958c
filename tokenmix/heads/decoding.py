"""How a dense model's raw outputs are read, told for those who decode them without PyTorch.

Each function here returns a manifest's entry ``postprocess``, read off the model; `tokenmix_runtime` and the page in
the browser follow it. All have ``kind``, and ``multiple``: to multiples of how many pixels the model pads an image's
sides. The decoders of one stage have ``levels``, from fine to coarse: ``stride`` (a level has ``ceil(side / stride)``
cells per padded side; None: one cell) and ``anchors`` of each cell. The outputs go through the cells row by row, and in
a cell through its anchors.

* ``argmax``: logits (B, K, h, w), resized to the input's size with ``align_corners`` as PyTorch has it.
* ``ssdlite``: scores (B, N, 1 + K), background first, for a softmax; boxes (B, N, 4) are coded with ``variances``
  against ``anchors``, width and height as fractions of the input around the middle of their cell. Of each class
  the best ``candidates`` above ``score_threshold`` are suppressed above the overlap ``nms_threshold``; the best
  ``max_detections`` of all remain.
* ``retinanet``: scores (B, N, K), for a sigmoid; boxes (B, N, 4) are coded with ``weights``, logarithms of sizes
  at most ``max_log_size``, against ``anchors``, corners in pixels around the upper left corner of their cell. The
  candidates are the best of a level, whatever their class.
* ``rcnn``: boxes (M, 4) in pixels, scores (M,), labels (M,) from 1 on, and masks (M, 1, 28, 28), probabilities
  inside the box; M is at most ``max_detections``. ExecuTorch and Core ML files always have as many rows: drop those
  at the end whose score is 0.
"""

from __future__ import annotations

from typing import Any

from tokenmix.heads import ssd_boxes
from tokenmix.heads.ssdlite import RATIOS


def of_segmenter(model: Any) -> dict[str, Any]:
    """Of a `tokenmix.heads.segmenter.Segmenter`."""
    return {"kind": "argmax", "multiple": 1, "align_corners": model.align_corners}


def of_two_stages(model: Any) -> dict[str, Any]:
    """Of Mask R-CNN and its cascade."""
    last = list(getattr(model.roi_heads, "stages", [model.roi_heads]))[-1]
    return {
        "kind": "rcnn",
        "multiple": model.transform.size_divisible,
        "max_detections": last.detections_per_img,
    }


def of_ssdlite(model: Any) -> dict[str, Any]:
    """Of a `tokenmix.heads.ssdlite.SSDLite`."""
    reductions = model.backbone.reductions
    strides = [*reductions, *(reductions[-1] * 2**i for i in (1, 2, 3)), None]
    shapes = ssd_boxes.anchors([(1, 1)] * len(RATIOS), RATIOS)[:, 2:]
    return {
        "kind": "ssdlite",
        "multiple": model.transform.size_divisible,
        "score_threshold": model.score_threshold,
        "candidates": model.candidates,
        "nms_threshold": model.nms_threshold,
        "max_detections": model.max_detections,
        "variances": list(ssd_boxes.VARIANCES),
        "levels": _levels(strides, shapes.split([2 + 2 * len(ratios) for ratios in RATIOS])),
    }


def of_retinanet(model: Any) -> dict[str, Any]:
    """Of a `tokenmix.heads.detectors.RetinaNet`."""
    reductions = model.backbone.levels.reductions
    return {
        "kind": "retinanet",
        "multiple": model.transform.size_divisible,
        "score_threshold": model.score_thresh,
        "candidates": model.topk_candidates,
        "nms_threshold": model.nms_thresh,
        "max_detections": model.detections_per_img,
        "weights": list(model.box_coder.weights),
        "max_log_size": model.box_coder.bbox_xform_clip,
        "levels": _levels([*reductions, 2 * reductions[-1], 4 * reductions[-1]], model.anchor_generator.cell_anchors),
    }


def _levels(strides: list[int | None], anchors: Any) -> list[dict[str, Any]]:
    return [{"stride": stride, "anchors": own.tolist()} for stride, own in zip(strides, anchors, strict=True)]
