"""Numbers that say how good predictions are: counted on the device, added over the processes once."""

from tokenmix.metrics.base import Metric
from tokenmix.metrics.classification import Confusion, TopK

__all__ = ["Confusion", "Metric", "TopK"]
