"""Semantic segmentation: a class for each pixel."""

from tokenmix.tasks.segmentation.task import SegmentationTask

TASKS = (SegmentationTask(),)
