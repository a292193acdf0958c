"""Numbers that say how good predictions are: counted on the device, added over the processes once."""

from tokenmix.metrics.answers import Answers, GatheredAnswers
from tokenmix.metrics.base import Metric
from tokenmix.metrics.calibration import Calibration
from tokenmix.metrics.classification import ClassScores, TopK
from tokenmix.metrics.detection import CocoAP
from tokenmix.metrics.items import ItemScores, jackknife
from tokenmix.metrics.segmentation import ImageOverlaps, SegmentationOverlap

__all__ = [
    "Answers",
    "Calibration",
    "ClassScores",
    "CocoAP",
    "GatheredAnswers",
    "ImageOverlaps",
    "ItemScores",
    "Metric",
    "SegmentationOverlap",
    "TopK",
    "jackknife",
]
