"""Exported models without PyTorch: `Predictor` needs only NumPy, Pillow and onnxruntime.

    from tokenmix.runtime import Predictor

    predict = Predictor("model.onnx")
    print(predict("cat.jpg").top(5))

``python -m tokenmix.runtime MODEL.onnx IMAGE...`` prints the same.
"""

from tokenmix.runtime.images import ImageError
from tokenmix.runtime.manifest import Manifest, ModelError
from tokenmix.runtime.predictor import Predictor
from tokenmix.runtime.results import Classification, Detections, SegmentMap

__all__ = ["Classification", "Detections", "ImageError", "Manifest", "ModelError", "Predictor", "SegmentMap"]
