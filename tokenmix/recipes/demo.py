"""The demos' recipes: a detector and a segmenter that learn the embedded scenes within minutes."""

from __future__ import annotations

from dataclasses import replace

from tokenmix.recipes.recipe import Recipe


def scenes_detect() -> Recipe:
    """Boxes around coins, faces, digits, cups and motorcycles.

    The last of mixernet_pico's stages is left out, so that the first of SSDLite's maps, at stride 8, is fine enough for
    objects of 20 to 60 pixels.
    """
    return Recipe(
        source="ours: basic's optimiser; head, stages and epochs by what one core does in minutes",
        expect="69 to 71 % box AP50 on the test pictures",
        cost="5 minutes on one core",
        model="mixernet_pico",
        model_args={"mixers": "aff", "depths": [1, 3, 1], "dims": [32, 96, 160]},
        head="ssdlite",
        task="detection",
        data="scenes",
        image_size=(96, 128),
        batch_size=16,
        epochs=16,
        warmup_epochs=1,
        lr=2e-3,
        min_lr=2e-5,
        weight_decay=0.05,
        clip_grad=5.0,
    )


def scenes_segment() -> Recipe:
    """The class of every pixel: one of the five, or the background; with a narrow pyramid, which is what costs most."""
    return replace(
        scenes_detect(),
        expect="68 to 69 % mIoU on the test pictures",
        model_args={
            "mixers": "aff",
            "depths": [1, 3, 1, 1],
            "dims": [32, 96, 160, 192],
            "head_dim": 96,
            "channels": 64,
        },
        head="semantic_fpn",
        task="segmentation",
        augment_args={"scale": [1, 1]},  # only mirrored, since all pictures show the objects at the same sizes
        batch_size=8,
        epochs=14,
    )
