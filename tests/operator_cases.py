"""Examples of every operator in `tokenmix.ops.dispatch.OPERATORS`: arguments that between them reach all its forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.scramble import scramble
from tokenmix.backbones.base import Stage
from tokenmix.blocks import Mlp
from tokenmix.heads import upernet  # noqa: F401  has an operator
from tokenmix.layers import GELU, Chain, ConvNorm, fused
from tokenmix.mixers import make_mixer
from tokenmix.mixers.complex_maps import real_form
from tokenmix.ops.sparse import Voxels
from tokenmix.tasks.forecasting import dropout  # noqa: F401  has operators

Arguments = Sequence[Any]
LAST = torch.channels_last


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def maps(dim: int, dtype: torch.dtype, height: int = 6, width: int = 5) -> list[Tensor]:
    """Three images in either memory format."""
    x = draw(3, dim, height, width, dtype=dtype)
    return [x, x.contiguous(memory_format=LAST)]


def layer(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """With weights that matter."""
    return scramble(module).to(dtype)


def of_maps(*modules: Callable[[], nn.Module], dim: int = 8) -> Callable[[torch.dtype], list[Arguments]]:
    """Modules, in training and in evaluation mode, and maps for them."""

    def cases(dtype: torch.dtype) -> list[Arguments]:
        return [
            (layer(module(), dtype).train(training), x)
            for module in modules
            for training in (True, False)
            for x in maps(dim, dtype)
        ]

    return cases


def stages(dtype: torch.dtype) -> list[Arguments]:
    """One whose batch is too large to pass at once, and one with gradient checkpointing."""
    large, checkpointed = (layer(Stage(None, [ConvNorm(8, 8)], 8), dtype).eval() for _ in range(2))
    large.in_parts = checkpointed.grad_checkpointing = True  # type: ignore[assignment]
    return [(large, draw(3, 8, 256, 256, dtype=dtype)), *((checkpointed, x) for x in maps(8, dtype))]


def convolutions(dtype: torch.dtype) -> list[Arguments]:
    """Kernels, strides and groups of several kinds."""
    shapes = [(1, 1, 1), (1, 2, 1), (3, 1, 8), (3, 2, 2)]
    return [
        (x, draw(16, 8 // groups, k, k, dtype=dtype), draw(16, dtype=dtype), [s, s], [k // 2] * 2, [1, 1], groups, act)
        for k, s, groups in shapes
        for act in ("gelu", "silu", "relu", "")
        for x in maps(8, dtype, 9, 8)
    ]


def filters(dtype: torch.dtype) -> list[Arguments]:
    """The filter as it is trained and re-parameterised, on maps of which one is too large for the product's form."""
    made = [make_mixer("aff(groups=2)", 8), make_mixer("aff(act='prelu')", 8), fused(make_mixer("aff(groups=4)", 8))]
    return [(layer(one, dtype), x) for one in made for x in (*maps(8, dtype), *maps(8, dtype, 50, 3))]


def grouped(dtype: torch.dtype) -> list[Arguments]:
    """Two groups of four channels of two parts."""
    return [(x, *real_form(draw(2, 2, 4, 4), draw(2, 2, 4)), 2) for x in maps(16, dtype)]


def gates(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], list[Arguments]]:
    """Maps of 16 channels and what comes with them."""
    return lambda dtype: [(x, *(draw(*shape, dtype=dtype, seed=1) for shape in shapes)) for x in maps(16, dtype)]


def kernels(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], list[Arguments]]:
    """Tensors of these shapes."""
    return lambda dtype: [tuple(draw(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes))]


def spectra(dtype: torch.dtype) -> list[Arguments]:
    """Complex numbers, two groups."""
    parts = draw(2, 10, 5, 4, 2, dtype=dtype)
    weights = [draw(*shape, dtype=dtype) for shape in ((2, 2, 5, 5), (2, 2, 5), (2, 2, 5, 5), (2, 2, 5))]
    return [(torch.view_as_complex(parts), *weights, 0.1)]


def voxels(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], list[Arguments]]:
    """Voxels of two clouds with four features each, and weights of these shapes."""
    cells = torch.randint(4, (30, 3), generator=torch.Generator().manual_seed(0))
    found, _ = Voxels.of(cells, torch.arange(30) % 2, 2)
    x = (len(found), 4)
    return lambda dtype: [(draw(*x, dtype=dtype), draw(*shape, dtype=dtype), found.neighbours(3)) for shape in shapes]


def local() -> nn.Module:
    """CAS-ViT's local branch."""
    return Chain(ConvNorm(8, 8, bias=True), nn.Conv2d(8, 8, 3, padding=1, groups=8), GELU(), nn.Conv2d(8, 8, 1))


def constants(*sizes: Any) -> Callable[[torch.dtype], list[Arguments]]:
    """What a matrix is made for."""
    return lambda dtype: [(draw(1, dtype=dtype), *sizes)]


def products(*more: tuple[Any, ...]) -> Callable[[torch.dtype], list[Arguments]]:
    """Three products and their biases, and what else is given."""
    shapes = (3, 4, 2), (3, 2, 5), (3, 4, 1)
    return lambda dtype: [(*(draw(*shape, dtype=dtype) for shape in shapes), *rest) for rest in more]


CASES: dict[str, Callable[[torch.dtype], list[Arguments]]] = {
    "backbones.base.Stage.forward": stages,
    "blocks.Mlp.forward": of_maps(lambda: Mlp(8, 16), lambda: Mlp(8, 16, conv=ConvNorm(8, 8, 3, groups=8))),
    "heads.upernet.mean_cells": lambda dtype: [(x, n) for x in maps(8, dtype) for n in (1, 2, 4)],
    "layers.Chain.forward": of_maps(local),
    "layers.ConvNorm.forward": of_maps(
        *(lambda act=act: ConvNorm(8, 8, 3, act=act) for act in (None, GELU, nn.SiLU, nn.ReLU, nn.PReLU))
    ),
    "mixers.additive.AdditiveAttention.forward": of_maps(
        lambda: make_mixer("additive", 8), lambda: fused(make_mixer("additive", 8).eval())
    ),
    "mixers.frequency.FrequencyFilter.forward": filters,
    "mixers.complex_maps.grouped_pointwise": grouped,
    "mixers.metamixer.MetaMixer.forward": of_maps(
        lambda: make_mixer("ffnified(key_size=3,value_size=3)", 8),
        lambda: make_mixer("ffnified", 8),
        lambda: fused(make_mixer("ffnified", 8).eval()),
    ),
    "mixers.random_mixing.kept_matrix": constants(6, 7),
    "mixers.bands.axis_bands": constants(5, 3, True),
    "ops.activations.gelu": lambda dtype: [(x, kind) for kind in ("none", "tanh") for x in maps(8, dtype)],
    "ops.convolution.conv_act": convolutions,
    "ops.convolution.pointwise": lambda dtype: [
        (x, draw(16, 8, 1, 1, dtype=dtype), bias) for x in maps(8, dtype) for bias in (draw(16, dtype=dtype), None)
    ],
    "ops.cosine.axis_cosines": constants(5),
    "ops.fourier.axis_matrix": constants("irfft", 5),
    "ops.gates.gate_sum": gates((3, 2, 6, 5), (16, 8, 1, 1)),
    "ops.kernels.additive.gate_convolve": kernels((2, 15, 4, 6), (2, 2, 4, 6), (10, 5, 1, 1), (5, 1, 3, 3), (5,)),
    "ops.kernels.ffnified.depthwise_gelu_depthwise": kernels((2, 5, 4, 6), (5, 1, 3, 3), (5,), (5, 1, 5, 5), (5,)),
    "ops.kernels.frequency.filter_spectrum": spectra,
    "ops.rows._back_over_width": constants(5),
    "ops.rows._over_height": constants(5),
    "ops.rows._over_width": constants(5),
    "ops.sparse._gather_and_add": voxels((6, 27, 4), (4, 27)),
    # Nothing or everything is dropped: in between, each form draws numbers of its own.
    "tasks.forecasting.dropout.product_dropout": products((1.0,)),
    "tasks.forecasting.dropout.product_gelu": products((0.0,), (1.0,), (0.0, (3, 2, 2, 5), (1, 2, 0, 3))),
}
"""By the operator's name within the package: makes a list of arguments for numbers of a type."""
