"""Numbers that say how good predictions are: counted on the device, added over the processes once."""

from tokenmix.metrics.answers import Answered, Answers
from tokenmix.metrics.base import Metric
from tokenmix.metrics.calibration import Calibration
from tokenmix.metrics.classification import Confusion, TopK

__all__ = ["Answered", "Answers", "Calibration", "Confusion", "Metric", "TopK"]
