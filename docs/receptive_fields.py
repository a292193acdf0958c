"""Draw ``docs/images/receptive-fields.png`` anew: how far one block of three mixers looks.

The weights are fresh and the input is noise, both by a seed, so that the numbers in ``docs/inspect.md`` come again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import tokenmix  # noqa: F401 - its models are timm's then
from tokenmix.inspection.layers import stages
from tokenmix.inspection.receptive import SHARE, reach_of, receptive_fields, width_of
from tokenmix.pictures.fonts import font_for
from tokenmix.pictures.heat import amounts, enlarged

FILE = Path(__file__).resolve().parent / "images" / "receptive-fields.png"
MIXERS = ("aff", "dsm", "ffnified")
SIZE_PX, TILE_PX, GAP_PX, LINE_PX = 128, 256, 12, 24
LEAST = 1e-18  # the energy that the logarithm shows as dark as none


def fields() -> dict[str, Tensor]:
    """Of each mixer the energy (H, W) of the first stage, one block, of a `mixernet_pico`."""
    x = torch.randn(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))
    found = {}
    for mixer in MIXERS:
        torch.manual_seed(0)
        model = timm.create_model("mixernet_pico", mixers=mixer, depths=(1, 1, 1, 1)).eval()
        found |= {mixer: receptive_fields({"first": next(iter(stages(model).values()))}, model, [x])["first"]}
    return found


def drawn(energies: Mapping[str, Tensor]) -> Image.Image:
    """A column for each mixer: its name, the energy by its fourth root and by its logarithm, width and reach."""
    column, row = TILE_PX + GAP_PX, TILE_PX + LINE_PX
    whole = Image.new("RGB", (column * len(energies) + GAP_PX, 2 * row + 2 * LINE_PX), "white")
    draw = ImageDraw.Draw(whole)
    for number, (name, energy) in enumerate(energies.items()):
        left = GAP_PX + number * column
        logarithm = 1 - energy.clamp(min=LEAST).log10() / torch.tensor(LEAST).log10()
        pictures = (amounts(energy.pow(0.25).numpy()), amounts(logarithm.numpy(), 1.0))
        words = (
            f"{name}: by the fourth root",
            "by the logarithm; darkest: none",
            f"{SHARE:.0%} within {width_of(energy)} px, reach {100 * reach_of(energy):.0f} %",
        )
        for place, text in enumerate(words):
            draw.text((left, place * row + LINE_PX / 2), text, "black", font_for(text, 16), anchor="lm")
        for place, picture in enumerate(pictures):
            whole.paste(enlarged(picture, TILE_PX), (left, place * row + LINE_PX))
    return whole.crop((0, 0, whole.width, 2 * row + LINE_PX + GAP_PX // 2))


if __name__ == "__main__":
    drawn(fields()).quantize(64, dither=Image.Dither.NONE).save(FILE, optimize=True)
