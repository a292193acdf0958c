"""Numbers that say how good predictions are: counted on the device, added over the processes once."""

from tokenmix.metrics.base import Metric
from tokenmix.metrics.classification import Confusion, TopK
from tokenmix.metrics.detection import CocoAP
from tokenmix.metrics.segmentation import SegmentationOverlap

__all__ = ["CocoAP", "Confusion", "Metric", "SegmentationOverlap", "TopK"]
