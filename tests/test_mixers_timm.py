"""Mixers that timm has too: the same numbers from its modules with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.mixer_cases import build, closeness, image

DIM = 24


def timms(module: str, name: str) -> Any:
    """A class of timm; the test is skipped where this timm has none."""
    found = pytest.importorskip(f"timm.models.{module}")
    return getattr(found, name) if hasattr(found, name) else pytest.skip(f"this timm has no {module}.{name}")


def taken(module: nn.Module, mixer: nn.Module, names: dict[str, str]) -> nn.Module:
    """Timm's module with the mixer's weights; names of timm's layers to ours."""
    ours, state = mixer.state_dict(), module.state_dict()
    for key, value in state.items():
        layer, _, leaf = key.rpartition(".")
        state[key] = ours[f"{names[layer]}.{leaf}"].reshape(value.shape)
    module.load_state_dict(state)
    return module.double().eval()


def focal(mixer: nn.Module, x: Tensor) -> Tensor:
    module = timms("focalnet", "FocalModulation")(DIM, focal_window=3, focal_level=2)
    names = {"f": "qzg", "h": "modulator", "focal_layers.0.0": "levels.0", "focal_layers.1.0": "levels.1"}
    return taken(module, mixer, names | {"proj": "proj"})(x)


def inception(mixer: nn.Module, x: Tensor) -> Tensor:
    names = {"dwconv_hw": "branches.0", "dwconv_w": "branches.1", "dwconv_h": "branches.2"}
    return taken(timms("inception_next", "InceptionDWConv2d")(DIM), mixer, names)(x)


def partial(mixer: nn.Module, x: Tensor) -> Tensor:
    return taken(timms("fasternet", "Partial_conv3")(DIM, 4, "split_cat"), mixer, {"partial_conv3": "conv"})(x)


def gated_conv(mixer: nn.Module, x: Tensor) -> Tensor:
    module = timms("mambaout", "GatedConvBlock")(DIM, norm_layer=lambda dim, **kwargs: nn.Identity())
    y = x.permute(0, 2, 3, 1)
    return (taken(module, mixer, {"fc1": "expand", "conv": "depthwise", "fc2": "proj"})(y) - y).permute(0, 3, 1, 2)


def star(mixer: nn.Module, x: Tensor) -> Tensor:
    module = timms("starnet", "Block")(DIM, mlp_ratio=4)
    for part in (module.dwconv, module.g):
        part.conv.bias = None  # a batch norm follows
    names = {"dwconv.conv": "local.conv", "dwconv.bn": "local.norm", "g.conv": "gather.conv", "g.bn": "gather.norm"}
    names |= {"f1.conv": "first", "f2.conv": "second", "dwconv2.conv": "spread"}
    return taken(module, mixer, names)(x) - x


def relu_linear(mixer: nn.Module, x: Tensor) -> Tensor:
    module = timms("efficientvit_mit", "LiteMLA")(DIM, DIM, dim=12, norm_layer=(None, None), use_bias=(False, True))
    mixer.eps = module.eps / (x.shape[2] * x.shape[3])  # ours divides the sums by the number of tokens
    names = {"qkv.conv": "qkv", "aggreg.0.0": "nearby", "aggreg.0.1": "blend", "proj.conv": "proj"}
    return taken(module, mixer, names)(x)


def window(mixer: nn.Module, x: Tensor) -> Tensor:
    module = timms("swin_transformer", "WindowAttention")(DIM, num_heads=1, window_size=7)
    ours, state = mixer.state_dict(), module.state_dict()
    table = "relative_position_bias_table"
    state[table] = ours["offsets"].flatten(1).t()
    state |= {key: ours[key].reshape(value.shape) for key, value in state.items() if key in ours}
    module.load_state_dict(state)
    windows = x.unfold(2, 7, 7).unfold(3, 7, 7).permute(0, 2, 3, 4, 5, 1)  # (B, down, across, 7, 7, C)
    y = module.double().eval()(windows.reshape(-1, 49, DIM)).reshape(windows.shape)
    return y.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


THEIRS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "focal": focal,
    "inception": inception,
    "partial": partial,
    "gated_conv": gated_conv,
    "star": star,
    "relu_linear(head_dim=12)": relu_linear,
    "window": window,
}


@pytest.mark.parametrize("spec", THEIRS)
@torch.no_grad()
def test_equals_timms_module(spec: str) -> None:
    mixer, x = build(spec, DIM), image(14, 7, dim=DIM)
    expected = THEIRS[spec](mixer, x)
    assert closeness(mixer(x), expected) < (1e-5 if spec.startswith("relu_linear") else 1e-12)  # timm's is in float32


@torch.no_grad()
def test_a_shifted_grid_of_windows_is_swins_shift_and_mask() -> None:
    """Away from the border the windows move with the map; at the border they have the pixels that are left."""
    mixer, plain, x = build("window(shift=3)", DIM), build("window", DIM), image(14, 14, dim=DIM)
    y = mixer(x)
    assert closeness(y[..., 3:10, 3:10], plain(x[..., 3:10, 3:10])) < 1e-12
    assert closeness(y[..., :3, :3], plain(x[..., :3, :3])) < 1e-12
    assert closeness(y[..., 10:, :3], plain(x[..., 10:, :3])) < 1e-12
