"""Detection and instance segmentation as tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.evaluate import evaluating
from tokenmix.metrics import CocoAP, ItemScores
from tokenmix.pictures.found import FoundObjects
from tokenmix.tasks.answer import Option
from tokenmix.tasks.dense.loader import dense_preprocess
from tokenmix.tasks.dense.options import ObjectAugment
from tokenmix.tasks.dense.task import DenseJudging, DenseTask
from tokenmix.tasks.detection.objective import DetectionObjective, InstancesObjective, enlarged
from tokenmix.tasks.detection.options import DetectionOptions, InstancesOptions
from tokenmix.tasks.draft import Draft
from tokenmix.tasks.judging import Judging, PredictionsWriter
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.options import TaskOptions
from tokenmix.tasks.picture_task import class_name, class_number

if TYPE_CHECKING:
    from tokenmix.tasks.section import Section
from tokenmix.tasks.file_form import FileForm

THRESHOLD = 0.5  # the least score that a prediction shows
LEAST = 1e-6  # a score whose logit stands for that of anything smaller, where nothing is found too


class DetectionJudging(DenseJudging):
    """Tells what each picture adds to the average precision; ``kind`` is that of the headline, a box or a mask."""

    def __init__(self, metric: CocoAP, facts: Mapping[str, Any], kind: str) -> None:
        super().__init__(metric, facts)
        self.kind = kind

    def item_scores(self) -> ItemScores | None:
        assert isinstance(self.metric, CocoAP)
        return self.metric.item_scores(self.kind)


class DetectionTask(DenseTask):
    """Boxes with a class and a score."""

    name = "detection"
    default_recipe: str | None = "scenes_detect"
    title = "detection"
    headline = "box_AP"
    Options: ClassVar[type[TaskOptions]] = DetectionOptions
    Augment = ObjectAugment
    headline_meaning = (
        "COCO's average precision of the boxes: the mean over the classes and the IoU thresholds 0.5 to 0.95 of the "
        "precision at 101 levels of recall."
    )
    objective_type = DetectionObjective
    file_parts = ("normalize", "nms")
    predict_options = (
        Option(
            "--threshold", {"type": float, "metavar": "S", "help": f"the least score, 0 to 1 (default: {THRESHOLD})"}
        ),
        DenseTask.out_option,
    )

    def demos(self) -> Mapping[str, str]:
        return {"detect": "scenes_detect"}

    def planned_model(self, gpu: bool) -> dict[str, Any]:
        """What a plan trains: three stages, so that the first of SSDLite's maps is fine enough for small objects."""
        dims, depths = ([48, 128, 224], [2, 6, 2]) if gpu else ([32, 96, 160], [1, 3, 1])
        return {"name": "mixernet_pico", "args": {"mixers": "aff", "depths": depths, "dims": dims}, "head": "ssdlite"}

    def drafts(self, data: Any, device: torch.device, *, published: bool = False) -> Sequence[Draft]:
        from tokenmix.tasks.dense.planning import drafts

        return drafts(data, device, self.planned_model, self.Options, self.Augment, seen=24_000, batch=16)

    def objective(self, recipe: Any, model: Any, facts: Mapping[str, Any]) -> Objective:
        CocoAP(1)  # a package that it lacks is told now, not after an epoch
        return super().objective(recipe, model, facts)

    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        CocoAP(1)
        return super().objective_of(loaded, facts, **options)

    def evidence(self, recipe: Any, data: DataSet) -> Any:
        from tokenmix.tasks.detection.evidence import ObjectEvidence

        assert hasattr(data, "classes")
        return ObjectEvidence(data)  # type: ignore[arg-type]

    def curve_names(self, names: Sequence[str], facts: Mapping[str, Any]) -> Sequence[str]:
        return [name for name in names if not name.endswith(("_APs", "_APm", "_APl"))]  # six lines can be told apart

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.detection.page import run_sections

        return run_sections(run, pictures)

    def run(self, model: Any, inputs: torch.Tensor) -> Any:
        """The detector on a list of pictures."""
        return model(list(inputs))

    def scored(
        self, loaded: Any, x: torch.Tensor, wanted: str | None
    ) -> tuple[str, Callable[[torch.Tensor], torch.Tensor] | None]:
        """The surest object, or the surest one of the wanted class: the logit of the best score of any box for it."""
        chosen = class_number(wanted, loaded.classes, loaded.model.num_classes)

        def best(inputs: torch.Tensor, label: int | None) -> list[tuple[torch.Tensor, int]]:
            rows = []
            for found in loaded.model(list(inputs)):
                scores = found["scores"] if label is None else found["scores"] * (found["labels"] == label)
                row = int(scores.argmax()) if len(scores) else -1
                rows.append((scores[row], int(found["labels"][row])) if row >= 0 else (inputs.sum() * 0, 0))
            return rows

        with torch.no_grad():
            ((sure, label),) = best(x, None if chosen is None else chosen + 1)
        if float(sure) <= 0:
            return "nothing found", None
        words = f"{class_name(loaded.classes, label - 1)}, score {float(sure):.2f}"
        # its logit: between scores of 0..1 differences are too small for Score-CAM to tell one channel from another
        return words, lambda inputs: torch.stack([score for score, _ in best(inputs, label)]).logit(LEAST)

    def predictions_of(self, results: Sequence[Any]) -> list[dict[str, torch.Tensor]]:
        """Of each picture torchvision's dict."""
        found = []
        for result in results:
            one = {name: torch.from_numpy(getattr(result, name)) for name in ("boxes", "scores", "labels")}
            if result.masks is not None:
                one["masks"] = torch.from_numpy(result.masks)[:, None].float()
            found.append(one)
        return found

    def judging(self, metric: Any, facts: Mapping[str, Any]) -> Judging:
        return DetectionJudging(metric, facts, self.headline.partition("_")[0])

    def row_columns(self) -> Mapping[str, str]:
        return {"class": "class", "box_AP": "box AP, %", "box_AP50": "box AP50, %"}

    def predictions_writer(
        self, path: str, samples: Samples, facts: Mapping[str, Any], *, labelled: bool = True
    ) -> PredictionsWriter:
        if not path.endswith(".json"):
            raise ValueError(f"--predictions {path}: the file's name must end in .json")
        return _Results(path, samples)

    def look(
        self,
        loaded: Any,
        picture: Image.Image,
        device: torch.device | str = "cpu",
        *,
        threshold: float = THRESHOLD,
        **options: Any,
    ) -> FoundObjects:
        """The objects on a picture whose score is at least ``threshold``."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"--threshold must be from 0 to 1, got {threshold:g}")
        stretch = loaded.crop_mode == "squash"
        image = dense_preprocess(picture, loaded.image_size, mean=loaded.mean, std=loaded.std, stretch=stretch)
        objective = self.objective_of(loaded, {"classes": range(loaded.model.num_classes)})
        with evaluating(objective):
            (found,) = objective.predict({"image": [image.to(device)]})
        found = {name: value[found["scores"] >= threshold] for name, value in found.items()}
        return FoundObjects(enlarged(found, image.shape[-2:], [picture.height, picture.width]), loaded.classes)

    def answerer(self, loaded: Any, device: torch.device, *, threshold: float = THRESHOLD, **options: Any) -> Any:
        if not 0 <= threshold <= 1:
            raise ValueError(f"--threshold must be from 0 to 1, got {threshold:g}")
        return super().answerer(loaded, device, threshold=threshold, **options)

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        from tokenmix.tasks.detection.export import DetectorForm

        return DetectorForm(self, loaded, image_size, inside)

    def answer_lines(self, values: Mapping[str, Any]) -> list[str]:
        from tokenmix.text_tables import table

        if not values["objects"]:
            return ["  nothing found; a lower --threshold shows what the model is less sure of"]
        rows = [
            (row["class"], f"{row['score']:.2f}", *(f"{value:.0f}" for value in row["box"]))
            for row in values["objects"]
        ]
        text = table(("class", "score", "left", "top", "right", "bottom"), rows)
        return [f"  {line}" for line in text.splitlines()]

    def answer_rows(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        sides = ("left", "top", "right", "bottom")
        return [
            {"class": row["class"], "score": row["score"], **dict(zip(sides, row["box"], strict=True))}
            for row in values["objects"]
        ]


class InstancesTask(DetectionTask):
    """Boxes and masks with a class and a score."""

    name = "instances"
    default_recipe = None
    title = "instance segmentation"
    headline = "mask_AP"
    Options = InstancesOptions
    headline_meaning = DetectionTask.headline_meaning.replace("boxes", "masks")
    objective_type = InstancesObjective

    def demos(self) -> Mapping[str, str]:
        return {}

    def planned_model(self, gpu: bool) -> dict[str, Any]:
        """What a plan trains."""
        dims, depths = ([48, 96, 192, 320], [2, 2, 6, 2]) if gpu else ([32, 64, 128, 192], [1, 1, 3, 1])
        return {"name": "mixernet_pico", "args": {"mixers": "aff", "depths": depths, "dims": dims}, "head": "mask_rcnn"}

    def row_columns(self) -> Mapping[str, str]:
        masks = {"mask_AP": "mask AP, %", "mask_AP50": "mask AP50, %"}
        return {"class": "class", **masks, "box_AP": "box AP, %", "box_AP50": "box AP50, %"}

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        from tokenmix.tasks.detection.export import InstancesForm

        return InstancesForm(self, loaded, image_size, inside)


class _Results:
    """Writes COCO's results file once an evaluation has ended."""

    def __init__(self, path: str, samples: Samples) -> None:
        self.path, self.samples = path, samples

    def update(self, prediction: Any, batch: dict[str, Any]) -> None:
        """Nothing: the metric itself keeps what was found."""

    def finish(self, judging: Judging) -> None:
        from tokenmix.tasks.detection.predictions import write_detections

        assert isinstance(judging.metric, CocoAP)
        found = {index: found for index, (found, *_) in judging.metric.everything().items()}
        write_detections(self.path, found, self.samples)
