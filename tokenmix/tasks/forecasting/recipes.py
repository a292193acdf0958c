"""The official scripts' trainings for every data set and horizon, and a small one on the embedded series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.forecasting.options import Options
from tokenmix.tasks.forecasting.published import CITED, EPOCHS, LOOK_BACK, script_settings
from tokenmix.tasks.forecasting.series_data import EMBEDDED
from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED

_SOURCE = "github.com/ysj9909/FFNet, commit f3c3e4c: time_series_forecasting/scripts and run.py"

CONSTANT_EPOCHS, DECAY = 4, 0.9  # the scripts' rule "type3": after four epochs the rate falls to that share in each


def scripts_schedule(epochs: int = EPOCHS) -> Schedule:
    """The scripts' learning rate, constant for four epochs, then times 0.9 for each further one."""
    return Schedule(
        name="step",
        epochs=epochs,
        milestones=tuple(float(epoch) for epoch in range(CONSTANT_EPOCHS, epochs)),
        milestone_factor=DECAY,
    )


def published(data: str, horizon: int) -> Recipe:
    """The official script's training for a published set and a horizon.

    Raises:
        ValueError: There is no such set.
    """
    settings = script_settings(data, horizon)
    name = PUBLISHED[data].name
    told = _SOURCE if data != "exchange" else f"{_SOURCE} for ETTh2, since there is none for Exchange"
    reported = CITED.get(data, {}).get("FFNet")
    return Recipe(
        source=f"{told}; Adam is AdamW without decay",
        expect=(
            f"{reported[0]:.3f} MSE, {reported[1]:.3f} MAE as the mean over the horizons 96, 192, 336, 720"
            if reported
            else "0.376 MSE, 0.390 MAE as the mean over ETTh1, ETTh2, ETTm1, ETTm2 and the horizons 96, 192, 336, 720"
        ),
        model=Model(
            name="ffnet_forecast",
            drop_rate=settings.drop_rate,
            args={
                "look_back": LOOK_BACK,
                "horizon": horizon,
                "mlp_ratio": settings.mlp_ratio,
                "head_drop": settings.head_drop,
            },
        ),
        optimizer=Optimizer(lr=settings.lr, weight_decay=0.0),
        schedule=scripts_schedule(),
        run=Run(data=name.lower(), batch_size=settings.batch_size, patience=settings.patience, seed=2021),
        task=Options(),
    )


def ffnet_forecast() -> Recipe:
    """FFNet's forecaster on a series of one's own: the settings for ETTh1."""
    recipe: dict[str, Any] = vars(published("etth1", 96))
    notes = {
        "source": f"ours: as for ETTh1, {recipe['source']}",
        "expect": "depends on the series",
        "cost": "not counted",
    }
    return Recipe(**{**recipe, **notes})


def co2_forecast() -> Recipe:
    """Half a year of carbon dioxide from the last two years: the demo."""
    return Recipe(
        source="ours: the published network, narrower; lengths and epochs by what one core does in two minutes",
        expect="a quarter of the absolute error of the year before, on 456 held-out weeks",
        cost="a minute on one core",
        model=Model(
            name="ffnet_forecast",
            drop_rate=0.1,
            args={"look_back": 104, "horizon": 26, "dims": [32], "mlp_ratio": 2},
        ),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.0),
        schedule=Schedule(epochs=30, warmup_epochs=1, min_lr=2e-5),
        run=Run(data=EMBEDDED, batch_size=64, patience=10),
        task=Options(),
    )


def all_recipes() -> Iterator[Callable[[], Recipe]]:
    """Those of the published sets, by the names ``ffnet_forecast_etth1_96`` and so on, and ours."""
    yield ffnet_forecast
    for data in PUBLISHED:
        for horizon in HORIZONS:
            yield _named(f"ffnet_forecast_{data}_{horizon}", data, horizon)
    yield co2_forecast


def _named(name: str, data: str, horizon: int) -> Callable[[], Recipe]:
    def make() -> Recipe:
        return published(data, horizon)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"FFNet's forecaster on {PUBLISHED[data].name}, {horizon} steps ahead."
    return make
