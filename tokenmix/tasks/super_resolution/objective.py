"""A network that enlarges pictures, with its loss, its pictures and how they are judged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.tasks.objective import Batch, Objective
from tokenmix.tasks.super_resolution.loss import SPECTRUM_WEIGHT, reconstruction_loss
from tokenmix.tasks.super_resolution.metrics import PictureQuality
from tokenmix.tasks.super_resolution.tiles import choose_tiling, strips

LARGEST = 1024**2  # pixels of a picture that is enlarged at once; a larger one in tiles


class SuperResolutionObjective(Objective):
    """image (B, 3, h, w), target (B, 3, s h, s w), both in 0..1 -> L1 of the pixels and a little of the spectra.

    Args:
        model: (B, 3, h, w) -> (B, 3, s h, s w), with its ``scale``, s.
        spectrum_weight: Of the difference between the spectra.
        rounded_luma: Round Y to whole numbers before it is judged, as MATLAB; False: as BasicSR.
        border: Pixels at each side that are not judged; None: the scale.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spectrum_weight: float = SPECTRUM_WEIGHT,
        rounded_luma: bool = True,
        border: int | None = None,
    ) -> None:
        super().__init__()
        if spectrum_weight < 0:
            raise ValueError(f"spectrum_weight must be 0 or more, not {spectrum_weight}")
        if border is not None and border < 0:
            raise ValueError(f"border must be 0 pixels or more, not {border}")
        self.model, self.spectrum_weight, self.rounded_luma = model, spectrum_weight, rounded_luma
        self.border: int = model.scale if border is None else border  # type: ignore[assignment]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and its parts."""
        loss, parts = reconstruction_loss(self.model(batch["image"]), batch["target"], self.spectrum_weight)
        return {"loss": loss, **parts}

    def predict(self, batch: Batch) -> list[Tensor]:
        """Each picture (3, s h, s w), not clamped; of a batch the pictures may differ in size."""
        return [self._enlarged(image) for image in batch["image"]]

    def _enlarged(self, image: Tensor) -> Tensor:
        if image.shape[-2] * image.shape[-1] <= LARGEST:
            return self.model(image[None])[0]
        pixels = image.float().permute(1, 2, 0).cpu().numpy()
        tiling = choose_tiling(self.model, *pixels.shape[:2])
        parts = [torch.from_numpy(strip) for strip in strips(pixels, self.model, tiling)]
        return torch.cat(parts).permute(2, 0, 1).to(image.device)

    def metric(self) -> PictureQuality:
        """PSNR in dB and SSIM on the luma."""
        return PictureQuality(self.border, rounded=self.rounded_luma)
