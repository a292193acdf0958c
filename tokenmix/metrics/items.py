"""What each test item adds to a number, so that two models can be compared item by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ItemScores:
    """A number as the mean over test items.

    Attributes:
        values: (N,) float64, in the number's unit; their mean is the number. Of a share they are 0 or 100.
        noun: What an item is, in the plural.
        chained: Neighbours share data, as stretches of one series do; others do not.

    Examples:
        >>> float(ItemScores(np.array([100.0, 0.0, 100.0, 100.0]), "images").values.mean())
        75.0
    """

    values: NDArray[np.float64]
    noun: str
    chained: bool = False


def jackknife(whole: float, without: ArrayLike) -> NDArray[np.float64]:
    """Tukey's pseudo-values, for a number that is no mean over items, such as mIoU: (N,) -> (N,).

    Source: J. W. Tukey, "Bias and confidence in not quite large samples" (1958); B. Efron and R. Tibshirani, "An
    introduction to the bootstrap" (1993), section 11.5. They are moved so that their mean is ``whole`` itself.

    Args:
        whole: The number of all items.
        without: The number of all but one, for each item.

    Returns:
        Float64, in the number's unit.

    Examples:
        >>> jackknife(2.0, [2.5, 2.0, 1.5])  # the mean of 1, 2, 3, and without each of them
        array([1., 2., 3.])
    """
    values = np.asarray(without, np.float64)
    return whole + (len(values) - 1) * (values.mean() - values)
