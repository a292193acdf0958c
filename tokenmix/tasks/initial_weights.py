"""The weights at which a recipe says to start."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
from torch import Tensor, nn

from tokenmix.checkpoints import CheckpointError, load_checkpoint
from tokenmix.heads import own_options
from tokenmix.heads.levels import Levels, TimmLevels, levels_of
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.picture_task import build_model
from tokenmix.weight_files import described_in, downloading, read_info, weights_file

StateDict = Mapping[str, Tensor]


def initial_weights(recipe: Recipe, classes: Sequence[str], outputs: int, log: Callable[[str], None]) -> StateDict:
    """The state dict at which ``recipe.weights`` says to start; a classifier of other classes is fresh.

    A dense model takes everything from one with the same head, else its backbone, and says so in the log.

    Raises:
        ValueError: The model has no published weights, they cannot be downloaded, or the file cannot be read or holds
            another architecture.
    """
    assert recipe.model.weights is not None
    published = recipe.model.weights == "pretrained"
    if published and ":" not in recipe.model.name and not timm.models.is_model_pretrained(recipe.model.name):
        raise ValueError(
            f"{recipe.model.name} has no published weights to download: give a file, weights=FILE, or weights=None"
        )
    if recipe.model.head is not None:
        return _of_dense(recipe, recipe.model.head, classes, outputs, log)
    if published:
        with downloading(recipe.model.name):
            return build_model(recipe.model.name, outputs, pretrained=True, **recipe.model.args).state_dict()
    model: Any = load_checkpoint(recipe.model.weights, num_classes=outputs, **recipe.model.args)
    if _other_classes(recipe.model.weights, classes):
        model.reset_classifier(outputs)
    return model.state_dict()


def _of_dense(recipe: Recipe, head: str, classes: Sequence[str], outputs: int, log: Callable[[str], None]) -> StateDict:
    assert recipe.model.weights is not None
    model: Any = build_model(recipe.model.name, outputs, head=head, **recipe.model.args)
    if recipe.model.weights == "pretrained":
        outer = (*own_options(head), "level_norm")
        inner = {name: value for name, value in recipe.model.args.items() if name not in outer}
        with downloading(recipe.model.name):
            source: nn.Module = timm.create_model(recipe.model.name, pretrained=True, **inner)
    else:
        with warnings.catch_warnings():  # what a checkpoint cannot tell, the recipe says
            warnings.filterwarnings("ignore", message=".*the checkpoint cannot tell")
            source = load_checkpoint(recipe.model.weights)
    own, given = model.state_dict(), source.state_dict()
    if own.keys() == given.keys():
        classifiers = {key for key in own if key.rpartition(".")[0] in model.classifiers}
        other = {key for key in own if own[key].shape != given[key].shape}
        if other - classifiers:
            raise _misfit(recipe, source, f"{min(other - classifiers)} is of another shape")
        fresh = classifiers if other or _other_classes(recipe.model.weights, classes) else set()
        log(f"{recipe.model.weights}: {len(own) - len(fresh)} tensors of a {head} are taken, {len(fresh)} are fresh")
        return {**given, **{key: own[key] for key in fresh}}
    prefix, levels = levels_of(model)
    try:
        taken = backbone_weights(levels, source)
    except ValueError as error:
        raise _misfit(recipe, source, str(error)) from None
    left = ", ".join(sorted({key.split(".")[0] for key in given} - {"backbone", "features", "stages", "stem"}))
    log(
        f"{recipe.model.weights}: {len(taken)} tensors fill the backbone; "
        f"{left and f'its {left} are left out; '}the head {head} is fresh"
    )
    return {**own, **{f"{prefix}.{key}": value for key, value in taken.items()}}


def backbone_weights(levels: Levels | TimmLevels, source: nn.Module) -> dict[str, Tensor]:
    """The weights of a classifier, or of a dense model's backbone, by the names they have in the levels of another.

    The norms behind the levels are among them where the source has such too.

    Raises:
        ValueError: Some of the levels' own are missing there, or of another shape.
    """
    inner: nn.Module = source
    for module in source.modules():
        if isinstance(module, Levels | TimmLevels):
            inner = module
            break
    plain = (lambda key: key) if isinstance(levels, Levels) else _plain
    given = {plain(key): value for key, value in inner.state_dict().items()}
    own = levels.state_dict()
    fits = {key for key, value in own.items() if plain(key) in given and given[plain(key)].shape == value.shape}
    wrong = [key for key in own if key not in fits and not key.startswith("norms.")]
    if wrong:
        shown = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise ValueError(f"{len(wrong)} of the backbone's {len(own)} tensors are missing or of another shape ({shown})")
    return {key: given[plain(key)] for key in own if key in fits}


def _plain(key: str) -> str:
    """A name that is the same in timm's classifier and in each of its ways to return feature levels."""
    return key.removeprefix("features.").removeprefix("model.").replace("_", ".")


def _other_classes(weights: str, classes: Sequence[str]) -> bool:
    """Whether the file says that it is for other classes."""
    file = described_in(weights_file(weights))
    info = (read_info(file) if file.suffix == ".safetensors" else None) or {}
    return info.get("classes", list(classes)) != list(classes)


def _misfit(recipe: Recipe, source: nn.Module, what: str) -> CheckpointError:
    holders = [module for module in source.modules() if getattr(module, "pretrained_cfg", None)]
    name = holders[0].pretrained_cfg.get("architecture", "another model") if holders else "another model"  # type: ignore[union-attr, operator]
    arguments = f" with {recipe.model.args}" if recipe.model.args else ""
    return CheckpointError(
        f"{recipe.model.weights}: holds {name}, which does not fit {recipe.model.name}{arguments}: {what}"
    )
