"""Classification as a task: one class per picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.argument_types import whole
from tokenmix.data.corruptions import CORRUPTIONS
from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import Answers, Calibration, GatheredAnswers, ItemScores, Metric
from tokenmix.tasks.answer import Answer, Option
from tokenmix.tasks.base import Log
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.tasks.classification.options import Augment, Options
from tokenmix.tasks.draft import Draft
from tokenmix.tasks.file_form import FileForm
from tokenmix.tasks.judging import Judged, Judging, PredictionsWriter
from tokenmix.tasks.objective import Batch
from tokenmix.tasks.picture_task import MIRROR, PictureTask, class_name, class_number
from tokenmix_runtime.limits import check_number

if TYPE_CHECKING:
    from tokenmix.tasks.section import Section

TOP = 5  # classes that a prediction names
SURE = 0.9  # the confidence from which on a wrong answer makes the label doubtful


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
        """Calibration, and the share of the largest class: what who always says that one would reach."""
        base = self.base_line()
        return {**self.calibration.compute(), "majority": float("nan") if base is None else base[0]}

    def base_line(self) -> tuple[float, str] | None:
        assert self.answered is not None
        return majority([[*cell] for cell in self.answered.confusion()], self.facts["classes"])

    def rows(self) -> list[dict[str, Any]]:
        from tokenmix.tasks.classification.results import class_rows

        assert self.answered is not None
        return class_rows(self.answered, self.facts["classes"])

    def item_scores(self) -> ItemScores:
        assert self.answered is not None
        right = self.answered.prediction == self.answered.label
        return ItemScores(100.0 * right.double().numpy(), "images")


def majority(cells: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[float, str] | None:
    """The accuracy of who always says the most frequent class, and that in words.

    Args:
        cells: (label, prediction, images) of the pairs that occur.
        classes: Their names.
    """
    counts: dict[int, int] = {}
    for label, _, images in cells:
        counts[label] = counts.get(label, 0) + images
    if not counts:
        return None
    most = max(counts, key=counts.__getitem__)
    return 100 * counts[most] / sum(counts.values()), f"always saying {class_name(classes, most)}"


def published_classes(count: int) -> list[str] | None:
    """The names of ImageNet's 1,000 classes, which published weights without names are for; None for another number."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index) for index in range(count)] if count == info.num_classes() else None


def _weighted(
    mixing: Callable[[Batch, int], Batch] | None, data: DataSet, num_classes: int
) -> Callable[[Batch, int], Batch]:
    """A change of batches, after which rare classes weigh more."""
    from tokenmix.tasks.classification.balance import Weighting
    from tokenmix.tasks.classification.images import ClassData

    assert isinstance(data, ClassData)
    weighting = Weighting(data.train.labels, num_classes)
    return lambda batch, seed: weighting(mixing(batch, seed) if mixing else batch)


class ClassificationTask(PictureTask):
    """One class per picture."""

    name = "classification"
    title = "classification"
    headline = "top1"
    headline_is_share = True
    headline_meaning = "Share of the test images whose most likely class is the true one."
    units: ClassVar[Mapping[str, str]] = {"": "%", "loss": "", "brier": ""}
    Options = Options
    Augment = Augment
    default_recipe = "basic"
    corruptions = tuple(CORRUPTIONS)
    labels: ClassVar[Mapping[str, str]] = {"top1": "top-1", "top5": "top-5", "macro_f1": "macro F1"} | {
        "balanced_top1": "balanced accuracy"
    }
    objective_type = ClassificationObjective
    file_parts = ("resize", "normalize", "softmax")
    eval_options = (MIRROR,)
    predict_options = (
        Option("--top", {"type": whole("top"), "metavar": "K", "help": f"how many classes to show (default: {TOP})"}),
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

    def open_judged(
        self, spec: str, loaded: Any, split: str | None, *, seed: int = 0, download: bool = False, log: Log
    ) -> Judged:
        from tokenmix.tasks.classification.judged import open_judged_folder
        from tokenmix.tasks.classification.sources import is_plain_folder

        if is_plain_folder(spec):
            return open_judged_folder(Path(spec).expanduser(), loaded, split, seed, log)
        return super().open_judged(spec, loaded, split, seed=seed, download=download, log=log)

    def recognise_data(self, inventory: Any) -> str:
        """Folders with pictures that are called after classes: what any other evidence is stronger than."""
        tops = sorted({name.split("/")[0] for name in inventory.pictures if "/" in name})
        return f"folders with pictures: {', '.join(tops[:5])}" if tops else ""

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

    # ----------------------------------------------------------------------------------------------------- the recipe

    def recipes(self) -> Iterator[Callable[[], Any]]:
        from tokenmix.tasks.classification.recipes import RECIPES

        return iter(RECIPES)

    def drafts(self, data: Any, device: torch.device, *, published: bool = False) -> Sequence[Draft]:
        from tokenmix.tasks.classification.planning import drafts

        return drafts(data, device, published=published)

    def check_compared(self, recipe: Any) -> None:
        super().check_compared(recipe)
        if recipe.task.crop_pct is not None:
            raise ValueError("compare prepares images as the data set says: set crop_pct=None")

    # --------------------------------------------------------------------------------------------------- the training

    def preparation(self, recipe: Any, data: DataSet, model: Any) -> dict[str, Any]:
        found = super().preparation(recipe, data, model)
        return found if recipe.task.crop_pct is None else found | {"crop_pct": recipe.task.crop_pct}

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        from tokenmix.tasks.classification.loader import Loader

        run, sizes = recipe.run, recipe.task.multi_scale
        shape: dict[str, Any] = {"image_size": recipe.task.image_size, "seed": run.seed, **share, **preparation}
        size = run.batch_size
        kind: dict[str, Any] = {"multi_scale": sizes, "balance": recipe.task.balance == "sampling"}
        kind["flip"] = recipe.augment.flip
        train = Loader(data.train, train=True, batch_size=size, augment=recipe.augment, **kind, **shape)
        return train, Loader(data.val, train=False, batch_size=-(-size // run.accumulate), **shape)

    def changes(
        self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], model: Any, device: torch.device
    ) -> Callable[[Batch, int], Batch] | None:
        """Mixup and cutmix, weights of rare classes, and what a teacher says."""
        mixing: Callable[[Batch, int], Batch] | None = None
        if recipe.augment.mixup or recipe.augment.cutmix:
            from tokenmix.tasks.classification.mixing import Mixing

            mixing = Mixing(recipe.augment, self.outputs(data.facts))
        if recipe.task.balance == "weights":
            mixing = _weighted(mixing, data, self.outputs(data.facts))
        if recipe.task.teacher is None:
            return mixing
        from tokenmix.tasks.classification.teacher import Teacher

        teacher = Teacher(recipe.task, data.facts["classes"], preparation["mean"], preparation["std"], device)
        if hasattr(model, "set_distilled_training") and isinstance(model.get_classifier(), tuple):
            model.set_distilled_training(True)

        def change(batch: Batch, seed: int) -> Batch:
            batch = mixing(batch, seed) if mixing else batch
            return {**batch, "teacher": teacher(batch["image"])}

        return change

    def probe(self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any) -> BatchLoader | None:
        """None of pictures that are read in an order of their own, such as streams, which would be fetched for it."""
        if type(data.train).order is not Samples.order:
            return None
        return super().probe(recipe, data, preparation, **share)

    def evidence(self, recipe: Any, data: Any) -> Any:
        from tokenmix.tasks.classification.evidence import ClassEvidence

        return ClassEvidence(data)

    def unfound(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        there = {label for label, *_ in evidence["cells"]}
        right = {label for label, told, _ in evidence["cells"] if told == label}
        return [class_name(facts["classes"], label) for label in sorted(there - right)]

    def rare(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        counts: Counter[int] = Counter()
        for label, _, count in evidence["cells"]:
            counts[label] += count
        even = counts.total() / max(1, len(counts))
        return [class_name(facts["classes"], label) for label, count in sorted(counts.items()) if 2 * count < even]

    def doubtful(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        names = facts["classes"]
        return [
            f"{one['name']}, labelled {class_name(names, one['truth'])}: {class_name(names, one['prediction'])} with "
            f"{100 * one['confidence']:.0f} %"
            for one in evidence["mistakes"]
            if one["prediction"] >= 0 and one["confidence"] >= SURE and one["truth_confidence"] <= 1 - SURE
        ]

    def base_line(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[float, str] | None:
        return majority(evidence["cells"], facts["classes"])

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

    def predictions_of(self, results: Sequence[Any]) -> Tensor:
        """Logits (B, K): the logarithms of the probabilities."""
        return torch.stack([torch.from_numpy(result.probabilities) for result in results]).clamp(min=1e-30).log()

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

    def predictions_writer(
        self, path: str, samples: Samples, facts: Mapping[str, Any], *, labelled: bool = True
    ) -> PredictionsWriter:
        from tokenmix.tasks.classification.results import AnswersFile

        if not path.endswith(".csv"):
            raise ValueError(f"--predictions {path}: the file's name must end in .csv")
        return AnswersFile(path, samples, facts["classes"], labelled)

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(self, loaded: Any, device: torch.device, *, top: int = TOP, **options: Any) -> Callable[[str], Answer]:
        """Names the ``top`` most likely classes.

        Raises:
            ValueError: ``top`` is out of range; in use, if the picture cannot be read.
        """
        from tokenmix.data.prepare import preprocess
        from tokenmix.text_tables import bar
        from tokenmix_runtime.images import open_image

        check_number("top", top, "--top")
        known = loaded.classes or published_classes(getattr(loaded.model, "num_classes", 0))

        def answer(path: str) -> Answer:
            image = preprocess(open_image(path), loaded.image_size, **loaded.preparation)
            with torch.inference_mode():
                shares = loaded.model(image[None].to(device))[0].float().softmax(0).cpu()
            values, indices = shares.topk(min(top, len(shares)))
            names = [class_name(known, index) for index in indices.tolist()]
            rows = list(zip(names, values.tolist(), strict=True))
            width = max(len(name) for name in names)
            lines = [path, *(f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %" for name, share in rows)]
            ranks = enumerate(rows, start=1)
            table = [{"rank": rank, "class": name, "probability": share} for rank, (name, share) in ranks]
            return Answer({"top": [list(row) for row in rows]}, lines, table)

        return answer

    # ----------------------------------------------------------------------------------------------------- inspection

    def scored(self, loaded: Any, x: Tensor, wanted: str | None) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """The most likely class, or the wanted one, by its logit."""
        with torch.no_grad():
            shares = self._logits(loaded.model, x)[0].softmax(0)
        known = loaded.classes or published_classes(len(shares))
        chosen = class_number(wanted, known, len(shares))
        number = int(shares.argmax()) if chosen is None else chosen
        words = f"{class_name(known, number)}, {100 * float(shares[number]):.1f} %"
        return words, lambda inputs: self._logits(loaded.model, inputs)[:, number]

    @staticmethod
    def _logits(model: Any, inputs: Tensor) -> Tensor:
        """(B, K), the mean over a distilled model's heads."""
        heads = model(inputs)
        return heads if isinstance(heads, Tensor) else torch.stack(list(heads)).mean(0)

    # ---------------------------------------------------------------------------------------------------------- pages

    def told_names(self, names: Sequence[str], facts: Mapping[str, Any]) -> Sequence[str]:
        few = len(facts["classes"]) <= TOP  # of which the right one is always among the first
        return [name for name in names if not (few and name == "top5")]

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.classification.page import run_sections

        return run_sections(run, pictures)

    def compare_sections(self, results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sequence[Section]:
        from tokenmix.tasks.classification.page import compare_sections

        return compare_sections(results, pictures)

    # ---------------------------------------------------------------------------------- files for other runtimes, costs

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        from tokenmix.tasks.classification.export import ClassForm

        return ClassForm(self, loaded, image_size, inside)

    def training_loss(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Cross-entropy with the first classes in turn; of several classifiers the sum."""
        outputs = model(inputs)
        parts = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        labels = torch.arange(len(inputs), device=inputs.device) % parts[0].shape[1]
        return torch.stack([F.cross_entropy(part, labels) for part in parts]).sum()

    def training_work(self, recipe: Any, facts: Mapping[str, Any]) -> Iterator[tuple[nn.Module, Any, float]]:
        """One image forward and back, of a teacher forward."""
        options = recipe.task
        height, width = options.image_size
        sizes = [(side, side) for side in options.multi_scale] or [(height, width)]
        shares = [max(1.0, height * width / (h * w)) for h, w in sizes]  # a step of smaller images has more of them
        model = timm.create_model(recipe.model.name.split(".")[0], num_classes=self.outputs(facts), **recipe.model.args)
        for size, share in zip(sizes, shares, strict=True):
            yield model, torch.zeros(1, 3, *size), 3 * share / sum(shares)
        if options.teacher is not None:
            yield timm.create_model(options.teacher.split(".")[0]), torch.zeros(1, 3, height, width), 1.0

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
