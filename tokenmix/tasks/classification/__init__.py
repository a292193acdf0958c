"""Classification: one class per picture."""

from tokenmix.tasks.classification.task import ClassificationTask

TASKS = (ClassificationTask(),)
