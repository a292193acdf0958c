"""Token mixers on sparse voxels, ``(N, C), Voxels -> (N, C)``, by the same strings as those on maps.

Whatever mixes by a full grid's spectrum has no form here; what mixes by neighbours, or by means over a cloud, has one.
On voxels that fill a plane each is what the mixer of that name is on a map.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import ACTIVATIONS
from tokenmix.mixers import MixerInfo, Slot, Slots
from tokenmix.ops.sparse import Voxels, average, convolve, pool, unpool
from tokenmix_runtime.names import unknown


class VoxelNorm(nn.BatchNorm1d):
    """``(N, C) -> (N, C)``: a batch norm over all voxels of a batch; a single one, which has no variance, is normalised
    as in evaluation: small clouds are one voxel at their coarsest level.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def batch_norm(dim: int, *, device=None, dtype=None) -> nn.BatchNorm1d:
    """``(N, dim) -> (N, dim)``: a batch norm with the official model's numbers."""
    return VoxelNorm(dim, eps=1e-3, momentum=0.01, device=device, dtype=dtype)


class VoxelConv(nn.Module):
    """``(N, in_chans) -> (N, out_chans)``: a submanifold convolution.

    Args:
        in_chans: Channels in.
        out_chans: Channels out.
        size: Voxels along each side of the kernel, odd.
        depthwise: One kernel for each channel; the channels in and out are then as many.
        bias: Whether there is one.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        size: int = 3,
        *,
        depthwise: bool = False,
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the kernel of a submanifold convolution must be odd and at least 1, not {size}")
        if depthwise and in_chans != out_chans:
            raise ValueError(f"a depthwise convolution has as many channels out as in, not {out_chans} and {in_chans}")
        self.size = size
        shape = (out_chans, size, size, size) + (() if depthwise else (in_chans,))
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_chans, device=device, dtype=dtype)) if bias else None
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        return convolve(x, self.weight, self.bias, voxels.neighbours(self.size))

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, bias={self.bias is not None}"


class FFNifiedAttention(nn.Module):
    """``(N, C) -> (N, C)``: linear query, convolution as key, batch norm, activation, convolution as value, batch norm.

    Source: arXiv:2406.02021 (MetaMixer, FFNet) and its official 3-D code, whose convolutions are dense over channels.

    Args:
        dim: Channels.
        key_size: Kernel of the key in voxels, odd.
        value_size: Kernel of the value in voxels, odd.
        conv: ``"dense"``, or ``"depthwise"`` as in the models for pictures.
        act: The activation between, of `tokenmix.layers.ACTIVATIONS`.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: A size is even or below 1, or the kind or the activation is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        key_size: int = 3,
        value_size: int = 3,
        conv: str = "dense",
        act: str = "gelu",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if conv not in ("dense", "depthwise"):
            raise ValueError(unknown("kind of convolution", conv, ("dense", "depthwise")))
        if act not in ACTIVATIONS:
            raise ValueError(unknown("act", act, ACTIVATIONS))
        dd = {"device": device, "dtype": dtype}
        self.query = nn.Linear(dim, dim, **dd)
        self.key = VoxelConv(dim, dim, key_size, depthwise=conv == "depthwise", **dd)
        self.key_norm = batch_norm(dim, **dd)
        self.act = ACTIVATIONS[act]()
        self.value = VoxelConv(dim, dim, value_size, depthwise=conv == "depthwise", **dd)
        self.value_norm = batch_norm(dim, **dd)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        key = self.act(self.key_norm(self.key(self.query(x), voxels)))
        return self.value_norm(self.value(key, voxels))

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`."""
        query = self.query(x)
        key = self.key_norm(self.key(query, voxels))
        act = self.act(key)
        value = self.value_norm(self.value(act, voxels))
        return {"query": Slot(query), "key": Slot(key), "act": Slot(act), "value": Slot(value)}


class AdditiveAttention(nn.Module):
    """``(N, C) -> (N, C)``: ``proj(dwc(gate(q) + gate(k)) * v)``; means are those over the voxels of each cloud.

    Source: arXiv:2408.03703 (CAS-ViT); see `tokenmix.mixers.AdditiveAttention`, whose 3 x 3 kernels are 3 x 3 x 3 here
    and whose query and key stand side by side in the same way.
    """

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.qkv = nn.Linear(dim, 3 * dim, bias=False, **dd)
        self.spatial = VoxelConv(2 * dim, 2 * dim, 3, depthwise=True, **dd)
        self.norm = batch_norm(2 * dim, **dd)
        self.voxel_score = nn.Parameter(torch.empty(2, dim, **dd))
        self.channel_score = nn.Parameter(torch.empty(2, dim, dim, **dd))
        self.dwc = VoxelConv(dim, dim, 3, depthwise=True, **dd)
        self.proj = VoxelConv(dim, dim, 3, depthwise=True, **dd)
        for score in (self.voxel_score, self.channel_score):
            nn.init.trunc_normal_(score, std=0.02)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        query_key, value = self.qkv(x).split((2 * self.dim, self.dim), dim=1)
        hidden = F.relu(self.norm(self.spatial(query_key, voxels))).unflatten(1, (2, self.dim))
        score = torch.sigmoid((hidden * self.voxel_score).sum(2, keepdim=True))  # (N, 2, 1)
        gated = query_key.unflatten(1, (2, self.dim)) * score  # (N, 2, C)
        clouds = voxels.by_cloud()
        mean = pool(gated.flatten(1), clouds, "mean").unflatten(1, (2, self.dim))  # (clouds, 2, C)
        gate = torch.sigmoid(torch.einsum("bgi,goi->bgo", mean, self.channel_score)).flatten(1)
        both = (gated * unpool(gate, clouds).unflatten(1, (2, self.dim))).sum(1)
        return self.proj(self.dwc(both, voxels) * value, voxels)

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`; and the gates of voxels and channels, the query's first."""
        query_key, value = self.qkv(x).split((2 * self.dim, self.dim), dim=1)
        hidden = F.relu(self.norm(self.spatial(query_key, voxels))).unflatten(1, (2, self.dim))
        score = torch.sigmoid((hidden * self.voxel_score).sum(2, keepdim=True))
        gated = query_key.unflatten(1, (2, self.dim)) * score
        clouds = voxels.by_cloud()
        mean = pool(gated.flatten(1), clouds, "mean").unflatten(1, (2, self.dim))
        gate = torch.sigmoid(torch.einsum("bgi,goi->bgo", mean, self.channel_score))
        key = (gated * gate[clouds.group]).sum(1)
        act = self.dwc(key, voxels)
        return {
            "query": Slot(query_key[:, : self.dim]),
            "key": Slot(key),
            "act": Slot(act),
            "value": Slot(self.proj(act * value, voxels)),
            "voxel_gate": Slot(score[:, :, 0]),
            "channel_gate": Slot(gate, "gates"),
        }


class SeparableAttention(nn.Module):
    """``(N, C) -> (N, C)``: ``proj(relu(v) * sum_n softmax_n(s) k_n)``, one score s per voxel, sums over each cloud.

    Source: arXiv:2206.02680 (MobileViTv2), section 3. ``qkv`` holds the score (1 channel), key (C) and value (C).
    """

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Linear(dim, 1 + 2 * dim, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        score, key, value = self.qkv(x).split((1, self.dim, self.dim), dim=1)
        clouds = voxels.by_cloud()
        weight = torch.exp(score - unpool(pool(score.detach(), clouds, "max"), clouds))  # (N, 1)
        context = pool(torch.cat((weight * key, weight), 1), clouds, "sum")
        return self.proj(F.relu(value) * unpool(context[:, :-1] / context[:, -1:], clouds))

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`: scores, their softmax over the voxels, the context that they make."""
        score, key, value = self.qkv(x).split((1, self.dim, self.dim), dim=1)
        clouds = voxels.by_cloud()
        weight = torch.exp(score - unpool(pool(score, clouds, "max"), clouds))
        weight = weight / unpool(pool(weight, clouds, "sum"), clouds)
        context = pool(weight * key, clouds, "sum")  # (clouds, C)
        return {
            "query": Slot(score),
            "key": Slot(weight),
            "act": Slot(context[:, None], "gates"),
            "value": Slot(self.proj(F.relu(value) * unpool(context, clouds))),
        }


class PatchAttention(nn.Module):
    """``(N, C) -> (N, C)``: softmax attention among voxels that follow one another along a space-filling curve.

    Source: arXiv:2312.10035 (Point Transformer V3), section 4.2, with the Z-order alone and without its positions. Each
    cloud is cut into patches of its own, so that no cloud's answer depends on what it is batched with.

    Args:
        dim: Channels.
        patch: Voxels of a patch.
        head_dim: Channels of a head; the largest divisor of ``dim`` up to it is taken.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: ``patch`` or ``head_dim`` is below 1.
    """

    def __init__(self, dim: int, *, patch: int = 256, head_dim: int = 32, device=None, dtype=None) -> None:
        super().__init__()
        if patch < 1 or head_dim < 1:
            raise ValueError(f"patch and head_dim of attention must be at least 1, not {patch} and {head_dim}")
        self.patch = patch
        self.heads = dim // max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.qkv = nn.Linear(dim, 3 * dim, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        place, q, k, v, taken = self._in_patches(x, voxels)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=taken)
        return self.proj(self._of_voxels(y, place))

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`: of the softmax, by heads, how much its whole patch takes from each voxel."""
        place, q, k, v, taken = self._in_patches(x, voxels)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~taken, -torch.inf).softmax(-1)  # (patches, heads, patch, patch)
        asked = (weights * taken.transpose(-1, -2)).sum(-2)
        return {
            "query": Slot(self._of_voxels(q, place)),
            "key": Slot(self._of_voxels(k, place)),
            "act": Slot(self._of_voxels(asked[..., None], place)),
            "value": Slot(self.proj(self._of_voxels(weights @ v, place))),
        }

    def _in_patches(self, x: Tensor, voxels: Voxels) -> tuple[Tensor, ...]:
        """Each voxel's place; query, key and value (patches, heads, patch, d); which places are taken."""
        place, patches = voxels.once(("patches", self.patch), lambda: self._places(voxels))
        padded = x.new_zeros(patches * self.patch, x.shape[1]).index_copy(0, place, x)
        taken = torch.zeros(len(padded), dtype=torch.bool, device=x.device).index_fill(0, place, True)
        qkv = self.qkv(padded).view(patches, self.patch, 3, self.heads, -1)
        return (place, *qkv.permute(2, 0, 3, 1, 4).unbind(0), taken.view(patches, 1, 1, self.patch))

    @staticmethod
    def _of_voxels(y: Tensor, place: Tensor) -> Tensor:
        """``(patches, heads, patch, d) -> (N, heads d)``, without the places that are not taken."""
        return y.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, place)

    def _places(self, voxels: Voxels) -> tuple[Tensor, int]:
        """The place of each voxel in a row of full patches, and how many patches there are."""
        counts = torch.bincount(voxels.cloud, minlength=voxels.clouds)
        patches = (counts + self.patch - 1) // self.patch
        order = torch.argsort(z_order(voxels))
        order = order[torch.argsort(voxels.cloud[order], stable=True)]
        shift = (patches.cumsum(0) - patches) * self.patch - (counts.cumsum(0) - counts)
        place = torch.arange(len(voxels), device=counts.device) + shift[voxels.cloud[order]]
        return torch.empty_like(place).index_copy(0, order, place), int(patches.sum())


class Pooling(nn.Module):
    """``(N, C) -> (N, C)``: the mean over the occupied voxels around each, minus itself (arXiv:2111.11418)."""

    def __init__(self, dim: int, *, size: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        return average(x, voxels.neighbours(self.size)) - x

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`: the means, and less the voxels."""
        mean = average(x, voxels.neighbours(self.size))
        return {"key": Slot(mean), "value": Slot(mean - x)}


class Depthwise(nn.Module):
    """``(N, C) -> (N, C)``: one convolution for each channel, as ConvNeXt mixes (arXiv:2201.03545)."""

    def __init__(self, dim: int, *, size: int = 5, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = VoxelConv(dim, dim, size, depthwise=True, device=device, dtype=dtype)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        return self.conv(x, voxels)

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.conv(x, voxels)
        return {"key": Slot(key), "value": Slot(key)}


class Identity(nn.Module):
    """``(N, C) -> (N, C)``: nothing is mixed."""

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        return x

    def slots(self, x: Tensor, voxels: Voxels) -> Slots:
        """See `tokenmix.mixers.slots`."""
        return {"value": Slot(x)}


def z_order(voxels: Voxels) -> Tensor:
    """(N,) int64: the place of each voxel on the Z-order curve, the bits of x, y and z in turn."""
    place = voxels.coords - voxels.coords.amin(0)
    code = torch.zeros_like(voxels.cloud)
    for bit in range(21):
        for axis in range(3):
            code |= (place[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return code


VOXEL_MIXERS: Mapping[str, MixerInfo] = {
    "ffnified": MixerInfo(
        FFNifiedAttention,
        "MetaMixer/FFNet, arXiv:2406.02021",
        query="linear",
        key="dense submanifold conv k x k x k, BN",
        act="GELU",
        value="dense submanifold conv k x k x k, BN",
        complexity="O(N C^2 k^3)",
    ),
    "additive": MixerInfo(
        AdditiveAttention,
        "CAS-ViT, arXiv:2408.03703",
        query="linear",
        key="gate(q) + gate(k), spatial and channel",
        act="depthwise submanifold conv 3 x 3 x 3",
        value="times v, depthwise submanifold conv 3 x 3 x 3",
        complexity="O(N C^2)",
    ),
    "attention": MixerInfo(
        PatchAttention,
        "Point Transformer V3, arXiv:2312.10035",
        query="linear",
        key="q k(x)^T / sqrt(d) in patches of p voxels along the Z-order",
        act="softmax over the patch",
        value="times v(x), linear",
        complexity="O(N p C + N C^2)",
        widths="head_dim = largest divisor of C up to 32",
    ),
    "separable": MixerInfo(
        SeparableAttention,
        "MobileViTv2, arXiv:2206.02680",
        query="linear to 1 channel",
        key="softmax over the cloud",
        act="weighted sum of k(x)",
        value="times relu(v(x)), linear",
        complexity="O(N C^2)",
    ),
    "pool": MixerInfo(
        Pooling,
        "PoolFormer, arXiv:2111.11418",
        query="identity",
        key="mean of the occupied voxels in k x k x k",
        act="identity",
        value="minus x",
        complexity="O(N C k^3)",
    ),
    "depthwise": MixerInfo(
        Depthwise,
        "ConvNeXt, arXiv:2201.03545",
        query="identity",
        key="depthwise submanifold conv k x k x k",
        act="identity",
        value="identity",
        complexity="O(N C k^3)",
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
