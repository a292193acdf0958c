"""Rewrite an official checkpoint under our key names as safetensors, or write the official names back."""

from __future__ import annotations

import argparse

from tokenmix.checkpoints import FORMATS, convert
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix convert``."""
    add = parser.add_argument
    add("source", help="a checkpoint of an official project, or one of ours")
    add("target", help="the file to write: .safetensors, with --to official also .pth")
    add("--to", choices=FORMATS, default="tokenmix", help="whose key names to write (default: %(default)s)")
    add("--raw", action="store_true", help="take the raw weights although there are averaged (EMA) ones")
    add("--norm", help="AFFNet: group (default), layer or batch, or the official name")
    add("--act", help="AFFNet: silu (default), relu, ..., or the official name")
    add("--threshold", type=float, help="AFFNet: soft-shrink threshold (default 0.01)")
    add("--head-act", help="AFFNet's DeepLabv3 and SSDLite: silu (default), relu, ..., or the official name")
    add("--output-stride", type=int, choices=(8, 16), help="AFFNet's DeepLabv3: 16 (default) or 8")
    add("--rates", type=int, nargs=3, help="AFFNet's DeepLabv3: its dilations (default 6 12 18)")


def run(args: argparse.Namespace) -> None:
    """Convert and say what it was."""
    names = ("norm", "act", "threshold", "head_act", "output_stride", "rates")
    options = {key: getattr(args, key) for key in names if getattr(args, key) is not None}
    model = convert(args.source, args.target, to=args.to, ema=not args.raw, **options)
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{args.target}: {count:,} parameters")
