"""Semantic segmentation as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from tokenmix.argument_types import size
from tokenmix.data.dataset import DataSet, Samples
from tokenmix.evaluate import evaluating
from tokenmix.metrics import ImageOverlaps, ItemScores
from tokenmix.pictures.drawing import BACKGROUND
from tokenmix.pictures.found import FoundLabels
from tokenmix.tasks.answer import Option
from tokenmix.tasks.dense.loader import dense_preprocess
from tokenmix.tasks.dense.options import LabelAugment
from tokenmix.tasks.dense.task import DenseJudging, DenseTask
from tokenmix.tasks.draft import Draft
from tokenmix.tasks.file_form import FileForm
from tokenmix.tasks.judging import Judging, PredictionsWriter
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.picture_task import MIRROR, class_name, class_number
from tokenmix.tasks.segmentation.objective import SegmentationObjective
from tokenmix.tasks.segmentation.options import Options

if TYPE_CHECKING:
    from tokenmix.tasks.section import Section

LARGEST_PX = 2048  # of a map of classes that is to be looked at: 150 classes need 2 GB at this size


class SegmentationJudging(DenseJudging):
    """Notes what each picture adds to the IoU."""

    def __init__(self, metric: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(metric, facts)
        self.overlaps = ImageOverlaps(metric.num_classes)
        self.witnesses = (self.overlaps,)

    def item_scores(self) -> ItemScores | None:
        return self.overlaps.scores()


class SegmentationTask(DenseTask):
    """A class for each pixel."""

    name = "segmentation"
    default_recipe = "scenes_segment"
    title = "segmentation"
    headline = "mIoU"
    Options = Options
    Augment = LabelAugment
    headline_meaning = (
        "Of each class the pixels found over those that are of it or were taken for it (IoU), as the mean over the "
        "classes that are there or were seen, counted over all images together."
    )
    objective_type = SegmentationObjective
    judged_options = ("aux_weight", "scales", "mirror", "window", "stride")
    eval_options = (
        Option(
            "--scales",
            {"nargs": "+", "type": float, "metavar": "S", "help": "average over the image at these scales: 0.5 1 1.5"},
        ),
        MIRROR,
        Option(
            "--window",
            {"type": size, "metavar": "H[,W]", "help": "look at the image by overlapping windows of that many pixels"},
        ),
        Option(
            "--stride",
            {"type": size, "metavar": "H[,W]", "help": "from window to window (default: two thirds of the window)"},
        ),
    )
    file_parts = ("normalize", "argmax")
    predict_options = (DenseTask.out_option,)

    def demos(self) -> Mapping[str, str]:
        return {"segment": "scenes_segment"}

    def planned_model(self, gpu: bool) -> dict[str, Any]:
        """What a plan trains; the pyramid is narrow where there is no GPU, since it is what costs most."""
        dims, depths = ([48, 96, 192, 320], [2, 2, 6, 2]) if gpu else ([32, 96, 160, 192], [1, 3, 1, 1])
        head = {} if gpu else {"head_dim": 96, "channels": 64}
        args = {"mixers": "aff", "depths": depths, "dims": dims, **head}
        return {"name": "mixernet_pico", "args": args, "head": "semantic_fpn"}

    def drafts(self, data: Any, device: torch.device, *, published: bool = False) -> Sequence[Draft]:
        from tokenmix.tasks.dense.planning import drafts

        return drafts(data, device, self.planned_model, self.Options, self.Augment, seen=16_000, batch=8)

    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        """See `PictureTask.objective_of`; a new ``window`` comes with its own stride."""
        if "window" in options and "stride" not in options:
            options["stride"] = None
        return super().objective_of(loaded, facts, **options)

    def evidence(self, recipe: Any, data: DataSet) -> Any:
        from tokenmix.tasks.segmentation.evidence import LabelEvidence

        return LabelEvidence(data)  # type: ignore[arg-type]

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.segmentation.page import run_sections

        return run_sections(run, pictures)

    def scored(
        self, loaded: Any, x: torch.Tensor, wanted: str | None
    ) -> tuple[str, Callable[[torch.Tensor], torch.Tensor] | None]:
        """The most frequent class but the background, or the wanted one: its mean logit where it was seen.

        Source: arXiv:2002.11434 (Seg-Grad-CAM); of a class that was not seen it is the mean over all pixels.
        """
        with torch.no_grad():
            label = loaded.model(x)[0].argmax(0)
        count = loaded.model.num_classes
        chosen = class_number(wanted, loaded.classes, count)
        if chosen is None:
            pixels = torch.bincount(label.flatten(), minlength=count)
            plain = [number for number, name in enumerate(loaded.classes or ()) if name == BACKGROUND]
            pixels[plain] = 0
            chosen = int(pixels.argmax())
        number = chosen
        area = label == number
        words = f"{class_name(loaded.classes, number)} on {100 * float(area.float().mean()):.1f} % of the pixels"
        area = area if area.any() else torch.ones_like(area)
        return words, lambda inputs: loaded.model(inputs)[:, number, area].mean(1)

    def predictions_of(self, results: Sequence[Any]) -> list[torch.Tensor]:
        """Of each picture the class of each pixel, (H, W) int64."""
        return [torch.from_numpy(result.classes).long() for result in results]

    def judging(self, metric: Any, facts: Mapping[str, Any]) -> Judging:
        return SegmentationJudging(metric, facts)

    def row_columns(self) -> Mapping[str, str]:
        return {"class": "class", "IoU": "IoU, %", "Acc": "accuracy, %"}

    def predictions_writer(
        self, path: str, samples: Samples, facts: Mapping[str, Any], *, labelled: bool = True
    ) -> PredictionsWriter:
        if Path(path).suffix in (".csv", ".json", ".png") or Path(path).is_file():
            raise ValueError(f"--predictions {path}: of a segmenter they are a folder of PNG files; name a folder")
        return _Maps(path, samples)

    def look(
        self, loaded: Any, picture: Image.Image, device: torch.device | str = "cpu", **options: Any
    ) -> FoundLabels:
        """The class of each pixel; of a picture with a side above 2048 pixels the map is made at that size."""
        count = loaded.model.num_classes
        stretch = loaded.crop_mode == "squash"
        image = dense_preprocess(picture, loaded.image_size, mean=loaded.mean, std=loaded.std, stretch=stretch)
        objective = self.objective_of(loaded, {"classes": range(count)})
        sides = [picture.height, picture.width]
        factor = min(1.0, LARGEST_PX / max(sides))
        wanted = torch.tensor([[max(1, round(side * factor)) for side in sides]])
        with evaluating(objective):
            (label,) = objective.predict({"image": [image.to(device)], "size": wanted})
        return FoundLabels(label, loaded.classes, count)

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        from tokenmix.tasks.segmentation.export import SegmenterForm

        return SegmenterForm(self, loaded, image_size, inside)

    def answer_lines(self, values: Mapping[str, Any]) -> list[str]:
        from tokenmix.text_tables import bar

        width = max(len(row["class"]) for row in values["classes"])
        shares = [(row["class"], row["share"]) for row in values["classes"]]
        return [f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %" for name, share in shares]

    def answer_rows(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(values["classes"])


class _Maps:
    """Writes the map of each picture while a set is evaluated."""

    def __init__(self, path: str, samples: Samples) -> None:
        from tokenmix.tasks.segmentation.predictions import LabelMaps

        self.update = LabelMaps(path, samples.names).update

    def finish(self, judging: Judging) -> None:
        """Nothing: the files have been written."""
