"""Forecasting as a task: the next values of many variables from their last ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.argument_types import whole
from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import Metric
from tokenmix.tasks.answer import Answer, Option, answers_folder
from tokenmix.tasks.base import Log, StateDict, Task
from tokenmix.tasks.forecasting.options import Options
from tokenmix.tasks.judging import Judged, Judging
from tokenmix.tasks.objective import Objective
from tokenmix.tasks.view import Figure, MixerDrawing, View
from tokenmix_runtime.names import unknown

if TYPE_CHECKING:
    from tokenmix.tasks.file_form import FileForm
    from tokenmix.tasks.forecasting.splits import Scaler
    from tokenmix.tasks.section import Section


OUT = "predictions"  # where forecasts go
ENDINGS = (".csv", ".csv.gz", ".parquet")


class ForecastingTask(Task):
    """The next H values of M variables from their last L ones."""

    name = "forecasting"
    title = "forecasting"
    noun = "rows"
    timed_noun = "windows"
    own_statistics = True
    takes_image_size = False
    headline = "mse"
    lower_is_better = True
    headline_meaning = (
        "The mean squared error over all windows, future steps and variables, each variable in standard deviations of "
        "its training rows: 1 is the error of forecasting the mean."
    )
    fact_names = ("variables", "season", "learnt")
    units: ClassVar[Mapping[str, str]] = {"": ""}
    labels: ClassVar[Mapping[str, str]] = {
        "mse": "squared error",
        "mae": "absolute error",
        "naive_mse": "squared error of the last season",
        "naive_mae": "absolute error of the last season",
    }
    batch_size = 256
    default_recipe = "ffnet_forecast"
    default_mixers = ("ffnet", "aff", "ffnified", "additive", "dsm", "attention", "pool", "depthwise", "identity")
    example_facts: ClassVar[Mapping[str, Any]] = {"variables": ("a", "b"), "season": 1}
    endings = ENDINGS
    Options = Options
    commands: ClassVar[Mapping[str, str]] = {"forecast": "tokenmix.tasks.forecasting.forecast_command"}
    predict_options = (
        Option("--out", {"metavar": "DIR", "help": f"where forecasts go (default: {OUT}/)"}),
        Option("--horizon", {"type": whole("horizon"), "metavar": "H", "help": "rows ahead (default: the model's)"}),
    )
    eval_options = (
        Option(
            "--drop-last",
            {
                "type": whole("batch_size"),
                "metavar": "N",
                "help": "leave out the windows behind the last whole batch of N, as papers do",
            },
        ),
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
        from tokenmix.tasks.forecasting.series_data import open_series

        return open_series(spec, log=log)

    def open_judged(
        self, spec: str, loaded: Any, split: str | None, *, seed: int = 0, download: bool = False, log: Log
    ) -> Judged:
        """The test part of the model's own series, or all of another one with the model's variables.

        Raises:
            ValueError: It cannot be read, or lacks a variable of the model.
        """
        from tokenmix.tasks.forecasting.series_data import SeriesRows, in_parts, open_series, unseen

        data = open_series(spec, log=log)
        if (wanted := loaded.facts.get("variables")) and list(data.series.variables) != wanted:
            data = in_parts(data.series.select(wanted))
        series = data.series
        known = loaded.facts.get("learnt")
        own = known is None or known == data.facts["learnt"]
        if known and own and known[1] is None and split is None:
            log(f"{data.name}: without dates the model's own series is known by its {len(series):,} rows alone")
        if split == "all" or (split is None and not own):
            first, told = (0, "") if split else unseen(series, known, loaded.model.horizon)
            if told:
                log(f"{data.name}: {told}")
            return Judged(data.name, SeriesRows(series, first, len(series), "whole"), data.facts)
        return Judged(data.name, getattr(data, split or "test"), data.facts)

    def data_names(self) -> Mapping[str, str]:
        from tokenmix.tasks.forecasting.series_data import data_names

        return data_names()

    def check_facts(self, facts: Mapping[str, Any]) -> None:
        from tokenmix.tasks.forecasting.facts import check_facts

        check_facts(facts)

    def check_data(self, spec: str, *, seed: int, download: bool, log: Log) -> dict[str, Any]:
        """What was read and found in a file; what cannot be used without a repair is an error with the rows."""
        from tokenmix.tasks.forecasting.series_data import open_series, with_repair

        level = "warning"
        try:
            data = open_series(spec, log=lambda line: None)
        except ValueError:  # perhaps only for want of a repair
            data, level = open_series(with_repair(spec), log=lambda line: None), "error"
        series = data.series
        findings = [
            {"level": level if found.is_serious else "warning", "message": found.message}
            for found in series.findings
            if level == "warning" or found.kind != "filled"  # by a repair that nobody asked for
        ]
        sets = {part: {self.noun: len(getattr(data, part))} for part in ("train", "val", "test")}
        spans = {"step": str(series.step), "from": series.time_name(0), "to": series.time_name(len(series) - 1)}
        return {"name": data.name, "task": self.name, "splits": sets, **data.facts, **spans, "findings": findings}

    def check_lines(self, report: Mapping[str, Any]) -> list[str]:
        variables = ", ".join(report["variables"][:30])
        span = f"from {report['from']} to {report['to']}, step: {report['step']}, season: {report['season']} steps"
        return [*super().check_lines(report), span, f"{len(report['variables'])} variables: {variables}"]

    def check_fits(self, data: DataSet) -> None:
        from tokenmix.tasks.forecasting.series_data import SeriesData

        if not isinstance(data, SeriesData):
            raise ValueError(
                f"the recipe's task is {self.name}, but {data.name} was loaded for another: use task='{self.name}'"
            )

    # ----------------------------------------------------------------------------------------------------- the recipe

    def recipes(self) -> Iterator[Callable[[], Any]]:
        from tokenmix.tasks.forecasting.recipes import all_recipes

        return all_recipes()

    def demos(self) -> Mapping[str, str]:
        return {"forecast": "co2_forecast"}

    def check_recipe(self, recipe: Any) -> None:
        super().check_recipe(recipe)
        if recipe.model.name not in self.networks():
            raise ValueError(f"recipe key 'model.name': {unknown('network', recipe.model.name, self.networks())}")
        if recipe.model.drop_path_rate:
            raise ValueError(f"recipe key 'model.drop_path_rate': networks for {self.title} have none; leave it out")

    def check_mixers(self, spec: Any) -> None:
        from tokenmix.mixers import check_mixers
        from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS
        from tokenmix.tasks.forecasting.model import PUBLISHED_MIXER

        check_mixers(spec, {**SERIES_MIXERS, PUBLISHED_MIXER: SERIES_MIXERS["ffnified"]})

    def stored(self, recipe: Any) -> dict[str, Any]:
        return {"task_args": {"loss": recipe.task.loss, "drop_last": recipe.task.drop_last}}

    # --------------------------------------------------------------------------------------------------- the training

    def networks(self) -> Mapping[str, str]:
        from tokenmix.tasks.forecasting.networks import NETWORKS

        return NETWORKS

    def network(self, name: str, facts: Mapping[str, Any], **arguments: Any) -> nn.Module:
        from tokenmix.tasks.forecasting.networks import make_network

        return make_network(name, facts, **arguments)

    def recognise(self, state_dict: StateDict) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]] | None:
        from tokenmix.tasks.forecasting.model import options_of
        from tokenmix.tasks.forecasting.official import load_official, recognise

        shapes = {key.removeprefix("module."): tuple(tensor.shape) for key, tensor in state_dict.items()}
        if recognise(shapes) is None:
            return None
        found = load_official(state_dict)
        return "ffnet_forecast", options_of(found.architecture), {}, found.model.state_dict()

    def official_weights(self, model: nn.Module) -> dict[str, Tensor]:
        from tokenmix.tasks.forecasting.official import to_official

        if (arch := getattr(model, "architecture", None)) is None:
            return super().official_weights(model)
        return to_official(model, arch)

    def build(self, recipe: Any, facts: Mapping[str, Any], **more: Any) -> nn.Module:
        rate = {} if recipe.model.drop_rate is None else {"drop_rate": recipe.model.drop_rate}
        return self.network(recipe.model.name, facts, **{**rate, **recipe.model.args, **more})

    def objective(self, recipe: Any, model: nn.Module, facts: Mapping[str, Any]) -> Objective:
        from tokenmix.tasks.forecasting.objective import ForecastObjective

        options = recipe.task
        return ForecastObjective(
            model, num_variables=len(facts["variables"]), loss=options.loss, drop_last=options.drop_last
        )

    def preparation(self, recipe: Any, data: Any, model: nn.Module) -> dict[str, Any]:
        """``mean`` and ``std`` of every variable over the rows of training."""
        return {"mean": data.scaler.mean.tolist(), "std": data.scaler.std.tolist()}

    def loaders(
        self, recipe: Any, data: Any, preparation: Mapping[str, Any], **share: Any
    ) -> tuple[BatchLoader, BatchLoader]:
        from tokenmix.tasks.forecasting.batches import window_loader

        run, lengths = recipe.run, self._lengths(recipe)
        train = window_loader(
            data.train, data.scaler, *lengths, batch_size=run.batch_size, train=True, seed=run.seed, **share
        )
        part = -(-run.batch_size // run.accumulate)
        return train, window_loader(data.val, data.scaler, *lengths, batch_size=part, train=False, **share)

    @staticmethod
    def _lengths(recipe: Any) -> tuple[int, int]:
        """Look-back and horizon of a recipe's model."""
        from tokenmix.tasks.forecasting.networks import LENGTHS

        look_back, horizon = (recipe.model.args.get(name, usual) for name, usual in LENGTHS.items())
        return look_back, horizon

    def evidence(self, recipe: Any, data: DataSet) -> Any:
        from tokenmix.tasks.forecasting.evidence import ForecastEvidence

        return ForecastEvidence(data)  # type: ignore[arg-type]

    def describe_batch(self, recipe: Any) -> str:
        look_back, horizon = self._lengths(recipe)
        return f"{look_back} past and {horizon} future values of each variable"

    # ----------------------------------------------------------------------------------------------------- the judging

    def loader(
        self, loaded: Any, samples: Samples, *, image_size: Any = None, batch_size: int, **share: Any
    ) -> BatchLoader:
        """All windows of a part in order, normalised as the model's training was."""
        from tokenmix.tasks.forecasting.batches import window_loader
        from tokenmix.tasks.forecasting.series_data import SeriesRows

        if not isinstance(samples, SeriesRows):
            raise ValueError(f"{loaded.name} is for {self.title}: use load_data(..., task={self.name!r})")
        lengths = loaded.model.look_back, loaded.model.horizon
        return window_loader(
            samples, self.scaler(loaded, samples), *lengths, batch_size=batch_size, train=False, **share
        )

    @staticmethod
    def scaler(loaded: Any, samples: Any) -> Scaler:
        """What a loaded model was normalised by; of one that does not say, the rows before those to be judged."""
        from tokenmix.tasks.forecasting.series_data import in_parts
        from tokenmix.tasks.forecasting.splits import Scaler

        if not loaded.mean:
            return in_parts(samples.series).scaler
        return Scaler(np.array(loaded.mean), np.array(loaded.std))

    def objective_of(self, loaded: Any, facts: Mapping[str, Any], **options: Any) -> Objective:
        from tokenmix.tasks.forecasting.objective import ForecastObjective

        count, arch = len(facts["variables"]), getattr(loaded.model, "architecture", None)
        if arch is not None and arch.num_variables != count:
            raise ValueError(f"{loaded.name} forecasts {arch.num_variables} variables, but the series has {count}")
        return ForecastObjective(loaded.model, num_variables=count, **{**loaded.task_args, **options})

    def inputs(self, loaded: Any, samples: Samples, count: int) -> Tensor:
        batch = next(iter(self.loader(loaded, samples, batch_size=count).batches(0)))
        return batch["past"]

    def judging(self, metric: Metric, facts: Mapping[str, Any]) -> Judging:
        from tokenmix.tasks.forecasting.judged import ForecastJudging

        return ForecastJudging(metric, facts)

    def row_columns(self) -> Mapping[str, str]:
        return {
            "variable": "variable",
            "mse": "squared error",
            "mae": "absolute error",
            "naive_mse": "last season's squared",
            "naive_mae": "absolute",
        }

    def cell(self, row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.4f}" if isinstance(row[name], float) else super().cell(row, name)

    def other_facts(self, loaded: Any, data: DataSet) -> str:
        known, there = loaded.facts.get("variables"), data.facts["variables"]
        return "" if known in (None, there) else f"variables: {', '.join(there)}, not {', '.join(known)}"

    # ---------------------------------------------------------------------------------- files for other runtimes, costs

    def example_inputs(self, loaded: Any, count: int, image_size: Any = None, seed: int = 0) -> Tensor:
        variables = len(loaded.facts.get("variables") or loaded.mean) or self._variables(loaded.model)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, loaded.model.look_back, variables, generator=generator)

    @staticmethod
    def _variables(model: Any) -> int:
        """Of a model that knows nothing of its data."""
        from tokenmix.tasks.forecasting.networks import VARIABLES

        arch = getattr(model, "architecture", None)
        return VARIABLES if arch is None else arch.num_variables

    def file_form(self, loaded: Any, image_size: Any = None, inside: Sequence[str] = ()) -> FileForm:
        """See `tokenmix.tasks.forecasting.export`.

        Raises:
            ValueError: The model does not know by what its series is normalised.
        """
        from tokenmix.tasks.forecasting.export import ForecastForm

        if not loaded.mean:
            raise ValueError(
                f"{loaded.name} does not know the means and deviations of its variables: export a training run's model"
            )
        return ForecastForm(self, loaded, (0, 0), inside)

    def training_loss(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The squared error of forecasts whose truth is the mean."""
        return model(inputs).square().mean()

    def training_work(self, recipe: Any, facts: Mapping[str, Any]) -> Iterator[tuple[nn.Module, Any, float]]:
        """One window forward and back."""
        look_back, _ = self._lengths(recipe)
        model = self.build(recipe, facts)
        yield model, torch.zeros(1, look_back, self._variables(model)), 3.0

    # ---------------------------------------------------------------------------------------------- pages, comparisons

    def run_sections(self, run: Mapping[str, Any], pictures: Mapping[int, Any]) -> Sequence[Section]:
        from tokenmix.tasks.forecasting.page import run_sections

        return run_sections(run, pictures)

    def own_widths(self, recipe: Any) -> tuple[int, ...]:
        from tokenmix.tasks.forecasting.model import Architecture

        if recipe.model.name != "ffnet_forecast":
            raise ValueError(f"{recipe.model.name} takes no mixers, so it is no skeleton; ffnet_forecast is one")
        return tuple(recipe.model.args.get("dims") or Architecture(1).dims)

    def compared(self, judging: Judging) -> dict[str, Any]:
        """``per_variable``: each variable's errors, and those of the last season."""
        return {"per_variable": judging.rows()}

    def compare_sections(self, results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Sequence[Section]:
        from tokenmix.tasks.forecasting.page import compare_sections

        return compare_sections(results)

    # ----------------------------------------------------------------------------------------------------- inspection

    def view(self, loaded: Any, path: str, *, wanted: str | None = None, image_size: Any = None) -> View:
        """The last window of a series, see `tokenmix.tasks.forecasting.looking`."""
        from tokenmix.tasks.forecasting.looking import see

        if wanted is not None or image_size is not None:
            raise ValueError(f"models for {self.title} have neither classes nor an image size: leave out the options")
        return see(loaded, path)

    def own_figures(self, loaded: Any, view: View) -> Sequence[Figure]:
        from tokenmix.tasks.forecasting.looking import figures

        return figures(loaded, view)

    def mixer_drawing(self) -> MixerDrawing:
        from tokenmix.tasks.forecasting.looking import DRAWING

        return DRAWING

    # ------------------------------------------------------------------------------------------------- files of a user

    def answerer(
        self, loaded: Any, device: torch.device, *, out: str | None = None, horizon: int | None = None, **options: Any
    ) -> Callable[[str], Answer]:
        """Writes the forecast of a CSV file and a picture of it into the folder ``out``.

        Raises:
            ValueError: ``out`` is a file; in use, if the file is no series, or lacks variables of the model.
        """
        from tokenmix.tasks.forecasting.answers import forecast_file, forecast_model, write_forecast
        from tokenmix.tasks.forecasting.series_data import read_spec

        folder, written = answers_folder(out, OUT), set[str]()
        model = forecast_model(loaded, device)

        def answer(path: str) -> Answer:
            series = read_spec(path)
            found = forecast_file(series, model, horizon=horizon)
            number = 1
            while (name := f"{series.name}-forecast{'' if number == 1 else f'-{number}'}.csv") in written:
                number += 1
            written.add(name)
            table, picture = write_forecast(found, folder / name)
            files = {"forecast": str(table), "picture": str(picture)}
            lines = [*(f"{series.name}: {finding.message}" for finding in series.findings), *found.lines()]
            return Answer({**found.as_dict(), **files}, [*lines, f"{path} -> {table}, {picture}"], [files])

        return answer
