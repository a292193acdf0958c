"""``ffnet_forecast``: FFNet's forecaster (arXiv:2406.02021) as published, and with any one-dimensional mixer in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tokenmix.mixers import MixerSpec, per_stage
from tokenmix.tasks.forecasting.blocks import Block, ChannelMixer, KeyValue, SharedMixer, TokenMixer, VariableQuery
from tokenmix.tasks.forecasting.embeddings import PatchEmbedding, PatchMerging, ReversibleNorm
from tokenmix.tasks.forecasting.mixers import make_series_mixer
from tokenmix.tasks.forecasting.network import DecomposedForecaster, Forecaster, Stage
from tokenmix_runtime.names import unknown

PUBLISHED_MIXER = "ffnet"
NORMS = ("revin", "revin_affine", "none")
CENTERS = ("mean", "last")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Architecture:
    """What a forecaster is made of; the defaults are the official ETTh1 script's.

    Attributes:
        num_variables: Variables, M.
        look_back: Past values of each, L.
        horizon: Future values of each, H.
        patch_size: Values in a patch.
        patch_stride: Values from one patch to the next, at most ``patch_size``.
        depths: Blocks of every stage.
        dims: Channels of a variable in every stage.
        kernel_sizes: Large kernel of every stage, in tokens, odd: of the published token mixer and the channel mixer.
        small_sizes: The channel mixer's parallel small kernel of every stage, odd; 0 for one kernel without norms, the
            official merged form.
        downsample_ratio: Tokens that become one between two stages.
        mlp_ratio: Width of the channel mixer's hidden layer over ``dims``.
        drop_rate: Dropout of that layer.
        head_drop: Dropout of the forecast itself, in training.
        norm: ``"revin"``, ``"revin_affine"`` (with a learnt scale and shift of every variable), or ``"none"``.
        center: What a window is centred by: its ``"mean"``, or its ``"last"`` value.
        decomposition: Odd size of the moving average that a network of its own forecasts; 0 for none. Published: 25.
        mixers: ``"ffnet"`` (the published depthwise key and value), or one of `tokenmix.tasks.forecasting.mixers`, for
            all stages or one for each.
    """

    num_variables: int
    look_back: int = 96
    horizon: int = 96
    patch_size: int = 4
    patch_stride: int = 2
    depths: tuple[int, ...] = (1,)
    dims: tuple[int, ...] = (64,)
    kernel_sizes: tuple[int, ...] = (51,)
    small_sizes: tuple[int, ...] = (5,)
    downsample_ratio: int = 2
    mlp_ratio: int = 2
    drop_rate: float = 0.7
    head_drop: float = 0.0
    norm: str = "revin"
    center: str = "mean"
    decomposition: int = 0
    mixers: MixerSpec | Sequence[MixerSpec] = PUBLISHED_MIXER

    def __post_init__(self) -> None:
        for name in ("num_variables", "look_back", "horizon", "patch_size", "patch_stride", "mlp_ratio"):
            if not _is_whole(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name} of a forecaster must be a whole number from 1 on, not {getattr(self, name)}")
        for name in ("depths", "dims", "kernel_sizes", "small_sizes"):
            if not isinstance(values := getattr(self, name), tuple | list) or not all(map(_is_whole, values)):
                raise ValueError(f"{name} of a forecaster must be whole numbers, one for each stage, not {values}")
        stages = len(self.depths)
        for name in ("dims", "kernel_sizes", "small_sizes"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} needs one value for each of the {stages} stages of depths={self.depths}")
        self._check_sizes()
        for name, known in (("norm", NORMS), ("center", CENTERS)):
            if getattr(self, name) not in known:
                raise ValueError(unknown(f"{name} of a forecaster", getattr(self, name), known))
        if self.tokens[-1] < 1:
            raise ValueError(
                f"a look-back of {self.look_back} has not one token of stride {self.patch_stride}: lengthen it"
            )

    def _check_sizes(self) -> None:
        if self.patch_stride > self.patch_size:
            raise ValueError(f"patch_stride={self.patch_stride} skips values: it must not exceed {self.patch_size=}")
        if stages_without := [d for d in (*self.depths, *self.dims) if d < 1]:
            raise ValueError(f"depths and dims must be at least 1, not {stages_without[0]}")
        if len(self.depths) > 1 and not (_is_whole(self.downsample_ratio) and self.downsample_ratio >= 2):
            raise ValueError(f"downsample_ratio must be at least 2 between stages, not {self.downsample_ratio}")
        for large, small in zip(self.kernel_sizes, self.small_sizes, strict=True):
            if large < 1 or large % 2 == 0 or small < 0 or (small % 2 == 0 and small > 0) or small > large:
                raise ValueError(
                    f"kernel sizes must be odd and the small one not the larger (or 0), not {large} and {small}"
                )
        for before in self.tokens[:-1]:
            if -before % self.downsample_ratio > before:
                raise ValueError(f"downsample_ratio={self.downsample_ratio} is too large for {before} tokens")
        if (
            not _is_whole(self.decomposition)
            or self.decomposition < 0
            or (self.decomposition and self.decomposition % 2 == 0)
        ):
            raise ValueError(f"the moving average of decomposition must be odd, not {self.decomposition}")

    @property
    def tokens(self) -> list[int]:
        """Tokens of every stage."""
        counts = [self.look_back // self.patch_stride]
        for _ in self.depths[1:]:
            counts.append(-(-counts[-1] // self.downsample_ratio))
        return counts


def build_forecaster(arch: Architecture, *, device=None, dtype=None) -> nn.Module:
    """The network of an architecture, ``(B, L, M) -> (B, H, M)``, with PyTorch's initial weights.

    Raises:
        ValueError: If a mixer is unknown, or there is not one for each stage.
        TypeError: If a mixer has no such option.
    """
    if arch.decomposition:
        return DecomposedForecaster(lambda: _network(arch, device=device, dtype=dtype), arch)
    return _network(arch, device=device, dtype=dtype)


def ffnet_forecast(
    num_variables: int, look_back: int = 96, horizon: int = 96, *, device=None, dtype=None, **options: Any
) -> nn.Module:
    """FFNet's forecaster, ``(B, L, M) -> (B, H, M)``: 0.55 M parameters for 7 variables.

    Source: arXiv:2406.02021 and its official code; equal to it in outputs and gradients.

    Args:
        num_variables: Variables, M.
        look_back: Past values of each, L.
        horizon: Future values of each, H.
        device: Where the parameters are created.
        dtype: Their type.
        options: Any other attribute of `Architecture`.

    Raises:
        ValueError: If a value fits no network.
        TypeError: If there is no such option.

    Examples:
        >>> model = ffnet_forecast(7, horizon=192, mixers="aff")
        >>> model(torch.zeros(1, 96, 7)).shape
        torch.Size([1, 192, 7])
    """
    fields = Architecture.__dataclass_fields__
    for name, value in options.items():
        if name not in fields:
            raise TypeError(unknown("option of ffnet_forecast", name, fields))
        if isinstance(value, list) and name != "mixers":
            options[name] = tuple(value)
    return build_forecaster(Architecture(num_variables, look_back, horizon, **options), device=device, dtype=dtype)


def options_of(arch: Architecture) -> dict[str, Any]:
    """The keyword arguments of `ffnet_forecast` for an architecture, as JSON can hold them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(arch).items()}


def _network(arch: Architecture, *, device=None, dtype=None) -> Forecaster:
    dd = {"device": device, "dtype": dtype}
    norm = None
    if arch.norm != "none":
        norm = ReversibleNorm(arch.num_variables, affine=arch.norm == "revin_affine", center=arch.center, **dd)
    stages: list[nn.Module] = []
    specs = per_stage(arch.mixers, len(arch.depths))
    for index, dim in enumerate(arch.dims):
        if index == 0:
            embed: nn.Module = PatchEmbedding(dim, arch.patch_size, arch.patch_stride, **dd)
        else:
            embed = PatchMerging(arch.dims[index - 1], dim, arch.downsample_ratio, **dd)
        blocks = [_block(arch, index, specs[index], **dd) for _ in range(arch.depths[index])]
        stages.append(Stage(embed, blocks))
    head = nn.Linear(arch.dims[-1] * arch.tokens[-1], arch.horizon, **dd)
    return Forecaster(norm, stages, head, arch)


def _block(arch: Architecture, stage: int, spec: MixerSpec, *, device=None, dtype=None) -> nn.Module:
    dd = {"device": device, "dtype": dtype}
    variables, dim, size = arch.num_variables, arch.dims[stage], arch.kernel_sizes[stage]
    if spec == PUBLISHED_MIXER:
        core: nn.Module = KeyValue(variables, dim, size, **dd)
    else:
        core = SharedMixer(make_series_mixer(spec, dim, **dd))
    token = TokenMixer(VariableQuery(variables, dim, **dd), core)
    channel = ChannelMixer(variables, dim, size, arch.small_sizes[stage], arch.mlp_ratio, arch.drop_rate, **dd)
    return Block(token, channel)
