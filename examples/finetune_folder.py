"""Fine-tune on a folder of photographs, judge, and ask: ``python examples/finetune_folder.py photos/scenes``.

The folder holds a folder per class, below ``train``, ``val`` and ``test``. ``--weights`` are a run of yours, a file of
weights, or ``pretrained``, which are fetched; without them training starts from fresh ones. See ``docs/finetune.md``,
and ``examples/photographs.py`` for a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import tokenmix


def main(words: Sequence[str] | None = None) -> float:
    """Train, print what comes of it, and return the percentage of test pictures that are named rightly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", default="runs/finetuned", help="the run's folder (default: %(default)s)")
    parser.add_argument("--model", default="mixernet_pico")
    parser.add_argument("--weights", default="None")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--download", action="store_true", help="allow a named data set to be downloaded")
    args = parser.parse_args(words)

    values = {"model": args.model, "weights": args.weights, "image_size": args.image_size, "epochs": args.epochs}
    # The recipe `finetune` lets only the classifier learn at first, which fresh weights would make pointless.
    recipe = "basic" if args.weights == "None" else "finetune"
    tokenmix.train(args.folder, recipe, out=args.out, settings=values, download=args.download)
    found = tokenmix.evaluate(args.out, args.folder, split="test")
    print(f"{found['top1']:.1f} % of the test pictures are named rightly")
    picture = sorted((args.folder / "test").rglob("*.*"))[0]
    print(picture, tokenmix.predict(args.out, picture, top=1)[0]["top"])
    return found["top1"]


if __name__ == "__main__":
    main()
