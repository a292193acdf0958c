"""What follows a series: `tokenmix forecast CSV --horizon 96 --model RUN`.

CSV has a row for each time and a column for each variable. MODEL is a training run's folder, a .safetensors file or an
exported .onnx file; without one a quick linear model is fitted to the series at once. The forecast becomes a CSV file
with dates, and a picture; intervals come from the errors on rows that the model did not learn from, and how often they
held the truth was measured on later ones. The last season again stands beside every forecast.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenmix.argument_types import whole
from tokenmix_runtime.files import check_other_file
from tokenmix_runtime.numerals import DECIMALS
from tokenmix_runtime.terminal import say

TASK = "forecasting"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix forecast``."""
    add = parser.add_argument
    add("series", metavar="CSV", help="a CSV file (.gz too) or a Parquet file; settings behind a colon as in training")
    add("--model", help="a run's folder, a .safetensors file or an .onnx file (default: a quick linear model)")
    add("--horizon", type=whole("horizon"), metavar="H", help="rows ahead (default: the model's; 24 of the quick one)")
    add("--out", metavar="FILE.csv", help="default: NAME-forecast.csv here; the picture goes beside it")
    add("--level", type=float, default=0.9, metavar="P", help="share that intervals shall hold (default: %(default)s)")
    add("--target", metavar="NAME", help="forecast this variable alone")
    add("--leave", metavar="NAMES", help="columns to leave out, with commas between them")
    add("--time", metavar="NAME", help="the column with the dates, if it is not found")
    add("--time-format", metavar="FORMAT", help="their form, such as %%d.%%m.%%Y, if it is not found")
    add(
        "--decimal", choices=DECIMALS, metavar="MARK", help="point or comma, where 1.179 could be thousands or decimals"
    )
    add("--repair", action="store_true", help="fill gaps and missing cells between their neighbours")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--json", action="store_true", help="print what is known of the forecast as JSON and nothing else")


def run(args: argparse.Namespace) -> None:
    """Read, forecast, write the table and the picture, and say how good it is."""
    from tokenmix.checkpoints import open_model
    from tokenmix.evaluate import find_device
    from tokenmix.tasks.forecasting.answers import forecast_file, forecast_model, write_forecast
    from tokenmix.tasks.forecasting.series_data import read_spec, split_spec

    device = find_device(args.device)
    out = Path(args.out) if args.out else None
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out {out}: the forecast is a CSV file; give a name that ends in .csv")
    if out is not None:
        check_other_file(out, split_spec(args.series)[0])
    names = {"target": "target", "time": "time", "time_format": "format", "leave": "leave", "decimal": "decimal"}
    given = {key: value for name, key in names.items() if (value := getattr(args, name)) is not None}
    series = read_spec(args.series, {**given, **({"repair": "yes"} if args.repair else {})})
    model = None
    if args.model is not None and args.model.endswith(".onnx"):
        from tokenmix_runtime.forecaster import Forecaster

        model = Forecaster(args.model).model
    elif args.model is not None:
        model = forecast_model(open_model(args.model, tasks=[TASK]), device)
    found = forecast_file(series, model, horizon=args.horizon, level=args.level)
    table, picture = write_forecast(found, out or Path(f"{series.name}-forecast.csv"))
    if args.json:
        findings = [finding.message for finding in series.findings]
        written = {"findings": findings, "forecast": str(table), "picture": str(picture)}
        print(json.dumps({**found.as_dict(), **written}, indent=1, allow_nan=False))
        return
    for finding in series.findings:
        say(f"{series.name}: {finding.message}")
    say("\n".join(found.lines()))
    say(f"{table}, {picture}")
