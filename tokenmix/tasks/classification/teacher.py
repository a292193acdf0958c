"""The teacher of a distillation: a frozen model whose logits go into every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from tokenmix.backbones.official import read, unwrap
from tokenmix.checkpoints import fill, open_model, our_models
from tokenmix.tasks.classification.options import Options
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import regular_file


class Teacher:
    """(B, 3, H, W) as the trained model sees it -> the teacher's logits (B, K), without gradient.

    Args:
        options: Name the teacher.
        classes: Names of those that it must know, in their order.
        mean: Of the values in 0..1, that the trained model's images are normalised with.
        std: Per channel, of values in 0..1.
        device: Where it works.

    Raises:
        ValueError: There is no such model, or it has other classes.
    """

    def __init__(
        self,
        options: Options,
        classes: Sequence[str],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
    ) -> None:
        assert options.teacher is not None
        self.model, theirs = _open(options.teacher, options.teacher_weights, classes)
        self.model.eval().requires_grad_(False).to(device)

        def row(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, device=device)[:, None, None]

        # x * scale + shift: from the student's normalisation to the teacher's
        self.scale = row(std) / row(theirs[1])
        self.shift = (row(mean) - row(theirs[0])) / row(theirs[1])
        self.same = (tuple(mean), tuple(std)) == theirs

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images if self.same else images * self.scale + self.shift)


def _open(
    name: str, weights: str | None, classes: Sequence[str]
) -> tuple[nn.Module, tuple[tuple[float, ...], tuple[float, ...]]]:
    """The teacher, and the mean and standard deviation of its images."""
    model: Any
    num_classes = len(classes)
    if weights is None:
        opened = open_model(name, tasks=("classification",))
        if opened.classes is not None and len(opened.classes) == num_classes and list(opened.classes) != list(classes):
            ours, theirs = next(pair for pair in zip(classes, opened.classes, strict=True) if pair[0] != pair[1])
            raise ValueError(
                f"the teacher {name} knows other classes, or in another order: {theirs!r} stands where the data have "
                f"{ours!r}; train one on these data"
            )
        model, statistics = opened.model, (opened.mean, opened.std)
    else:
        if not timm.is_model(name):
            raise ValueError(unknown("teacher", name, our_models()))
        model = timm.create_model(name, num_classes=num_classes)
        file = regular_file(weights)
        state = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else unwrap(read(file))
        fill(model, state, file)
        cfg = getattr(model, "pretrained_cfg", None)
        if not cfg:
            raise ValueError(
                f"the teacher {name} is registered without timm's configuration, which has the mean and standard "
                "deviation of its images: give a run folder of it as the recipe key 'task.teacher'"
            )
        statistics = tuple(cfg["mean"]), tuple(cfg["std"])
    if (known := getattr(model, "num_classes", num_classes)) != num_classes:
        raise ValueError(
            f"the teacher {name} knows {known} classes, the data has {num_classes}: train one on these data and give "
            "its run folder as the recipe key 'task.teacher'"
        )
    return model, statistics
