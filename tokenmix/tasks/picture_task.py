"""What all tasks on pictures share: a network of timm's registry, perhaps with a head, and the preparation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import timm
import torch
from torch import Tensor, nn

from tokenmix.backbones.widths import base_dims
from tokenmix.checkpoints import LoadedModel, our_models
from tokenmix.data.corruptions import IN_PLACE, corrupted
from tokenmix.data.dataset import DataSet, PictureData
from tokenmix.data.loader import BatchLoader
from tokenmix.data.prepare import normalise, preprocess, to_pil
from tokenmix.heads import HEADS, make_dense
from tokenmix.heads.levels import levels_of
from tokenmix.tasks.answer import Option
from tokenmix.tasks.base import Log, StateDict, Task
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.options import TaskOptions
from tokenmix.tasks.picture_options import PictureOptions
from tokenmix.tasks.view import View
from tokenmix_runtime.images import open_image
from tokenmix_runtime.names import unknown
from tokenmix_runtime.preprocess import height_width

MIRROR = Option("--mirror", {"action": "store_const", "const": True, "help": "average over the mirrored image too"})


def build_model(name: str, num_classes: int, *, head: str | None = None, **arguments: Any) -> nn.Module:
    """A model of timm's registry, which includes ours, with fresh weights; arguments that are None are left out.

    With a ``head`` of ``tokenmix.heads.HEADS`` it is the backbone of that.

    Raises:
        ValueError: There is no such model or head.
    """
    if not timm.is_model(name) and ":" not in name:  # "hf-hub:owner/name" is timm's way to name one on the hub
        raise ValueError(unknown("model", name, our_models()))
    if head is not None:
        return make_dense(
            head, name, num_classes, **{key: value for key, value in arguments.items() if value is not None}
        )
    return timm.create_model(name, num_classes=num_classes, **arguments)


class PictureTask(Task):
    """A task whose samples are pictures and whose facts are the ``classes``.

    ``objective_type`` is called with ``model``, ``num_classes`` and those of the task's options that are keywords of
    it; ``judged_options`` are those of them that count when a model is judged, and are stored with its weights.
    ``probed`` is how many training pictures an epoch's end looks at, at most.
    """

    Options: ClassVar[type[TaskOptions]] = PictureOptions
    default_skeleton: str | None = "mixernet_pico"
    channels = 3
    objective_type: Callable[..., Objective]
    judged_options: tuple[str, ...] = ()
    probed = 256
    corruptions = tuple(IN_PLACE)

    def outputs(self, facts: Mapping[str, Any]) -> int:
        """How many outputs a model for these facts has."""
        return len(facts["classes"])

    def build(self, recipe: Any, facts: Mapping[str, Any], **more: Any) -> nn.Module:
        model = recipe.model
        if (chans := model.args.get("in_chans", self.channels)) != self.channels:
            raise ValueError(
                f"recipe key 'model.args.in_chans': pictures are read as RGB, with 3 channels, not {chans}; leave it "
                "out (grey pictures get three equal channels)"
            )
        rates = {"drop_rate": model.drop_rate, "drop_path_rate": model.drop_path_rate}
        return build_model(model.name, self.outputs(facts), head=model.head, **rates, **model.args, **more)

    def probe(self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], **share: Any) -> BatchLoader | None:
        """At most `probed` of the training pictures, and no more than are validated."""
        _, loader = self.loaders(recipe, replace(data, val=data.train), preparation, **{**share, "workers": 0})
        loader.thin(min(self.probed, max(1, len(data.val))))
        return loader

    def objective(self, recipe: Any, model: nn.Module, facts: Mapping[str, Any]) -> Objective:
        known = signature(self.objective_type).parameters
        settings = {name: value for name, value in vars(recipe.task).items() if name in known}
        return type(self).objective_type(model, num_classes=self.outputs(facts), **settings)

    def check_recipe(self, recipe: Any) -> None:
        head = recipe.model.head
        if head is None:
            return
        if head not in HEADS:
            raise ValueError(unknown("value of recipe key 'model.head':", head[:100], HEADS))
        if HEADS[head].task != self.name:
            raise ValueError(
                f"recipe key 'model.head': {head} is for the task {HEADS[head].task!r}, but task is {self.name!r}"
            )

    def check_compared(self, recipe: Any) -> None:
        if recipe.task.preprocess != "data":
            raise ValueError("compare prepares images as the data set says: set preprocess=data")

    def complete(self, recipe: Any, data: DataSet) -> Any:
        size = recipe.task.image_size or getattr(data, "image_size", None)
        return replace(recipe, task=replace(recipe.task, image_size=height_width(size))) if size else recipe

    def stored(self, recipe: Any) -> dict[str, Any]:
        options = recipe.task
        usual = {entry.name: entry.default for entry in fields(options)}
        chosen = {name: getattr(options, name) for name in self.judged_options}
        chosen = {name: value for name, value in chosen.items() if value != usual[name]}
        return {"task_args": chosen, "image_size": options.image_size}

    def initial_weights(self, recipe: Any, facts: Mapping[str, Any], log: Log) -> StateDict:
        """See `tokenmix.tasks.initial_weights`."""
        from tokenmix.tasks.initial_weights import initial_weights

        return initial_weights(recipe, facts.get("classes", ()), self.outputs(facts), log)

    def preparation(self, recipe: Any, data: DataSet, model: nn.Module) -> dict[str, Any]:
        """``mean``, ``std``, ``crop_pct``, ``interpolation`` and ``crop_mode``, as the recipe's ``preprocess`` says.

        Raises:
            ValueError: They should be the model's and it has no such configuration.
        """
        assert isinstance(data, PictureData)
        found: dict[str, Any] = {
            "mean": tuple(data.mean),
            "std": tuple(data.std),
            "crop_pct": getattr(data, "crop_pct", 1.0),
            "interpolation": "bicubic",
            "crop_mode": "center",
        }
        if recipe.task.preprocess == "model":
            holder = model if recipe.model.head is None else levels_of(model)[1]
            cfg: Any = getattr(holder, "pretrained_cfg", None)
            if not cfg:
                raise ValueError(
                    "recipe key 'task.preprocess' is 'model', but the model has no timm configuration: set 'data'"
                )
            found |= {name: cfg[name] for name in found if cfg.get(name)}
            found |= {name: tuple(found[name]) for name in ("mean", "std")}
        return found

    def own_widths(self, recipe: Any) -> tuple[int, ...]:
        model, known = recipe.model, our_models()
        if not timm.is_model(model.name):
            raise ValueError(unknown("skeleton", model.name, known))
        try:
            return tuple(model.args.get("dims") or base_dims(model.name))
        except TypeError:
            names = ", ".join(known)
            raise ValueError(f"{model.name} takes no mixers, so it is no skeleton; these are: {names}") from None

    def describe_batch(self, recipe: Any) -> str:
        height, width = height_width(recipe.task.image_size)
        return f"{height} x {width} pixels"

    def objective_of(self, loaded: LoadedModel, facts: Mapping[str, Any], **options: Any) -> Objective:
        """A loaded model with what its training told its task, changed by ``options``.

        Raises:
            ValueError: The model has another number of outputs, or the task has no such option or value.
        """
        count = self.outputs(facts)
        own = getattr(loaded.model, "num_classes", count)
        if own != count:
            raise ValueError(f"{loaded.name} has {own} classes, but the data has {count}")
        return type(self).objective_type(loaded.model, num_classes=count, **{**loaded.task_args, **options})

    def example_inputs(self, loaded: LoadedModel, count: int, image_size: Any = None, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, len(loaded.mean), *(image_size or loaded.image_size), generator=generator)

    def corrupted(
        self, loaded: LoadedModel, batch: dict[str, Any], name: str, strength: int, *, seed: int
    ) -> dict[str, Any]:
        """The pixels are those that were normalised: they are made again, to the level."""

        def change(image: Tensor, index: int) -> Tensor:
            pixels = np.asarray(to_pil(image, loaded.mean, loaded.std))
            changed = corrupted(pixels, name, strength, seed=seed, index=index)
            return normalise(torch.from_numpy(changed.copy()).permute(2, 0, 1), loaded.mean, loaded.std)

        images = [change(image, index) for image, index in zip(batch["image"], batch["index"].tolist(), strict=True)]
        return {**batch, "image": torch.stack(images) if isinstance(batch["image"], Tensor) else images}

    def view(self, loaded: LoadedModel, path: str, *, wanted: str | None = None, image_size: Any = None) -> View:
        """A picture as evaluation prepares it, of dense models stretched to their size, and the class to explain."""
        device = next(loaded.model.parameters()).device
        x = preprocess(open_image(path), image_size or loaded.image_size, **self.looked_at(loaded))[None].to(device)
        answer, score = self.scored(loaded, x, wanted)
        shown = to_pil(x[0], loaded.mean, loaded.std)
        return View(Path(path).name, x, lambda inputs: self.run(loaded.model, inputs), shown, answer, score)

    def looked_at(self, loaded: LoadedModel) -> dict[str, Any]:
        """How inspection prepares a picture, for `tokenmix.data.prepare.preprocess`."""
        return loaded.preparation

    def run(self, model: Any, inputs: Tensor) -> Any:
        """The network on pictures (B, 3, H, W)."""
        return model(inputs)

    def scored(
        self, loaded: LoadedModel, x: Tensor, wanted: str | None
    ) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """What the model says of one picture (1, 3, H, W) in words, and how much (B, 3, H, W) speak for it, (B,)."""
        return "", None

    def other_facts(self, loaded: LoadedModel, data: DataSet) -> str:
        known, classes = loaded.facts.get("classes"), data.facts["classes"]
        if known is None or known == classes:
            return ""
        if strange := [name for name in classes if name not in known]:
            return unknown("class", strange[0], known)
        lacking = [name for name in known if name not in classes]
        return f"it lacks {', '.join(lacking[:5])}" if lacking else "they stand in another order"


def class_number(wanted: str | None, classes: Sequence[str] | None, count: int) -> int | None:
    """The number, from 0, of the class of that name or number; None where none is wanted.

    Raises:
        ValueError: There is no such class.
    """
    if wanted is None:
        return None
    names = [class_name(classes, number) for number in range(count)]
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < count:
        return int(wanted)
    raise ValueError(unknown("class", wanted, names))


def class_name(classes: Sequence[str] | None, number: int) -> str:
    """The name of a class; its number where nobody knows the names."""
    return classes[number] if classes else f"class {number}"
