"""What the rest of the house asks a task. It knows no task by name: what depends on one is in that task's folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tokenmix.metrics import Metric
from tokenmix.tasks.answer import Answer, Option
from tokenmix.tasks.draft import Draft
from tokenmix.tasks.judging import Evidence, Judged, Judging, PredictionsWriter
from tokenmix.tasks.objective import Batch, Objective
from tokenmix.tasks.options import TaskAugment, TaskOptions
from tokenmix.tasks.view import Figure, MixerDrawing, View
from tokenmix_runtime.names import unknown

if TYPE_CHECKING:
    from tokenmix.data import DataSet, Samples
    from tokenmix.data.inventory import Inventory
    from tokenmix.data.loader import BatchLoader
    from tokenmix.tasks.file_form import FileForm
    from tokenmix.tasks.section import Section

DEFAULT_TASK = "classification"  # of models of timm's registry that have no head, and where nobody says
Log = Callable[[str], None]
StateDict = Mapping[str, Tensor]


class Task(ABC):
    """A kind of work that models are trained for.

    Attributes:
        name: How recipes and files call it.
        title: How people call it.
        noun: What its samples are called, in the plural.
        timed_noun: What a model answers at a time, where that is no whole sample.
        own_statistics: Whether means and deviations in a model's file are of its samples, not of pictures' channels.
        takes_image_size: Whether samples are brought to a size to be judged; else they have their own.
        headline: The number of the metric that decides which weights are best.
        lower_is_better: Of the headline.
        headline_is_share: Whether the headline is the percentage of the samples that are right, so that their number
            says how sure it is.
        headline_meaning: The headline in a sentence or two, for a page that explains its numbers.
        fact_names: Of what `tokenmix.data.DataSet.facts` tells of its data.
        units: Of the metric's numbers, by their name; those that are not named have the unit under ``""``.
        labels: How people call the metric's numbers, where that is not their name with blanks for underlines.
        batch_size: Of evaluations, where nobody says.
        default_recipe: The name of the recipe for its models that have none of their own.
        Options: Its part of a recipe, ``task.label_smoothing``; a task that says nothing has the one of the task that
            it is made from.
        Augment: What training does to its samples at random, another part of a recipe.
        channels: Of the pictures that its models get; None where that is no matter.
        file_parts: What its exported files can do themselves, in order, see `file_form`.
        eval_options: Of ``tokenmix eval``, which hands them to `objective_of`.
        predict_options: Of ``tokenmix predict``, which hands them to `answerer`.
        corruptions: Of `tokenmix.data.corruptions`, those after which the answers to its samples are still right.
        no_corruptions: Why there are none.
        default_skeleton: The network into which a comparison puts mixers, if it is not the one of the task's recipe.
        default_mixers: Those that a comparison compares where nobody says; none: those of `tokenmix.comparison`.
        example_facts: Of an imagined data set, to try out whether a network can be made.
        endings: Of files that are a data set of this task by themselves.
        commands: Its own commands: the name of each to the module that has ``add_arguments`` and ``run``. What each
            does stands in `tokenmix.cli.COMMANDS`, so that the list of commands needs no task.

    Examples:
        >>> from tokenmix.tasks import find_task
        >>> task = find_task("classification")
        >>> task.headline, task.shown("top1", 91.4), task.shown("loss", 0.25)
        ('top1', '91.40 %', '0.2500')
    """

    name: str
    title: str
    noun: str = "images"
    timed_noun: str = ""
    own_statistics: bool = False
    takes_image_size: bool = True
    headline: str
    lower_is_better: bool = False
    headline_is_share: bool = False
    headline_meaning: str = ""
    fact_names: tuple[str, ...] = ("classes",)
    units: ClassVar[Mapping[str, str]] = {"": "%", "loss": ""}
    labels: ClassVar[Mapping[str, str]] = {}
    batch_size: int = 64
    default_recipe: str | None = None
    Options: ClassVar[type[TaskOptions]] = TaskOptions
    Augment: ClassVar[type[TaskAugment]] = TaskAugment
    channels: int | None = None
    file_parts: tuple[str, ...] = ()
    eval_options: tuple[Option, ...] = ()
    predict_options: tuple[Option, ...] = ()
    corruptions: tuple[str, ...] = ()
    no_corruptions: str = "whose samples are no pictures with an answer that stays right"
    endings: tuple[str, ...] = ()
    default_skeleton: str | None = None
    default_mixers: tuple[str, ...] = ()
    example_facts: ClassVar[Mapping[str, Any]] = {"classes": ("a", "b")}
    commands: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Give each named task options of its own, by whose type a recipe knows the task."""
        super().__init_subclass__()
        name = getattr(cls, "name", None)
        if name is not None and getattr(cls.Options, "name", None) != name:
            own = {"name": name, "__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Options"}
            cls.Options = type("Options", (cls.Options,), own)

    def unit(self, number: str) -> str:
        """The unit of one of the metric's numbers, ``""`` for none."""
        name = number.removeprefix("val_")
        return self.units.get(name, self.units.get("", ""))

    def label(self, number: str) -> str:
        """How people call one of the metric's numbers."""
        name = number.removeprefix("val_")
        return self.labels.get(name, name.replace("_", " "))

    def shown(self, number: str, value: float | None) -> str:
        """A value of the metric for people: with its unit, or in words where it does not exist."""
        if value is None or value != value:
            return "undefined"
        unit = self.unit(number)
        return f"{value:.2f} {unit}" if unit else f"{value:.4f}"

    # ----------------------------------------------------------------------------------------------------- the data

    @abstractmethod
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
        """The data set that ``spec`` names, see `tokenmix.sources.load_data`."""

    def open_judged(
        self, spec: str, loaded: Any, split: str | None, *, seed: int = 0, download: bool = False, log: Log
    ) -> Judged:
        """The samples that a loaded model is judged by; ``split`` is None where the user did not choose a part.

        Raises:
            ValueError: They cannot be read, or are of other facts than the model.
        """
        data = self.open_data(spec, seed=seed, download=download, log=log)
        if different := self.other_facts(loaded, data):
            raise ValueError(f"{spec} has other classes than the model was trained with: {different}")
        samples = self.judged_samples(data, spec, loaded.data, split, seed=seed, log=log)
        return Judged(data.name, samples, data.facts)

    def judged_samples(
        self, data: Any, spec: str, learnt: Mapping[str, Any] | None, split: str | None, *, seed: int, log: Log
    ) -> Any:
        """Those of a data set that a model is judged by, which has learnt from what ``learnt`` says: here a part.

        Raises:
            ValueError: See `tokenmix.data.judged.part_of`.
        """
        from tokenmix.data.judged import learnt_among, part_of

        samples = part_of(data, split, spec)
        if (learnt or {}).get("parts"):  # else nothing is known, and contents may take long
            for note in learnt_among(samples.contents(), learnt, split):
                log(f"{note}; its run may have split them by another --seed")
        return samples

    def recognise_data(self, inventory: Inventory) -> str:
        """What in a folder speaks for its being this task's data, in words; empty if nothing does."""
        return ""

    def data_names(self) -> Mapping[str, str]:
        """Data sets that `open_data` knows by name: a sentence on each."""
        return {}

    def check_data(self, spec: str, *, seed: int, download: bool, log: Log) -> dict[str, Any]:
        """A report on a data set: ``findings``, dicts of ``level`` and ``message``, and what else there is."""
        data = self.open_data(spec, seed=seed, download=download, log=log)
        sets = {part: {self.noun: len(getattr(data, part))} for part in ("train", "val", "test")}
        findings = [{"level": "warning", "message": f"{one.name}: {one.reason}"} for one in data.skipped]
        return {"name": data.name, "task": self.name, "splits": sets, **data.facts, "findings": findings}

    def check_lines(self, report: Mapping[str, Any]) -> list[str]:
        """What of `check_data`'s report is told beside its findings, in lines."""
        return [f"{part}: {row[self.noun]:,} {self.noun}" for part, row in report["splits"].items()]

    def write_shards(self, data: DataSet, out: Path | str, *, shard_size: int) -> dict[str, int]:
        """Write the data set as tar shards; returns how many samples each one has.

        Raises:
            ValueError: There are no shards of such data.
        """
        raise ValueError(f"{self.title}: there is no form of these data in shards; use the folder as it is")

    def check_fits(self, data: DataSet) -> None:  # noqa: B027 - a task may have nothing to check
        """Raise ValueError if the data set was opened for another task."""

    # ----------------------------------------------------------------------------------------------------- the recipe

    def recipes(self) -> Iterator[Callable[[], Any]]:
        """The task's recipes, functions whose names are the recipes'.

        One may take ``images``, how many samples there are to learn from, where it depends on that.
        """
        return iter(())

    def drafts(self, data: DataSet, device: torch.device, *, published: bool = False) -> Sequence[Draft]:
        """How one could train on a data set, the best way first: what `tokenmix.planning` chooses from.

        Args:
            data: What is learnt from.
            device: Where.
            published: Whether published weights may be fetched to start at.

        Raises:
            ValueError: The task has no recipe that fits any data.
        """
        makes = {make.__name__: make for make in self.recipes()}
        if self.default_recipe in makes:
            return [Draft(makes[self.default_recipe]())]
        names = ", ".join(list(makes)[:5])
        raise ValueError(
            f"{data.name} is for {self.title}, for which no training is planned from the data: name a recipe, "
            f"tokenmix train RECIPE --data ...{names and f', such as {names}'}"
        )

    def check_recipe(self, recipe: Any) -> None:
        """Raise ValueError unless the parts of a recipe for this task go together."""
        if recipe.model.head is not None:
            raise ValueError(f"recipe key 'model.head': models for {self.title} have no head to choose; leave it out")

    def check_mixers(self, spec: Any) -> None:
        """Raise unless a file may name these mixers for one of `networks`, see `tokenmix.mixers.check_mixers`.

        Raises:
            ValueError: It may not.
        """
        from tokenmix.mixers import check_mixers

        check_mixers(spec)

    def check_compared(self, recipe: Any) -> None:  # noqa: B027 - a task may have nothing to check
        """Raise ValueError if models that are trained by the recipe cannot be compared."""

    def complete(self, recipe: Any, data: DataSet) -> Any:
        """The recipe with what it leaves to the data."""
        return recipe

    def stored(self, recipe: Any) -> dict[str, Any]:
        """What of the recipe is stored with the weights beside the model: ``task_args``, for `objective_of`."""
        return {"task_args": {}}

    # --------------------------------------------------------------------------------------------------- the training

    def networks(self) -> Mapping[str, str]:
        """Its own networks, which are not in timm's registry: a sentence on each, by name."""
        return {}

    def network(self, name: str, facts: Mapping[str, Any], **arguments: Any) -> nn.Module:
        """One of `networks` with fresh weights, for data of these facts.

        Raises:
            ValueError: There is no such network, or an argument is unknown or out of range.
        """
        raise ValueError(unknown("network", name, self.networks()))

    def recognise(self, state_dict: StateDict) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]] | None:
        """An official checkpoint of one of `networks`: name, arguments, facts, weights by our names; or None."""
        return None

    def check_facts(self, facts: Mapping[str, Any]) -> None:  # noqa: B027 - most facts are checked for all tasks
        """Raise ValueError unless what a file of weights says of its data is what its networks are built from."""

    def official_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of one of `networks` by the names of its official project.

        Raises:
            ValueError: That has no such network.
        """
        raise ValueError(f"networks for {self.title} have no official names")

    @abstractmethod
    def build(self, recipe: Any, facts: Mapping[str, Any], **more: Any) -> nn.Module:
        """The recipe's model with fresh weights for data of these facts; ``more`` is what no recipe can hold.

        Raises:
            ValueError: There is no such model.
        """

    @abstractmethod
    def objective(self, recipe: Any, model: nn.Module, facts: Mapping[str, Any]) -> Objective:
        """A model with the loss that the recipe wants."""

    def preparation(self, recipe: Any, data: DataSet, model: nn.Module) -> dict[str, Any]:
        """How samples become tensors, as JSON values; stored with the weights and given to `loaders`."""
        return {}

    @abstractmethod
    def loaders(
        self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        """Of the samples to learn from and of those to choose by; ``share`` is ``workers``, ``rank`` and ``world``."""

    def probe(self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], **share: Any) -> BatchLoader | None:
        """Some training samples, prepared as the validation's: what a model says of what it has learnt from.

        None where nobody asks that; ``share`` as for `loaders`.
        """
        return None

    def unfound(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        """The classes, or other parts of the data, of which not one validation sample was right."""
        return ()

    def rare(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        """The classes that have less than half as many validation samples as they would have if all had as many."""
        return ()

    def doubtful(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
        """Validation samples whose labels may be wrong, in words: the model is sure that they are something else."""
        return ()

    def base_line(self, evidence: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[float, str] | None:
        """The headline that needs no model, and how it is reached in words; None where there is none."""
        return None

    def initial_weights(self, recipe: Any, facts: Mapping[str, Any], log: Log) -> StateDict:
        """The state dict at which ``recipe.model.weights`` says to start.

        Raises:
            ValueError: They do not fit.
        """
        raise ValueError(f"recipe key 'model.weights': models for {self.title} start with fresh weights; leave it out")

    def changes(
        self, recipe: Any, data: DataSet, preparation: Mapping[str, Any], model: nn.Module, device: torch.device
    ) -> Callable[[Batch, int], Batch] | None:
        """What else is done to a part of a training batch on the device, by a seed: mixing pictures, a teacher."""
        return None

    def learning_rates(self, recipe: Any, model: nn.Module) -> dict[str, float] | None:
        """Factors on the learning rate by parameter, where the recipe wants other ones than one per layer."""
        return None

    def fixed_modules(self, recipe: Any, model: nn.Module) -> list[nn.Module]:
        """Submodules that stay in evaluation mode while the rest is trained."""
        return []

    def evidence(self, recipe: Any, data: DataSet) -> Evidence | None:
        """Who gathers what a run's page shows of the kept weights, or None."""
        return None

    def describe_batch(self, recipe: Any) -> str:
        """What a sample of a batch is, for a message about memory, such as ``"224 x 224 pixels"``."""
        return ""

    # ----------------------------------------------------------------------------------------------------- the judging

    @abstractmethod
    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        """Samples as a loaded model is judged by them, in order; ``share`` as for `loaders`."""

    @abstractmethod
    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        """A loaded model with what judges it; ``options`` are those of `eval_options` that were given."""

    def inputs(self, loaded: Any, samples: Samples, count: int) -> Tensor:
        """The first samples of a set as a loaded model takes them, (count, ...), for measurements on real data."""
        batch = next(iter(self.loader(loaded, samples, batch_size=count).batches(0)))
        return batch["image"]

    def corrupted(self, loaded: Any, batch: Batch, name: str, strength: int, *, seed: int) -> Batch:
        """A batch of the `loader` with every picture corrupted, see `tokenmix.data.corruptions.corrupted`.

        Raises:
            ValueError: The task has no `corruptions`.
        """
        raise ValueError(f"{self.title}: there are no corruptions, {self.no_corruptions}")

    def judging(self, metric: Metric, facts: Mapping[str, Any]) -> Judging:
        """What an evaluation notes and tells beside the metric."""
        return Judging(metric, facts)

    def row_columns(self) -> Mapping[str, str]:
        """Of the rows of `Judging.rows`: what is printed, by name, with its header; the second one that is a number
        ranks them.
        """
        return {}

    def predictions_of(self, results: Sequence[Any]) -> Any:
        """Answers of `tokenmix_runtime.Predictor` to a batch as the task's metric reads them.

        Raises:
            ValueError: Exported files of this task are not judged.
        """
        raise ValueError(f"{self.title}: exported files are not judged, only models")

    def cell(self, row: Mapping[str, Any], name: str) -> str:
        """A value of a row as it is printed."""
        value = row[name]
        if isinstance(value, float):
            return "" if value != value else f"{value:.2f}"
        return f"{value:,}" if isinstance(value, int) else str(value or "")

    def other_facts(self, loaded: Any, data: DataSet) -> str:
        """In what a data set's facts differ from those that a model was trained for; empty if in nothing."""
        known = {name: value for name, value in loaded.facts.items() if name in data.facts}
        return ", ".join(
            f"{name}: {data.facts[name]}, not {value}" for name, value in known.items() if value != data.facts[name]
        )

    def check_results(self, path: str) -> None:
        """Raise ValueError unless ``tokenmix eval --results`` can put a row into the table at ``path``."""
        raise ValueError(f"--results {path}: {self.title} has no table of results")

    def add_result(self, path: str, model: str, loaded: Any, numbers: Mapping[str, float], image_size: Any) -> None:
        """Put a model's row into the table that `check_results` has checked."""
        self.check_results(path)

    def predictions_writer(
        self, path: str, samples: Samples, facts: Mapping[str, Any], *, labelled: bool = True
    ) -> PredictionsWriter:
        """Who writes the answers to each sample for ``tokenmix eval --predictions``; ``labelled``: the truth is known.

        Raises:
            ValueError: The path's ending is none of this task's; or predictions are not written.
        """
        raise ValueError(f"--predictions {path}: {self.title} has no file of predictions")

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(self, loaded: Any, device: torch.device, **options: Any) -> Callable[[str], Answer]:
        """What answers a user's file by its path; ``options`` are those of `predict_options` that were given.

        Raises:
            ValueError: Files are not answered one by one; in use, if the file cannot be read.
        """
        raise ValueError(f"{self.title}: `tokenmix predict` does not know how to answer a file")

    # ----------------------------------------------------------------------------------------------------- inspection

    def view(self, loaded: Any, path: str, *, wanted: str | None = None, image_size: Any = None) -> View:
        """A user's file as a loaded model sees it, and what the model says of it.

        Args:
            loaded: The model, on its device.
            path: The file.
            wanted: What its score is asked of, such as the name of a class; None: what the model says.
            image_size: Pixels; None: the model's.

        Raises:
            ValueError: The file cannot be read, or nothing of the task can be looked at.
        """
        raise ValueError(f"{self.title}: `tokenmix inspect` does not know how to look at a file")

    def own_figures(self, loaded: Any, view: View) -> Sequence[Figure]:
        """What only models of this task have to show of a file, beside what is shown of all networks of maps."""
        return ()

    def mixer_drawing(self) -> MixerDrawing | None:
        """How the mixers of networks whose inputs are no pictures (B, C, H, W) are drawn; None: they are not opened."""
        return None

    # ---------------------------------------------------------------------------------------------------------- pages

    def told_names(self, names: Sequence[str], facts: Mapping[str, Any]) -> Sequence[str]:
        """Which of the metric's numbers say something of a model for such facts."""
        return names

    def curve_names(self, names: Sequence[str], facts: Mapping[str, Any]) -> Sequence[str]:
        """Which of the metric's numbers a run's page draws over the epochs."""
        return self.told_names(names, facts)

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        """What the page of a run shows of the kept weights.

        Args:
            run: What `tokenmix.train.reporter` tells; its ``evidence`` is what the task's `Evidence` gathered.
            pictures: What `Evidence.picture` made of the mistakes that are still there, by their ``index``.
        """
        return ()

    def compare_sections(self, results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sequence[Section]:
        """What the page of a comparison shows beside scores and speeds.

        Args:
            results: What is in ``results.json``, with what `compared` and `samples` gave; any value may be missing.
            pictures: Those of `samples`.
        """
        return ()

    # ---------------------------------------------------------------------------------- files for other runtimes, costs

    def raw_form(self, model: nn.Module) -> nn.Module:
        """A network of the task as a module from one tensor to one or several: what is timed, counted and exported."""
        return model

    def example_inputs(self, loaded: Any, count: int, image_size: Any = None, seed: int = 0) -> Tensor:
        """``(count, ...)``: noise as `raw_form` of a loaded model takes it.

        Raises:
            ValueError: It takes no single tensor.
        """
        raise ValueError(f"{self.title}: its models do not take one tensor, so that none can be made up for them")

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        """A loaded model as a file; ``inside`` names those of `file_parts` that the file does itself.

        Raises:
            ValueError: There is no such file, or none of this model.
        """
        raise ValueError(f"{self.title}: its models cannot be exported to other runtimes")

    def training_loss(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The loss of a network in training on inputs with a made-up truth, to measure a step.

        Raises:
            ValueError: There is no such measurement.
        """
        raise ValueError(f"{self.title}: a training step cannot be measured without data")

    def training_work(self, recipe: Any, facts: Mapping[str, Any]) -> Iterator[tuple[nn.Module, Any, float]]:
        """What a training by a recipe computes for one sample: modules with an input, and how often that is computed.

        A backward pass counts as two forward ones. Nothing need have values: torch's meta device will do.

        Raises:
            ValueError: It cannot be said.
        """
        raise ValueError(f"{self.title}: what a training computes is not counted")

    # ---------------------------------------------------------------------------------------------------- comparisons

    def own_widths(self, recipe: Any) -> tuple[int, ...]:
        """The widths that the recipe's network has by itself, for those into which mixers can be put.

        Raises:
            ValueError: It takes no mixers.
        """
        raise ValueError(f"{self.title}: its networks take no mixers, so that there is nothing to compare")

    def width_arguments(self, widths: Sequence[int]) -> dict[str, Any]:
        """The arguments of a network that give it these widths."""
        return {"dims": list(widths)}

    def timed(self, loaded: Any, samples: Samples, count: int) -> tuple[nn.Module, Tensor]:
        """What a comparison times of a loaded model: a module of one tensor, and up to ``count`` real samples for it.

        The module takes any number of samples at once, unless there is one sample only.
        """
        return self.raw_form(loaded.model), self.inputs(loaded, samples, count)

    def exported(self) -> bool:
        """Whether there are files of its models for other runtimes."""
        return type(self).file_form is not Task.file_form

    def compared(self, judging: Judging) -> dict[str, Any]:
        """What a comparison keeps of a model's test beside its numbers, as JSON.

        ``test_<headline>_interval`` may be among it: the ends of the 95 % interval for the choice of the test samples.
        """
        return {}

    def samples(
        self, judgings: Mapping[str, Judging], data: DataSet
    ) -> tuple[dict[str, list[dict[str, Any]]], dict[str, bytes]]:
        """What a comparison shows of single test samples: entries per model, and pictures (PNG) by a sample's name."""
        return {}, {}

    def demos(self) -> Mapping[str, str]:
        """Embedded demos: a name for ``tokenmix demo`` to the recipe that is trained."""
        return {}
