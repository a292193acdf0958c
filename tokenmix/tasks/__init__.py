"""The jobs that can be trained: a task is what a loop must know about one."""

from tokenmix.tasks.base import Batch, Task, to_device
from tokenmix.tasks.classification import DISTILLS, Classification
from tokenmix.tasks.detection import Detection, Instances
from tokenmix.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "detection": Detection,
    "instances": Instances,
    "segmentation": Segmentation,
}

__all__ = [
    "DISTILLS",
    "TASKS",
    "Batch",
    "Classification",
    "Detection",
    "Instances",
    "Segmentation",
    "Task",
    "to_device",
]
