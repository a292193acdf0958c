"""Published weights, adapted to a folder of photographs."""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.classification.options import Augment, Options

# up to so many training images: epochs, of them frozen, images per step
_BY_SIZE = ((1_000, 30, 5, 32), (10_000, 20, 2, 64))
_MANY = (10, 1, 128)


def finetune(images: int = 500) -> Recipe:
    """FFNet-1 with its published weights on your own photographs.

    First only the new classifier learns, while nothing that it sends back can harm the rest; then all layers, the
    early ones, which see the same edges everywhere, slowly.

    Args:
        images: How many there are to learn from: the fewer, the more often each is seen.
    """
    epochs, freeze, batch = next((rest for most, *rest in _BY_SIZE if images <= most), _MANY)
    return Recipe(
        source="ours: layer-wise decay as in BEiT (arXiv:2106.08254, app. H), the rest usual values; not tuned on any "
        "data set",
        expect="depends on the photographs; 500 of them take some 15,000 passes forward and back at 256 px",
        model=Model(name="ffnet_1.dist_in1k", weights="pretrained", drop_path_rate=0.1),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05, layer_decay=0.75, clip_grad=1.0),
        schedule=Schedule(epochs=epochs, freeze_epochs=freeze, warmup_epochs=1, min_lr=1e-6),
        run=Run(batch_size=batch),
        task=Options(image_size=(256, 256), preprocess="model", label_smoothing=0.1),
        augment=Augment(name="standard"),
    )
