"""Points: a class for each point of a cloud in space."""

from tokenmix.tasks.points.task import PointsTask

TASKS = (PointsTask(),)
