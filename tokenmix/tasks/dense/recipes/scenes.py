"""The demos' recipes: a detector and a segmenter that learn the embedded scenes within minutes."""

from __future__ import annotations

from dataclasses import replace

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.dense.options import LabelAugment
from tokenmix.tasks.detection.options import DetectionOptions
from tokenmix.tasks.segmentation.options import Options as SegmentationOptions

_SOURCE = "ours: basic's optimiser; head, stages and epochs by what one core does in minutes"


def scenes_detect() -> Recipe:
    """Boxes around coins, faces, digits, cups and motorcycles.

    The last of mixernet_pico's stages is left out, so that the first of SSDLite's maps, at stride 8, is fine enough for
    objects of 20 to 60 pixels.
    """
    return Recipe(
        source=_SOURCE,
        expect="69 to 71 % box AP50 on the test pictures",
        cost="5 minutes on one core",
        model=Model(
            name="mixernet_pico", args={"mixers": "aff", "depths": [1, 3, 1], "dims": [32, 96, 160]}, head="ssdlite"
        ),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, clip_grad=5.0),
        schedule=Schedule(epochs=16, warmup_epochs=1, min_lr=2e-5),
        run=Run(data="scenes", batch_size=16),
        task=DetectionOptions(image_size=(96, 128)),
    )


def scenes_segment() -> Recipe:
    """The class of every pixel: one of the five, or the background; with a narrow pyramid, which is what costs most."""
    detect = scenes_detect()
    stages = {"mixers": "aff", "depths": [1, 3, 1, 1], "dims": [32, 96, 160, 192]}
    return replace(
        detect,
        expect="68 to 69 % mIoU on the test pictures",
        model=replace(detect.model, args={**stages, "head_dim": 96, "channels": 64}, head="semantic_fpn"),
        schedule=replace(detect.schedule, epochs=14),
        run=replace(detect.run, batch_size=8),
        task=SegmentationOptions(image_size=(96, 128)),
        augment=LabelAugment(scale=(1, 1)),  # only mirrored, since all pictures show the objects at the same sizes
    )


RECIPES = {"detection": [scenes_detect], "segmentation": [scenes_segment]}
