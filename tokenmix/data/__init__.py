"""Samples in, batches out, exactly: where they lie, how they are decoded, in which order. It knows no label."""

from tokenmix.data.dataset import IMAGENET_MEAN, IMAGENET_STD, DataSet, PictureData, Pictures, Samples, Skipped
from tokenmix.data.loader import Batch, BatchLoader
from tokenmix.data.prepare import normalise, preprocess, preprocess_file, to_pil
from tokenmix_runtime.images import ImageError, open_image
from tokenmix_runtime.preprocess import resize_and_crop

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "BatchLoader",
    "DataSet",
    "ImageError",
    "PictureData",
    "Pictures",
    "Samples",
    "Skipped",
    "normalise",
    "open_image",
    "preprocess",
    "preprocess_file",
    "resize_and_crop",
    "to_pil",
]
