"""One training by two processes: ``torchrun --nproc-per-node=2 examples/two_processes.py photos``.

Each takes its part of every batch, so that the result does not depend on their number but for rounding (batch norm
aside, whose statistics are each process's own). On GPUs say ``--device cuda``; ``docs/recipes.md`` has more machines.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import tokenmix


def main(words: Sequence[str] | None = None) -> None:
    """Train; the first process says what to do next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--out", default="runs/two", help="the run's folder, which all of them see")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--image-size", type=int, default=64)
    args = parser.parse_args(words)
    values = {"model": "mixernet_pico", "image_size": args.image_size, "epochs": args.epochs}
    tokenmix.train(args.folder, "basic", out=args.out, settings=values, device=args.device)
    if os.environ.get("RANK", "0") == "0":
        print(f"tokenmix eval {args.out} --data {args.folder}")


if __name__ == "__main__":
    main()
