"""Learning rates of a backbone under a head: by layer, as mmdetection groups them, and apart from the head's."""

from __future__ import annotations

from torch import nn

from tokenmix.heads.levels import Place, levels_of

BLOCKS = 3  # of the stage before the last one that mmdetection counts as one layer


def learning_rates(
    module: nn.Module, layer_decay: float | None = None, layers: int | None = None, head_lr: float = 1.0
) -> dict[str, float]:
    """Factors on the learning rate of a dense model's parameters, by name.

    What is outside of the backbone has ``head_lr``, the norms behind the backbone's levels 1, and in the backbone a
    layer has ``layer_decay`` times the factor of the layer above it, the last one ``layer_decay``. With ``layers`` = N
    they are mmdetection's: the stem 0, each early stage the next one; of the stage before the last one each three
    blocks, its downsampling counted as the first; and the last stage N.

    Args:
        module: Made by ``tokenmix.heads.make_dense``.
        layer_decay: The factor from layer to layer; None: 1.
        layers: N, or None: the stem, every downsampling and every block is a layer.
        head_lr: See above.

    Raises:
        ValueError: The backbone has more layers than N.
    """
    prefix, levels = levels_of(module)
    below = {name: name.removeprefix(f"{prefix}.") for name, _ in module.named_parameters()}
    places = {name: levels.place(inner) for name, inner in below.items() if inner != name}
    found = sorted({place for place in places.values() if place is not None})
    numbers = dict(zip(found, range(len(found)), strict=True)) if layers is None else _numbered(found, layers)
    top = 1 + max(numbers.values())

    def factor(name: str) -> float:
        if name not in places:
            return head_lr
        place = places[name]
        return 1.0 if place is None else (layer_decay or 1.0) ** (top - numbers[place])

    return {name: factor(name) for name in below}


def _numbered(places: list[Place], layers: int) -> dict[Place, int]:
    """The layer of each place in mmdetection's grouping."""
    last = places[-1][0]
    numbers = {
        (stage, block): layers if stage == last else stage + 1 + (block // BLOCKS if stage == last - 1 else 0)
        for stage, block in places
    }
    if max(numbers.values()) > layers:
        raise ValueError(
            f"recipe key 'task.layer_decay_layers': the backbone has {max(numbers.values())} layers below its last "
            f"stage, more than {layers}"
        )
    return numbers
