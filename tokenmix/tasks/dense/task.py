"""What detection, instance segmentation and segmentation share as tasks: pictures that keep their shape, and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.data.prepare import preprocess
from tokenmix.files import atomic_path, short_name
from tokenmix.heads import Raw
from tokenmix.tasks.answer import Answer, Option, answers_folder
from tokenmix.tasks.base import Log
from tokenmix.tasks.dense.evidence import rounded
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.options import DenseAugment, DenseOptions
from tokenmix.tasks.dense.sets import DenseData, DenseSet
from tokenmix.tasks.judging import Judged, Judging
from tokenmix.tasks.picture_options import PictureOptions
from tokenmix.tasks.picture_task import PictureTask
from tokenmix_runtime.images import open_image

if TYPE_CHECKING:
    from tokenmix.tasks.section import Section

OUT = "predictions"  # where drawings go
_OF_ALL = tuple(entry.name for entry in fields(PictureOptions))


class DenseJudging(Judging):
    """Tells the metric's numbers of each class."""

    def rows(self) -> list[dict[str, Any]]:
        by_class = self.metric.by_class()  # type: ignore[attr-defined]
        return [{"class": name, **row} for name, row in zip(self.facts["classes"], by_class, strict=True)]


class DenseTask(PictureTask):
    """A task whose answer is more than one class per picture."""

    batch_size = 4
    probed = 48
    default_skeleton = None
    out_option = Option("--out", {"metavar": "DIR", "help": f"where the drawings go (default: {OUT}/)"})

    # ----------------------------------------------------------------------------------------------------- the data

    def open_data(
        self,
        spec: str,
        *,
        seed: int = 0,
        download: bool = False,
        image_size: int | None = None,
        check: Any = True,
        log: Log,
    ) -> DataSet:
        from tokenmix.tasks.dense.sources import load_dense

        return load_dense(spec, self.name, seed=seed, image_size=image_size, check=bool(check), log=log)

    def recognise_data(self, inventory: Any) -> str:
        from tokenmix.tasks.dense.sources import readings

        return "; ".join(f"{name} ({evidence})" for name, (evidence, _) in readings(inventory, self.name).items())

    def open_judged(
        self, spec: str, loaded: Any, split: str | None, *, seed: int = 0, download: bool = False, log: Log
    ) -> Judged:
        from tokenmix.tasks.dense.judged import open_judged_folder

        if spec in self.data_names() or not Path(spec).expanduser().is_dir():
            return super().open_judged(spec, loaded, split, seed=seed, download=download, log=log)
        return open_judged_folder(self, Path(spec).expanduser(), loaded, split, seed, log)

    def data_names(self) -> Mapping[str, str]:
        from tokenmix.tasks.dense.sources import NAMED

        folders = {name: f"a folder {name!r} in TOKENMIX_DATA, as it is published; no download" for name in NAMED}
        return {"scenes": "pictures composed of what scikit-image and scikit-learn bring; embedded"} | folders

    def check_data(self, spec: str, *, seed: int, download: bool, log: Log) -> dict[str, Any]:
        from tokenmix.tasks.dense.report import check_dense

        return check_dense(self, spec, seed=seed, log=log)

    def check_lines(self, report: Mapping[str, Any]) -> list[str]:
        from tokenmix.tasks.dense.report import report_lines

        return report_lines(report)

    def check_fits(self, data: DataSet) -> None:
        if not isinstance(data, DenseData) or data.task != self.name:
            raise ValueError(
                f"the recipe's task is {self.name!r}, but {data.name} was loaded for "
                f"{getattr(data, 'task', 'another')!r}: use load_data(..., task={self.name!r})"
            )

    # ----------------------------------------------------------------------------------------------------- the recipe

    def recipes(self) -> Iterator[Callable[[], Any]]:
        from tokenmix.tasks.dense.recipes import recipes_of

        return recipes_of(self.name)

    def check_recipe(self, recipe: Any) -> None:
        super().check_recipe(recipe)
        options = recipe.task
        for entry in fields(DenseOptions) if recipe.model.head is None else ():
            if entry.name not in _OF_ALL and getattr(options, entry.name) != entry.default:
                raise ValueError(f"recipe key 'task.{entry.name}' is for a dense model: set head too, or leave it out")
        if options.layer_decay_layers is not None and recipe.optimizer.layer_decay is None:
            raise ValueError(
                "recipe key 'task.layer_decay_layers' needs 'optimizer.layer_decay', the factor from layer to layer"
            )

    # --------------------------------------------------------------------------------------------------- the training

    def preparation(self, recipe: Any, data: DataSet, model: Any) -> dict[str, Any]:
        mode = "squash" if recipe.augment.parts.stretch else "fit"
        found = super().preparation(recipe, data, model)
        return found | {"crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": mode}

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        options: dict[str, Any] = {
            "image_size": recipe.task.image_size,
            "mean": preparation["mean"],
            "std": preparation["std"],
            "augment": recipe.augment.parts,
            "seed": recipe.run.seed,
            **share,
        }
        size = recipe.run.batch_size
        train = DenseLoader(data.train, train=True, batch_size=size, **options)
        return train, DenseLoader(data.val, train=False, batch_size=-(-size // recipe.run.accumulate), **options)

    def unfound(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        column = list(self.row_columns())[1]
        return [row["class"] for row in evidence["classes"] if row.get(column) == 0]

    def learning_rates(self, recipe: Any, model: Any) -> dict[str, float] | None:
        from tokenmix.tasks.dense.learning_rates import learning_rates

        decay, options = recipe.optimizer.layer_decay, recipe.task
        if recipe.model.head is None or (decay is None and options.head_lr == 1):
            return None
        return learning_rates(model, decay, options.layer_decay_layers, options.head_lr)

    def fixed_modules(self, recipe: Any, model: Any) -> list[Any]:
        """The batch norms of the backbone, where the recipe freezes them."""
        from torch.nn.modules.batchnorm import _BatchNorm

        from tokenmix.heads.levels import levels_of

        inner = levels_of(model)[1].modules() if recipe.task.freeze_norms else ()
        return [module for module in inner if isinstance(module, _BatchNorm)]

    # ----------------------------------------------------------------------------------------------------- the judging

    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        if not isinstance(samples, DenseSet):
            raise ValueError(f"{loaded.name} is for {self.name}: use load_data(..., task={self.name!r})")
        kind: dict[str, Any] = {"mean": loaded.mean, "std": loaded.std, "augment": seen_as(loaded), "train": False}
        size = image_size or loaded.image_size
        return DenseLoader(samples, image_size=size, batch_size=batch_size, **kind, **share)

    def inputs(self, loaded: Any, samples: Any, count: int) -> Tensor:
        """The first pictures, stretched to the model's size."""
        seen = {**loaded.preparation, "crop_mode": "squash"}
        indices = range(min(count, len(samples)))
        return torch.stack([preprocess(samples.load(index), loaded.image_size, **seen) for index in indices])

    def judging(self, metric: Any, facts: Mapping[str, Any]) -> Judging:
        return DenseJudging(metric, facts)

    # ---------------------------------------------------------------------------------------------------------- pages

    def compared(self, judging: Judging) -> dict[str, Any]:
        """``per_class``: of each class its name and the numbers of `row_columns`, None for what is not there."""
        names = list(self.row_columns())
        return {"per_class": [rounded({name: row[name] for name in names}) for row in judging.rows()]}

    def compare_sections(self, results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sequence[Section]:
        from tokenmix.tasks.dense.page import compare_sections

        column, title = list(self.row_columns().items())[1]
        return compare_sections(results, column, title)

    # ---------------------------------------------------------------------------------- files for other runtimes, costs

    def raw_form(self, model: Any) -> Any:
        return Raw(model)

    def training_work(self, recipe: Any, facts: Mapping[str, Any]) -> Iterator[tuple[Any, Any, float]]:
        from tokenmix.tasks.dense.training_work import training_work

        size = recipe.augment.parts.crop_size or recipe.task.image_size
        return training_work(recipe, size, self.outputs(facts))

    # ----------------------------------------------------------------------------------------------------- inspection

    def looked_at(self, loaded: Any) -> dict[str, Any]:
        """Stretched to the model's size: the pictures of one page are of one size."""
        return {**loaded.preparation, "crop_mode": "squash"}

    # ------------------------------------------------------------------------------------------------- files of a user

    def look(self, loaded: Any, picture: Image.Image, device: torch.device | str, **options: Any) -> Any:
        """What a model finds on a picture, in its own pixels, see `tokenmix.pictures.found`."""
        raise NotImplementedError

    def answer_lines(self, values: Mapping[str, Any]) -> list[str]:
        """An answer in words."""
        raise NotImplementedError

    def answer_rows(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """An answer as a table."""
        raise NotImplementedError

    def answerer(
        self, loaded: Any, device: torch.device, *, out: str | None = None, **options: Any
    ) -> Callable[[str], Answer]:
        """Tells what is where, and draws it into the folder ``out``; drawings of pictures with one name are numbered.

        Raises:
            ValueError: ``out`` is a file; in use, if the picture cannot be read.
        """
        folder, written = answers_folder(out, OUT), set[Path]()

        def answer(path: str) -> Answer:
            picture = open_image(path)
            found = self.look(loaded, picture, device, **options)
            number = 1
            while (target := folder / short_name(Path(path).stem, _ending(found.kind, number))) in written:
                number += 1
            written.add(target)
            with atomic_path(target) as temporary:
                found.drawn(picture).save(temporary, "PNG")
            values = {"size": [picture.height, picture.width], "drawing": str(target), **found.told()}
            key = [f"  {number} in the drawing: {name}" for number, name in found.numbers().items()]
            lines = [f"{path} -> {target}", *self.answer_lines(values), *key]
            return Answer(values, lines, self.answer_rows(values))

        return answer


def seen_as(loaded: Any) -> DenseAugment:
    """How evaluation brings pictures to a model's size."""
    return DenseAugment(stretch=loaded.crop_mode == "squash")


def _ending(kind: str, number: int) -> str:
    return f"-{kind}.png" if number == 1 else f"-{kind}-{number}.png"
