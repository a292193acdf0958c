"""A small series in a file, and recipes that learn it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.train import fit

TOY = (
    *("model_args.look_back=24", "model_args.horizon=6", "model_args.dims=[8]", "model_args.kernel_sizes=[9]"),
    *("model_args.small_sizes=[3]", "drop_rate=0.1", "batch_size=128", "lr=3e-3", "epochs=3", "seed=0"),
    *("schedule=constant", "milestones=()"),
)


def quiet(line: str) -> None:
    """No log."""


def write_waves(path: Path, rows: int = 600) -> Path:
    """Two noisy days of 12 hours with a slow drift, two variables, hour by hour."""
    generator, place = np.random.default_rng(0), np.arange(rows)
    values = np.stack([np.sin(place / 12 * 2 * np.pi), np.cos(place / 12 * 2 * np.pi) + place / 300], 1)
    values = 20 + 3 * values + 0.3 * generator.normal(size=values.shape)
    hours = np.datetime64("2024-01-01T00", "h") + place
    lines = [f"{str(hour).replace('T', ' ')}:00,{a:.4f},{b:.4f}" for hour, (a, b) in zip(hours, values, strict=True)]
    path.write_text("\n".join(["date,level,flow", *lines]), encoding="utf-8")
    return path


def train_waves(path: Path, out: Path, *settings: str, **options: Any) -> Any:
    """A run on such a file."""
    recipe = make_recipe("ffnet_forecast", [*TOY, f"data={path}", *settings])
    data = load_data(path, task="forecasting", log=quiet)
    return fit(recipe, data, out, log=quiet, progress=False, **options)
