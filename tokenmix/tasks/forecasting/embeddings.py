"""How windows become tokens: reversible normalisation, patches, and tokens that are merged between two stages.

Source: the official forecasting code of FFNet (arXiv:2406.02021) at commit f3c3e4c. Letters: B windows, L past and
H future values, M variables, D channels of a variable, N tokens. Inside, maps are ``(M, D, B, N)``, see
`tokenmix.tasks.forecasting.convolution`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tokenmix.tasks.forecasting.batch_norms import affine_by_batch, affine_of


class ReversibleNorm(nn.Module):
    """Normalise every window by its own statistics, and undo it after the network (RevIN, ICLR 2022).

    ``normalize``: ``(B, L, M) -> (B, L, M)`` and the statistics; ``restore``: ``(B, H, M) -> (B, H, M)``.

    Args:
        num_variables: Variables, M.
        affine: Whether a learnt scale and shift of every variable follow.
        center: ``"mean"`` of the window, or its ``"last"`` value.
        eps: Added to the variance, under the root.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(
        self,
        num_variables: int,
        *,
        affine: bool = False,
        center: str = "mean",
        eps: float = 1e-5,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.center = center
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_variables, **dd)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_variables, **dd)) if affine else None

    def normalize(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised window and what `restore` needs: centre and scale, each ``(B, 1, M)``."""
        center = past[:, -1:] if self.center == "last" else past.mean(1, keepdim=True)
        scale = torch.sqrt(past.var(1, correction=0, keepdim=True) + self.eps)
        x = (past - center) / scale
        if self.weight is not None and self.bias is not None:
            x = x * self.weight + self.bias
        return x, center, scale

    def restore(self, future: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        """The network's output in the units of the window."""
        if self.weight is not None and self.bias is not None:
            future = (future - self.bias) / (self.weight + self.eps**2)
        return future * scale + center

    def extra_repr(self) -> str:
        return f"center={self.center!r}, affine={self.weight is not None}"


class PatchEmbedding(nn.Module):
    """``(M, B, L) -> (M, D, B, N)``: overlapping patches of every variable, one linear map for all, batch norm.

    The end is padded with copies of the last value, so that N = L // stride.
    """

    def __init__(self, dim: int, size: int, stride: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, dim, size, stride, device=device, dtype=dtype)
        self.norm: nn.Module = nn.BatchNorm1d(dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if size > stride:
            x = torch.cat([x, x[..., -1:].expand(-1, -1, size - stride)], -1)
        patches = x.unfold(-1, size, stride).permute(0, 3, 1, 2)  # (M, size, B, N)
        with torch.autocast(x.device.type, enabled=False):  # statistics are sums of many values
            weight, bias = self.folded(patches.flatten(2))
        y = torch.baddbmm(bias[None, :, None], weight.expand(x.size(0), -1, -1), patches.flatten(2))  # (M, D, B N)
        return y.unflatten(2, patches.shape[2:])

    def folded(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Weight ``(D, size)`` and bias ``(D,)`` with the norm; in training by the moments of ``(M, size, P)``."""
        weight, bias = self.conv.weight[:, 0], self.conv.bias
        assert bias is not None
        if not isinstance(self.norm, nn.BatchNorm1d):
            return weight, bias
        if not self.training:
            scale, shift = affine_of(self.norm)
            return weight * scale[:, None], bias * scale + shift
        values = patches.transpose(0, 1).flatten(1)  # (size, M P)
        mean = values.mean(1)
        centred = values - mean[:, None]
        count = values.size(1)
        variance = (weight @ (centred @ centred.t() / count) * weight).sum(1)
        scale, shift = affine_by_batch(self.norm, weight @ mean + bias, variance, count)
        return weight * scale[:, None], bias * scale + shift

    @torch.no_grad()
    def fuse(self) -> PatchEmbedding:
        """A copy with the norm folded into the map."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            weight, bias = new.eval().folded(new.conv.weight)
            new.conv.weight.copy_(weight[:, None])
            new.conv.bias = nn.Parameter(bias.clone())
            new.norm = nn.Identity()
        return new


class PatchMerging(nn.Module):
    """``(M, D, B, N) -> (M, D', B, N / ratio)``: batch norm, then a linear map of ``ratio`` neighbouring tokens.

    Where the ratio does not divide N, the last tokens are repeated.
    """

    def __init__(self, dim: int, out_dim: int, ratio: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(dim, device=device, dtype=dtype)
        self.conv = nn.Conv1d(dim, out_dim, ratio, ratio, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        ratio = self.conv.kernel_size[0]
        missing = -x.size(-1) % ratio
        if missing:
            x = torch.cat([x, x[..., -missing:]], -1)
        variables, dim, batch, tokens = x.shape
        x = self.norm(x.flatten(2)).view(variables, dim, batch, tokens // ratio, ratio)
        groups = x.permute(0, 1, 4, 2, 3).reshape(variables, dim * ratio, -1)
        bias = self.conv.bias
        assert bias is not None
        y = torch.matmul(self.conv.weight.flatten(1), groups) + bias[:, None]
        return y.view(variables, -1, batch, tokens // ratio)

    @torch.no_grad()
    def fuse(self) -> PatchMerging:
        """A copy with the norm folded into the map."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            scale, shift = affine_of(new.norm)
            assert new.conv.bias is not None
            new.conv.bias.add_((new.conv.weight * shift[:, None]).sum((1, 2)))
            new.conv.weight.mul_(scale[:, None])
            new.norm = nn.Identity()
        return new
