"""What has to be done with a model's raw outputs, read off the model, for those who decode them without PyTorch."""

from __future__ import annotations

from typing import Any

from torch import nn

from tokenmix.heads import HEADS, ssd_boxes
from tokenmix.heads.ssdlite import RATIOS
from tokenmix_runtime.names import unknown


def postprocess_of(model: nn.Module, head: str | None = None) -> dict[str, Any]:
    """The manifest's entry ``postprocess`` of a classifier or a dense model; `tokenmix_runtime` follows it.

    All kinds have ``kind``, and ``multiple``: to multiples of how many pixels the model pads an image's sides. The
    decoders of one stage have ``levels``, from fine to coarse: ``stride`` (a level has ``ceil(side / stride)`` cells
    per padded side; None: one cell) and ``anchors`` of each cell. The outputs go through the cells row by row, and in a
    cell through its anchors.

    * ``softmax``: logits (B, K).
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

    Args:
        model: In any mode.
        head: A name of `tokenmix.heads.HEADS`; None for a classifier.

    Raises:
        ValueError: There is no such head.
    """
    m: Any = model
    if head is None:
        return {"kind": "softmax", "multiple": 1}
    if head not in HEADS:
        raise ValueError(unknown("head", head, HEADS))
    if HEADS[head].task == "segmentation":
        return {"kind": "argmax", "multiple": 1, "align_corners": m.align_corners}
    multiple = m.transform.size_divisible
    if HEADS[head].task == "instances":
        last = m.roi_heads.stages[-1] if head == "cascade_mask_rcnn" else m.roi_heads
        return {"kind": "rcnn", "multiple": multiple, "max_detections": last.detections_per_img}
    if head == "ssdlite":
        strides = [*m.backbone.reductions, *(m.backbone.reductions[-1] * 2**i for i in (1, 2, 3)), None]
        shapes = ssd_boxes.anchors([(1, 1)] * len(RATIOS), RATIOS)[:, 2:]
        return {
            "kind": "ssdlite",
            "multiple": multiple,
            "score_threshold": m.score_threshold,
            "candidates": m.candidates,
            "nms_threshold": m.nms_threshold,
            "max_detections": m.max_detections,
            "variances": list(ssd_boxes.VARIANCES),
            "levels": _levels(strides, shapes.split([2 + 2 * len(ratios) for ratios in RATIOS])),
        }
    reductions = m.backbone.levels.reductions
    return {
        "kind": "retinanet",
        "multiple": multiple,
        "score_threshold": m.score_thresh,
        "candidates": m.topk_candidates,
        "nms_threshold": m.nms_thresh,
        "max_detections": m.detections_per_img,
        "weights": list(m.box_coder.weights),
        "max_log_size": m.box_coder.bbox_xform_clip,
        "levels": _levels([*reductions, 2 * reductions[-1], 4 * reductions[-1]], m.anchor_generator.cell_anchors),
    }


def _levels(strides: list[int | None], anchors: Any) -> list[dict[str, Any]]:
    return [{"stride": stride, "anchors": own.tolist()} for stride, own in zip(strides, anchors, strict=True)]
