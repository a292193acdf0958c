"""Long-term forecasting as published: ``python benchmarks/forecasting.py FOLDER --data etth1 etth2 exchange``.

FOLDER has the literature's own files (ETTh1.csv, ETTh2.csv, exchange_rate.csv or .txt.gz). For every data set, horizon,
model and seed one run by the official scripts' settings: Adam, squared error, the learning rate of their rule, early
stopping on the validation part; then squared and absolute errors on the test part, over all windows and without the
last incomplete batch. Each run is one file under ``--out``: what exists is not done again, and a killed run goes on
after its last whole epoch, to the same weights as an unkilled one. ``--table`` prints what is there.

``--step`` measures a training step of the published model in our form and in the official code's layers, both on one
thread, interleaved, in CPU time. A model is ``ffnet`` (published), a mixer of `tokenmix.tasks.forecasting.mixers` in
the same frame, ``linear``, or ``naive``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the plain form

from benchmarks.forecasting_forms import PlainForecaster  # noqa: E402
from tokenmix.bench.machine import describe  # noqa: E402
from tokenmix.files import atomic_path, write_json  # noqa: E402
from tokenmix.tasks.forecasting.baselines import DecomposedLinear, SeasonalNaive  # noqa: E402
from tokenmix.tasks.forecasting.intervals import fit_intervals  # noqa: E402
from tokenmix.tasks.forecasting.metrics import ForecastErrors  # noqa: E402
from tokenmix.tasks.forecasting.model import ffnet_forecast  # noqa: E402
from tokenmix.tasks.forecasting.network import Forecaster  # noqa: E402
from tokenmix.tasks.forecasting.published import CITED, EPOCHS, LOOK_BACK, ScriptSettings, script_settings  # noqa: E402
from tokenmix.tasks.forecasting.schedule import best_epoch, is_last, learning_rate  # noqa: E402
from tokenmix.tasks.forecasting.series import read_series  # noqa: E402
from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED, Parts, Windows, find_published, split_series  # noqa: E402

FILES = {"exchange": ("exchange_rate.csv", "exchange_rate.txt.gz", "exchange_rate.txt")}
LINEAR = ScriptSettings(1, 0.0, 0.0, 32, 1e-4, 3)  # DLinear's: batch 32, 10 epochs at most, patience 3


def keep_memory() -> None:
    """Let the C library keep what is freed: a third of a step goes by fetching the same pages from the system again."""
    with contextlib.suppress(OSError, AttributeError):  # another system has its own ways
        library = ctypes.CDLL("libc.so.6")
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            library.mallopt(option, (1 << 31) - 1)


def load(folder: Path, data: str, horizon: int) -> Parts:
    """The windows of a published set."""
    published = find_published(data)
    assert published is not None
    names = FILES.get(data, (f"{published.name}.csv",))
    path = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    return split_series(read_series(path), LOOK_BACK, horizon, published=published)


def build(model: str, data: str, parts: Parts, horizon: int, settings: ScriptSettings) -> nn.Module:
    """The network of a name."""
    published = find_published(data)
    assert published is not None
    if model == "naive":
        return SeasonalNaive(horizon, published.season)
    if model == "linear":
        return DecomposedLinear(LOOK_BACK, horizon)
    options = {**settings.model_options(), "mixers": model}
    return ffnet_forecast(len(parts.series.variables), LOOK_BACK, horizon, **options)


def batches(windows: Windows, size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """All windows in order: number of the first one, pasts, futures."""
    for first in range(0, len(windows), size):
        yield first, *windows.batch(torch.arange(first, min(first + size, len(windows))))


@torch.no_grad()
def validate(model: nn.Module, windows: Windows, limit: int | None = None) -> ForecastErrors:
    """Errors over a part's windows."""
    model.eval()
    errors = ForecastErrors(windows.horizon, windows.values.size(1), limit=limit)
    for first, past, future in batches(windows, 512):
        errors.update(model(past), future, first)
    return errors


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, windows: Windows, batch: int, key: list[int]
) -> None:
    """One epoch, as a function of the weights and of ``key``, seed and epoch."""
    model.train()
    order = torch.from_numpy(np.random.Generator(np.random.PCG64(key)).permutation(len(windows)))
    for step, indices in enumerate(order.split(batch)):
        torch.manual_seed(int(np.random.SeedSequence([*key, step]).generate_state(1)[0]))  # of the dropouts
        past, future = windows.batch(indices)
        optimizer.zero_grad()
        (model(past) - future).square().mean().backward()
        optimizer.step()


def run(
    model: nn.Module, parts: Parts, settings: ScriptSettings, seed: int, epochs: int, state: Path
) -> dict[str, Any]:
    """Train until the validation part says stop, and keep the best weights; returns losses and CPU seconds."""
    optimizer = torch.optim.Adam(model.parameters(), settings.lr)
    losses: list[float] = []
    seconds = 0.0
    best = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        best, losses, seconds = saved["best"], saved["losses"], saved["seconds"]
    while len(losses) < epochs and not is_last(losses, settings.patience):
        began = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(len(losses), settings.lr)
        train_epoch(model, optimizer, parts.train, settings.batch_size, [seed, len(losses)])
        losses.append(validate(model, parts.val).numbers().mse)
        seconds += time.process_time() - began
        if best_epoch(losses) == len(losses) - 1:
            best = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        print(f"  epoch {len(losses)}: validation {losses[-1]:.4f}, {seconds:.0f} s of CPU time", flush=True)
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        with atomic_path(state) as path:
            torch.save({**saved, "losses": losses, "seconds": seconds}, path)
    model.load_state_dict(best)
    return {"val_losses": losses, "best_epoch": best_epoch(losses), "cpu_seconds": round(seconds, 1)}


@torch.no_grad()
def judge(model: nn.Module, parts: Parts, batch: int) -> dict[str, Any]:
    """Errors on the test part and the coverage of intervals that were fitted on the validation part."""
    windows = parts.test
    everything = validate(model, windows).numbers()
    dropped = validate(model, windows, len(windows) - len(windows) % batch).numbers()
    result: dict[str, Any] = {"mse": everything.mse, "mae": everything.mae, "windows": everything.windows}
    result |= {"mse_drop_last": dropped.mse, "mae_drop_last": dropped.mae, "batch": batch}
    result["mse_by_variable"] = dict(zip(parts.series.variables, everything.by_variable.tolist(), strict=True))
    for relative in (False, True):
        val = [torch.cat(part) for part in zip(*((model(p), p, f) for _, p, f in batches(parts.val, 512)), strict=True)]
        intervals = fit_intervals(*val, level=0.9, relative=relative)
        inside = [intervals.coverage(model(p), p, f) * len(p) for _, p, f in batches(windows, 512)]
        share = float(torch.stack(inside).sum(0).mean() / len(windows))
        result["coverage_90" + ("_relative" if relative else "")] = round(share, 4)
    return result


def measure(args: argparse.Namespace, data: str, horizon: int, name: str, seed: int) -> None:
    """One run, unless its file is there."""
    stem = f"{data}-{horizon}-{name}-{seed}".replace("'", "").replace("/", "_")
    out = args.out / f"{stem}.json"
    if out.exists():
        return
    print(stem, flush=True)
    parts = load(args.folder, data, horizon)
    settings = LINEAR if name == "linear" else script_settings(data, horizon)
    torch.manual_seed(seed)
    model = build(name, data, parts, horizon, settings)
    result: dict[str, Any] = {"data": data, "horizon": horizon, "model": name, "seed": seed}
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    state = args.out / f"{stem}.pt"
    if name != "naive":
        epochs = min(args.epochs, 10) if name == "linear" else args.epochs
        result |= run(model, parts, settings, seed, epochs, state)
    result |= judge(model.eval(), parts, settings.batch_size)
    write_json(out, {**result, "machine": describe()})
    state.unlink(missing_ok=True)
    print(f"  test {result['mse']:.4f} {result['mae']:.4f}", flush=True)


def table(out: Path) -> None:
    """Print the mean over seeds of every run, and the mean over horizons beside the papers'."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("*-*.json"))]
    for data in sorted({run["data"] for run in runs}):
        print(f"\n{data}: mean squared / absolute error, seeds in brackets")
        for name in sorted({run["model"] for run in runs if run["data"] == data}):
            cells, means = [], []
            for horizon in HORIZONS:
                of = [r for r in runs if (r["data"], r["horizon"], r["model"]) == (data, horizon, name)]
                if of:
                    mse, mae = (statistics.fmean(r[key] for r in of) for key in ("mse", "mae"))
                    means.append((mse, mae))
                    cells.append(f"{horizon}: {mse:.4f}/{mae:.4f} ({len(of)})")
            total = [statistics.fmean(pair) for pair in zip(*means, strict=True)]
            whole = f"  mean {total[0]:.4f}/{total[1]:.4f}" if len(means) == len(HORIZONS) else ""
            print(f"  {name:12s} {'  '.join(cells)}{whole}")
        for name, (mse, _) in CITED.get(data, {}).items():
            print(f"  {name:12s} cited mean {mse}")


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
    parts, settings = load(folder, "etth1", 96), script_settings("etth1", 96)
    ours = build("ffnet", "etth1", parts, 96, settings)
    assert isinstance(ours, Forecaster)
    forms = {"ours": ours, "plain": PlainForecaster(ours)}
    past, future = parts.train.batch(torch.arange(settings.batch_size))
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(1 + repeats):
        for name, model in forms.items():
            seconds[name].append(step(model, past, future))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {"cpu_seconds": medians, "ratio": medians["plain"] / medians["ours"], "machine": describe()}


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="with the CSV files")
    parser.add_argument("--data", nargs="+", choices=list(PUBLISHED), default=["etth1", "etth2", "exchange"])
    parser.add_argument("--horizons", nargs="+", type=int, default=list(HORIZONS))
    parser.add_argument("--models", nargs="+", default=["naive", "linear", "ffnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/forecasting"))
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    parser.add_argument("--step", action="store_true", help="measure a training step in both forms")
    args = parser.parse_args()
    if args.table:
        table(args.out)
        return
    if args.folder is None:
        parser.error("name the folder with the CSV files")
    keep_memory()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.step:
        found = measure_step(args.folder)
        write_json(args.out / "step.json", found)
        print({name: round(value, 3) for name, value in found["cpu_seconds"].items()}, f"{found['ratio']:.2f} times")
        return
    for seed in args.seeds:
        for data in args.data:
            for horizon in args.horizons:
                for name in args.models:
                    if seed == args.seeds[0] or name != "naive":
                        measure(args, data, horizon, name, seed)


if __name__ == "__main__":
    main()
