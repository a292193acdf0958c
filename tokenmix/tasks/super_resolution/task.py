"""Super-resolution as a task: pictures made larger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.inventory import Inventory
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import ItemScores, Metric
from tokenmix.tasks.answer import Answer, Option, answers_folder
from tokenmix.tasks.base import Log, StateDict, Task
from tokenmix.tasks.judging import Judged, Judging
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.super_resolution.options import Augment, Options
from tokenmix.tasks.view import Figure, View
from tokenmix_runtime.names import unknown

if TYPE_CHECKING:
    from tokenmix.tasks.file_form import FileForm
    from tokenmix.tasks.section import Section

OUT = "predictions"  # where enlarged pictures go
PATCH = 48  # pixels of a small patch's side, where nobody says


class PictureJudging(Judging):
    """Tells of every picture how good it is, and bicubic interpolation."""

    def __init__(self, metric: Any, facts: Mapping[str, Any]) -> None:
        from tokenmix.tasks.super_resolution.evidence import PictureScores

        super().__init__(metric, facts)
        self.scores = PictureScores(metric.border, rounded=metric.rounded)
        self.witnesses = (self.scores,)
        self.gathered: list[dict[str, Any]] = []

    def finish(self) -> None:
        self.gathered = self.scores.gather()

    def numbers(self) -> dict[str, float]:
        """Bicubic interpolation's means, and by how much more PSNR there is."""
        count = max(len(self.gathered), 1)
        return {
            name: sum(row[name] for row in self.gathered) / count for name in ("bicubic_psnr", "bicubic_ssim", "gain")
        }

    def base_line(self) -> tuple[float, str]:
        return self.numbers()["bicubic_psnr"], "bicubic interpolation"

    def rows(self) -> list[dict[str, Any]]:
        names = ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim", "gain")
        return [{"picture": row["name"], **{name: row[name] for name in names}} for row in self.gathered]

    def item_scores(self) -> ItemScores:
        return ItemScores(np.array([row["psnr"] for row in self.gathered], np.float64), "pictures")


class SuperResolutionTask(Task):
    """Pictures made larger, by a whole number of times."""

    name = "super_resolution"
    title = "super-resolution"
    noun = "pictures"
    timed_noun = "patches"
    takes_image_size = False
    headline = "psnr"
    headline_meaning = (
        "The peak signal-to-noise ratio of the luma, without as many pixels at each border as the scale is, as the "
        "mean over the pictures: 3 dB more are half the squared error."
    )
    fact_names = ()
    example_facts: ClassVar[Mapping[str, Any]] = {}
    # Not attention: the test pictures are seen whole, with a token for each pixel.
    default_mixers = ("ffnified(key_size=3, value_size=3)", "aff", "additive", "dsm", "pool", "depthwise", "identity")
    units: ClassVar[Mapping[str, str]] = {"": "", "psnr": "dB", "bicubic_psnr": "dB", "gain": "dB"}
    labels: ClassVar[Mapping[str, str]] = {
        "psnr": "PSNR",
        "ssim": "SSIM",
        "bicubic_psnr": "bicubic PSNR",
        "bicubic_ssim": "bicubic SSIM",
    }
    batch_size = 1
    default_recipe = "photographs_upscale"
    Options = Options
    Augment = Augment
    eval_options = (
        Option(
            "--basicsr",
            {"action": "store_const", "const": True, "help": "do not round the luma: BasicSR's habit, not MATLAB's"},
        ),
    )
    predict_options = (
        Option("--out", {"metavar": "DIR", "help": f"where the pictures go (default: {OUT}/)"}),
        Option("--scale", {"type": float, "metavar": "S", "help": "how many times larger (default: the model's)"}),
    )

    commands: ClassVar[Mapping[str, str]] = {"upscale": "tokenmix.tasks.super_resolution.upscale_command"}

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
        from tokenmix.tasks.super_resolution.sources import load_photographs

        data = load_photographs(spec, seed=seed, check=bool(check), log=log)
        if image_size is not None:
            data.image_size = image_size
        return data

    def open_judged(
        self, spec: str, loaded: Any, split: str | None, *, seed: int = 0, download: bool = False, log: Log
    ) -> Judged:
        """See `tokenmix.tasks.super_resolution.sources.load_judged`."""
        from tokenmix.tasks.super_resolution.sources import load_judged

        name, photographs = load_judged(spec, loaded.data, split, seed=seed, log=log)
        return Judged(name, photographs, {})

    def recognise_data(self, inventory: Inventory) -> str:
        from tokenmix.tasks.super_resolution.layouts import speaking_folders

        return speaking_folders(inventory.pictures)

    def data_names(self) -> Mapping[str, str]:
        from tokenmix.tasks.super_resolution.sources import NAMED

        return NAMED

    def check_fits(self, data: DataSet) -> None:
        from tokenmix.tasks.super_resolution.data import PhotographData

        if not isinstance(data, PhotographData):
            raise ValueError(
                f"the recipe's task is {self.name!r}, but {data.name} was loaded for another: use "
                f"load_data(..., task={self.name!r})"
            )

    # --------------------------------------------------------------------------------------------------- the training

    def networks(self) -> Mapping[str, str]:
        from tokenmix.tasks.super_resolution.networks import NETWORKS

        return NETWORKS

    def network(self, name: str, facts: Mapping[str, Any], **arguments: Any) -> nn.Module:
        from tokenmix.tasks.super_resolution.networks import make_network

        return make_network(name, **arguments)

    def recognise(self, state_dict: StateDict) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]] | None:
        from tokenmix.tasks.super_resolution.model import checkpoint_filter_fn, create_upscaler, recognise

        found = recognise({key: tuple(tensor.shape) for key, tensor in state_dict.items()})
        if found is None:
            return None
        model = create_upscaler(found.variant, **found.model_args, device="meta")
        return found.variant, found.model_args, {}, checkpoint_filter_fn(state_dict, model)

    def official_weights(self, model: nn.Module) -> dict[str, Tensor]:
        from tokenmix.tasks.super_resolution.model import official_weights

        return official_weights(model)

    def recipes(self) -> Iterator[Callable[[], Any]]:
        from tokenmix.tasks.super_resolution import recipes

        yield from (recipes.ffnet_sr, recipes.ffnet_sr_light, recipes.photographs_upscale)

    def demos(self) -> Mapping[str, str]:
        return {"upscale": "photographs_upscale"}

    def check_recipe(self, recipe: Any) -> None:
        super().check_recipe(recipe)
        if recipe.model.name not in self.networks():
            raise ValueError(f"recipe key 'model.name': {unknown('network', recipe.model.name, self.networks())}")
        for name in ("drop_rate", "drop_path_rate"):
            if getattr(recipe.model, name):
                raise ValueError(f"recipe key 'model.{name}': networks for {self.title} have none; leave it out")

    def build(self, recipe: Any, facts: Mapping[str, Any], **more: Any) -> nn.Module:
        return self.network(recipe.model.name, facts, **{**recipe.model.args, **more})

    def objective(self, recipe: Any, model: nn.Module, facts: Mapping[str, Any]) -> Objective:
        from tokenmix.tasks.super_resolution.objective import SuperResolutionObjective

        return SuperResolutionObjective(
            model,
            spectrum_weight=recipe.task.spectrum_weight,
            rounded_luma=recipe.task.rounded_luma,
            border=recipe.task.border,
        )

    def stored(self, recipe: Any) -> dict[str, Any]:
        kept = ("rounded_luma", "border")
        told = {"task_args": {name: getattr(recipe.task, name) for name in kept}}
        return told if recipe.task.image_size is None else {**told, "image_size": list(recipe.task.image_size)}

    def preparation(self, recipe: Any, data: DataSet, model: nn.Module) -> dict[str, Any]:
        """``scale``, the model's."""
        return {"scale": model.scale}

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        from tokenmix.tasks.super_resolution.batches import patch_loader, picture_loader

        scale = preparation["scale"]
        train = patch_loader(
            data.train,
            scale,
            size=recipe.task.image_size[0],
            each=recipe.task.patches,
            batch_size=recipe.run.batch_size,
            seed=recipe.run.seed,
            flip=recipe.augment.flip,
            rotate=recipe.augment.rotate,
            **share,
        )
        return train, picture_loader(data.val, scale, **share)

    def initial_weights(self, recipe: Any, facts: Mapping[str, Any], log: Log) -> StateDict:
        """All weights of a file; or of one for another scale all but the head's, which is fresh.

        Raises:
            ValueError: The file cannot be read or holds another architecture.
        """
        from tokenmix.checkpoints import open_model

        source = open_model(recipe.model.weights, tasks=[self.name]).model.state_dict()
        own = self.build(recipe, facts).state_dict()
        if source.keys() != own.keys():
            raise ValueError(f"{recipe.model.weights} holds another architecture than {recipe.model.name}")
        fresh = [key for key in own if key.startswith("head.") and own[key].shape != source[key].shape]
        if fresh:
            log(f"{recipe.model.weights}: is for another scale, so that the last layer is fresh")
        return {**source, **{key: own[key] for key in fresh}}

    def evidence(self, recipe: Any, data: Any) -> Any:
        from tokenmix.tasks.super_resolution.evidence import PictureEvidence

        return PictureEvidence(data.val, recipe.task.border, rounded=recipe.task.rounded_luma)

    def describe_batch(self, recipe: Any) -> str:
        return f"a patch of {recipe.task.image_size[0]} x {recipe.task.image_size[1]} pixels"

    # ----------------------------------------------------------------------------------------------------- the judging

    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        """Whole pictures, whatever the sizes are."""
        from tokenmix.tasks.super_resolution.batches import picture_loader
        from tokenmix.tasks.super_resolution.data import Photographs

        if not isinstance(samples, Photographs):
            raise ValueError(f"{loaded.name} is for {self.title}: use load_data(..., task={self.name!r})")
        return picture_loader(samples, loaded.model.scale, **share)

    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        from tokenmix.tasks.super_resolution.objective import SuperResolutionObjective

        arguments = dict(loaded.task_args)
        if options.pop("basicsr", None):
            arguments["rounded_luma"] = False
        return SuperResolutionObjective(loaded.model, **{**arguments, **options})

    def inputs(self, loaded: Any, samples: Any, count: int) -> Tensor:
        """Patches of the first pictures, as large as those that the model learnt from."""
        from tokenmix.tasks.super_resolution.batches import patch_loader

        size = loaded.image_size[0] or PATCH
        each = max(1, -(-count // len(samples)))
        loader = patch_loader(samples, loaded.model.scale, size=size, each=each, batch_size=count, seed=0)
        return next(iter(loader.batches(0)))["image"][:count]

    def judging(self, metric: Metric, facts: Mapping[str, Any]) -> Judging:
        return PictureJudging(metric, facts)

    def row_columns(self) -> Mapping[str, str]:
        return {
            "picture": "picture",
            "gain": "gain, dB",
            "psnr": "PSNR, dB",
            "ssim": "SSIM",
            "bicubic_psnr": "bicubic PSNR, dB",
            "bicubic_ssim": "SSIM",
        }

    def cell(self, row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.4f}" if "ssim" in name else super().cell(row, name)

    # ---------------------------------------------------------------------------------- files for other runtimes, costs

    def example_inputs(self, loaded: Any, count: int, image_size: Any = None, seed: int = 0) -> Tensor:
        size = image_size or (loaded.image_size if min(loaded.image_size) else (PATCH, PATCH))
        channels = getattr(loaded.model, "in_chans", 3)
        return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        """See `tokenmix.tasks.super_resolution.export`.

        Raises:
            ValueError: The model takes no RGB pictures, or is no network.
        """
        from tokenmix.tasks.super_resolution.export import EnlargingForm
        from tokenmix.tasks.super_resolution.model import Upscaler

        if not isinstance(loaded.model, Upscaler) or loaded.model.in_chans != 3:
            raise ValueError(f"{loaded.name} cannot be exported: that can be networks for RGB pictures")
        size = image_size or (loaded.image_size if min(loaded.image_size) else (PATCH, PATCH))
        return EnlargingForm(self, loaded, size, inside)

    def training_loss(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """FFNet-SR's, with a truth that is all grey."""
        from tokenmix.tasks.super_resolution.loss import reconstruction_loss

        enlarged = model(inputs)
        return reconstruction_loss(enlarged, torch.full_like(enlarged, 0.5))[0]

    def training_work(self, recipe: Any, facts: Mapping[str, Any]) -> Iterator[tuple[nn.Module, Any, float]]:
        """One patch forward and back."""
        size = recipe.task.image_size or (PATCH, PATCH)
        yield self.build(recipe, facts), torch.zeros(1, 3, *size), 3.0

    # ---------------------------------------------------------------------------------------------- pages, comparisons

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.super_resolution.page import run_sections

        return run_sections(run, pictures)

    def own_widths(self, recipe: Any) -> tuple[int, ...]:
        from tokenmix.tasks.super_resolution.model import VARIANTS

        if recipe.model.name not in VARIANTS:
            names = ", ".join(VARIANTS)
            raise ValueError(f"{recipe.model.name} takes no mixers, so it is no skeleton; these are: {names}")
        return (recipe.model.args.get("dim") or VARIANTS[recipe.model.name]["dim"],)

    def width_arguments(self, widths: Sequence[int]) -> dict[str, Any]:
        return {"dim": widths[0]}

    def compared(self, judging: Judging) -> dict[str, Any]:
        """``per_picture``: each picture's numbers."""
        return {"per_picture": judging.rows()}

    def compare_sections(self, results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sequence[Section]:
        from tokenmix.tasks.super_resolution.page import compare_sections

        return compare_sections(results)

    # ----------------------------------------------------------------------------------------------------- inspection

    def view(self, loaded: Any, path: str, *, wanted: str | None = None, image_size: Any = None) -> View:
        """The middle of a picture, see `tokenmix.tasks.super_resolution.looking`."""
        from tokenmix.tasks.super_resolution.looking import see

        if wanted is not None:
            raise ValueError(f"--target {wanted}: models for {self.title} have no classes; leave it out")
        return see(loaded, path, image_size)

    def own_figures(self, loaded: Any, view: View) -> Sequence[Figure]:
        from tokenmix.tasks.super_resolution.looking import figures

        return figures(loaded, view)

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(
        self, loaded: Any, device: torch.device, *, out: str | None = None, scale: float | None = None, **options: Any
    ) -> Callable[[str], Answer]:
        """Enlarges a picture and writes it into the folder ``out``, under its own name with the scale.

        Raises:
            ValueError: ``out`` is a file; in use, if the picture cannot be read.
        """
        from tokenmix.tasks.super_resolution.upscaling import output_path, upscale_file

        folder, written = answers_folder(out, OUT), set[Path]()

        def answer(path: str) -> Answer:
            target = output_path(path, folder, scale or loaded.model.scale, written)
            written.add(target)
            height, width = upscale_file(path, target, loaded.model, scale=scale)
            values = {"size": [height, width], "picture": str(target)}
            row = {"width": width, "height": height, "picture": str(target)}
            return Answer(values, [f"{path} -> {target} ({width} x {height} pixels)"], [row])

        return answer
