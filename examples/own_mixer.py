"""A mixer of your own beside others, on the embedded digits: ``python examples/own_mixer.py``.

On the command line the same is ``tokenmix compare digits --mixers "examples.own_mixer:Blur(kernel=5)" identity``.
``docs/add-a-mixer.md`` says what a mixer promises.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

import tokenmix


class Blur(nn.Module):
    """``(B, dim, H, W) -> (B, dim, H, W)``: each channel is convolved with a kernel of its own, and no other."""

    def __init__(self, dim: int, *, kernel: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare, print the accuracies, and return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/blur", help="where the report goes (default: %(default)s)")
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--seconds", type=float, default=10, help="of measuring (default: %(default)s)")
    args = parser.parse_args(words)
    mixers = [Blur, "examples.own_mixer:Blur(kernel=5)", "identity"]  # an object, a text with options, one of the house
    settings = [f"epochs={args.epochs}"]
    results = tokenmix.compare("digits", mixers, out=args.out, settings=settings, measure_seconds=args.seconds)
    for name, found in results["mixers"].items():
        print(f"{name}: {found['test_top1']:.1f} %")
    return results


if __name__ == "__main__":
    main()
