"""Our models as encoders of segmentation_models_pytorch: ``python -m examples.smp_encoder``.

Every model of ours is an encoder there, by its name with ``tu-`` in front: ``pip install segmentation-models-pytorch``.
(``tokenmix.heads.make_dense`` has segmenters ready made.) It learns to mark bright squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

import tokenmix  # noqa: F401  (registers the models with timm)
from examples.torchvision_detector import SIDE, picture


def main(words: Sequence[str] | None = None) -> list[float]:
    """Train, print the losses, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="mixernet_pico", help="any of `tokenmix models` (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args(words)
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    model = smp.Unet(f"tu-{args.encoder}", encoder_weights=None, classes=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(args.steps):
        pictures, truths = zip(*(picture(random) for _ in range(4)), strict=True)
        masks = torch.zeros(4, 1, SIDE, SIDE)
        for mask, truth in zip(masks, truths, strict=True):
            left, top, right, bottom = truth["boxes"][0].long().tolist()
            mask[:, top:bottom, left:right] = 1
        loss = F.binary_cross_entropy_with_logits(model(torch.stack(pictures)), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
