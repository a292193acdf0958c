"""Long-term forecasting as published: ``python benchmarks/forecasting.py FOLDER --data etth1 etth2 exchange``.

FOLDER has the literature's own files (ETTh1.csv, ETTh2.csv, exchange_rate.csv or .txt.gz). For every data set, horizon,
model and seed one run by the recipe of the official script; then squared and absolute errors on the test part, over all
windows and without the last incomplete batch. Each run is one file under ``--out``: what exists is not done again, and
a killed run goes on in its folder, to the same weights as an unkilled one. ``--table`` prints what is there,
``--write`` puts it into one file, and ``--known`` takes the runs of such a file, from any machine, as done.

``--step`` measures a training step of the published model in our form and in the official code's layers, both on one
thread, interleaved, in CPU time. A model is ``ffnet`` (published), a mixer of `tokenmix.tasks.forecasting.mixers` in
the same frame, ``linear``, ``quick`` (a linear map in closed form), ``naive``, or ``A+B+C``: forecasts in the shares
that have the least squared error on the validation part, of models that were measured with the same seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.optimize import nnls
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "forecasting-cpu.json"
sys.path.insert(0, str(ROOT))  # for the plain form

from benchmarks.forecasting_forms import PlainForecaster  # noqa: E402
from tokenmix.bench.machine import describe  # noqa: E402
from tokenmix.checkpoints import LoadedModel, open_model  # noqa: E402
from tokenmix.evaluate import judge  # noqa: E402
from tokenmix.files import write_json  # noqa: E402
from tokenmix.recipes import Recipe, make_recipe  # noqa: E402
from tokenmix.sources import load_data  # noqa: E402
from tokenmix.tasks import find_task  # noqa: E402
from tokenmix.tasks.forecasting.network import Forecaster  # noqa: E402
from tokenmix.tasks.forecasting.published import CITED, LOOK_BACK, script_settings  # noqa: E402
from tokenmix.tasks.forecasting.quick import quick_model  # noqa: E402
from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED  # noqa: E402
from tokenmix.train import fit  # noqa: E402
from tokenmix.train.memory import kept_memory  # noqa: E402

TASK = "forecasting"
FILES = {"exchange": ("exchange_rate.csv", "exchange_rate.txt.gz", "exchange_rate.txt")}
# The linear base line's own settings, ours: the published ones differ from data set to data set.
LINEAR = ("model=linear_forecast", "drop_rate=none", "batch_size=256", "lr=2e-3", "patience=5")


def silent(line: str) -> None:
    """No log."""


def find_file(folder: Path, data: str) -> Path:
    """The file of a published set."""
    names = FILES.get(data, (f"{PUBLISHED[data].name}.csv",))
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def recipe_of(data: str, horizon: int, model: str, seed: int, path: Path, settings: Sequence[str] = ()) -> Recipe:
    """The official script's recipe, with another model in its place if wanted."""
    chosen: list[str] = []
    if model == "linear":
        chosen = [*LINEAR, f"model_args={{'look_back': {LOOK_BACK}, 'horizon': {horizon}}}"]
    elif model != "ffnet":
        chosen = [f"model_args.mixers={model}"]
    return make_recipe(
        f"ffnet_forecast_{data}_{horizon}", [*chosen, f"data={path}", f"seed={seed}", *settings], trust=True
    )


def naive(data: Any, horizon: int) -> LoadedModel:
    """The last season again, in the form of a loaded model."""
    task = find_task(TASK)
    network = task.network("seasonal_naive", data.facts, look_back=LOOK_BACK, horizon=horizon)
    preparation = {"mean": tuple(data.scaler.mean.tolist()), "std": tuple(data.scaler.std.tolist())}
    return LoadedModel(network.eval(), "seasonal_naive", TASK, facts=data.facts, **preparation)


class QuickModel(nn.Module):
    """The quick linear model of ``tokenmix forecast``, fitted in closed form to the rows of training."""

    def __init__(self, data: Any, horizon: int) -> None:
        super().__init__()
        self.look_back, self.horizon = LOOK_BACK, horizon
        self.fitted = quick_model(data.series, horizon, rows=data.train.end, look_back=LOOK_BACK)

    def forward(self, past: Tensor) -> Tensor:
        return torch.from_numpy(self.fitted.run(past.numpy())).float()


def closed_form(data: Any, horizon: int) -> LoadedModel:
    """It in the form of a loaded model."""
    preparation = {"mean": tuple(data.scaler.mean.tolist()), "std": tuple(data.scaler.std.tolist())}
    return LoadedModel(QuickModel(data, horizon).eval(), "quick", TASK, facts=data.facts, **preparation)


FITTED = {"naive": naive, "quick": closed_form}
"""Models without a training."""


class Blend(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the sum of several forecasts, each times its share."""

    def __init__(self, models: Sequence[Any]) -> None:
        super().__init__()
        self.models, self.shares = nn.ModuleList(models), [1 / len(models)] * len(models)
        self.look_back, self.horizon = models[0].look_back, models[0].horizon

    def forward(self, past: Tensor) -> Tensor:
        parts = [share * model(past) for share, model in zip(self.shares, self.models, strict=True)]
        return torch.stack(parts).sum(0)


@torch.no_grad()
def best_shares(blend: Blend, loaded: LoadedModel, samples: Any) -> list[float]:
    """The shares, none below 0 and together 1, with which a blend has the least squared error on some windows."""
    products, count = 0.0, 0
    for batch in find_task(TASK).loader(loaded, samples, batch_size=256).batches():
        errors = torch.stack([(model(batch["past"]) - batch["future"]).flatten() for model in blend.models]).double()
        products, count = products + errors @ errors.T, count + errors.shape[1]
    return least(np.asarray(products) / count)


def least(gram: np.ndarray) -> list[float]:
    """The w of sum 1, none below 0, with the least ``w G w``: in proportion to that of ``u G u + (sum u - 1)^2``."""
    root = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) * np.eye(len(gram))).T
    found, _ = nnls(np.vstack([root, np.ones(len(gram))]), np.append(np.zeros(len(gram)), 1.0))
    return (found / found.sum()).tolist()


def tested(loaded: LoadedModel, data: Any, batch: int) -> dict[str, Any]:
    """Errors on the test part, over all windows and without the last incomplete batch."""
    whole, dropped = (judge(loaded, data.test, data.facts, drop_last=size) for size in (0, batch))
    return {
        "val_mse": judge(loaded, data.val, data.facts).numbers["mse"],
        "mse": whole.numbers["mse"],
        "mae": whole.numbers["mae"],
        "mse_drop_last": dropped.numbers["mse"],
        "mae_drop_last": dropped.numbers["mae"],
        "batch": batch,
        "mse_by_variable": {row["variable"]: row["mse"] for row in whole.rows},
    }


def stem_of(data: str, horizon: int, model: str, seed: int) -> str:
    """What a run's file and folder are called."""
    return f"{data}-{horizon}-{model}-{seed}".replace("'", "").replace("/", "_")


def take(known: Path, out: Path) -> None:
    """The runs of a file that ``--write`` has written, each into its own one, unless that is there."""
    for run in json.loads(known.read_text(encoding="utf-8"))["runs"]:
        path = out / f"{stem_of(run['data'], run['horizon'], run['model'], run['seed'])}.json"
        if not path.exists():
            write_json(path, run)


def measure(args: argparse.Namespace, name: str, horizon: int, model: str, seed: int) -> None:
    """One run, unless its file is there."""
    stem = stem_of(name, horizon, model, seed)
    out = args.out / f"{stem}.json"
    if out.exists():
        before = json.loads(out.read_text()).get("settings", list(args.set))
        if before != list(args.set):
            raise SystemExit(f"{out} was made with the settings {before}: give another --out")
        return
    print(stem, flush=True)
    path = find_file(args.folder, name)
    data = load_data(path, task=TASK, log=silent)
    batch = script_settings(name, horizon).batch_size
    result: dict[str, Any] = {"data": name, "horizon": horizon, "model": model, "seed": seed}
    if "+" in model:
        names = model.split("+")
        parts = [
            FITTED[part](data, horizon) if part in FITTED else open_model(args.out / stem_of(name, horizon, part, seed))
            for part in names
        ]
        blend = Blend([part.model for part in parts]).eval()
        blend.shares = best_shares(blend, parts[0], data.val)
        result |= {"shares": dict(zip(names, blend.shares, strict=True))}
        result |= tested(replace(parts[0], model=blend, name="blend"), data, batch)
    elif model in FITTED:
        began = time.process_time()
        result |= tested(FITTED[model](data, horizon), data, batch)
        result |= {"cpu_minutes": round((time.process_time() - began) / 60, 2)}
    else:
        recipe = recipe_of(name, horizon, model, seed, path, args.set)
        began = time.process_time()
        found = fit(recipe, data, args.out / stem, log=lambda line: print(f"  {line}", flush=True), progress=True)
        loaded = open_model(args.out / stem)
        result |= {
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "best_epoch": found.best["epoch"],
            "epochs": len(found.history),
            "minutes": round(found.seconds / 60, 1),
            "cpu_minutes_of_the_last_session": round((time.process_time() - began) / 60, 1),
            "settings": list(args.set),
        }
        result |= tested(loaded, data, batch)
    write_json(out, {**result, "threads": torch.get_num_threads(), "machine": describe()})
    shutil.rmtree(args.out / stem / "checkpoints", ignore_errors=True)
    print(f"  test {result['mse']:.4f} {result['mae']:.4f}", flush=True)


def rows(out: Path) -> list[dict[str, Any]]:
    """What was measured: for each data set, model and horizon the mean over the seeds, and their spread."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("*-*.json"))]
    found = []
    for key in sorted({(run["data"], run["model"], run["horizon"]) for run in runs}):
        of = [run for run in runs if (run["data"], run["model"], run["horizon"]) == key]
        row: dict[str, Any] = dict(zip(("data", "model", "horizon"), key, strict=True))
        for name in ("mse", "mae", "mse_drop_last", "mae_drop_last"):
            values = [run[name] for run in of]
            row[name] = statistics.fmean(values)
            row[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else None
        row |= {"seeds": sorted(run["seed"] for run in of), "minutes": sum(run.get("minutes", 0) for run in of)}
        found.append(row)
    return found


def table(out: Path) -> None:
    """Print the mean over seeds of every run, and the mean over horizons beside the papers'."""
    found = rows(out)
    for data in sorted({row["data"] for row in found}):
        print(f"\n{data}: mean squared / absolute error, seeds in brackets")
        for model in sorted({row["model"] for row in found if row["data"] == data}):
            of = {row["horizon"]: row for row in found if (row["data"], row["model"]) == (data, model)}
            cells = [f"{h}: {row['mse']:.4f}/{row['mae']:.4f} ({len(row['seeds'])})" for h, row in sorted(of.items())]
            means = [
                statistics.fmean(of[h][name] for h in HORIZONS) for name in ("mse", "mae") if set(HORIZONS) <= of.keys()
            ]
            whole = "  mean {:.4f}/{:.4f}".format(*means) if means else ""
            print(f"  {model:12s} {'  '.join(cells)}{whole}")
        for name, (mse, _) in CITED.get(data, {}).items():
            print(f"  {name:12s} cited mean {mse}")


LABELS = {
    "naive": "the last season again",
    "quick": "quick linear model",
    "linear": "`linear_forecast`",
    "ffnet": "`ffnet_forecast`",
    "ffnet+quick": "blend of both",
    "ffnet+quick+naive": "blend of these and the last season",
}


def report(found: dict[str, Any]) -> str:
    """What ``--write`` has written as a table: errors of all test windows, means over the seeds of a model.

    A mean of several seeds has the half width of its 95 % interval, by Student's t, behind it. The last column is of
    the seeds that were run at every horizon, and has the least error of a data set in bold.
    """
    lines = ["| data | model | seeds | " + " | ".join(map(str, HORIZONS)) + " | mean |", "|---|---|---|" + "---|" * 5]
    errors: dict[str, dict[str, dict[int, dict[int, tuple[float, float]]]]] = {}
    for run in found["runs"]:
        of_model = errors.setdefault(run["data"], {}).setdefault(run["model"], {})
        of_model.setdefault(run["seed"], {})[run["horizon"]] = run["mse"], run["mae"]
    for data in sorted(errors):
        means = {}
        for model in (name for name in LABELS if name in errors[data]):
            whole = [list(seed.values()) for seed in errors[data][model].values() if set(seed) == set(HORIZONS)]
            means[model] = [tuple(map(statistics.fmean, zip(*horizons, strict=True))) for horizons in whole]
        best = min((statistics.fmean(mse for mse, _ in pairs), model) for model, pairs in means.items() if pairs)[1]
        for model, pairs in means.items():
            seeds = errors[data][model]
            cells = [_cell([seed[horizon] for seed in seeds.values() if horizon in seed]) for horizon in HORIZONS]
            mark = "**" if model == best else ""
            count = "" if model in FITTED else str(len(pairs) or len(seeds))
            name = PUBLISHED[data].name if model == next(iter(means)) else ""
            lines.append(f"| {name} | {LABELS[model]} | {count} | {' | '.join(cells)} | {mark}{_cell(pairs)}{mark} |")
    return "\n".join(lines)


def _cell(pairs: Sequence[tuple[float, ...]]) -> str:
    """Mean squared and absolute error of some seeds."""
    if not pairs:
        return "-"
    mse, mae = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    spread = ""
    if len(pairs) > 1:
        deviation = statistics.stdev(pair[0] for pair in pairs)
        spread = f" ± {stats.t.ppf(0.975, len(pairs) - 1) * deviation / len(pairs) ** 0.5:.3f}"
    return f"{mse:.3f}{spread} / {mae:.3f}"


def step(model: nn.Module, past: Tensor, future: Tensor) -> float:
    """CPU seconds of a training step."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    began = time.process_time()
    optimizer.zero_grad()
    (model(past) - future).square().mean().backward()
    optimizer.step()
    return time.process_time() - began


def measure_step(folder: Path, repeats: int = 6) -> dict[str, Any]:
    """A step on ETTh1 with a horizon of 96 in both forms; the first of each is not counted."""
    path, task = find_file(folder, "etth1"), find_task(TASK)
    data = load_data(path, task=TASK, log=silent)
    recipe = recipe_of("etth1", 96, "ffnet", 0, path)
    ours = task.build(recipe, data.facts)
    assert isinstance(ours, Forecaster)
    forms = {"ours": ours, "plain": PlainForecaster(ours)}
    loader, _ = task.loaders(recipe, data, task.preparation(recipe, data, ours))
    batch = next(iter(loader.batches(0)))
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(1 + repeats):
        for name, model in forms.items():
            seconds[name].append(step(model, batch["past"], batch["future"]))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = np.divide(seconds["plain"][1:], seconds["ours"][1:]).round(3).tolist()
    return {
        "cpu_seconds": medians,
        "ratio": medians["plain"] / medians["ours"],
        "ratios": ratios,
        "machine": describe(),
    }


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="with the CSV files")
    parser.add_argument("--data", nargs="+", choices=list(PUBLISHED), default=["etth1", "etth2", "exchange"])
    parser.add_argument("--horizons", nargs="+", type=int, default=list(HORIZONS))
    parser.add_argument("--models", nargs="+", default=["naive", "quick", "linear", "ffnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="other values of the recipes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/forecasting"))
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    parser.add_argument("--write", type=Path, metavar="FILE.json", help="write what is there into one file")
    parser.add_argument("--known", type=Path, metavar="FILE.json", help="runs that are not done again")
    parser.add_argument("--step", action="store_true", help="measure a training step in both forms")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.known is not None:
        take(args.known, args.out)
    if args.table:
        table(args.out)
        return
    if args.write is not None:
        runs = [json.loads(path.read_text()) for path in sorted(args.out.glob("*-*.json"))]
        write_json(args.write, {"rows": rows(args.out), "runs": runs})
        return
    if args.folder is None:
        parser.error("name the folder with the CSV files")
    torch.set_num_threads(args.threads)
    if args.step:
        with kept_memory():  # as in training
            found = measure_step(args.folder)
        write_json(args.out / "step.json", found)
        print({name: round(value, 3) for name, value in found["cpu_seconds"].items()}, f"{found['ratio']:.2f} times")
        return
    for seed in args.seeds:
        for data in args.data:
            for horizon in args.horizons:
                for name in args.models:
                    if seed == args.seeds[0] or name not in FITTED:  # which have no seed
                        measure(args, data, horizon, name, seed)


if __name__ == "__main__":
    main()
