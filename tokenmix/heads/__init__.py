"""Heads of dense tasks, on the feature levels of a backbone: segmenters and detectors, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.heads import decoding, deeplab, detectors, ffnet_seg, fixed_shapes, fpn, in_graph, ssdlite, upernet
from tokenmix_runtime.names import unknown

__all__ = ["HEADS", "HeadInfo", "Raw", "make_dense", "own_options"]


@dataclass(frozen=True)
class HeadInfo:
    """A dense model's head: how it is made, what is shown of it, and how its outputs are read without it.

    Attributes:
        build: ``(backbone, num_classes, *, <options>, **backbone_args) -> nn.Module``.
        task: The name of the task that it is for.
        paper: Where it comes from.
        image_size: (height, width) in pixels in which the papers evaluate it.
        decoding: ``(model) -> dict``: how the raw outputs are read, see `tokenmix.heads.decoding`.
        outputs: The names of the raw outputs in a file.
        crop_mode: How pictures get there: ``"squash"``, whatever their shape, or ``"fit"``, which keeps it.
        in_graph: ``(model) -> nn.Module``: a detector's module of one picture (1, C, H, W) -> boxes, scores, labels and
            perhaps masks, see `tokenmix.heads.in_graph`; None of what finds no objects.
        fixed_shapes: The same with shapes that do not depend on the picture, see `tokenmix.heads.fixed_shapes`; None if
            its runtimes take the other one, or none.

    Examples:
        >>> HEADS["ssdlite"].task, HEADS["ssdlite"].image_size
        ('detection', (320, 320))
    """

    build: Callable[..., nn.Module]
    task: str
    paper: str
    image_size: tuple[int, int]
    decoding: Callable[[Any], dict[str, Any]]
    outputs: tuple[str, ...] = ("scores", "boxes")
    crop_mode: str = "fit"
    in_graph: Callable[[Any], nn.Module] | None = None
    fixed_shapes: Callable[[Any], nn.Module] | None = None


def _segmenter(build: Callable[..., nn.Module], paper: str, image_size: tuple[int, int]) -> HeadInfo:
    return HeadInfo(build, "segmentation", paper, image_size, decoding.of_segmenter, ("logits",))


def _two_stages(build: Callable[..., nn.Module], paper: str) -> HeadInfo:
    return HeadInfo(
        build,
        "instances",
        paper,
        (800, 1333),
        decoding.of_two_stages,
        ("boxes", "scores", "labels", "masks"),
        in_graph=in_graph.DetectInstances,
        fixed_shapes=fixed_shapes.FixedInstances,
    )


HEADS: dict[str, HeadInfo] = {
    "deeplabv3": _segmenter(deeplab.deeplabv3, "DeepLabv3, arXiv:1706.05587", (512, 512)),
    "semantic_fpn": _segmenter(fpn.semantic_fpn, "Panoptic FPN, arXiv:1901.02446", (512, 2048)),
    "upernet": _segmenter(upernet.upernet, "UPerNet, arXiv:1807.10221", (512, 2048)),
    "ffnet_seg": _segmenter(ffnet_seg.ffnet_seg, "MetaMixer/FFNet, arXiv:2406.02021", (512, 2048)),
    "ssdlite": HeadInfo(
        ssdlite.ssdlite,
        "detection",
        "SSD, arXiv:1512.02325; SSDLite, arXiv:1801.04381",
        (320, 320),
        decoding.of_ssdlite,
        crop_mode="squash",
        in_graph=in_graph.DetectSSDLite,
    ),
    "retinanet": HeadInfo(
        detectors.retinanet,
        "detection",
        "RetinaNet, arXiv:1708.02002",
        (800, 1333),
        decoding.of_retinanet,
        in_graph=in_graph.DetectRetinaNet,
    ),
    "mask_rcnn": _two_stages(detectors.mask_rcnn, "Mask R-CNN, arXiv:1703.06870"),
    "cascade_mask_rcnn": _two_stages(detectors.cascade_mask_rcnn, "Cascade R-CNN, arXiv:1906.09756"),
}
"""Every head, with all that export, the run-time's manifest and the page need to know of it."""


def make_dense(
    head: str, backbone: str | nn.Module, num_classes: int, *, device=None, dtype=None, **options: Any
) -> nn.Module:
    """A segmenter or detector: a head of `HEADS` on the feature levels of a backbone.

    A segmenter maps ``(B, in_chans, H, W)`` to logits ``(B, num_classes, H, W)``, and in training to a dict of ``out``
    and perhaps ``aux``. A detector maps a list of images ``(in_chans, H, W)``, normalised and of any sizes, to a list
    of dicts of ``boxes`` ``(N, 4)`` (corners, pixels), ``scores`` ``(N,)`` and ``labels`` ``(N,)``, and ``masks``
    ``(N, 1, H, W)`` (probabilities) where it segments instances; in training it takes targets of the same form as its
    second argument and returns a dict of losses. All have a method ``raw`` (see `Raw`) and know ``num_classes`` and
    ``classifiers``, the names of the layers whose shape depends on it.

    Args:
        head: A name of `HEADS`.
        backbone: See `tokenmix.heads.levels.feature_levels`.
        num_classes: A segmenter's classes; a detector's kinds of objects, whose labels are 1 to ``num_classes``.
        device: Where parameters and buffers are made.
        dtype: Their type.
        **options: The head's own; all others are the backbone's, such as ``drop_path_rate`` and ``pretrained``.

    Raises:
        ValueError: For an unknown head or backbone, or an option out of range.
        TypeError: For an option that neither the head nor the backbone has.

    Examples:
        >>> model = make_dense("semantic_fpn", "mixernet_pico", num_classes=5, mixers="aff").eval()
        >>> model(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 5, 64, 96])
    """
    if head not in HEADS:
        raise ValueError(unknown("head", head, HEADS))
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    with nullcontext() if device is None else torch.device(device):
        model: Any = HEADS[head].build(backbone, num_classes, **options).to(device=device, dtype=dtype)
    model.num_classes = num_classes
    return model


def own_options(head: str) -> list[str]:
    """The options that a head takes itself; all others are its backbone's.

    Args:
        head: A name of `HEADS`.

    Returns:
        Names of `make_dense`'s options.

    Raises:
        KeyError: The head is unknown.

    Examples:
        >>> own_options("semantic_fpn")
        ['head_dim', 'channels', 'drop_rate']
    """
    parameters = signature(HEADS[head].build).parameters.values()
    return [entry.name for entry in parameters if entry.kind is Parameter.KEYWORD_ONLY]


class Raw(nn.Module):
    """``(B, in_chans, H, W)`` -> a dense model's raw outputs, as its method ``raw`` says: the form that is exported.

    Args:
        model: What `make_dense` made.

    Examples:
        >>> model = make_dense("ssdlite", "mixernet_pico", num_classes=5).eval()
        >>> [tuple(output.shape) for output in Raw(model)(torch.zeros(1, 3, 320, 320))]
        [(1, 3232, 6), (1, 3232, 4)]
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model.raw(x)
