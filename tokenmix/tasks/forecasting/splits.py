"""The published data sets: how they are split, normalised and cut into windows; the same for anybody's series.

Sources: the loaders of Informer (ETT, arXiv:2012.07436) and Autoformer (the others, arXiv:2106.13008), which the papers
of long-term forecasting have shared since. A part begins ``look_back`` rows early, so that its first window's future is
its first row. Every variable is normalised by its mean and standard deviation over the rows of training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenmix_runtime.series import Series

RATIOS = (0.7, 0.2)  # of the rows: training, test; validation is what remains
PARTS = ("train", "val", "test")
HORIZONS = (96, 192, 336, 720)


@dataclass(frozen=True)
class PublishedSeries:
    """A data set of the literature.

    Attributes:
        name: As papers write it.
        rows: Of its file.
        variables: How many.
        season: Steps of the seasonal forecast that base lines repeat.
        ends: Rows at which training, validation and test end; None: by `RATIOS`.
        unit: Of the values.
        source: Where the file comes from.
    """

    name: str
    rows: int
    variables: int
    season: int
    ends: tuple[int, int, int] | None
    unit: str
    source: str


def _months(per_day: int) -> tuple[int, int, int]:
    """Twelve months of training, four of validation, four of test, of 30 days each."""
    return 12 * 30 * per_day, 16 * 30 * per_day, 20 * 30 * per_day


_ETT = "github.com/zhouhaoyi/ETDataset"
_LSTNET = "github.com/laiguokun/multivariate-time-series-data"
PUBLISHED: dict[str, PublishedSeries] = {
    "etth1": PublishedSeries("ETTh1", 17420, 7, 24, _months(24), "load; oil temperature in degrees Celsius", _ETT),
    "etth2": PublishedSeries("ETTh2", 17420, 7, 24, _months(24), "load; oil temperature in degrees Celsius", _ETT),
    "ettm1": PublishedSeries("ETTm1", 69680, 7, 96, _months(96), "load; oil temperature in degrees Celsius", _ETT),
    "ettm2": PublishedSeries("ETTm2", 69680, 7, 96, _months(96), "load; oil temperature in degrees Celsius", _ETT),
    "electricity": PublishedSeries("Electricity", 26304, 321, 24, None, "kWh in an hour", _LSTNET),
    "traffic": PublishedSeries("Traffic", 17544, 862, 24, None, "occupancy of a road, 0 to 1", _LSTNET),
    "weather": PublishedSeries("Weather", 52696, 21, 144, None, "meteorological units", "bgc-jena.mpg.de/wetter"),
    "exchange": PublishedSeries("Exchange", 7588, 8, 1, None, "US dollars", _LSTNET),
}
ALIASES = {"ecl": "electricity", "exchange_rate": "exchange", "exchange-rate": "exchange"}


def find_published(name: str) -> PublishedSeries | None:
    """The published set of that name, as papers or its usual file write it; None if there is none."""
    key = name.lower()
    return PUBLISHED.get(ALIASES.get(key, key))


def ends_of(series: Series, published: PublishedSeries | None = None) -> tuple[int, int, int]:
    """The rows at which training, validation and test end.

    Args:
        series: The series.
        published: Whose split is used; None for 70 %, 10 % and 20 % of the rows.

    Raises:
        ValueError: If the series is not the published one.
    """
    rows = len(series)
    if published is None:
        train, test = (int(rows * ratio) for ratio in RATIOS)
        return train, rows - test, rows
    if rows != published.rows:
        raise ValueError(
            f"{series.name} has {rows} rows, the published {published.name} {published.rows}: this is another file; "
            "rename it to use it as a series of your own"
        )
    return published.ends if published.ends is not None else ends_of(series)


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every variable, ``(M,)`` each, in the units of the file.

    Attributes:
        mean: Over the rows of training.
        std: Biased, as scikit-learn's; 1 for a variable that never changes there.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Scaler:
        """The scaler of rows ``(T, M)``."""
        still = values.max(0) == values.min(0)  # the deviation of such values may be a rounding error
        return cls(values.mean(0), np.where(still, 1.0, values.std(0)))

    def normalize(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(..., M)`` in standard deviations from the mean."""
        return (values - self.mean) / self.std

    def restore(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(..., M)`` in the units of the file."""
        return values * self.std + self.mean


class Windows:
    """All windows of a part: window ``i`` is the rows ``first + i ... first + i + look_back + horizon``.

    Args:
        values: ``(T, M)`` float32, normalised: the whole series, which all parts share.
        first: The first row of the part's first window.
        end: The row after the part's last one.
        look_back: Past rows of a window, L.
        horizon: Future rows, H.

    Raises:
        ValueError: If the part is too short for one window.
    """

    def __init__(self, values: Tensor, first: int, end: int, look_back: int, horizon: int) -> None:
        self.values = values
        self.first = first
        self.look_back = look_back
        self.horizon = horizon
        self.count = end - first - look_back - horizon + 1
        if self.count < 1:
            raise ValueError(
                f"{end - first} rows are too few for one window of {look_back} past and {horizon} future rows: "
                "shorten them, or give a longer series"
            )

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """``(B,)`` window numbers -> past ``(B, L, M)`` and future ``(B, H, M)``."""
        rows = self.values[self.rows(indices)]
        return rows[:, : self.look_back], rows[:, self.look_back :]

    def rows(self, indices: Tensor) -> Tensor:
        """``(B,)`` window numbers -> the rows of the series that they are made of, ``(B, L + H)``."""
        return self.first + indices[:, None] + torch.arange(self.look_back + self.horizon)
