"""The mixers that have names: where each comes from, how it fills the MetaMixer paper's frame, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tokenmix.mixers.additive import AdditiveAttention
from tokenmix.mixers.afno import FourierOperator
from tokenmix.mixers.attention import SoftmaxAttention
from tokenmix.mixers.depthwise import Depthwise
from tokenmix.mixers.dynamic_filter import DynamicFilter
from tokenmix.mixers.ffnified import ffnified_attention
from tokenmix.mixers.focal import FocalModulation
from tokenmix.mixers.frequency import FrequencyFilter
from tokenmix.mixers.gated_conv import GatedConvolution
from tokenmix.mixers.global_filter import GlobalFilter
from tokenmix.mixers.identity import Identity
from tokenmix.mixers.inception import InceptionDepthwise
from tokenmix.mixers.large_kernel import LargeKernelAttention
from tokenmix.mixers.partial import PartialConvolution
from tokenmix.mixers.pool import Pooling
from tokenmix.mixers.random_mixing import RandomMixing
from tokenmix.mixers.relu_linear import ReluLinearAttention
from tokenmix.mixers.selective_scan import SelectiveScan
from tokenmix.mixers.separable import SeparableAttention
from tokenmix.mixers.shift import Shift
from tokenmix.mixers.spectrum import SpectrumMixer
from tokenmix.mixers.star import StarOperation
from tokenmix.mixers.swift import SwiftAttention
from tokenmix.mixers.window import WindowAttention


@dataclass(frozen=True)
class MixerInfo:
    """A mixer and what is shown of it.

    Attributes:
        build: ``(dim, *, <options>, device, dtype) -> nn.Module``.
        paper: Where it comes from.
        query: What fills the slot of the query in the frame ``value(act(key(query(x), x)), x)``.
        key: The same for the key interaction.
        act: The same for the activation between the two.
        value: The same for the value interaction.
        complexity: In N = H W tokens, C channels, k kernel size, b channels of a block.
        widths: What adapts to a width that the default does not divide.

    Examples:
        >>> MIXERS["star"].paper
        'StarNet, arXiv:2403.19967'
    """

    build: Callable[..., nn.Module]
    paper: str
    query: str
    key: str
    act: str
    value: str
    complexity: str
    widths: str = "any"


MIXERS: dict[str, MixerInfo] = {
    "aff": MixerInfo(
        FrequencyFilter,
        "AFFNet, arXiv:2307.14008",
        query="rfft2",
        key="2-layer block-diagonal complex map",
        act="SiLU, soft-shrink",
        value="times spectrum, irfft2",
        complexity="O(N log N C + N C b)",
        widths="groups = gcd(C, 8)",
    ),
    "ffnified": MixerInfo(
        ffnified_attention,
        "MetaMixer/FFNet, arXiv:2406.02021",
        query="1x1 conv, BN",
        key="depthwise conv k x k",
        act="GELU",
        value="depthwise conv k x k",
        complexity="O(N C^2 + N C k^2)",
    ),
    "additive": MixerInfo(
        AdditiveAttention,
        "CAS-ViT, arXiv:2408.03703",
        query="1x1 conv",
        key="gate(q) + gate(k), spatial and channel",
        act="depthwise conv 3x3",
        value="times v, depthwise conv 3x3",
        complexity="O(N C^2)",
    ),
    "dsm": MixerInfo(
        SpectrumMixer,
        "DSM, arXiv:2309.06721 (reconstruction)",
        query="1x1 conv, DCT-II",
        key="generated gates of 16 soft bands",
        act="softmax over bands",
        value="times spectrum, IDCT, + depthwise 3x3, 1x1 conv",
        complexity="O(N log N C + N C^2)",
        widths="hidden = max(C // 4, 8)",
    ),
    "attention": MixerInfo(
        SoftmaxAttention,
        "Transformer/ViT, arXiv:1706.03762",
        query="1x1 conv",
        key="q k(x)^T / sqrt(d)",
        act="softmax over tokens",
        value="times v(x), 1x1 conv",
        complexity="O(N^2 C + N C^2)",
        widths="head_dim = largest divisor of C up to 32",
    ),
    "separable": MixerInfo(
        SeparableAttention,
        "MobileViTv2, arXiv:2206.02680",
        query="1x1 conv to 1 channel",
        key="softmax over tokens",
        act="weighted sum of k(x)",
        value="times relu(v(x)), 1x1 conv",
        complexity="O(N C^2)",
    ),
    "swift": MixerInfo(
        SwiftAttention,
        "SwiftFormer, arXiv:2303.15446",
        query="1x1 conv, L2 norm",
        key="global query times k(x)",
        act="identity",
        value="1x1 conv, + q, 1x1 conv",
        complexity="O(N C^2)",
    ),
    "pool": MixerInfo(
        Pooling,
        "PoolFormer, arXiv:2111.11418",
        query="identity",
        key="average pool 3x3",
        act="identity",
        value="minus x",
        complexity="O(N C k^2)",
    ),
    "global_filter": MixerInfo(
        GlobalFilter,
        "GFNet, arXiv:2107.00645",
        query="rfft2",
        key="learnt complex grid, resized to the map",
        act="identity",
        value="times spectrum, irfft2",
        complexity="O(N log N C)",
    ),
    "depthwise": MixerInfo(
        Depthwise,
        "ConvNeXt, arXiv:2201.03545",
        query="identity",
        key="depthwise conv 7x7",
        act="identity",
        value="identity",
        complexity="O(N C k^2)",
    ),
    "window": MixerInfo(
        WindowAttention,
        "Swin, arXiv:2103.14030",
        query="1x1 conv",
        key="q k(x)^T / sqrt(d) in windows 7x7, + offset bias",
        act="softmax over the window",
        value="times v(x), 1x1 conv",
        complexity="O(N C k^2 + N C^2)",
        widths="head_dim = largest divisor of C up to 32",
    ),
    "relu_linear": MixerInfo(
        ReluLinearAttention,
        "EfficientViT, arXiv:2205.14756",
        query="1x1 conv, and depthwise 5x5 with 1x1 per head",
        key="relu",
        act="relu(k(x)) v(x)^T over tokens, normalised",
        value="times q, 1x1 conv",
        complexity="O(N C d + N C^2)",
        widths="head_dim = largest divisor of C up to 16",
    ),
    "selective_scan": MixerInfo(
        SelectiveScan,
        "VMamba, arXiv:2401.10166 (as a matrix product)",
        query="1x1 conv, depthwise conv 3x3, SiLU",
        key="c(q) b(q)^T times decay, in 4 directions",
        act="cut off what comes later",
        value="times step(q) q, + q, layer norm, 1x1 conv",
        complexity="O(N^2 C + N C^2)",
        widths="head_dim = largest divisor of C up to 32",
    ),
    "afno": MixerInfo(
        FourierOperator,
        "AFNO, arXiv:2111.13587",
        query="rfft2",
        key="block-diagonal complex map",
        act="ReLU",
        value="block-diagonal complex map, soft-shrink, irfft2",
        complexity="O(N log N C + N C b)",
        widths="groups = gcd(C, 8)",
    ),
    "dynamic_filter": MixerInfo(
        DynamicFilter,
        "DFFormer, arXiv:2303.03932",
        query="1x1 conv, StarReLU, rfft2",
        key="4 learnt grids weighed by the mean of x",
        act="softmax over the grids",
        value="times spectrum, irfft2, 1x1 conv",
        complexity="O(N log N C + N C^2)",
        widths="hidden = max(C // 4, 1)",
    ),
    "large_kernel": MixerInfo(
        LargeKernelAttention,
        "VAN, arXiv:2202.09741",
        query="1x1 conv, GELU",
        key="depthwise conv 5x5, 7x7 with dilation 3, 1x1 conv",
        act="identity",
        value="times q, 1x1 conv",
        complexity="O(N C^2 + N C k^2)",
    ),
    "focal": MixerInfo(
        FocalModulation,
        "FocalNet, arXiv:2203.11926",
        query="1x1 conv",
        key="depthwise conv 3x3, 5x5 and mean of z(x)",
        act="GELU, gates(x), 1x1 conv",
        value="times q, 1x1 conv",
        complexity="O(N C^2 + N C k^2)",
    ),
    "gated_conv": MixerInfo(
        GatedConvolution,
        "MambaOut, arXiv:2405.07992",
        query="1x1 conv",
        key="depthwise conv 7x7 of C channels",
        act="identity",
        value="times GELU(g(x)), 1x1 conv",
        complexity="O(N C^2 + N C k^2)",
    ),
    "star": MixerInfo(
        StarOperation,
        "StarNet, arXiv:2403.19967",
        query="depthwise conv 7x7, BN",
        key="1x1 conv",
        act="ReLU6",
        value="times 1x1 conv of q, 1x1 conv, BN, depthwise conv 7x7",
        complexity="O(N C^2 + N C k^2)",
    ),
    "inception": MixerInfo(
        InceptionDepthwise,
        "InceptionNeXt, arXiv:2303.16900",
        query="identity",
        key="depthwise conv 3x3, 1x11, 11x1 of C / 8 channels each",
        act="identity",
        value="identity",
        complexity="O(N C k)",
        widths="groups of max(C // 8, 1) channels",
    ),
    "partial": MixerInfo(
        PartialConvolution,
        "FasterNet, arXiv:2303.03667",
        query="identity",
        key="conv 3x3 of C / 4 channels",
        act="identity",
        value="identity",
        complexity="O(N C^2 k^2 / 16)",
        widths="max(C // 4, 1) channels",
    ),
    "shift": MixerInfo(
        Shift,
        "ShiftViT, arXiv:2201.10801",
        query="identity",
        key="C / 12 channels moved by a pixel each way",
        act="identity",
        value="identity",
        complexity="O(N C)",
        widths="groups of max(C // 12, 1) channels",
    ),
    "random": MixerInfo(
        RandomMixing,
        "RandFormer, arXiv:2210.13452",
        query="identity",
        key="fixed random matrix over tokens",
        act="softmax over the rows of the matrix",
        value="identity",
        complexity="O(N^2 C)",
    ),
    "identity": MixerInfo(
        Identity,
        "no mixing",
        query="identity",
        key="identity",
        act="identity",
        value="identity",
        complexity="O(1)",
    ),
}
