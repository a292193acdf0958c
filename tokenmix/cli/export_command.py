"""Write a model for another runtime; the file is loaded back and compared with PyTorch before it is kept."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tokenmix.checkpoints import open_model
from tokenmix.cli.output import print_json
from tokenmix.data import open_image, preprocess
from tokenmix.export.extras import require
from tokenmix.export.onnx import export_onnx
from tokenmix.export.verify import check, verify_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix export``."""
    add = parser.add_argument
    add("model", help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--to", choices=("onnx",), default="onnx", help="the format (default: %(default)s)")
    add("--out", default="model.onnx", metavar="FILE", help="default: %(default)s")
    add("--image-size", type=int, metavar="PX", help="default: what the model was trained with")
    add("--static", action="store_true", help="fix the batch size at 1")
    add("--images", nargs="*", default=[], metavar="IMAGE", help="pictures to verify with (default: seeded noise)")
    add("--json", action="store_true", help="print the manifest as JSON")


def run(args: argparse.Namespace) -> None:
    """Export, verify, and print what was written."""
    require("onnxruntime")  # without it the file could not be verified
    path = Path(args.out)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file with --out")
    opened = open_model(args.model, tasks=("classification",))
    size = (args.image_size, args.image_size) if args.image_size is not None else opened.image_size
    kind = opened.preparation
    images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    if args.images:
        images = torch.stack([preprocess(open_image(path), image_size=size, **kind) for path in args.images])
    manifest = export_onnx(
        opened.model, path, image_size=size, dynamic_batch=not args.static, labels=opened.classes, **kind
    )
    try:
        found = verify_onnx(path, opened.model, images, batch_size=1 if args.static else 64)
        check(found, name=str(path))
    except ValueError:
        path.unlink()
        raise
    if args.json:
        print_json({**manifest, "file": str(path), **found})
        return
    print(f"{path}: {opened.name}, {size[0]} x {size[1]} pixels, {path.stat().st_size / 1e6:.2f} MB")
    print(f"largest difference from PyTorch {found['max_error']:.1e}, same class for {found['top1_agreement']:.0f} %")
