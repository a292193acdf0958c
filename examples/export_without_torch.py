"""Export a model and run the file without PyTorch: ``python examples/export_without_torch.py runs/photos cat.jpg``.

The second half runs in a process that cannot import torch, as on a server where it is not installed; it needs NumPy,
Pillow and onnxruntime.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

import tokenmix

SERVER = """
import sys
for name in ("torch", "torchvision", "timm"):
    sys.modules[name] = None  # an import of it fails

from tokenmix_runtime import Predictor

predict = Predictor(sys.argv[1])
for picture in sys.argv[2:]:
    print(picture, predict(picture).top(3))
"""


def main(words: Sequence[str] | None = None) -> str:
    """Export, run the file in another process, and return what that printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run's folder or a weights file")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--out", default="exported.onnx")
    args = parser.parse_args(words)
    manifest = tokenmix.export(args.model, "onnx", args.out)
    print(f"{args.out}: {manifest['task']}, the same answers as PyTorch's")
    command = [sys.executable, "-c", SERVER, args.out, *args.pictures]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(told, end="")
    return told


if __name__ == "__main__":
    main()
