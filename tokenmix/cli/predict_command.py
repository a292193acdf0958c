"""Name what is on pictures: the most likely classes with bars."""

from __future__ import annotations

import argparse

import torch

from tokenmix.checkpoints import open_model
from tokenmix.cli.output import bar, print_json
from tokenmix.data import open_image, preprocess
from tokenmix.evaluate import find_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix predict``."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="picture files")
    add("--model", required=True, help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--top", type=int, default=5, metavar="K", help="how many classes to show (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--json", action="store_true", help="print the answers as JSON")


def run(args: argparse.Namespace) -> None:
    """Predict every picture; a broken one is named, the others are still answered."""
    if args.top < 1:
        raise ValueError(f"--top must be 1 or more, got {args.top}")
    device = find_device(args.device)
    opened = open_model(args.model, tasks=("classification",))
    model = opened.model.to(device)
    answers, broken = [], []
    for path in args.images:
        try:
            picture = open_image(path)
        except (ValueError, OSError) as error:
            broken.append(str(error))
            continue
        image = preprocess(picture, opened.image_size, **opened.preparation)
        with torch.inference_mode():
            shares = model(image[None].to(device))[0].float().softmax(0).cpu()
        values, indices = shares.topk(min(args.top, len(shares)))
        names = [opened.classes[i] if opened.classes else f"class {i}" for i in indices.tolist()]
        answers.append({"image": path, "top": [[n, v] for n, v in zip(names, values.tolist(), strict=True)]})
    if args.json:
        print_json(answers)
    else:
        for answer in answers:
            print(answer["image"])
            width = max(len(name) for name, _ in answer["top"])
            for name, share in answer["top"]:
                print(f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %")
    if broken:
        raise ValueError("\n".join(broken))
