"""``python -m tokenmix_runtime.forecaster MODEL.onnx SERIES.csv``: what follows a series, by ONNX Runtime alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tokenmix_runtime.console import exit_code
from tokenmix_runtime.files import check_other_file, whole_file
from tokenmix_runtime.forecasts import LEVEL, Array, Forecast, ForecastModel, forecast
from tokenmix_runtime.manifest import ModelError, inner_manifest
from tokenmix_runtime.series import Series, read_series
from tokenmix_runtime.session import Session
from tokenmix_runtime.terminal import say
from tokenmix_runtime.untrusted import LIMITS, shown


class Forecaster:
    """A forecaster in an ONNX file that ``tokenmix export`` wrote, run by ONNX Runtime on the CPU.

    Called with a series, or with the path of a CSV file, it returns a `tokenmix_runtime.forecasts.Forecast`.

    Args:
        path: The file.
        threads: Of ONNX Runtime; None: as many as there are cores, or as a container's CPU quota allows.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelError: The file is missing, damaged, not from ``tokenmix export``, or no forecaster.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self.path = os.fspath(path)
        self._threads, self._session = threads, Session(self.path, threads)
        content = inner_manifest(self.path, self._session.here().get_modelmeta().custom_metadata_map)
        try:
            self.model = self._parsed(content)
        except ModelError:
            raise
        except KeyError as error:
            raise ModelError(f"the manifest inside {self.path} lacks {error}: export the model again") from None
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ModelError(f"the manifest inside {self.path} is wrong ({error}): export the model again") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Forecaster, os.path.abspath(self.path), threads=self._threads), ()

    def __call__(
        self, series: Series | str | os.PathLike[str], *, horizon: int | None = None, level: float = LEVEL
    ) -> Forecast:
        """What follows; see `tokenmix_runtime.forecasts.forecast`.

        Raises:
            ValueError: The file is no series, or does not fit the model.
        """
        if not isinstance(series, Series):
            series = read_series(series)
        return forecast(series, self.model, horizon=horizon, level=level)

    def _parsed(self, content: Mapping[str, Any]) -> ForecastModel:
        before, after, labels = content["preprocess"], content["postprocess"], content["labels"]
        if "horizon" not in after:
            raise ModelError(f"{self.path} is no forecaster: it is read by tokenmix_runtime.Predictor")
        (source,) = self._session.here().get_inputs()
        look_back, horizon = (_count(name, part[name]) for part, name in ((before, "look_back"), (after, "horizon")))
        mean, std = (np.array(before[name], np.float64) for name in ("mean", "std"))
        if mean.ndim != 1 or mean.shape != std.shape or not np.isfinite([mean, std]).all() or (std <= 0).any():
            raise ValueError("mean and std must be numbers of the variables, and std above 0")
        if list(source.shape[1:]) != [look_back, len(mean)]:
            raise ValueError(f"the graph takes {shown(source.shape)}, not {look_back} rows of {len(mean)} variables")
        if labels is not None and (len(labels) != len(mean) or not all(isinstance(name, str) for name in labels)):
            raise ValueError("the names of the variables are others than the graph's")
        learnt, season = before["learnt"], before["season"]
        return ForecastModel(
            str(content["model"]),
            partial(self._run, source, (horizon, len(mean))),
            look_back,
            horizon,
            mean,
            std,
            tuple(labels or ()),
            None if season is None else _count("season", season),
            None if learnt is None else (int(learnt[0]), None if learnt[1] is None else str(np.datetime64(learnt[1]))),
        )

    def _run(self, source: Any, wanted: tuple[int, int], x: Array) -> Array:
        """``(B, L, M) -> (B, H, M)``, so many windows at once as the graph takes."""
        size = source.shape[0] if isinstance(source.shape[0], int) else len(x)
        parts = []
        for begin in range(0, len(x), size):
            batch = x[begin : begin + size]
            whole = np.concatenate([batch, np.zeros((size - len(batch), *x.shape[1:]), x.dtype)])
            try:
                found = self._session.run({source.name: whole})[0]
            except Exception as error:  # onnxruntime has one class per status and no common public base
                raise ModelError(f"ONNX Runtime cannot run {self.path} on {whole.shape}: {error}") from None
            if found.shape != (size, *wanted):
                raise ModelError(
                    f"the outputs of {self.path} are not those of its manifest: {found.shape}, not {(size, *wanted)}"
                )
            parts.append(found[: len(batch)])
        return np.concatenate(parts)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= LIMITS["side"]:
        raise ValueError(f"{name} is {shown(value)}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Forecast a CSV file.

    Returns:
        The exit code: 0, or 2 for a mistake, 130 after Ctrl-C, and 141 when nobody reads the forecast.
    """
    return exit_code(lambda output: _forecast(argv))


def _forecast(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="tokenmix_runtime.forecaster", description=__doc__)
    add = parser.add_argument
    add("model", help="an ONNX file that tokenmix export wrote")
    add("series", help="a CSV file")
    add("--horizon", type=int, metavar="H", help="rows ahead (default: all that the model can)")
    add("--level", type=float, default=LEVEL, metavar="P", help="of the intervals (default: %(default)s)")
    add("--repair", action="store_true", help="fill gaps and missing cells between their neighbours")
    add("--out", metavar="FILE.csv", help="where the forecast goes (default: standard output)")
    add("--json", action="store_true", help="print what is known of the forecast as JSON")
    args = parser.parse_args(argv)
    try:
        if args.out:
            check_other_file(args.out, args.series)
        series = read_series(args.series, repair=args.repair)
        found = Forecaster(args.model)(series, horizon=args.horizon, level=args.level)
        if args.out:
            with whole_file(args.out) as temporary:
                temporary.write_text(found.to_csv(), encoding="utf-8")
    except (ValueError, OSError, ImportError) as error:
        say(f"tokenmix_runtime: error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(found.as_dict(), indent=1, allow_nan=False))
    else:
        findings = [f"{series.name}: {finding.message}" for finding in series.findings]
        say("\n".join([*findings, *found.lines()]), file=sys.stdout if args.out else sys.stderr)
        if not args.out:
            print(found.to_csv(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
