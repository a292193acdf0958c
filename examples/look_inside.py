# %% [markdown]
"""How far does a mixer see, and what does it keep? ``python examples/look_inside.py``, or cell by cell in a notebook.

Two small networks that differ in the mixer alone look at a photograph that scikit-image brings. Their weights are
random: an architecture says how far it *can* see before it has learnt anything. Name run folders instead of
``mixernet_pico`` to see what yours have learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import tokenmix
from tokenmix.checkpoints import LoadedModel, described_model

SIZE_PX = 64


# %% A model of the house, with any mixer in its slots
def network(mixer: str, seed: int = 0) -> LoadedModel:
    """``mixernet_pico`` with that mixer and random weights."""
    torch.manual_seed(seed)
    args = {"mixers": mixer, "num_classes": 2}
    model = tokenmix.create_model("mixernet_pico", **args)
    size = [SIZE_PX, SIZE_PX]
    info = {"task": "classification", "classes": ["cat", "no cat"], "image_size": size, "model_args": args}
    return described_model(model.eval(), {"model": f"mixernet_pico with {mixer}", **info})


# %% Both beside one another: a page, PNG files, and the same as numbers
def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Inspect, print how far each stage sees, and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", nargs=2, default=["aff", "depthwise"], help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/inside"), help="of the page (default: %(default)s)")
    args = parser.parse_args(words)
    from skimage import data, io

    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.out / "cat.png"
    io.imsave(picture, data.chelsea()[:, 60:360], check_contrast=False)
    first, second = map(network, args.mixers)
    found = tokenmix.inspect(first, picture, against=second, out=args.out, image_size=SIZE_PX)
    for name, numbers in found["models"].items():
        for stage, field in numbers["receptive_fields"].items():
            print(f"{name}, {stage}: 95 % of what counts lies within {field['width_px']} px")
    return found


if __name__ == "__main__":
    main()
