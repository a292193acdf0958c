"""Classification as a task: one class per picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import Answers, Calibration, GatheredAnswers, Metric
from tokenmix.tasks.base import Answer, Batch, Judging, Log, Option, PredictionsWriter
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.tasks.picture_task import PictureTask, class_name

TOP = 5  # classes that a prediction names


class ClassJudging(Judging):
    """Notes each answer, and whether the model is right as often as it says."""

    def __init__(self, metric: Metric, facts: Mapping[str, Any]) -> None:
        super().__init__(metric, facts)
        self.answers, self.calibration = Answers(), Calibration()
        self.witnesses = (self.answers, self.calibration)
        self.answered: GatheredAnswers | None = None

    def finish(self) -> None:
        self.answered = self.answers.gather()

    def numbers(self) -> dict[str, float]:
        return self.calibration.compute()

    def rows(self) -> list[dict[str, Any]]:
        from tokenmix.tasks.classification.results import class_rows

        assert self.answered is not None
        return class_rows(self.answered, self.facts["classes"])


class ClassificationTask(PictureTask):
    """One class per picture."""

    name = "classification"
    title = "classification"
    headline = "top1"
    units: ClassVar[Mapping[str, str]] = {"": "%", "loss": "", "brier": ""}
    objective_type = ClassificationObjective
    recipe_keys = ("label_smoothing", "distill", "distill_weight", "distill_temperature")
    predict_options = (
        Option("--top", {"type": int, "metavar": "K", "help": f"how many classes to show (default: {TOP})"}),
    )

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
        from tokenmix.tasks.classification.sources import load_pictures

        return load_pictures(spec, seed=seed, download=download, image_size=image_size, check=check, log=log)

    def data_names(self) -> Mapping[str, str]:
        from tokenmix.tasks.classification.sources import KNOWN

        return KNOWN

    def check_data(self, spec: str, *, seed: int, download: bool, log: Log) -> dict[str, Any]:
        from tokenmix.tasks.classification.check import check_data

        return check_data(spec, seed=seed, download=download, log=log)

    def check_lines(self, report: Mapping[str, Any]) -> list[str]:
        from tokenmix.tasks.classification.check import report_lines

        return report_lines(report)

    def write_shards(self, data: Any, out: Any, *, shard_size: int) -> dict[str, int]:
        from tokenmix.tasks.classification.write_shards import pack_data

        return pack_data(data, out, shard_size=shard_size)

    def check_fits(self, data: DataSet) -> None:
        from tokenmix.tasks.classification.images import ClassData

        if not isinstance(data, ClassData):
            raise ValueError(
                f"the recipe's task is {self.name!r}, but {data.name} was loaded for another one: "
                f"use load_data(..., task={self.name!r})"
            )

    # --------------------------------------------------------------------------------------------------- the training

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        from tokenmix.tasks.classification.augment import Augment
        from tokenmix.tasks.classification.loader import Loader

        augment = Augment(
            name=recipe.augment,
            crop_scale=recipe.crop_scale,
            crop_interpolation=recipe.crop_interpolation,
            rand_augment=recipe.rand_augment,
            color_jitter=recipe.color_jitter,
            erase_rate=recipe.erase_rate,
        )
        shape: dict[str, Any] = {"image_size": recipe.image_size, "seed": recipe.seed, **share, **preparation}
        size = recipe.batch_size
        train = Loader(
            data.train, train=True, batch_size=size, augment=augment, multi_scale=recipe.multi_scale, **shape
        )
        return train, Loader(data.val, train=False, batch_size=-(-size // recipe.accumulate), **shape)

    def changes(
        self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], model: Any, device: torch.device
    ) -> Callable[[Batch, int], Batch] | None:
        """Mixup and cutmix, and what a teacher says."""
        mixing: Callable[[Batch, int], Batch] | None = None
        if recipe.mixup or recipe.cutmix:
            from tokenmix.tasks.classification.mixing import Mixing

            mixing = Mixing(recipe, self.outputs(data.facts))
        if recipe.teacher is None:
            return mixing
        from tokenmix.tasks.classification.teacher import Teacher

        teacher = Teacher(recipe, self.outputs(data.facts), preparation["mean"], preparation["std"], device)
        if hasattr(model, "set_distilled_training") and isinstance(model.get_classifier(), tuple):
            model.set_distilled_training(True)

        def change(batch: Batch, seed: int) -> Batch:
            batch = mixing(batch, seed) if mixing else batch
            return {**batch, "teacher": teacher(batch["image"])}

        return change

    def evidence(self, data: Any) -> Any:
        from tokenmix.tasks.classification.evidence import ClassEvidence

        return ClassEvidence(data)

    # ----------------------------------------------------------------------------------------------------- the judging

    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        from tokenmix.tasks.classification.images import ImageSet
        from tokenmix.tasks.classification.loader import Loader

        if not isinstance(samples, ImageSet):
            raise ValueError(f"{loaded.name} is for {self.name}: use load_data(..., task={self.name!r})")
        size = image_size or loaded.image_size
        return Loader(samples, image_size=size, train=False, batch_size=batch_size, **share, **loaded.preparation)

    def judging(self, metric: Metric, facts: Mapping[str, Any]) -> Judging:
        return ClassJudging(metric, facts)

    def row_columns(self) -> Mapping[str, str]:
        return {"class": "class", "images": "images", "top1": "top1, %", "confused_with": "most often taken for"}

    def cell(self, row: Mapping[str, Any], name: str) -> str:
        if name == "confused_with":
            return f"{row[name]} ({row['confused']:,})" if row[name] else ""
        return super().cell(row, name)

    def check_results(self, path: str) -> None:
        from tokenmix.tasks.classification.results import read_results

        if not path.endswith(".csv"):
            raise ValueError(f"--results {path}: the file's name must end in .csv")
        read_results(path)

    def add_result(self, path: str, model: str, loaded: Any, numbers: Mapping[str, float], image_size: Any) -> None:
        from tokenmix.tasks.classification.results import add_result

        parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        add_result(path, model, numbers, parameters, image_size or loaded.image_size, loaded.preparation)

    def predictions_writer(self, path: str, samples: Samples, facts: Mapping[str, Any]) -> PredictionsWriter:
        from tokenmix.tasks.classification.results import AnswersFile

        if not path.endswith(".csv"):
            raise ValueError(f"--predictions {path}: the file's name must end in .csv")
        return AnswersFile(path, samples, facts["classes"])

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(self, loaded: Any, device: torch.device, *, top: int = TOP, **options: Any) -> Callable[[str], Answer]:
        """Names the ``top`` most likely classes.

        Raises:
            ValueError: ``top`` is below 1; in use, if the picture cannot be read.
        """
        from tokenmix.data.prepare import preprocess
        from tokenmix.runtime.images import open_image
        from tokenmix.text_tables import bar

        if top < 1:
            raise ValueError(f"--top must be 1 or more, got {top}")

        def answer(path: str) -> Answer:
            image = preprocess(open_image(path), loaded.image_size, **loaded.preparation)
            with torch.inference_mode():
                shares = loaded.model(image[None].to(device))[0].float().softmax(0).cpu()
            values, indices = shares.topk(min(top, len(shares)))
            names = [class_name(loaded.classes, index) for index in indices.tolist()]
            rows = list(zip(names, values.tolist(), strict=True))
            width = max(len(name) for name in names)
            lines = [path, *(f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %" for name, share in rows)]
            return Answer({"top": [list(row) for row in rows]}, lines)

        return answer

    # ---------------------------------------------------------------------------------------------------- comparisons

    def compared(self, judging: Any) -> dict[str, Any]:
        """``confusion``: counts, a row per true class, a column per predicted one."""
        count = self.outputs(judging.facts)
        table = torch.zeros(count, count, dtype=torch.int64)
        for label, told, images in judging.answered.confusion():
            if told >= 0:
                table[label, told] = images
        return {"confusion": table.tolist()}

    def samples(
        self, judgings: Mapping[str, Any], data: Any
    ) -> tuple[dict[str, list[dict[str, Any]]], dict[str, bytes]]:
        from tokenmix.tasks.classification.results import compared_samples

        return compared_samples({name: judging.answered for name, judging in judgings.items()}, data)
