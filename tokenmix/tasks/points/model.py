"""FFNet for points: a U-Net on sparse voxels that gives each point of a cloud its class.

Source: arXiv:2406.02021 (MetaMixer) and its official 3-D code, which the keys, shapes and numbers here agree with. The
order in which that code numbers pooled cells (space-filling curves, shuffled) changes no result, and is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenmix.backbones.base import drop_path_rates
from tokenmix.layers import ACTIVATIONS, DropPath
from tokenmix.mixers import MixerSpec, make_mixer, per_stage
from tokenmix.ops.sparse import Grouping, Voxels, pool, unpool
from tokenmix.tasks.points.mixers import VOXEL_MIXERS, VoxelConv, batch_norm
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS, shown

DIMS = (32, 64, 128, 256, 512)
"""The published widths, from the finest level on."""
_KERNEL, _STRIDE = 31, 64  # the most voxels along a kernel, and of a level in one of the next


@dataclass(frozen=True)
class Pyramid:
    """The voxels of a batch of clouds at every level of the network; a function of the coordinates alone.

    Attributes:
        points: Which points lie in which voxel of the finest level.
        levels: The voxels from fine to coarse.
        cells: Which voxels of a level lie in which of the next coarser one, one fewer than levels.
    """

    points: Grouping
    levels: tuple[Voxels, ...]
    cells: tuple[Grouping, ...]

    @classmethod
    def of(cls, grid_coord: Tensor, offset: Tensor, strides: Sequence[int]) -> Pyramid:
        """The levels of clouds whose points are told apart by their ends.

        Args:
            grid_coord: (P, 3) integers, the voxel of each point in its cloud's grid.
            offset: (B,) integers, where each cloud ends: the first has the points up to ``offset[0]``, and so on.
            strides: How many times as large the voxels of the next level are.

        Raises:
            ValueError: The ends are none of these points, or the shapes are others.
        """
        ends = [0, *offset.tolist()]
        counts = [end - begin for begin, end in pairwise(ends)]
        if grid_coord.ndim != 2 or ends[-1] != len(grid_coord) or min(counts, default=0) < 0:
            raise ValueError(
                f"offset must grow up to the number of points, which are {len(grid_coord)}: it is {ends[1:][:20]}"
            )
        cloud = torch.repeat_interleave(torch.tensor(counts, device=grid_coord.device))
        finest, points = Voxels.of(grid_coord, cloud, len(counts))
        levels, cells = [finest], []
        for stride in strides:
            coarser, grouping = levels[-1].coarser(stride)
            levels.append(coarser)
            cells.append(grouping)
        return cls(points, tuple(levels), tuple(cells))


class VoxelMlp(nn.Module):
    """``(N, C) -> (N, C)``: a submanifold convolution, batch norm, and two linear layers with an activation between."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        size: int = 3,
        act: str = "gelu",
        drop_rate: float = 0.0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.conv = VoxelConv(dim, dim, size, **dd)
        self.norm = batch_norm(dim, **dd)
        self.fc1 = nn.Linear(dim, hidden, **dd)
        self.act = ACTIVATIONS[act]()
        self.fc2 = nn.Linear(hidden, dim, **dd)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        hidden = self.drop(self.act(self.fc1(self.norm(self.conv(x, voxels)))))
        return self.drop(self.fc2(hidden))


class VoxelBlock(nn.Module):
    """``(N, C) -> (N, C)``: a token mixer and a channel mixer, each behind a layer norm and beside a skip.

    In training, a voxel skips a branch with the probability ``drop_path``: voxels are drawn, not clouds.
    """

    def __init__(
        self, dim: int, mixer: nn.Module, mlp: nn.Module, *, drop_path: float, device=None, dtype=None
    ) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.mixer = mixer
        self.mlp_norm = nn.LayerNorm(dim, device=device, dtype=dtype)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        x = x + self.drop_path(self.mixer(self.mixer_norm(x), voxels))
        return x + self.drop_path(self.mlp(self.mlp_norm(x), voxels))


class Project(nn.Sequential):
    """``(N, in_chans) -> (N, out_chans)``: linear layer, batch norm, GELU."""

    def __init__(self, in_chans: int, out_chans: int, **dd: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(in_chans, out_chans, **dd)
        self.norm = batch_norm(out_chans, **dd)
        self.act = nn.GELU()


class Stem(nn.Module):
    """``(N, in_chans) -> (N, C)``: a submanifold convolution without bias, batch norm, GELU."""

    def __init__(self, in_chans: int, dim: int, size: int, **dd: Any) -> None:
        super().__init__()
        self.conv = VoxelConv(in_chans, dim, size, bias=False, **dd)
        self.norm = batch_norm(dim, **dd)
        self.act = nn.GELU()

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        return self.act(self.norm(self.conv(x, voxels)))


class Down(nn.Module):
    """``(N, in_chans) -> (M, out_chans)``: linear layer, maximum over each cell's voxels, batch norm, GELU."""

    def __init__(self, in_chans: int, out_chans: int, **dd: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(in_chans, out_chans, **dd)
        self.norm = batch_norm(out_chans, **dd)
        self.act = nn.GELU()

    def forward(self, x: Tensor, cells: Grouping) -> Tensor:
        return self.act(self.norm(pool(self.fc(x), cells, "max")))


class Up(nn.Module):
    """``(M, coarse), (N, skip) -> (N, dim)``: both projected, and the cell's value added to each of its voxels'."""

    def __init__(self, coarse: int, skip: int, dim: int, **dd: Any) -> None:
        super().__init__()
        self.coarse = Project(coarse, dim, **dd)
        self.skip = Project(skip, dim, **dd)

    def forward(self, x: Tensor, skip: Tensor, cells: Grouping) -> Tensor:
        return self.skip(skip) + unpool(self.coarse(x), cells)


class Level(nn.Module):
    """One resolution on the way down or up: what leads to it (None at the start), and its blocks."""

    def __init__(self, change: Down | Up | None, blocks: Sequence[VoxelBlock]) -> None:
        super().__init__()
        self.change: Any = change
        self.blocks = nn.ModuleList(blocks)
        self.recomputes = False

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, voxels, use_reentrant=False) if self.recomputes else block(x, voxels)
        return x


class PointUNet(nn.Module):
    """``(P, in_chans) -> (P, num_classes)`` logits of the points of a batch of clouds.

    Points in one voxel of one cloud are seen as one, with the mean of their features, and get the same logits.

    Args:
        depths: Blocks per level on the way down.
        dims: Channels per level on the way down.
        decoder_depths: Blocks per level on the way up, from the finest level on, one fewer than ``depths``.
        decoder_dims: Channels per level on the way up, in the same order.
        mixers: One spec for all levels, or one per level from the finest on (a list, or names with commas between), of
            `tokenmix.tasks.points.mixers.VOXEL_MIXERS` or the user's own: ``(dim) -> module(x, voxels)``.
        decoder_mixers: The same for the way up; None for the mixers that the levels have on the way down.
        mlp_kernels: Kernels of the channel mixers' convolutions in voxels, on the way down and up, odd.
        mlp_ratio: Hidden channels of a channel mixer over its channels.
        stem_kernel: Kernel of the first convolution in voxels, odd.
        act: The activation in the mixers, of `tokenmix.layers.ACTIVATIONS`; elsewhere it is GELU.
        strides: How many times as large the voxels of the next level are.
        in_chans: Features per point.
        num_classes: 0 for the features of the finest level.
        drop_rate: Dropout probability in the channel mixers.
        drop_path_rate: Drop-path probability of the deepest block; linear from 0, on the way up once more.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: The numbers of levels disagree, or a mixer or activation is unknown.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 6, 2),
        dims: Sequence[int] = DIMS,
        decoder_depths: Sequence[int] = (2, 2, 2, 2),
        decoder_dims: Sequence[int] = (64, 64, 128, 256),
        *,
        mixers: MixerSpec | Sequence[MixerSpec] = "ffnified",
        decoder_mixers: MixerSpec | Sequence[MixerSpec] | None = None,
        mlp_kernels: Sequence[int] = (3, 3),
        mlp_ratio: float = 4.0,
        stem_kernel: int = 5,
        act: str = "gelu",
        strides: Sequence[int] | None = None,
        in_chans: int = 6,
        num_classes: int = 20,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        _check_sizes(depths, dims, decoder_depths, decoder_dims, (*mlp_kernels, stem_kernel), strides or ())
        coarse = len(depths) - 1
        strides = [2] * coarse if strides is None else list(strides)
        if not len(dims) - 1 == len(decoder_depths) == len(decoder_dims) == len(strides) == coarse >= 0:
            raise ValueError(
                f"depths {tuple(depths)} and dims {tuple(dims)} must have one entry for each level, and decoder_depths "
                f"{tuple(decoder_depths)}, decoder_dims {tuple(decoder_dims)} and strides {tuple(strides)} one fewer"
            )
        if act not in ACTIVATIONS:
            raise ValueError(unknown("act", act, ACTIVATIONS))
        if len(mlp_kernels) != 2:
            raise ValueError(f"mlp_kernels must be two sizes, of the way down and of the way up, not {mlp_kernels!r}")
        dd = {"device": device, "dtype": dtype}
        self.in_chans, self.num_classes, self.strides = in_chans, num_classes, tuple(strides)
        down_mixers = per_stage(mixers, coarse + 1)
        up_mixers = down_mixers[:-1] if decoder_mixers is None else per_stage(decoder_mixers, coarse)

        def blocks(dim: int, rates: Sequence[float], mixer: MixerSpec, size: int) -> list[VoxelBlock]:
            def mlp() -> VoxelMlp:
                return VoxelMlp(dim, int(dim * mlp_ratio), size=size, act=act, drop_rate=drop_rate, **dd)

            return [VoxelBlock(dim, _mixer(mixer, dim, act, dd), mlp(), drop_path=rate, **dd) for rate in rates]

        self.stem = Stem(in_chans, dims[0], stem_kernel, **dd)
        rates = drop_path_rates(drop_path_rate, depths)
        self.encoder = nn.ModuleList(
            Level(
                Down(dims[i - 1], dims[i], **dd) if i else None,
                blocks(dims[i], rates[i], down_mixers[i], mlp_kernels[0]),
            )
            for i in range(coarse + 1)
        )
        rates = drop_path_rates(drop_path_rate, decoder_depths)
        below = [*decoder_dims[1:], dims[-1]]
        self.decoder = nn.ModuleList(
            Level(
                Up(below[i], dims[i], decoder_dims[i], **dd),
                blocks(decoder_dims[i], rates[i][::-1], up_mixers[i], mlp_kernels[1]),
            )
            for i in range(coarse)
        )
        self.num_features = decoder_dims[0] if coarse else dims[0]
        self.apply(_init)
        self.head = nn.Linear(self.num_features, num_classes, **dd) if num_classes else nn.Identity()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks' activations anew in the backward pass, in place of storing them."""
        for level in (*self.encoder, *self.decoder):
            level.recomputes = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def pyramid(self, grid_coord: Tensor, offset: Tensor) -> Pyramid:
        """What the coordinates of a batch come to, see `Pyramid.of`; the same clouds need it only once."""
        return Pyramid.of(grid_coord, offset, self.strides)

    def forward(self, feat: Tensor, grid_coord: Tensor, offset: Tensor) -> Tensor:
        """Logits of every point, in the points' order.

        Args:
            feat: (P, in_chans), the features of each point.
            grid_coord: (P, 3) integers, the voxel of each point in its cloud's grid.
            offset: (B,) integers, where each cloud ends among the points.

        Raises:
            ValueError: The shapes do not fit the model or one another.
        """
        return self.classify(feat, self.pyramid(grid_coord, offset))

    def classify(self, feat: Tensor, pyramid: Pyramid) -> Tensor:
        """``(P, in_chans) -> (P, num_classes)``, the geometry being known."""
        if feat.ndim != 2 or feat.shape[1] != self.in_chans or len(feat) != len(pyramid.points.group):
            raise ValueError(
                f"the model takes {self.in_chans} features for each of {len(pyramid.points.group)} points, not "
                f"{tuple(feat.shape)}"
            )
        x = self.stem(pool(feat, pyramid.points, "mean"), pyramid.levels[0])
        skips = []
        for i, level in enumerate(self.encoder):
            if i:
                x = level.change(x, pyramid.cells[i - 1])  # type: ignore[operator]
            x = level(x, pyramid.levels[i])
            skips.append(x)
        for i in reversed(range(len(self.decoder))):
            level = self.decoder[i]
            x = level.change(x, skips[i], pyramid.cells[i])  # type: ignore[operator]
            x = level(x, pyramid.levels[i])
        return unpool(self.head(x), pyramid.points)


def _check_sizes(*sizes: Sequence[int]) -> None:
    """Raise unless these are numbers that a network can have: they may come from a file."""
    names = ("depths", "dims", "decoder_depths", "decoder_dims", "kernels", "strides")
    limits = (LIMITS["depth"], LIMITS["width"], LIMITS["depth"], LIMITS["width"], _KERNEL, _STRIDE)
    for name, values, most in zip(names, sizes, limits, strict=True):
        if not all(type(value) is int and 1 <= value <= most for value in values) or len(values) > LIMITS["entries"]:
            raise ValueError(f"{name} must be whole numbers from 1 to {most:,.0f}, not {shown(list(values))}")


def _mixer(spec: MixerSpec, dim: int, act: str, dd: dict[str, Any]) -> nn.Module:
    """A mixer; the published one takes the model's activation unless its own is given."""
    published = VOXEL_MIXERS["ffnified"]
    table = {**VOXEL_MIXERS, "ffnified": replace(published, build=partial(published.build, act=act))}
    return make_mixer(spec, dim, known=table, **dd)


def _init(module: nn.Module) -> None:
    """Truncated normal 0.02 and zero biases for every linear layer, as `VoxelConv` has them by itself."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


VARIANTS: dict[str, dict[str, Any]] = {
    "ffnet_points": {},
    "ffnet_points_small": {
        "depths": (1, 1, 2, 1),
        "dims": (24, 48, 96, 128),
        "decoder_depths": (1, 1, 1),
        "decoder_dims": (32, 48, 96),
        "mlp_ratio": 2.0,
    },
}


def ffnet_points(**kwargs: Any) -> PointUNet:
    """The published network: 103.2 M parameters with 20 classes (counted on the official code)."""
    return PointUNet(**{**VARIANTS["ffnet_points"], **kwargs})


def ffnet_points_small(**kwargs: Any) -> PointUNet:
    """Four levels of few, narrow blocks, ours, for small data and machines without a GPU: 3.5 M parameters."""
    return PointUNet(**{**VARIANTS["ffnet_points_small"], **kwargs})
