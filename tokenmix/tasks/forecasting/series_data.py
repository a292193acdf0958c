"""A series as a data set: its rows in three parts, one after the other in time, and where it comes from.

What is learnt from and judged by are windows of rows; how long those are is the model's affair, so that the samples of
a data set are the rows themselves, and `tokenmix.tasks.forecasting.batches` cuts windows.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.data.dataset import DataSet, Samples
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import name_keys
from tokenmix.tasks.forecasting.splits import ALIASES, PARTS, PUBLISHED, Scaler, ends_of, find_published
from tokenmix_runtime.forecasts import first_unseen
from tokenmix_runtime.names import unknown
from tokenmix_runtime.series import Series, read_series

ENDINGS = (".csv", ".csv.gz", ".txt", ".txt.gz", ".parquet")
FILES = {"exchange": "exchange_rate"}  # whose usual file has another name than its paper
EMBEDDED = "co2"
SETTINGS = ("target", "time", "format", "repair", "leave", "decimal")  # of a file, behind a colon


class SeriesRows(Samples):
    """Rows ``first ... end`` of a series, which know the rows before them.

    Args:
        series: The whole one.
        first: The first row of the part.
        end: The row after its last one.
        part: Its name, for messages.
    """

    def __init__(self, series: Series, first: int, end: int, part: str) -> None:
        self.series, self.first, self.end, self.part = series, first, end, part

    @cached_property
    def names(self) -> list[str]:  # type: ignore[override]
        """The time of each row, or its number."""
        return [self.series.time_name(row) for row in range(self.first, self.end)]

    @property
    def title(self) -> str:
        """For messages: the series and the part."""
        return f"{self.series.name}, {self.part} part"

    def __len__(self) -> int:
        return self.end - self.first

    def contents(self) -> NDArray[np.uint64]:
        """64 bits of each row's time and values."""
        rows = self.series.values[self.first : self.end]
        return name_keys([f"{name} {row.tobytes().hex()}" for name, row in zip(self.names, rows, strict=True)])


@dataclass
class SeriesData(DataSet):
    """A series in three parts.

    Attributes:
        season: Steps of the season that the seasonal-naive base line repeats.
    """

    train: SeriesRows
    val: SeriesRows
    test: SeriesRows
    season: int

    @property
    def series(self) -> Series:
        """The whole series."""
        return self.train.series

    @cached_property
    def scaler(self) -> Scaler:
        """Of the rows of training."""
        return Scaler.of(self.series.values[: self.train.end])

    @property
    def facts(self) -> dict[str, Any]:
        """The names of the variables, the season, and up to which row and time a model learns from them."""
        last = self.train.end - 1
        return {
            "variables": list(self.series.variables),
            "season": self.season,
            "learnt": [self.train.end, None if self.series.times is None else str(self.series.times[last])],
        }


def open_series(spec: str, *, log: Callable[[str], None] = print) -> SeriesData:
    """The series that ``spec`` names, in its parts: a published set's by name, or 70, 10 and 20 % of the rows.

    Args:
        spec: `EMBEDDED`; a published set, whose file lies in `data_root`; or a file, with settings behind a colon:
            ``load.csv:target=OT,repair=yes``. They are ``target`` (one variable, forecast from its own past),
            ``time`` (the column of dates), ``format`` (of the dates, as `datetime.strptime` has it), ``repair=yes``
            (fill gaps and missing cells), ``leave`` (columns to leave out, ``leave=a,b``), and ``decimal``
            (``point`` or ``comma``, where 1.179 could be thousands or decimals).
        log: Told what was found in the file.

    Raises:
        ValueError: There is no such file, it is no series, or a setting is unknown.
    """
    series = read_spec(spec)
    for finding in series.findings:
        log(f"{series.name}: {finding.message}")
    return in_parts(series)


def read_spec(spec: str, more: Mapping[str, str] | None = None) -> Series:
    """The whole series that ``spec`` names, see `open_series`.

    Args:
        spec: A name, or a file with settings behind a colon.
        more: Settings that count more than those.

    Raises:
        ValueError: There is no such file, it is no series, or a setting is unknown.
    """
    name, settings = split_spec(spec)
    settings.update(more or {})
    if name == EMBEDDED:
        name, settings = str(embedded_file()), {"repair": "yes", **settings}
    elif (published := find_published(name)) and not Path(name).exists():
        name = str(published_file(published.name))
    return read_series(
        name,
        time=settings.get("time"),
        time_format=settings.get("format"),
        repair=settings.get("repair") == "yes",
        variables=[settings["target"]] if "target" in settings else None,
        leave=settings["leave"].split(",") if settings.get("leave") else (),
        decimal=settings.get("decimal"),
    )


def in_parts(series: Series) -> SeriesData:
    """A series as published, if its file has a published set's name, else by shares of its rows."""
    published = find_published(series.name)
    ends = ends_of(series, published)
    if published is not None:
        season = published.season
    else:
        season = series.step.season if series.step is not None else 1
    spans = zip(PARTS, (0, *ends), ends, strict=False)
    train, val, test = (SeriesRows(series, first, end, part) for part, first, end in spans)
    return SeriesData(series.name, train, val, test, season=season)


def unseen(series: Series, learnt: Sequence[Any] | None, horizon: int) -> tuple[int, str]:
    """The first row of those that a model is judged by, and what is to be said about them.

    Args:
        series: Not as the model has learnt it, but perhaps the same that has gone on.
        learnt: See `tokenmix_runtime.forecasts.first_unseen`.
        horizon: Rows that the model forecasts.
    """
    first, count = first_unseen(series, learnt), len(series)
    if not first:
        return 0, ""
    if count - first < horizon:
        return 0, f"warning: the model may have learnt from {first:,} of these {count:,} rows, by their times"
    return first, (
        f"the {count - first:,} rows after those that the model has learnt from, by their times, are judged; "
        f"--split all judges all {count:,}"
    )


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """``file:target=OT,repair=yes`` -> the file and its settings.

    Raises:
        ValueError: A setting is unknown.
    """
    if os.path.exists(spec):
        return spec, {}
    begin = re.search(rf":(?=({'|'.join(SETTINGS)})=)", spec)  # a form of dates may have colons too
    name, mark, text = (spec[: begin.start()], ":", spec[begin.end() :]) if begin else spec.rpartition(":")
    if not mark or "=" not in text:
        return spec, {}
    settings: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        last = list(settings)[-1] if settings else ""
        if (last == "leave" and not equals) or (last == "format" and key not in SETTINGS):
            settings[last] += f",{part}"
            continue
        if key not in SETTINGS:
            raise ValueError(unknown("setting of a series", key, SETTINGS))
        if key == "repair" and value not in ("yes", "no"):
            raise ValueError(f"{spec}: repair must be yes or no, not {value!r}")
        settings[key] = value
    return name, settings


def with_repair(spec: str) -> str:
    """The same with the setting ``repair=yes``."""
    name, settings = split_spec(spec)
    return f"{name}:{','.join(f'{key}={value}' for key, value in {**settings, 'repair': 'yes'}.items())}"


def published_file(name: str) -> Path:
    """The file of a published set in `data_root`.

    Raises:
        ValueError: It is not there.
    """
    stems = [name, name.lower(), *([FILES[name.lower()]] if name.lower() in FILES else [])]
    stems += [alias for alias, key in ALIASES.items() if key == name.lower()]
    tried = [data_root() / f"{stem}{ending}" for stem in dict.fromkeys(stems) for ending in ENDINGS]
    for path in tried:
        if path.is_file():
            return path
    source = PUBLISHED[name.lower()].source
    raise ValueError(
        f"{name} is not here: fetch its file from {source} and name it (--data FILE), or put it into {data_root()}"
    )


def embedded_file() -> Path:
    """The file of the embedded series: carbon dioxide on Mauna Loa, week by week, which comes with statsmodels.

    Raises:
        ImportError: statsmodels is not installed.
    """
    found = importlib.util.find_spec("statsmodels")
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"the series {EMBEDDED!r} comes with statsmodels, which is missing: pip install statsmodels")
    return Path(found.submodule_search_locations[0]) / "datasets" / "co2" / "co2.csv"


def data_names() -> Mapping[str, str]:
    """A sentence on each series that is known by name."""
    known = {EMBEDDED: "carbon dioxide on Mauna Loa in 2,284 weeks from 1958 on, one variable; comes with statsmodels"}
    return known | {
        key: f"{one.rows:,} rows of {one.variables} variables, the literature's split; a file in TOKENMIX_DATA"
        for key, one in PUBLISHED.items()
    }
