"""Mixup and cutmix, timm's, with random numbers that are a function of a seed."""

from __future__ import annotations

import torch
from timm.data import Mixup

from tokenmix.data.random_numbers import kept_generators, seed_generators
from tokenmix.tasks import Batch
from tokenmix.tasks.classification.options import Augment


class Mixing:
    """Mixes the images of a batch in pairs, in place; labels (B,) become shares of the classes (B, K).

    One draw decides for the whole batch, as in timm's default mode. Of an odd number of images the last stays as it is.
    Labels are not smoothed here: the task does that.

    Args:
        augment: The two alphas and how often which.
        num_classes: K.
    """

    def __init__(self, augment: Augment, num_classes: int) -> None:
        self.mix = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            switch_prob=augment.mix_switch,
            label_smoothing=0.0,
            num_classes=num_classes,
        )
        self.num_classes = num_classes

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """The batch, mixed by draws that depend on ``seed`` only."""
        image, label = batch["image"], batch["label"]
        even = len(image) // 2 * 2
        target = torch.nn.functional.one_hot(label, self.num_classes).float()
        if even:
            with kept_generators():
                seed_generators(seed)
                image[:even], target[:even] = self.mix(image[:even], label[:even])
        return {**batch, "label": target}
