"""Detection and instance segmentation: boxes, and perhaps masks, with a class and a score."""

from tokenmix.tasks.detection.task import DetectionTask, InstancesTask

TASKS = (DetectionTask(), InstancesTask())
