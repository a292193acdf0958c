"""The network for one cloud's geometry: what can be exported, while other clouds have other shapes all along."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.tasks.points.model import PointUNet

# Why there is no file for other runtimes, in one sentence.
NO_EXPORT = (
    "a network on points has the shapes of the cloud that it sees at every level, which ONNX and the other formats "
    "cannot hold: predict with tokenmix itself, or, for a cloud whose points stay where they are, "
    "torch.export tokenmix.tasks.points.fixed.FixedCloud"
)


class FixedCloud(nn.Module):
    """``(P, in_chans) -> (P, num_classes)``: the network on points that stay where they are, with other features.

    Tables of neighbours are constants then, so that `torch.export.export` takes it.

    Args:
        model: In evaluation mode.
        grid_coord: (P, 3) integers, see `PointUNet.forward`.
        offset: (B,) integers.

    Examples:
        >>> model = PointUNet((1, 1), (8, 8), (1,), (8,), num_classes=2).eval()
        >>> fixed = FixedCloud(model, torch.tensor([[0, 0, 0], [0, 0, 1]]), torch.tensor([2]))
        >>> fixed(torch.zeros(2, 6)).shape
        torch.Size([2, 2])
    """

    def __init__(self, model: PointUNet, grid_coord: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.model = model
        self.pyramid = model.pyramid(grid_coord, offset)
        parameter = next(model.parameters())
        with torch.no_grad():  # every table is made once, before anybody traces
            model.classify(parameter.new_zeros(len(grid_coord), model.in_chans), self.pyramid)

    def forward(self, feat: Tensor) -> Tensor:
        return self.model.classify(feat, self.pyramid)


class OneCloud(FixedCloud):
    """The same for a batch of that one cloud: ``(1, P, in_chans) -> (1, P, num_classes)``."""

    def forward(self, feat: Tensor) -> Tensor:
        return super().forward(feat[0])[None]
