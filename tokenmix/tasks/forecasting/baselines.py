"""What a forecast is compared with: the last season again, and a linear map of trend and remainder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.tasks.forecasting.network import moving_average


class SeasonalNaive(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the last season of the past, again and again. Without parameters.

    Args:
        horizon: Future values, H.
        season: Its length in steps; 1 repeats the last value. So is done where the past is shorter than a season:
            another length would repeat it out of step.
        look_back: Past values that it is given, L; it takes any number.

    Raises:
        ValueError: If a length is no whole number from 1 on.
    """

    def __init__(self, horizon: int, season: int, look_back: int = 96) -> None:
        super().__init__()
        if not all(isinstance(one, int) and one >= 1 for one in (horizon, season)):
            raise ValueError(f"horizon and season must be whole numbers from 1 on, not {horizon} and {season}")
        self.horizon, self.season, self.look_back = horizon, season, look_back

    def forward(self, past: Tensor) -> Tensor:
        season = self.season if self.season <= past.size(1) else 1
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

    Raises:
        ValueError: The size is no odd whole number.
    """

    def __init__(self, look_back: int, horizon: int, size: int = 25, *, device=None, dtype=None) -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"the size of a moving average must be an odd whole number, not {size}")
        self.look_back, self.horizon, self.size = look_back, horizon, size
        self.residual = nn.Linear(look_back, horizon, device=device, dtype=dtype)
        self.trend = nn.Linear(look_back, horizon, device=device, dtype=dtype)
        for layer in (self.residual, self.trend):
            nn.init.constant_(layer.weight, 1 / look_back)

    def forward(self, past: Tensor) -> Tensor:
        trend = moving_average(past, self.size)
        y = self.residual((past - trend).transpose(1, 2)) + self.trend(trend.transpose(1, 2))
        return y.transpose(1, 2)
