"""Points as a task: a class for each point of a cloud."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import ImageOverlaps, ItemScores
from tokenmix.safety import is_trusted
from tokenmix.tasks.answer import Answer, Option, answers_folder
from tokenmix.tasks.base import Log, StateDict, Task
from tokenmix.tasks.judging import Judging
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.points.options import VIEWS, Augment, PointsOptions
from tokenmix.tasks.view import Figure, MixerDrawing, View
from tokenmix_runtime.names import unknown

if TYPE_CHECKING:
    from tokenmix.data.inventory import Inventory
    from tokenmix.pages.page import Section
    from tokenmix.tasks.file_form import FileForm

OUT = "predictions"  # where answers go
_VIEWS = Option(
    "--views", {"choices": VIEWS, "help": "look at each cloud once, or in fragments and turned as published"}
)


class PointsJudging(Judging):
    """Tells IoU and accuracy of each class, and what each cloud adds."""

    def __init__(self, metric: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(metric, facts)
        self.overlaps = ImageOverlaps(metric.num_classes, "clouds")
        self.witnesses = (self.overlaps,)

    def rows(self) -> list[dict[str, Any]]:
        by_class = self.metric.by_class()  # type: ignore[attr-defined]
        return [{"class": name, **row} for name, row in zip(self.facts["classes"], by_class, strict=True)]

    def item_scores(self) -> ItemScores | None:
        return self.overlaps.scores()


class PointsTask(Task):
    """A class for each point of a cloud."""

    name = "points"
    title = "points"
    noun = "clouds"
    takes_image_size = False
    headline = "mIoU"
    headline_meaning = (
        "Of each class the points found over those that are of it or were taken for it (IoU), as the mean over the "
        "classes that are there or were seen, counted over the points of all clouds together."
    )
    fact_names = ("classes", "features", "voxel")
    example_facts: ClassVar[Mapping[str, Any]] = {"classes": ("a", "b"), "features": ("color",), "voxel": 0.05}
    default_mixers = ("ffnified", "additive", "attention", "separable", "pool", "depthwise", "identity")
    batch_size = 1
    default_recipe = "rooms"
    Options = PointsOptions
    Augment = Augment
    eval_options = (_VIEWS,)
    predict_options = (
        _VIEWS,
        Option("--out", {"metavar": "DIR", "help": f"where labelled clouds and pictures go (default: {OUT}/)"}),
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
        from tokenmix.tasks.points.sets import open_clouds

        data = open_clouds(spec, seed=seed, check=bool(check), log=log)
        log(data.summary())
        return data

    def judged_samples(
        self, data: Any, spec: str, learnt: Mapping[str, Any] | None, split: str | None, *, seed: int, log: Log
    ) -> Any:
        """Of a folder those that the model has not learnt from, see `tokenmix.tasks.points.judged.judged_clouds`."""
        from tokenmix.tasks.points.judged import judged_clouds

        if data.train.paths is None or (split in ("train", "val", "test") and not data.split_off):
            return super().judged_samples(data, spec, learnt, split, seed=seed, log=log)
        return judged_clouds(data, spec, learnt, split, seed=seed, log=log)

    def recognise_data(self, inventory: Inventory) -> str:
        files = [path for path in inventory.others if path.endswith((".ply", ".las", ".laz", "/coord.npy"))]
        return f"{len(files):,} clouds of points" if files and not inventory.pictures else ""

    def data_names(self) -> Mapping[str, str]:
        from tokenmix.tasks.points.sets import NAMED

        folders = {name: "as Pointcept prepares it, a folder in TOKENMIX_DATA; no download" for name in NAMED}
        return {"rooms": "144 computed rooms with furniture, synthetic; embedded"} | folders

    def check_lines(self, report: Mapping[str, Any]) -> list[str]:
        features, classes = ", ".join(report["features"]), ", ".join(report["classes"][:30])
        return [*super().check_lines(report), f"points have: {features}", f"classes: {classes}"]

    def check_fits(self, data: DataSet) -> None:
        from tokenmix.tasks.points.sets import PointData

        if not isinstance(data, PointData):
            raise ValueError(f"the recipe's task is points, but {data.name} was loaded for another: use task='points'")

    # ----------------------------------------------------------------------------------------------------- the recipe

    def recipes(self) -> Iterator[Callable[[], Any]]:
        from tokenmix.tasks.points.recipes import RECIPES

        return iter(RECIPES)

    def demos(self) -> Mapping[str, str]:
        return {"points": "rooms"}

    def stored(self, recipe: Any) -> dict[str, Any]:
        options = recipe.task
        kept = {"voxel": options.voxel, "features": options.features, "views": options.views}
        return {"task_args": {name: value for name, value in kept.items() if value is not None}}

    # --------------------------------------------------------------------------------------------------- the training

    def networks(self) -> Mapping[str, str]:
        return {
            "ffnet_points": "FFNet's U-Net on sparse voxels as published, 103.2 M parameters",
            "ffnet_points_small": "the same with four narrow levels, 4.4 M parameters, for small data and CPUs",
        }

    def network(self, name: str, facts: Mapping[str, Any], **arguments: Any) -> nn.Module:
        from tokenmix.backbones.arguments import check_parameters
        from tokenmix.tasks.points import model
        from tokenmix.tasks.points.cloud import feature_width

        if name not in self.networks():
            raise ValueError(unknown("network", name, self.networks()))
        if arguments.get("act", "") is None:
            arguments.pop("act")
            warnings.warn(
                "the checkpoint cannot tell act, and gelu is taken: pass act='relu' for the published S3DIS model",
                stacklevel=3,
            )
        build: Any = partial(getattr(model, name), num_classes=len(facts["classes"]))
        build = partial(build, in_chans=feature_width(facts["features"]))
        known = [key for key in signature(model.PointUNet).parameters if key not in ("num_classes", "in_chans")]
        for key in arguments:
            if key not in known:
                raise ValueError(unknown(f"argument of {name}", key, known))
        if not is_trusted():
            check_parameters(name, lambda: build(**{**arguments, "device": "meta"}))
        return build(**arguments)

    def recognise(self, state_dict: StateDict) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]] | None:
        from tokenmix.tasks.points.official import from_official

        return from_official(state_dict)

    def build(self, recipe: Any, facts: Mapping[str, Any], **more: Any) -> nn.Module:
        rates = {"drop_rate": recipe.model.drop_rate, "drop_path_rate": recipe.model.drop_path_rate}
        given = {name: value for name, value in rates.items() if value is not None}
        seen = {**facts, "features": recipe.task.features or facts["features"]}
        return self.network(recipe.model.name, seen, **given, **recipe.model.args, **more)

    def objective(self, recipe: Any, model: Any, facts: Mapping[str, Any]) -> Objective:
        from tokenmix.tasks.points.objective import PointsObjective

        options = recipe.task
        return PointsObjective(
            model,
            num_classes=len(facts["classes"]),
            features=options.features or facts["features"],
            voxel=options.voxel or facts["voxel"],
            lovasz_weight=options.lovasz_weight,
        )

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        from tokenmix.tasks.points.batches import cloud_loader

        options, run = recipe.task, recipe.run
        kind: dict[str, Any] = {
            "features": options.features or data.features,
            "voxel": options.voxel or data.voxel,
            "seed": run.seed,
            "share": share,
        }
        train = cloud_loader(data.train, train=True, batch_size=run.batch_size, augment=recipe.augment.parts, **kind)
        return train, cloud_loader(data.val, train=False, batch_size=-(-run.batch_size // run.accumulate), **kind)

    def learning_rates(self, recipe: Any, model: nn.Module) -> dict[str, float] | None:
        if recipe.task.block_lr == 1:
            return None
        return {name: recipe.task.block_lr if ".blocks." in name else 1.0 for name, _ in model.named_parameters()}

    def evidence(self, recipe: Any, data: DataSet) -> Any:
        from tokenmix.tasks.points.evidence import CloudEvidence

        return CloudEvidence(data)  # type: ignore[arg-type]

    def describe_batch(self, recipe: Any) -> str:
        most = recipe.augment.parts.max_voxels
        return f"up to {most:,} voxels" if most else "a whole cloud: set augment.max_voxels"

    # ----------------------------------------------------------------------------------------------------- the judging

    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        from tokenmix.tasks.points.batches import cloud_loader
        from tokenmix.tasks.points.sets import CloudSet

        if not isinstance(samples, CloudSet):
            raise ValueError(f"{loaded.name} is for points: use load_data(..., task='points')")
        seen = self.seen(loaded)
        kind: dict[str, Any] = {"features": seen.features, "voxel": seen.voxel, "whole": True}
        return cloud_loader(samples, batch_size=batch_size, train=False, share=share, **kind)

    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        from tokenmix.tasks.points.objective import PointsObjective

        count = len(facts["classes"])
        if loaded.model.num_classes != count:
            raise ValueError(f"{loaded.name} has {loaded.model.num_classes} classes, but the data has {count}")
        for name in options:
            if name != "views":
                raise ValueError(unknown("option of points", name, ("views",)))
        seen = self.seen(loaded)
        assert seen.features
        assert seen.voxel
        views = options.get("views") or seen.views
        return PointsObjective(loaded.model, num_classes=count, features=seen.features, voxel=seen.voxel, views=views)

    @staticmethod
    def seen(loaded: Any) -> PointsOptions:
        """How a loaded model looks at clouds: as its training was told, else as its data were.

        Raises:
            ValueError: Its file says what cannot be.
        """
        facts = {name: loaded.facts[name] for name in ("features", "voxel") if loaded.facts.get(name)}
        known = {"features": ("color", "normal"), "voxel": 0.02} | facts
        return PointsOptions(**{**known, **loaded.task_args})

    def judging(self, metric: Any, facts: Mapping[str, Any]) -> Judging:
        return PointsJudging(metric, facts)

    def other_facts(self, loaded: Any, data: DataSet) -> str:
        known, there = loaded.facts.get("classes"), data.facts["classes"]
        return "" if known in (None, there) else "its classes are others, or stand in another order"

    def row_columns(self) -> Mapping[str, str]:
        return {"class": "class", "IoU": "IoU, %", "Acc": "accuracy, %"}

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(
        self, loaded: Any, device: torch.device, *, out: str | None = None, views: str | None = None, **options: Any
    ) -> Callable[[str], Answer]:
        """Writes the labelled cloud and a picture of it into the folder ``out``.

        Raises:
            ValueError: ``out`` is a file; in use, if the cloud cannot be read or lacks what the model reads.
        """
        from tokenmix.tasks.points.answers import CloudAnswers

        folder = answers_folder(out, OUT)
        seen = self.seen(loaded)
        assert seen.features
        assert seen.voxel
        classes = loaded.classes or [f"class {number}" for number in range(loaded.model.num_classes)]
        chosen = views or seen.views
        return CloudAnswers(loaded.model, classes, seen.features, seen.voxel, chosen, folder).answer

    def view(self, loaded: Any, path: str, *, wanted: str | None = None, image_size: Any = None) -> View:
        """A cloud's voxels, see `tokenmix.tasks.points.looking`."""
        from tokenmix.tasks.picture_task import class_number
        from tokenmix.tasks.points.looking import see

        if image_size is not None:
            raise ValueError(f"models for {self.title} have no image size: leave it out")
        options = self.seen(loaded)
        assert options.features
        assert options.voxel
        number = class_number(wanted, loaded.classes, loaded.model.num_classes)
        return see(loaded, path, options.features, options.voxel, number)

    def own_figures(self, loaded: Any, view: View) -> Sequence[Figure]:
        from tokenmix.tasks.points.looking import figures

        return figures(view)

    def mixer_drawing(self) -> MixerDrawing:
        from tokenmix.tasks.points.looking import DRAWING

        return DRAWING

    def own_widths(self, recipe: Any) -> tuple[int, ...]:
        from tokenmix.tasks.points.model import DIMS, VARIANTS

        if recipe.model.name not in VARIANTS:
            raise ValueError(unknown("network", recipe.model.name, VARIANTS))
        return tuple(recipe.model.args.get("dims") or VARIANTS[recipe.model.name].get("dims", DIMS))

    def timed(self, loaded: Any, samples: Any, count: int) -> tuple[nn.Module, Tensor]:
        """The network on the voxels of the first cloud, and its features, ``(1, P, C)``."""
        from tokenmix.tasks.points.fixed import OneCloud

        batch = next(iter(self.loader(loaded, samples, batch_size=1).batches(0)))
        return OneCloud(loaded.model, batch["grid_coord"], batch["offset"]), batch["feat"][None]

    def exported(self) -> bool:
        return False

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        """There is no such file.

        Raises:
            ValueError: Always, with the reason.
        """
        from tokenmix.tasks.points.fixed import NO_EXPORT

        raise ValueError(NO_EXPORT)

    # ---------------------------------------------------------------------------------------------------------- pages

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.points.page import run_sections

        return run_sections(run, pictures)
