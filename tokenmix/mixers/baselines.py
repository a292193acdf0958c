"""The yardsticks: published mixers that the four papers' ones are compared with."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import fold_norm_before
from tokenmix.mixers.metamixer import MetaMixer
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.fourier import filter_planes, rfft2_macs, rfft2_planes, widen

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")


class SoftmaxAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: softmax(q k^T / sqrt(d)) v over the H W tokens, per head of d channels.

    Source: arXiv:1706.03762, eq. 1; arXiv:2010.11929. ``qkv`` holds query, key and value in this order.

    Args:
        dim: Channels.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        qkv_bias: Whether query, key and value have a bias.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``head_dim`` is below 1.
    """

    output_layer = "proj"

    def __init__(self, dim: int, *, head_dim: int = 32, qkv_bias: bool = False, device=None, dtype=None) -> None:
        super().__init__()
        if head_dim < 1:
            raise ValueError(f"head_dim of attention must be at least 1, not {head_dim}")
        self.head_dim = max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.heads = dim // self.head_dim
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Conv2d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        # The channels of a token side by side: the kernel for attention is twice as fast on a CPU then.
        qkv = self.qkv(x).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv.unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H W, head_dim)
        return self.proj(y.transpose(-1, -2).reshape(x.size(0), x.size(1), x.size(2), x.size(3)))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`, in the frame of `attention_frame`."""
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, self.head_dim)).unbind(1)  # (B, heads, d, N)
        scores = q.transpose(-1, -2) @ k * self.head_dim**-0.5
        weights = torch.softmax(scores, -1)
        return {
            "query": Slot(q.reshape(x.shape)),
            "key": Slot(scores, "attention"),
            "act": Slot(weights, "attention"),
            "value": Slot(self.proj((v @ weights.transpose(-1, -2)).reshape(x.shape))),
        }

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qkv``, in place. True: it always can."""
        self.qkv = fold_norm_before(self.qkv, norm)
        return True


class AttentionKey(nn.Module):
    """``(B, C, H, W), (B, C, H, W) -> (B, heads, H W, H W)``: ``q k(x)^T / sqrt(d)``, attention's key interaction."""

    def __init__(self, proj: nn.Module, heads: int) -> None:
        super().__init__()
        self.proj = proj
        self.heads = heads

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        query = q.flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, d, N)
        key = self.proj(x).flatten(2).unflatten(1, (self.heads, -1))
        return query.transpose(-1, -2) @ key * query.size(2) ** -0.5


class AttentionValue(nn.Module):
    """``(B, heads, H W, H W), (B, C, H, W) -> (B, C, H, W)``: ``out(a v(x))``, attention's value interaction."""

    def __init__(self, proj: nn.Module, out: nn.Module, heads: int) -> None:
        super().__init__()
        self.proj = proj
        self.out = out
        self.heads = heads

    def forward(self, weights: Tensor, x: Tensor) -> Tensor:
        value = self.proj(x).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, d, N)
        return self.out((value @ weights.transpose(-1, -2)).reshape(x.size(0), x.size(1), x.size(2), x.size(3)))


@torch.no_grad()
def attention_frame(attention: SoftmaxAttention) -> MetaMixer:
    """The same function as a `MetaMixer` of dynamic interactions, with copies of the parameters."""
    convs = []
    for index in range(3):
        source, dim = attention.qkv, attention.qkv.in_channels
        conv = nn.Conv2d(
            dim, dim, 1, bias=source.bias is not None, device=source.weight.device, dtype=source.weight.dtype
        )
        conv.weight.copy_(source.weight[index * dim : (index + 1) * dim])
        if source.bias is not None and conv.bias is not None:
            conv.bias.copy_(source.bias[index * dim : (index + 1) * dim])
        convs.append(conv)
    query, key, value = convs
    return MetaMixer(
        query=query,
        key=AttentionKey(key, attention.heads),
        act=nn.Softmax(dim=-1),
        value=AttentionValue(value, copy.deepcopy(attention.proj), attention.heads),
    )


class SeparableAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(relu(v) * sum_n softmax_n(s) k_n)``, one score s per token, linear cost.

    Source: arXiv:2206.02680 (MobileViTv2), section 3. ``qkv`` holds the score (1 channel), key (C) and value (C).
    """

    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Conv2d(dim, 1 + 2 * dim, 1, device=device, dtype=dtype)
        self.proj = nn.Conv2d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        score, key, value = self.qkv(x).split([1, self.dim, self.dim], 1)
        weights = torch.softmax(score.flatten(2), -1)  # (B, 1, N)
        context = key.flatten(2) @ weights.transpose(-1, -2)  # (B, C, 1)
        return self.proj(torch.relu(value) * context.unsqueeze(-1))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: scores, their softmax over the tokens, the context that they make."""
        score, key, value = self.qkv(x).split([1, self.dim, self.dim], 1)
        weights = torch.softmax(score.flatten(2), -1)
        context = key.flatten(2) @ weights.transpose(-1, -2)  # (B, C, 1)
        return {
            "query": Slot(score),
            "key": Slot(weights.view_as(score)),
            "act": Slot(context.transpose(1, 2), "gates"),
            "value": Slot(self.proj(torch.relu(value) * context.unsqueeze(-1))),
        }

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qkv``, in place. True: it always can."""
        self.qkv = fold_norm_before(self.qkv, norm)
        return True


def _unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along a dimension at length 1; PyTorch's usual eps would be 0 in float16."""
    return F.normalize(x, dim=dim, eps=1e-6)


class SwiftAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``out(proj(g * k) + q)``, g = sum_n a_n q_n: SwiftFormer's additive attention.

    q and k are normalised to length 1 over the channels, ``a = q . score / sqrt(C)`` over the tokens.
    Source: arXiv:2303.15446, section 3, and its official code. ``qk`` holds query and key in this order.
    """

    output_layer = "out"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.scale = dim**-0.5
        self.qk = nn.Conv2d(dim, 2 * dim, 1, **dd)
        self.score = nn.Conv2d(dim, 1, 1, bias=False, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, **dd)
        self.out = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.qk(x).chunk(2, 1)
        query, key = _unit(query, 1), _unit(key, 1)
        weights = _unit((self.score(query) * self.scale).flatten(2), -1)  # (B, 1, N)
        context = (query.flatten(2) @ weights.transpose(-1, -2)).unsqueeze(-1)  # (B, C, 1, 1)
        return self.out(self.proj(context * key) + query)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the tokens' weights."""
        query, key = (_unit(part, 1) for part in self.qk(x).chunk(2, 1))
        weights = _unit((self.score(query) * self.scale).flatten(2), -1)
        mixed = (query.flatten(2) @ weights.transpose(-1, -2)).unsqueeze(-1) * key
        return {
            "query": Slot(query),
            "key": Slot(mixed),
            "value": Slot(self.out(self.proj(mixed) + query)),
            "weights": Slot(weights.view(x.size(0), 1, x.size(2), x.size(3))),
        }

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qk``, in place. True: it always can."""
        self.qk = fold_norm_before(self.qk, norm)
        return True


class Pooling(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: the mean of the neighbourhood minus the pixel.

    Source: arXiv:2111.11418 (PoolFormer), eq. 4.

    Args:
        dim: Channels; only for the common signature.
        size: Side of the neighbourhood in pixels, odd. Only pixels of the image count.
        device: Not used: there is no parameter.
        dtype: Not used.

    Raises:
        ValueError: If the size is even or below 1.
    """

    def __init__(self, dim: int, *, size: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the size of pool must be odd and at least 1, not {size}")
        self.pool = nn.AvgPool2d(size, 1, size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the means, and less the pixels."""
        mean = self.pool(x)
        return {"key": Slot(mean), "value": Slot(mean - x)}


@torch.fx.wrap
def resize_kernel(kernel: Tensor, height: int, columns: int) -> Tensor:
    """``(2, C, h, w) -> (1, C, 2, H, V)``: a complex grid resized bilinearly with aligned corners, as planes."""
    kernel = F.interpolate(widen(kernel), size=[height, columns], mode="bilinear", align_corners=True)
    return kernel.transpose(0, 1).unsqueeze(0)


class GlobalFilter(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``irfft2(K * rfft2(x))``, K a learnt complex grid for each channel.

    Source: arXiv:2107.00645 (GFNet), eq. 5. GFNet's grid is bound to one image size and has to be interpolated when a
    network moves to another; here it is resized for each input, bilinearly with aligned corners: the first row and
    column stay the zero frequency, the last row frequency -1, the last column the highest. Computed in float32 for half
    inputs and under autocast.

    Args:
        dim: Channels.
        size: Side in pixels of the maps for which the grid has one value per frequency; ``weight`` is
            (2, C, size, size//2+1), real part first. The default is GFNet's for images of 224 px.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the size is below 1.
    """

    def __init__(self, dim: int, *, size: int = 14, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the size of global_filter must be at least 1, not {size}")
        self.dim = dim
        self.form = "auto"
        self.weight = nn.Parameter(0.02 * torch.randn(2, dim, size, size // 2 + 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        planes = rfft2_planes(x, self.form)  # (B, C, 2, H, W//2+1)
        kernel = resize_kernel(self.weight, planes.size(-2), planes.size(-1))
        return filter_planes(planes, kernel.to(planes.dtype), x.size(-2), x.size(-1), self.form).to(x.dtype)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, and the grid that it is multiplied with."""
        planes = rfft2_planes(x, self.form)
        kernel = resize_kernel(self.weight, planes.size(-2), planes.size(-1)).to(planes.dtype)
        return {
            "query": Slot(torch.complex(planes[:, :, 0], planes[:, :, 1]), "fourier"),
            "key": Slot(torch.complex(kernel[:, :, 0], kernel[:, :, 1]), "filter"),
            "value": Slot(filter_planes(planes, kernel, x.size(-2), x.size(-1), self.form).to(x.dtype)),
        }

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 2 * self.dim * rfft2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, form={self.form!r}"


class Depthwise(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: depthwise convolution with a bias (ConvNeXt, arXiv:2201.03545: 7x7).

    Raises:
        ValueError: If the kernel size is even or below 1.
    """

    output_layer = "conv"

    def __init__(self, dim: int, *, kernel_size: int = 7, device=None, dtype=None) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size of depthwise must be odd and at least 1, not {kernel_size}")
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.conv(x)
        return {"key": Slot(key), "value": Slot(key)}


class Identity(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: the input; what a skeleton reaches without any mixing. No parameters."""

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        return {"value": Slot(x)}
