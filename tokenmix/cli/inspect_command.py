"""Look inside a model: what it depends on, what fills its mixers' slots, which frequencies it keeps.

For pictures: effective receptive fields of the stages, query, key, activation and value of a mixer, the kernel that a
frequency filter equals, class activation maps, spectra by depth. A series shows the kernel in time, a photograph that
is enlarged its local attribution, a cloud the voxels that count. Writes a page, report.html, and PNG files.
"""

from __future__ import annotations

import argparse

from tokenmix.cli.options import add_common
from tokenmix.cli.output import print_json
from tokenmix.inspection import inspect
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix inspect``."""
    add = parser.add_argument
    add(
        "model",
        help="a run's folder, RUN/checkpoints/step-*.pt, a .safetensors file, an official checkpoint, a model's name",
    )
    add(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="picture files, folders of them, patterns such as '*.jpg'; of a forecaster a series, of points clouds",
    )
    add("--against", metavar="MODEL", help="a second model, or another epoch, shown beside it, and how alike they are")
    add("--layer", metavar="NAME", help="the layer that is opened: stages.2.blocks.0 (default: the last of each stage)")
    add("--target", metavar="CLASS", help="the class to explain (default: what the model says)")
    add("--out", default="inspect", metavar="DIR", help="folder of the page and the pictures (default: %(default)s)")
    add_common(parser, "--image-size", "--device", "--json", json={"help": "print the numbers as JSON"})


def run(args: argparse.Namespace) -> None:
    """Look, write, and say what was found."""
    found = inspect(
        args.model,
        args.images,
        against=args.against,
        out=args.out,
        layer=args.layer,
        target=args.target,
        image_size=args.image_size,
        device=args.device,
        log=(lambda line: None) if args.json else say,
    )
    if args.json:
        print_json({name: value for name, value in found.items() if name != "groups"})
        return
    for name, entry in found["models"].items():
        for layer, field in entry.get("receptive_fields", {}).items():
            say(f"{name}: {layer} looks {field['width_px']} px wide, at {100 * field['reach']:.0f} % of the pixels")
        for file, answer in entry.get("answers", {}).items():
            if answer:
                say(f"{name}: {file}: {answer}")
