"""The former place of `tokenmix_runtime`, which needs no torch: what was imported from here still can be."""

import sys

from tokenmix_runtime import Classification, Detections, ImageError, Manifest, ModelError, Predictor, SegmentMap
from tokenmix_runtime.__main__ import main

__all__ = ["Classification", "Detections", "ImageError", "Manifest", "ModelError", "Predictor", "SegmentMap"]

if __name__ == "__main__":
    sys.exit(main())
