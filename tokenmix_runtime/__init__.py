"""Exported models without PyTorch: `Predictor` needs only NumPy, Pillow and onnxruntime.

    from tokenmix_runtime import Predictor

    predict = Predictor("model.onnx")
    print(predict("cat.jpg").top(5))

``python -m tokenmix_runtime MODEL.onnx IMAGE...`` prints the same.
"""

from tokenmix_runtime.images import ImageError
from tokenmix_runtime.manifest import Manifest, ModelError
from tokenmix_runtime.predictor import Predictor
from tokenmix_runtime.results import Classification, Detections, Enlarged, SegmentMap

__all__ = [
    "Classification",
    "Detections",
    "Enlarged",
    "ImageError",
    "Manifest",
    "ModelError",
    "Predictor",
    "SegmentMap",
]
