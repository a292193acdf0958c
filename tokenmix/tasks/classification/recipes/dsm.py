"""The dynamic spectrum mixer (arXiv:2309.06721), reconstructed: no recipe is known, this one is its siblings'."""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.classification.options import Augment, Options

# fmt: off
#            drop path  EMACs
TABLE = {
    "dsm_ti": (0.05,     2.26),
    "dsm_t":  (0.1,      4.78),
    "dsm_s":  (0.3,      8.87),
    "dsm_b":  (0.5,     15.6),
}
# fmt: on


def _scratch(model: str, drop_path_rate: float, emacs: float) -> Recipe:
    return Recipe(
        source="ours: the paper's recipe is unknown; the values are those of networks of its time and kind, "
        "ConvNeXt (arXiv:2201.03545, app. A.1) and ActiveMLP (arXiv:2203.06108) among them",
        expect="unknown: the abstract says 83.8 % top-1 for a variant that it does not name",
        cost=f"{emacs} EMACs",
        model=Model(name=model, drop_path_rate=drop_path_rate),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05, clip_grad=1.0),
        schedule=Schedule(epochs=300, warmup_epochs=20, min_lr=1e-6),
        run=Run(data="imagenet", batch_size=1024, precision="bfloat16"),
        task=Options(image_size=(224, 224), preprocess="model", label_smoothing=0.1),
        augment=Augment(name="imagenet", rand_augment="rand-m9-mstd0.5-inc1", erase_rate=0.25, mixup=0.8, cutmix=1.0),
    )


RECIPES = rows(TABLE, "{}", "{}, 224 px, 300 epochs.", _scratch)
