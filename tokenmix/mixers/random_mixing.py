"""Random mixing of RandFormer (arXiv:2210.13452): tokens mixed by a random matrix that nobody trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.constants import constant


class RandomMixing(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``R x`` over the N = H W tokens, R = softmax over each row of random numbers.

    Source: arXiv:2210.13452 (MetaFormer baselines), where each layer draws one matrix of uniform numbers
    for one image size and freezes it. Ours: the numbers are a fixed function of row, column, seed and channels, see
    `random_matrix`, so that a map of N tokens sees the first N rows and columns of one endless matrix; nothing is
    stored, any size works, and layers of the same width and seed share it. Quadratic in N.

    Args:
        dim: Channels; layers of other widths mix by other numbers.
        seed: Chooses the matrix.
        device: Not used: there is no parameter.
        dtype: Not used.

    Raises:
        ValueError: If the seed is negative.

    Examples:
        >>> import torch
        >>> x = torch.randn(2, 16, 7, 7)
        >>> torch.equal(RandomMixing(16, seed=1)(x), RandomMixing(16, seed=1)(x))
        True
    """

    def __init__(self, dim: int, *, seed: int = 0, device=None, dtype=None) -> None:
        super().__init__()
        if seed < 0:
            raise ValueError(f"the seed of random must be at least 0, not {seed}")
        self.key = (seed * 7919 + dim) % 16777213

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        return (tokens @ random_matrix(x, self.key).transpose(0, 1)).reshape(x.size(0), x.size(1), x.size(2), x.size(3))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the matrix."""
        matrix = random_matrix(x, self.key)
        return {"act": Slot(matrix[None, None], "attention"), "value": Slot(self.forward(x))}


@torch.fx.wrap
def random_matrix(x: Tensor, key: int) -> Tensor:
    """``(B, C, H, W) -> (N, N)``: the mixing matrix of that map in its dtype, rows that add up to 1, N = H W.

    Before the softmax its numbers are ``u / 2^24`` with ``u = f(f(f(7368787 m + 2654435 n + 40503 key)))``,
    ``f(u) = (u^2 + key + 1) mod 16777213``, for row m and column n. Eager calls keep the matrices of recent sizes.
    """
    return kept_matrix(x, x.size(2) * x.size(3), key)


@constant
def kept_matrix(like: Tensor, tokens: int, key: int) -> Tensor:
    """``(tokens, tokens)``: the matrix in the dtype and on the device of ``like``."""
    prime = 16777213  # the largest below 2^24: what is below it is exact in float32
    place = torch.arange(tokens, device=like.device)
    number = torch.remainder(7368787 * place[:, None] + 2654435 * place + 40503 * key, prime)
    for _ in range(3):
        number = torch.remainder(number * number + key + 1, prime)
    exact = number.to(torch.float32) / 16777216
    return torch.softmax(exact.to(torch.float64) if like.dtype == torch.float64 else exact, -1).to(like.dtype)
