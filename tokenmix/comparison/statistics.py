"""Which mixers a test can tell apart, and what it would take to tell the rest.

All mixers answer the same test items, so that every two are compared item by item, and Holm's correction keeps the
chance of a single false difference among all pairs below `LEVEL`:

* one seed, answers that are right or wrong: McNemar's exact test;
* one seed, any other number: the signs of the items' differences are flipped, all ways if they are few;
* one seed, items that share data with their neighbours: Student's test with the variance of a mean of such items, to
  which the covariance of neighbours adds twice (F. X. Diebold and R. S. Mariano, "Comparing predictive accuracy"
  (1995), for one step), with two degrees of freedom less than items;
* several seeds: a model with a random seed and a random item. A difference is told where it is larger than
  sqrt(t_s^2 V_s + t_i^2 V_i): V_s is the variance of the mean over seeds, each mixer with its own, V_i that of the mean
  over items; t_s and t_i are Student's quantiles, of the seeds with Welch's degrees of freedom. So few seeds, which
  cannot say how much they vary, weigh heavily, but only as much as they vary. What is left to chance counts in both.
  Source: adding intervals by squares, G. Y. Zou and A. Donner, "Construction of confidence limits about effect
  measures" (2008).

SciPy's distributions are used throughout. Its and statsmodels' own tests of one pair at a time give the same numbers,
as the tests of this module hold; neither has a model in which seeds and items are crossed and differ by mixer.
Items that share no data are taken to be independent.

With one seed the answer holds for the networks that were trained, with several for the mixers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.01  # the chance of a false difference among all pairs
POWER = 0.8  # of what is said about more items or seeds
MOST = 1000  # times as many items or seeds: more is no advice
GROUPS = 200  # of neighbouring items, whose signs are flipped together
_ROWS = 2**14  # of signs at a time
Array = NDArray[np.float64]


def decide(
    scores: Mapping[str, Array], *, noun: str, lower_is_better: bool = False, chained: bool = False
) -> dict[str, Any]:
    """What the test says of the mixers, as JSON.

    Args:
        scores: Of each mixer (S, N), a row for each seed and a column for each test item, the same ones for all; the
            mean is its score. Two mixers and two items at least.
        noun: What an item is, in the plural.
        lower_is_better: Of the scores.
        chained: Neighbouring items share data; then three at least.

    Returns:
        ``level``, ``method`` (``"mcnemar"``, ``"signs"``, ``"series"`` or ``"seeds"``), ``correction``, ``seeds``,
        ``items``, ``noun``; ``pairs``: of every two ``mixers``, their ``difference``, ``p`` and ``p_corrected``;
        ``groups``: the largest sets of mixers of which no two are told apart, those with the best ones first;
        ``winner``: who is told from all others and better, or None; ``unsettled``: of the best and each one that it
        is not told from, ``mixers``, and about how many ``items`` in all, or else ``seeds``, would tell them if the
        difference is what it seems; None where there is no such number.

    Raises:
        ValueError: Fewer than two mixers or items, or scores of different shapes.
    """
    import networkx  # torch brings it

    shapes = {values.shape for values in scores.values()}
    if len(scores) < 2 or len(shapes) != 1 or min(shapes)[1] < 2 + chained:
        least = "two mixers and three items" if chained else "two mixers and items"
        raise ValueError(f"{least} at least, and scores of one shape, not {len(scores)} of {shapes}")
    ((seeds, items),) = shapes
    pairs = list(itertools.combinations(scores, 2))
    runs = np.stack(list(scores.values()))  # (mixers, S, N)
    one, other = np.triu_indices(len(runs), 1)  # in the same order
    differences = runs.mean(1)[one] - runs.mean(1)[other]  # (pairs, N)
    of_items, freedom = _variance(differences, chained), items - 1 - chained
    of_seeds, noise = np.zeros((len(pairs), 2)), np.zeros(len(pairs))
    if seeds > 1:
        of_seeds = runs.mean(2).var(1, ddof=1)[np.stack((one, other), 1)]
        left = runs - runs.mean(1, keepdims=True) - runs.mean(2, keepdims=True) + runs.mean((1, 2), keepdims=True)
        noise = (left**2).sum((1, 2)) / ((seeds - 1) * (items - 1))
        noise = noise[one] + noise[other]
        method, p = "seeds", _crossed(differences.mean(1), of_seeds / seeds, of_items / items, seeds, freedom)
    elif chained:
        method, p = "series", _crossed(differences.mean(1), of_seeds, of_items / items, 2, freedom)
    elif np.isin(runs, (0.0, 100.0)).all():
        method, p = "mcnemar", _mcnemar(differences)
    else:
        method, p = "signs", flipped_signs(differences)
    corrected, test = holm(p), _Test(seeds, items, LEVEL / len(pairs), method, chained)
    sign = 1 if lower_is_better else -1
    ranked = sorted(scores, key=lambda name: sign * scores[name].mean())
    equal = networkx.Graph()
    equal.add_nodes_from(ranked)
    equal.add_edges_from(pair for pair, value in zip(pairs, corrected, strict=True) if value >= LEVEL)
    groups = sorted(sorted(map(ranked.index, group)) for group in networkx.find_cliques(equal))
    rivals = [row for row, pair in enumerate(pairs) if ranked[0] in pair and equal.has_edge(*pair)]
    return {
        "level": LEVEL,
        "method": method,
        "correction": "holm",
        "seeds": seeds,
        "items": items,
        "noun": noun,
        "pairs": [
            {"mixers": list(pair), "difference": float(values.mean()), "p": float(raw), "p_corrected": float(value)}
            for pair, values, raw, value in zip(pairs, differences, p, corrected, strict=True)
        ],
        "groups": [[ranked[place] for place in group] for group in groups],
        "winner": None if rivals else ranked[0],
        "unsettled": [
            {"mixers": list(pairs[row])}
            | test.wanted(differences[row].mean(), of_seeds[row], of_items[row], noise[row])
            for row in rivals
        ],
    }


def interval(values: Array, *, chained: bool = False) -> list[float] | None:
    """(S, N) -> the ends of the 95 % interval of the mean for the choice of the items, by Student's t; see `decide`."""
    from scipy.stats import t

    by_item = values.mean(0, keepdims=True)
    freedom = by_item.size - 1 - chained
    if freedom < 1:
        return None
    mean, variance = float(by_item.mean()), float(_variance(by_item, chained)[0])
    half = float(t.isf(0.025, freedom)) * math.sqrt(variance / by_item.size)
    return [mean - half, mean + half]


def _variance(values: Array, chained: bool) -> Array:
    """(rows, N) -> (rows,): N times the variance of the mean of N items."""
    alone = values.var(1, ddof=1)
    if not chained:
        return alone
    left = values - values.mean(1, keepdims=True)
    shared = (left[:, 1:] * left[:, :-1]).sum(1) / (values.shape[1] - 1)
    return alone + 2 * shared.clip(min=0.0)  # what is shared makes neighbours alike


def holm(p: Array) -> Array:
    """S. Holm's correction for many tests (1979). SciPy has none; statsmodels' collects garbage at each call."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return corrected


def _mcnemar(differences: Array) -> Array:
    """(pairs, N) of -100, 0 and 100 -> (pairs,): whether as many items speak for the one as for the other."""
    from scipy.special import bdtr

    more, less = (differences > 0).sum(1), (differences < 0).sum(1)
    return np.minimum(2 * bdtr(np.minimum(more, less), more + less, 0.5), 1.0)


def flipped_signs(differences: Array) -> Array:
    """(pairs, N) -> (pairs,): how often a mean is as far from 0, either way, if signs are flipped at random.

    All signs where they are few, and else as many as the correction for all pairs needs. `scipy.stats.permutation_test`
    does the same for one pair, and for the pairs of two dozen mixers takes minutes where a product of matrices takes
    a second.
    """
    parts = np.array_split(differences, min(differences.shape[1], GROUPS), axis=1)
    sums = np.stack([part.sum(1) for part in parts], axis=1)  # (pairs, groups)
    seen, count = np.abs(sums.sum(1)) * (1 - 1e-9), sums.shape[1]
    wanted = max(50_000, math.ceil(8 * len(sums) / LEVEL))
    if 2**count <= wanted:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
        return (np.abs(signs @ sums.T) >= seen).mean(0)
    draws, hits, done = np.random.default_rng(0), np.ones(len(sums)), 1  # what was seen is one of the possible ones
    while done < wanted:
        signs = 2.0 * draws.integers(0, 2, size=(_ROWS, count), dtype=np.int8) - 1
        hits += (np.abs(signs @ sums.T) >= seen).sum(0)
        done += _ROWS
    return hits / done


def _crossed(difference: Array, of_seeds: Array, of_items: Array, seeds: int, rest: int) -> Array:
    """See the module: (pairs,), (pairs, 2), (pairs,) -> (pairs,); both variances are those of the difference's mean.

    ``rest`` are the degrees of freedom of the items.
    """
    total, freedom = of_seeds.sum(1), (seeds - 1) * _welch(of_seeds)
    low, high = np.full(len(difference), -300.0), np.zeros(len(difference))  # of the logarithm of p
    for _ in range(32):
        middle = (low + high) / 2
        told = np.abs(difference) > _reach(np.exp(middle), total, of_items, freedom, rest)
        low, high = np.where(told, low, middle), np.where(told, middle, high)
    return np.where(difference == 0, 1.0, np.exp(high))


def _welch(of_seeds: Array) -> Array:
    """(..., 2) -> (...): how many times as many degrees of freedom two variances have as one: 1 to 2."""
    squares = (of_seeds**2).sum(-1)
    return np.where(squares > 0, of_seeds.sum(-1) ** 2 / np.where(squares > 0, squares, 1.0), 1.0)


def _reach(level: Any, of_seeds: Any, of_items: Any, freedom: Any, rest: int) -> Any:
    """How large a difference must be at a level; the last two are degrees of freedom, of seeds and of items."""
    from scipy.special import stdtrit  # Student's quantiles as scipy.stats has them, without a hundred times the cost

    return np.sqrt(stdtrit(freedom, level / 2) ** 2 * of_seeds + stdtrit(rest, level / 2) ** 2 * of_items)


@dataclass(frozen=True)
class _Test:
    """Of one pair; see `decide`."""

    seeds: int
    items: int
    level: float
    method: str
    chained: bool

    def wanted(self, difference: float, of_seeds: Array, of_items: float, noise: float) -> dict[str, int | None]:
        """About how many items, or else seeds, would tell a pair, with the chance `POWER`.

        Args:
            difference: As it seems.
            of_seeds: (2,), the variances of one run of each.
            of_items: That of the difference in one item.
            noise: That of a difference between one run of each in one item, which more of both make smaller.
        """
        from scipy.special import ndtri

        power, welch = float(ndtri(POWER)), float(_welch(of_seeds))
        # Flipped signs tell nothing where 2^(1 - items), their smallest p, is above the level.
        least = math.ceil(1 - math.log2(self.level)) if self.method == "signs" else 2
        pure_seeds = max(float(of_seeds.sum()) - noise / self.items, 0.0)
        pure_items = max(of_items - noise / self.seeds, 0.0)

        def enough(seeds: int, items: int) -> bool:
            shared = noise / (seeds * items)
            parts = pure_seeds / seeds + shared, pure_items / items + shared
            reach = _reach(self.level, *parts, max(welch * (seeds - 1), 1), items - 1 - self.chained)
            return items >= least and bool(abs(difference) > reach + power * math.sqrt(sum(parts)))

        return {
            "items": _fewest(lambda count: enough(self.seeds, count), self.items),
            "seeds": _fewest(lambda count: enough(count, self.items), self.seeds) if self.seeds > 1 else None,
        }


def _fewest(enough: Callable[[int], bool], now: int) -> int | None:
    """The smallest number that is enough, to a hundredth; None if `MOST` times as many as ``now`` are not.

    It is a tenth above ``now`` at least: what should have been enough by this reckoning was not.
    """
    if not enough(MOST * now):
        return None
    low, high = now, MOST * now
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(high, now + math.ceil(now / 10))
