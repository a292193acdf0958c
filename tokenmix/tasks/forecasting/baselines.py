"""What a forecast is compared with: the last season again, and a linear map of trend and remainder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.tasks.forecasting.network import moving_average


class SeasonalNaive(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the last season of the past, again and again. Without parameters.

    Args:
        horizon: Future values, H.
        season: Its length in steps; 1 repeats the last value. A season longer than the past is the whole past.
        look_back: Past values that it is given, L; it takes any number.

    Raises:
        ValueError: If a length is below 1.
    """

    def __init__(self, horizon: int, season: int, look_back: int = 96) -> None:
        super().__init__()
        if horizon < 1 or season < 1:
            raise ValueError(f"horizon and season must be at least 1, not {horizon} and {season}")
        self.horizon, self.season, self.look_back = horizon, season, look_back

    def forward(self, past: Tensor) -> Tensor:
        season = min(self.season, past.size(1))
        steps = torch.arange(self.horizon, device=past.device) % season
        return past[:, past.size(1) - season + steps]


class DecomposedLinear(nn.Module):
    """``(B, L, M) -> (B, H, M)``: one linear map of the trend and one of what remains, the same for all variables.

    Source: DLinear, arXiv:2205.13504: both maps begin as the mean of the past.

    Args:
        look_back: Past values, L.
        horizon: Future values, H.
        size: Of the moving average, odd.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(self, look_back: int, horizon: int, size: int = 25, *, device=None, dtype=None) -> None:
        super().__init__()
        self.look_back, self.horizon, self.size = look_back, horizon, size
        self.residual = nn.Linear(look_back, horizon, device=device, dtype=dtype)
        self.trend = nn.Linear(look_back, horizon, device=device, dtype=dtype)
        for layer in (self.residual, self.trend):
            nn.init.constant_(layer.weight, 1 / look_back)

    def forward(self, past: Tensor) -> Tensor:
        trend = moving_average(past, self.size)
        y = self.residual((past - trend).transpose(1, 2)) + self.trend(trend.transpose(1, 2))
        return y.transpose(1, 2)
