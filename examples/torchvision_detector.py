"""Feature maps of our models in a detector of torchvision: ``python examples/torchvision_detector.py``.

Any timm model of ours gives its levels with ``features_only=True``; torchvision's pyramid and FCOS do the rest.
(``tokenmix.heads.make_dense`` has detectors ready made.) It learns to find a bright square on noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import tokenmix  # noqa: F401  (registers the models with timm)

SIDE = 64  # pixels


class Levels(nn.Module):
    """``(B, 3, H, W)`` -> three maps of 32 channels at strides 8, 16 and 32, as torchvision's detectors want them."""

    out_channels = 32

    def __init__(self, name: str, **model_args) -> None:
        super().__init__()
        self.features = timm.create_model(name, features_only=True, out_indices=(-3, -2, -1), **model_args)
        self.pyramid = FeaturePyramidNetwork(self.features.feature_info.channels(), self.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.pyramid({str(number): level for number, level in enumerate(self.features(x))})


def picture(random: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A picture (3, SIDE, SIDE) of 0..1 with a bright square, and the square's box."""
    pixels = 0.3 * torch.rand(3, SIDE, SIDE, generator=random)
    size = int(torch.randint(16, 33, (), generator=random))
    left, top = (int(torch.randint(0, SIDE - size + 1, (), generator=random)) for _ in range(2))
    pixels[:, top : top + size, left : left + size] += 0.7
    box = torch.tensor([[left, top, left + size, top + size]], dtype=torch.float32)
    return pixels.clamp(0, 1), {"boxes": box, "labels": torch.tensor([1])}


def main(words: Sequence[str] | None = None) -> list[float]:
    """Train, print the losses, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mixernet_pico", help="any of `tokenmix models` (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args(words)
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)  # a point in each cell
    model = FCOS(Levels(args.model), 2, min_size=SIDE, max_size=SIDE, anchor_generator=anchors).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(args.steps):
        pictures, truths = zip(*(picture(random) for _ in range(4)), strict=True)
        loss = sum(model(list(pictures), list(truths)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")
    pixels, truth = picture(random)
    with torch.no_grad():
        found = model.eval()([pixels])[0]
    print(f"the square is at {truth['boxes'][0].tolist()}, the likeliest box of {len(found['boxes'])} is", end=" ")
    print([round(value) for value in found["boxes"][0].tolist()] if len(found["boxes"]) else "missing")
    return losses


if __name__ == "__main__":
    main()
