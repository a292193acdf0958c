"""How often a comparison names a winner that is none, and one that is: ``python benchmarks/decisions.py``.

Made-up comparisons of eight mixers, decided by `tokenmix.comparison.statistics.decide`, of which docs/compare.md shows
the table. Each test item is as hard for all, and harder for some; each run of a mixer is better or worse as a whole by
its seed, and by chance in each item. Of the eight, two are best, as good as each other or one ahead; the rest is far
behind, so that Holm's correction protects the two as little as it can. In ``all equal`` none is better.
``series`` are forecasts of ETTh1's test part.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.stats import norm

from tokenmix.comparison.statistics import decide
from tokenmix.files import write_json
from tokenmix.tasks.forecasting.judged import WindowErrors
from tokenmix.text_tables import table

RESULTS = Path(__file__).parent / "results"
MIXERS = 8
Draws = np.random.Generator
Scores = Mapping[str, np.ndarray]


def shares(rng: Draws, points: np.ndarray, *, seeds: int, items: int, seed_points: np.ndarray | float) -> Scores:
    """Right and wrong answers, 0 and 100.

    Args:
        rng: Draws.
        points: (mixers,) percent that each mixer gets right in the long run.
        seeds: Runs of each.
        items: Test items.
        seed_points: Standard deviation over seeds in points, of all mixers or of each.
    """
    level = norm.ppf(np.asarray(points) / 100)
    slope = 100 * norm.pdf(level)  # points by which the share moves with the level
    item = np.sqrt(0.6) * rng.normal(size=(1, 1, items)) + np.sqrt(0.1) * rng.normal(size=(len(level), 1, items))
    seed = (np.broadcast_to(seed_points, level.shape) / slope)[:, None] * rng.normal(size=(len(level), seeds))
    latent = item + np.sqrt(0.3) * rng.normal(size=(len(level), seeds, items)) + seed[..., None]
    right = latent > -(level * np.sqrt(1 + (np.broadcast_to(seed_points, level.shape) / slope) ** 2))[:, None, None]
    return {f"m{place}": 100.0 * values for place, values in enumerate(right)}


def amounts(rng: Draws, points: np.ndarray, *, seeds: int, items: int, seed_points: np.ndarray | float) -> Scores:
    """Numbers such as decibels or errors, with a long tail; see `shares`."""
    hard = rng.gamma(2.0, 4.0, size=(1, 1, items))
    own = rng.gamma(2.0, 1.0, size=(len(points), 1, items)) + rng.gamma(2.0, 1.0, size=(len(points), seeds, items))
    seed = np.broadcast_to(seed_points, len(points))[:, None] * rng.normal(size=(len(points), seeds))
    values = np.asarray(points)[:, None, None] - hard - own + seed[..., None]
    return dict(zip((f"m{place}" for place in range(len(points))), values, strict=True))


def series(rng: Draws, points: np.ndarray, *, hours: float) -> Scores:
    """Errors of forecasts of the next 96 hours by stretches of windows, with what the task makes of them.

    Args:
        rng: Draws.
        points: (mixers,) what each has in the long run.
        hours: How long a mixer errs alike: an hour's error is exp(-1 / hours) of the last one's and new noise.
    """
    past, ahead, windows, before = 96, 96, 2785, int(5 * hours)
    new = rng.normal(size=(len(points), before + windows + ahead - 1))
    last = np.exp(-1 / hours) if hours > 1 else 0.0
    errors = lfilter([1.0], [1.0, -last], new, axis=1)[:, before:]
    scores = {}
    for place, (point, row) in enumerate(zip(points, errors, strict=True)):
        metric = WindowErrors(0)
        metric.length = past + ahead
        metric.errors = dict(enumerate(np.convolve(row, np.ones(ahead) / ahead, "valid") + point))
        found = metric.scores()
        assert found is not None
        scores[f"m{place}"] = found.values[None]
    return scores


def named(
    make: Callable[[Draws], Scores], times: int, seed: int = 0, *, chained: bool = False
) -> dict[str | None, float]:
    """How often each mixer, or None, is called the winner, as a share of so many comparisons."""
    rng = np.random.default_rng(seed)
    found = Counter(decide(make(rng), noun="images", chained=chained)["winner"] for _ in range(times))
    return {winner: count / times for winner, count in found.items()}


def setting(kind: Callable[..., Scores], ahead: float, **options: Any) -> Callable[[Draws], Scores]:
    """Two best mixers, the first one ``ahead``, and six that are far behind."""
    top = 90.0
    points = np.array([top + ahead, top, *[top - 30.0] * (MIXERS - 2)])
    return functools.partial(kind, points=points, **options)


def false_winners(times: int) -> list[dict[str, Any]]:
    """Comparisons without a winner: how often one is named all the same."""
    rows = []
    uneven = np.array([3.0, 1.0, *[1.0] * (MIXERS - 2)])
    for kind in (shares, amounts):
        for items in (100, 1000):
            for seeds, spreads in ((1, (0.0,)), (2, (0.0, 0.3, 1.0)), (3, (0.0, 0.3, 1.0)), (5, (0.0, 0.3, 1.0))):
                for spread in spreads:
                    for words, scale in (("all alike", np.ones(MIXERS)), ("one three times", uneven)):
                        if words != "all alike" and not spread:
                            continue
                        options: dict[str, Any] = {"seeds": seeds, "items": items, "seed_points": spread * scale}
                        found = named(setting(kind, 0.0, **options), times)
                        even = named(
                            functools.partial(kind, points=np.full(MIXERS, 90.0), **options), max(times // 4, 1)
                        )
                        rows.append(
                            {"scores": kind.__name__, "items": items, "seeds": seeds, "seed_points": spread}
                            | {"spreads": words, "two best": 1 - found.get(None, 0.0)}
                            | {"all equal": 1 - even.get(None, 0.0)}
                        )
    return rows


def false_winners_of_series(times: int) -> list[dict[str, Any]]:
    """The same of forecasts, with one seed."""
    rows = []
    for hours in (1, 3, 10, 30, 100):
        found = named(setting(series, 0.0, hours=hours), times, chained=True)
        even = named(functools.partial(series, points=np.full(MIXERS, 90.0), hours=hours), times // 4, chained=True)
        row = {"scores": "series", "hours": hours, "two best": 1 - found.get(None, 0.0)}
        rows.append({**row, "all equal": 1 - even.get(None, 0.0)})
    return rows


def power(times: int) -> list[dict[str, Any]]:
    """Comparisons with a winner: how often it is named, by how many points it is ahead."""
    rows = []
    for items in (500, 2000, 10_000):
        for seeds, spread in ((1, 0.0), (2, 0.3), (3, 0.3), (5, 0.3), (10, 0.3)):
            options: dict[str, Any] = {"seeds": seeds, "items": items, "seed_points": spread}
            row: dict[str, Any] = {"items": items, "seeds": seeds, "seed_points": spread}
            for ahead in (1.0, 2.0, 4.0):
                row[f"{ahead:g}"] = named(setting(shares, ahead, **options), times).get("m0", 0.0)
            rows.append(row)
    return rows


def main() -> None:
    """Simulate, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=2000, help="comparisons for each row (default: %(default)s)")
    args = parser.parse_args()
    false, found = false_winners(args.times), power(max(args.times // 10, 1))
    of_series = false_winners_of_series(args.times)
    for rows in (false, of_series, found):
        lines = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
        print(table(list(rows[0]), lines))
    kept = {"times": args.times, "false_winners": false, "false_winners_of_series": of_series, "power": found}
    write_json(RESULTS / "decisions.json", kept)


if __name__ == "__main__":
    main()
