"""Write a model for other runtimes; each file is loaded back and compared with PyTorch before it is kept.

Beside STEM.onnx and the like lies STEM.json: names, shapes, preparation, labels, licence, hashes, measured errors.
"""

from __future__ import annotations

import argparse
from typing import Any

from tokenmix.argument_types import number
from tokenmix.cli.options import add_common
from tokenmix.cli.output import print_json
from tokenmix.export.formats import FORMATS, PRECISIONS
from tokenmix.export.main import export, file_parts
from tokenmix_runtime.terminal import say

LOSS = 1.0  # points of accuracy from which on a file's loss is said first
DYNAMIC = ("batch", "size", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix export``."""
    add = parser.add_argument
    add("model", help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--to", nargs="+", default=["onnx"], metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: onnx)")
    add("--out", default="model", metavar="STEM", help="or the name of a file of one format (default: %(default)s)")
    add_common(parser, "--image-size")
    add(
        "--dynamic",
        nargs="+",
        metavar="WHAT",
        help="batch, size (any size) or none (default, if the formats can: batch, and size of what enlarges pictures)",
    )
    add("--precision", default="fp32", metavar="P", help=f"{', '.join(PRECISIONS)} (default: %(default)s)")
    add("--inside", nargs="+", default=[], metavar="PART", help=f"what the file does itself: {', '.join(file_parts())}")
    add(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="pictures, or a folder, to verify with (default: those of --calibration, else bundled photographs)",
    )
    add("--calibration", metavar="DIR", help="pictures to choose the ranges of int8 with")
    add("--tolerance", type=number("tolerance"), metavar="X", help="largest relative error (default: by precision)")
    add_common(parser, "--json", json={"help": "print the manifest as JSON"})


def run(args: argparse.Namespace) -> None:
    """Export, verify, and print what was written."""
    dynamic = words(args.dynamic or [])
    for word in dynamic:
        if word not in DYNAMIC:
            raise ValueError(f"--dynamic must be among {', '.join(DYNAMIC)}, not {word!r}")
    if "none" in dynamic and len(dynamic) > 1:
        raise ValueError("--dynamic none goes with nothing else")
    formats = words(args.to)
    manifest = export(
        args.model,
        formats,
        args.out,
        image_size=args.image_size,
        dynamic_batch="batch" in dynamic if dynamic else None,
        dynamic_size="size" in dynamic if dynamic else None,
        precision=args.precision,
        inside=words(args.inside),
        images=args.images,
        calibration=args.calibration,
        tolerance=args.tolerance,
    )
    if args.json:
        print_json(manifest)
        return
    for name in dict.fromkeys(formats):
        file = manifest["files"][name]
        for line in warnings(file):
            say(line)
        say(f"{file['file']}: {manifest['model']}, {file['bytes'] / 1e6:.2f} MB, input {told(file['input_shape'])}")
        say(f"  {errors(file['errors'])}")
        if "quantized_parts" in file:
            say(f"  {eight_bits(file)}")


def words(given: list[str]) -> list[str]:
    """Words that are separated by spaces or commas."""
    return [word for part in given for word in part.split(",") if word]


def told(shape: list[Any]) -> str:
    """A shape for people."""
    return " x ".join(map(str, shape))


def errors(found: dict[str, Any]) -> str:
    """What verification found, for people."""
    if not found["verified"]:
        return f"NOT verified in its runtime: {found['reason']}"
    agreement = "".join(
        f", {key.removesuffix('_agreement').replace('top1', 'same class')} {value:.1f} %"
        for key, value in found.items()
        if key.endswith("_agreement")
    )
    if "top1" in found:
        agreement += ", top-1 {:.1f} % in PyTorch and {:.1f} % here".format(*found["top1"])
    return (
        f"verified on {found['images']} {found['source']}: largest difference {found['max_error']:.1e}, relative "
        f"{found['relative_error']:.1e}{agreement}"
    )


def warnings(file: dict[str, Any]) -> list[str]:
    """What an int8 file lost, or did not gain, and what helps: the first that is said."""
    found = []
    if reason := file.get("slow_because"):
        before, after = file["latency_ms"]
        runtime = file.get("latency_in", "ONNX Runtime")
        other = "--to openvino" if runtime == "ONNX Runtime" else "--to onnx"
        found.append(
            f"int8 does not pay here: {before:.2f} ms in float, {after:.2f} ms in int8 (one thread, {runtime}), "
            f"since {reason}. It may pay in another runtime ({other} --precision int8) or on other processors; "
            "--precision fp16 halves the file too, and fp32 is the fastest here"
        )
    scores = file["errors"].get("top1")
    if scores and file["precision"] != "fp32" and scores[0] - scores[1] > LOSS:
        found.append(
            f"{file['precision']} loses {scores[0] - scores[1]:.1f} points of top-1 on these pictures: give more of "
            "them to --calibration, or choose fp16 or fp32"
        )
    return found


def eight_bits(file: dict[str, Any]) -> str:
    """What became of an int8 file's layers, size and speed, for people."""
    layers = f"int8: {file['quantized_parts']} layers, {file['float_parts']} stay in float"
    told = f"{layers}, {file['signal_to_noise_db']:.1f} dB of signal to noise"
    if "latency_ms" not in file:
        return told
    (large, small), (before, after) = file["bytes_before_after"], file["latency_ms"]
    return f"{told}; {large / 1e6:.2f} to {small / 1e6:.2f} MB, {before:.1f} to {after:.1f} ms per image (one thread)"
