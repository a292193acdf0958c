"""The contract that timm, and so everyone downstream of it, expects of a backbone: kept here once for all families."""

# No "from __future__ import annotations" here: torch.fx copies the annotations of the module that it traces into its
# own code, and TorchScript cannot read them back when they are strings.
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenmix.ops.dispatch import Form, Situation, operator
from tokenmix_runtime.names import unknown

POOLINGS = ("avg", "max", "avgmax", "")


# Numbers that enter a stage at once in inference on a CPU: larger maps leave the caches, and fresh memory of many
# megabytes costs more than the arithmetic on it.
AT_ONCE = 1 << 20


class Stage(nn.Module):
    """``(B, C, H, W) -> (B, dim, H / stride, W / stride)``: a downsampling, then blocks.

    Args:
        downsample: What changes the size or width, or None.
        blocks: The blocks, applied in order.
        dim: Output channels.
        stride: How much smaller the output is than the input, including ``downsample``.

    Attributes:
        in_parts: Whether a large batch passes in parts in inference on a CPU, which `tokenmix.reparameterize` switches
            on: the modules in the stage, and their hooks, then see some images at a time.
        grad_checkpointing: Whether blocks keep only their inputs for the backward pass.

    Examples:
        >>> Stage(nn.Conv2d(8, 16, 2, stride=2), [nn.GELU()], dim=16, stride=2)(torch.zeros(1, 8, 14, 14)).shape
        torch.Size([1, 16, 7, 7])
    """

    def __init__(self, downsample: nn.Module | None, blocks: Sequence[nn.Module], dim: int, stride: int = 1) -> None:
        super().__init__()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = nn.Sequential(*blocks)
        self.dim, self.stride = dim, stride
        self.in_parts = self.grad_checkpointing = False

    @staticmethod
    def _fits_parts(now: Situation, self: "Stage", x: Tensor) -> bool:
        return now.mode == "inference" and now.device == "cpu" and self.in_parts and len(x) > 1 and x.numel() > AT_ONCE

    def _in_parts(self, x: Tensor) -> Tensor:
        images = max(1, AT_ONCE // x[0].numel())
        return torch.cat([self.blocks(self.downsample(part)) for part in x.split(images)])

    @staticmethod
    def _fits_checkpoints(now: Situation, self: "Stage", x: Tensor) -> bool:
        return self.grad_checkpointing

    def _checkpointed(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x[:]  # what a checkpoint keeps can be read once: nobody behind shall make the map anew from it

    @operator(Form("in parts", _in_parts, _fits_parts), Form("checkpointed", _checkpointed, _fits_checkpoints))
    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Pool(nn.Module):
    """``(B, C, H, W) -> (B, C, 1, 1)``: ``"avg"``, ``"max"`` or their mean ``"avgmax"``; ``""`` leaves the map."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(unknown("global_pool", kind, POOLINGS))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "avg":
            return x.mean((2, 3), keepdim=True)
        if self.kind == "max":
            return x.amax((2, 3), keepdim=True)
        if self.kind == "avgmax":
            return 0.5 * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True))
        return x

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"


class Head(nn.Module):
    """``(B, C, H, W) -> (B, num_classes)``: pool, norm, hidden layer, dropout, linear classifier.

    Args:
        dim: Input channels.
        num_classes: 0 for no classifier: the output is then ``(B, hidden_size)``, or a map where ``pool`` is ``""``.
        pool: One of `POOLINGS`.
        norm: Applied after pooling, ``(B, C, H, W) -> (B, C, H, W)``, or None.
        hidden: Applied after the norm, ``(B, C, H, W) -> (B, hidden_size, H, W)``, or None.
        hidden_size: Channels that ``hidden`` returns; ``dim`` without it.
        drop_rate: Dropout probability in front of the classifier.
        num_classifiers: 2 for a second, distillation classifier ``fc_dist`` (DeiT, arXiv:2012.12877): in eval mode the
            mean of both counts, in training the pair is returned if ``distilled_training`` was switched on.

    Raises:
        ValueError: For an unknown pooling, or ``pool=""`` together with a classifier.

    Examples:
        >>> Head(16, num_classes=10)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 10])
    """

    __constants__ = ("distilled_training",)  # so that TorchScript, which knows one type of output, reads no pair

    def __init__(
        self,
        dim: int,
        num_classes: int,
        pool: str = "avg",
        *,
        norm: nn.Module | None = None,
        hidden: nn.Module | None = None,
        hidden_size: int | None = None,
        drop_rate: float = 0.0,
        num_classifiers: int = 1,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size or dim
        self.num_classifiers = num_classifiers
        self.distilled_training = False
        self.pool = Pool(pool)
        self.norm = nn.Identity() if norm is None else norm
        self.hidden = nn.Identity() if hidden is None else hidden
        self.drop = nn.Dropout(drop_rate)
        self.set_classes(num_classes, pool, device=device, dtype=dtype)

    def set_classes(self, num_classes: int, pool: str | None = None, *, device=None, dtype=None) -> None:
        """New classifiers for ``num_classes`` and, if given, another pooling. The rest of the head stays as it is."""
        new_pool = self.pool if pool is None else Pool(pool)
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 (no classifier) or more, got {num_classes}")
        # A pooling that was taken away earlier stays away, as in timm: whoever adds a classifier then adds one too.
        if num_classes > 0 and pool == "":
            raise ValueError(
                "global_pool='' leaves a map, which a classifier cannot read: take num_classes=0, or a pooling such as "
                "global_pool='avg'"
            )

        def classifier() -> nn.Module:
            if num_classes == 0:
                return nn.Identity()
            return nn.Linear(self.hidden_size, num_classes, device=device, dtype=dtype)

        self.pool = new_pool.train(self.training)
        self.num_classes = num_classes
        self.fc = classifier().train(self.training)
        self.fc_dist = classifier().train(self.training) if self.num_classifiers == 2 else None

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.hidden(self.norm(self.pool(x)))
        if self.pool.kind != "":
            x = x.flatten(1)
        x = self.drop(x)
        if pre_logits:
            return x
        y = self.fc(x)
        if self.fc_dist is not None:
            z = self.fc_dist(x)
            if self.distilled_training and self.training:
                return y, z  # type: ignore[return-value]
            return (y + z) / 2
        return y


class Backbone(nn.Module):
    """``(B, in_chans, H, W) -> (B, num_classes)``: stem, stages, final, head. Takes built parts; builders take numbers.

    Args:
        stem: ``(B, in_chans, H, W) -> (B, C, H / stem_stride, W / stem_stride)``.
        stages: One per feature level.
        final: What follows the last stage before pooling (a norm, or an expansion), or None.
        head: The classifier.
        num_features: Channels that ``forward_features`` returns.
        stem_stride: See ``stem``.
        in_chans: Image channels.
        init: Applied to every module at the end, in order, to set its initial weights.

    Examples:
        >>> stem, stage = nn.Conv2d(3, 8, 4, stride=4), Stage(None, [nn.GELU()], dim=8)
        >>> model = Backbone(stem, [stage], None, Head(8, num_classes=10), num_features=8, stem_stride=4)
        >>> model(torch.zeros(1, 3, 32, 32)).shape, model.forward_features(torch.zeros(1, 3, 32, 32)).shape
        (torch.Size([1, 10]), torch.Size([1, 8, 8, 8]))
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Stage],
        final: nn.Module | None,
        head: Head,
        *,
        num_features: int,
        stem_stride: int,
        in_chans: int = 3,
        init: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_features = num_features
        self.grad_checkpointing = False
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.final = nn.Identity() if final is None else final
        self.head = head
        self.num_classes, self.head_hidden_size = head.num_classes, head.hidden_size
        self.drop_rate = head.drop.p
        levels: list[dict[str, Any]] = []
        reduction = stem_stride
        for i, stage in enumerate(stages):
            reduction *= stage.stride
            levels.append({"num_chs": stage.dim, "reduction": reduction, "module": f"stages.{i}"})
        self.feature_info = levels
        if init is not None:
            self.apply(init)

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W) -> (B, num_features, h, w)``."""
        return self.final(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """``(B, num_features, h, w) -> (B, num_classes)``, or ``(B, head_hidden_size)`` with ``pre_logits``."""
        return self.head(x, pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """``(B, in_chans, H, W)`` -> the stages' outputs, alone or with what ``forward_features`` returns.

        Args:
            x: The images.
            indices: Which stages: a number counts from the end, None means all.
            norm: Apply the final norm to the last stage's output (an expansion is no norm and is left out).
            stop_early: Stop after the last wanted stage; the first result is then that stage's output.
            output_fmt: Only ``"NCHW"``.
            intermediates_only: Return only the list.

        Raises:
            ValueError: For another format or an index out of range.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        taken = feature_indices(len(self.stages), indices)
        intermediates = []
        x = self.stem(x)
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in taken:
                intermediates.append(self.final(x) if norm and i == last and self._final_is_norm() else x)
            if stop_early and i == max(taken):
                break
        if intermediates_only:
            return intermediates
        return (self.final(x) if i == last else x), intermediates

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Keep what the wanted stages need, in place; returns their indices. ``forward`` then ends at the last of them.

        ``prune_norm`` removes a final norm (never an expansion); ``prune_head`` removes the whole head, with its
        norm. A head whose stages were cut off gets a new, untrained classifier if it is kept.
        """
        taken = feature_indices(len(self.stages), indices)
        keep = max(taken) + 1
        cut = keep < len(self.stages)
        stages = self.stages[:keep]
        stages.training, self.stages = self.stages.training, stages
        self.feature_info = self.feature_info[:keep]
        if cut or (prune_norm and self._final_is_norm()):
            self.final = nn.Identity().train(self.training)
        if cut:
            self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
            reference = next(self.parameters())
            classes, pool = (0, "") if prune_head else (self.num_classes, self.head.pool.kind)
            old = self.head
            self.head = Head(
                self.num_features,
                classes,
                pool,
                drop_rate=old.drop.p,
                num_classifiers=old.num_classifiers,
                device=reference.device,
                dtype=reference.dtype,
            ).train(old.training)
            self.head.distilled_training = old.distilled_training
            self.num_classes = classes
        elif prune_head:
            self.head.norm, self.head.hidden = (nn.Identity().train(self.head.training) for _ in range(2))
            self.head.hidden_size = self.head_hidden_size = self.num_features
            self.reset_classifier(0, "")
        return taken

    def _final_is_norm(self) -> bool:
        return not any(isinstance(module, nn.Conv2d) for module in self.final.modules())

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The linear classifier, or the pair of a distilled model."""
        return self.head.fc if self.head.fc_dist is None else (self.head.fc, self.head.fc_dist)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier on the model's device and dtype; None keeps the pooling.

        Raises:
            ValueError: For an unknown pooling, or ``global_pool=""`` together with a classifier.
        """
        reference = next(self.parameters())
        self.head.set_classes(num_classes, global_pool, device=reference.device, dtype=reference.dtype)
        self.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of storing its inner activations."""
        self.grad_checkpointing = enable
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for layer-wise learning rates."""
        fine = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^final", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^final", (99999,))] if coarse else fine}

    def no_weight_decay(self) -> set[str]:
        """Patterns of parameters without weight decay beyond vectors and biases: none."""
        return set()


def feature_indices(num: int, indices: int | Sequence[int] | None) -> list[int]:
    """Stage numbers, ascending as given: None is all ``num``, ``n`` the last n, negative numbers count from the end.

    Raises:
        ValueError: If one is out of range or none is asked for.
    """
    if indices is None:
        return list(range(num))
    if isinstance(indices, int):
        if not 0 < indices <= num:
            raise ValueError(f"indices={indices}: the last 1 to {num} stages can be taken")
        return list(range(num - indices, num))
    taken = [num + i if i < 0 else i for i in indices]
    if not taken or any(not 0 <= i < num for i in taken):
        raise ValueError(f"indices={list(indices)}: the model has {num} stages, so 0 to {num - 1} or -{num} to -1")
    return taken


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Linear from 0 at the first block to ``rate`` at the last, one list per stage.

    Raises:
        ValueError: If the rate is not from 0 to below 1, or a depth below 0.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path_rate must be from 0 to below 1, not {rate}")
    if min(depths, default=0) < 0:
        raise ValueError(f"depths must be 0 or more, not {tuple(depths)}")
    total = sum(depths)
    rates = [rate * i / max(total - 1, 1) for i in range(total)]
    return [[rates.pop(0) for _ in range(depth)] for depth in depths]
