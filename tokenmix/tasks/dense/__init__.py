"""Pictures with boxes, masks or a label for each pixel."""

from tokenmix.tasks.dense.augment import dense_augment
from tokenmix.tasks.dense.loader import DenseLoader, dense_preprocess
from tokenmix.tasks.dense.options import DENSE_AUGMENTS, DenseAugment
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.dense.scenes import load_scenes
from tokenmix.tasks.dense.sets import DENSE_TASKS, IGNORED, DenseData, DenseSet, LabelSet, Objects, ObjectSet
from tokenmix.tasks.dense.sources import load_dense

__all__ = [
    "DENSE_AUGMENTS",
    "DENSE_TASKS",
    "IGNORED",
    "DenseAugment",
    "DenseData",
    "DenseLoader",
    "DenseSet",
    "LabelSet",
    "ObjectSet",
    "Objects",
    "Problems",
    "dense_augment",
    "dense_preprocess",
    "load_dense",
    "load_scenes",
]
