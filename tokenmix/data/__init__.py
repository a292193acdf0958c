"""Labelled pictures: where they come from, how they are decoded, and how they become batches."""

from tokenmix.data.check import check_data
from tokenmix.data.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ArrayImages,
    DataSet,
    FileImages,
    ImageSet,
    Skipped,
    TableImages,
)
from tokenmix.data.dense import (
    DenseAugment,
    DenseData,
    DenseLoader,
    DenseSet,
    dense_augment,
    dense_preprocess,
    load_dense,
)
from tokenmix.data.loader import Batch, Loader
from tokenmix.data.pack import pack_data
from tokenmix.data.sources import KNOWN, load_data
from tokenmix.data.transforms import AUGMENTS, Augment, preprocess, preprocess_file, to_pil
from tokenmix.runtime.images import ImageError, open_image
from tokenmix.runtime.preprocess import resize_and_crop

__all__ = [
    "AUGMENTS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "KNOWN",
    "ArrayImages",
    "Augment",
    "Batch",
    "DataSet",
    "DenseAugment",
    "DenseData",
    "DenseLoader",
    "DenseSet",
    "FileImages",
    "ImageError",
    "ImageSet",
    "Loader",
    "Skipped",
    "TableImages",
    "check_data",
    "dense_augment",
    "dense_preprocess",
    "load_data",
    "load_dense",
    "open_image",
    "pack_data",
    "preprocess",
    "preprocess_file",
    "resize_and_crop",
    "to_pil",
]
