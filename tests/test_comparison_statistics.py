"""Which mixers a comparison tells apart: against SciPy and statsmodels, and against simulations without a winner."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from tests.test_metrics_dense import CLASSES, batch_of, scene
from tokenmix.comparison.statistics import LEVEL, decide, flipped_signs, holm, interval
from tokenmix.metrics import CocoAP, ImageOverlaps, SegmentationOverlap, jackknife
from tokenmix.tasks.forecasting.judged import WindowErrors
from tokenmix.tasks.forecasting.metrics import ForecastErrors

scipy_stats = pytest.importorskip("scipy.stats")
decisions = pytest.importorskip("benchmarks.decisions")


def most(times: int) -> int:
    """So many false winners may be found among comparisons of which at most a hundredth names one."""
    return int(scipy_stats.binom.isf(1e-4, times, LEVEL))


def of_one_seed(*rows) -> dict[str, np.ndarray]:
    return {name: np.asarray(row, float)[None] for name, row in zip("abcdefgh", rows, strict=False)}


# ------------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("count", [1, 2, 15])
def test_holm_is_statsmodels(count) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(count).random(count) ** 3
    assert holm(np.array(p)) == pytest.approx(multitest.multipletests(p, method="holm")[1])


@pytest.mark.parametrize(("more", "less"), [(0, 0), (1, 0), (9, 2), (30, 61)])
def test_right_and_wrong_answers_are_compared_as_mcnemar_does(more, less) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    one, other = [100.0] * more + [0.0] * less + [100.0] * 50, [0.0] * more + [100.0] * less + [100.0] * 50
    found = decide(of_one_seed(one, other), noun="images")
    assert found["method"] == "mcnemar"
    expected = tables.mcnemar([[50, more], [less, 0]], exact=True).pvalue
    assert found["pairs"][0]["p"] == pytest.approx(1.0 if more == less == 0 else expected)
    assert found["pairs"][0]["difference"] == pytest.approx(100 * (more - less) / (50 + more + less))


@pytest.mark.parametrize(("count", "shift"), [(2, 1.0), (9, 0.5), (60, 0.35)])
def test_flipped_signs_are_scipys_permutation_test(count, shift) -> None:
    values = np.random.default_rng(count).normal(shift, 1, (3, count))
    for row, p in zip(values, flipped_signs(values), strict=True):
        expected = scipy_stats.permutation_test(
            (row,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
        )
        assert p == pytest.approx(expected.pvalue, abs=0.006 if count > 20 else 1e-12)


def test_seeds_alone_are_compared_as_welch_does() -> None:
    """Where all items say the same, only the seeds are chosen at random."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(0, 1, 4), rng.normal(1, 3, 4)
    scores = {"a": np.repeat(one[:, None], 50, 1), "b": np.repeat(other[:, None], 50, 1)}
    found = decide(scores, noun="images")
    assert found["method"] == "seeds"
    assert found["pairs"][0]["p"] == pytest.approx(scipy_stats.ttest_ind(one, other, equal_var=False).pvalue)


def test_the_items_make_a_difference_less_sure() -> None:
    rng = np.random.default_rng(4)
    runs = rng.normal(0, 0.1, (2, 5, 1))
    same, different = (rng.normal(0, size, (2, 1, 400)) for size in (0.01, 10.0))
    chances = [
        decide({"a": 1 + runs[0] + items[0], "b": runs[1] + items[1]}, noun="x")["pairs"][0]["p"]
        for items in (same, different)
    ]
    assert chances[0] < 1e-4 < 0.01 < chances[1]


def test_equal_runs_are_not_told_apart() -> None:
    for seeds in (1, 3):
        values = np.tile(np.arange(6.0), (seeds, 1))
        found = decide({"a": values, "b": values.copy()}, noun="pictures")
        assert found["pairs"][0]["p"] == 1.0
        assert found["winner"] is None
        assert found["unsettled"] == [{"mixers": ["a", "b"], "items": None, "seeds": None}]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="two mixers and items"):
        decide({"a": np.zeros((1, 5))}, noun="x")
    with pytest.raises(ValueError, match="of one shape"):
        decide({"a": np.zeros((1, 5)), "b": np.zeros((1, 6))}, noun="x")


# ----------------------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize("seed", range(5))
def test_groups_say_which_pairs_are_told_apart(seed) -> None:
    rng = np.random.default_rng(seed)
    ahead = np.sort(rng.choice([0.0, 1.0, 1.5, 2.0, 4.0], 6))
    scores = of_one_seed(*(rng.normal(0, 1, 80) + rng.normal(0, 1, 80) * 0.3 + value for value in ahead))
    found = decide(scores, noun="x")
    apart = {frozenset(pair["mixers"]) for pair in found["pairs"] if pair["p_corrected"] < LEVEL}
    together = {frozenset(pair) for group in found["groups"] for pair in itertools.combinations(group, 2)}
    assert apart | together == {frozenset(pair) for pair in itertools.combinations(scores, 2)}
    assert not apart & together
    means = {name: values.mean() for name, values in scores.items()}
    best = max(means, key=means.__getitem__)
    assert found["groups"][0][0] == best
    assert (found["winner"] == best) == all(frozenset((best, other)) in apart for other in scores if other != best)
    turned = decide({name: -scores[name] for name in reversed(scores)}, noun="x", lower_is_better=True)
    assert turned["winner"] == found["winner"]
    assert turned["groups"] == found["groups"]


def test_so_many_items_settle_it() -> None:
    """With the number that is told four comparisons of five succeed; with the present one few do."""
    rng = np.random.default_rng(0)
    draw = lambda count: of_one_seed(rng.normal(0.3, 1, count), rng.normal(0, 1, count))  # noqa: E731
    few = of_one_seed(np.linspace(-1, 1, 40) * 1.7 + 0.3, np.linspace(1, -1, 40) * 0.0)
    wanted = decide(few, noun="x")["unsettled"][0]["items"]
    variance = few["a"].var(ddof=1)
    assert wanted == pytest.approx((2.576 + 0.842) ** 2 * variance / 0.3**2, rel=0.05)
    assert decide(draw(10), noun="x")["winner"] is None


def test_what_should_have_been_enough_still_asks_for_more() -> None:
    """Three seeds that agree, 50 points apart, and 28 pairs: Welch's degrees of freedom are those of one of both."""
    rng = np.random.default_rng(0)
    scores = {f"m{number}": np.full((3, 640), 100.0) for number in range(7)}
    scores["identity"] = 100.0 * (rng.random((3, 640)) < np.array([0.506, 0.498, 0.470])[:, None])
    (pair,) = (pair for pair in decide(scores, noun="x")["unsettled"] if "identity" in pair["mixers"])
    assert pair["seeds"] == 4


def test_flipped_signs_need_items_whatever_the_difference() -> None:
    def draw(count: int) -> dict[str, np.ndarray]:
        return {f"m{place}": place + np.random.default_rng(place).random((1, count)) / 100 for place in range(8)}

    few = decide(draw(8), noun="stretches")
    assert len(few["groups"]) == 1
    assert {pair["items"] for pair in few["unsettled"]} == {13}
    assert decide(draw(13), noun="stretches")["winner"] == "m7"


def test_neighbours_that_share_data_are_told_apart_as_by_diebold_and_mariano() -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    rows = np.random.default_rng(3).normal(size=(2, 31))
    one, other = rows[:, 1:] + rows[:, :-1]  # neighbours share a half
    found = decide(of_one_seed(one + 0.8, other), noun="stretches", chained=True)
    kind = {"cov_type": "HAC", "cov_kwds": {"maxlags": 1, "kernel": "uniform", "use_correction": True}}
    fitted = regression.OLS(one + 0.8 - other, np.ones(30)).fit(**kind)
    assert found["method"] == "series"
    p = 2 * scipy_stats.t.sf(abs(fitted.params[0] / fitted.bse[0]), 28)  # a degree less for the covariance
    assert found["pairs"][0]["p"] == pytest.approx(p)
    mean = regression.OLS(one, np.ones(30)).fit(**kind)
    half = scipy_stats.t.isf(0.025, 28) * mean.bse[0]
    assert interval(one[None], chained=True) == pytest.approx([one.mean() - half, one.mean() + half])
    with pytest.raises(ValueError, match="three items at least"):
        decide(of_one_seed([1.0, 2.0], [2.0, 4.0]), noun="stretches", chained=True)


def test_few_false_winners_among_forecasts() -> None:
    times = 40
    found = decisions.named(decisions.setting(decisions.series, 0.0, hours=10), times, chained=True)
    assert round((1 - found.get(None, 0.0)) * times) <= most(times)
    assert decisions.named(decisions.setting(decisions.series, 9.0, hours=10), 5, chained=True) == {"m0": 1.0}


@pytest.mark.parametrize(("kind", "seeds", "spread"), [("shares", 1, 0.0), ("shares", 3, 1.0), ("amounts", 2, 0.5)])
def test_few_false_winners(kind, seeds, spread) -> None:
    """Of two equal mixers ahead of six: Holm's correction protects the two as little as it can."""
    times = 40
    make = decisions.setting(getattr(decisions, kind), 0.0, seeds=seeds, items=120, seed_points=spread)
    found = decisions.named(make, times)
    assert round((1 - found.get(None, 0.0)) * times) <= most(times)


def test_a_real_winner_is_named() -> None:
    make = decisions.setting(decisions.shares, 6.0, seeds=5, items=1000, seed_points=0.3)
    assert decisions.named(make, 10).get("m0", 0.0) > 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["shares", "amounts"])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_false_winners_are_at_most_a_hundredth(kind, seeds, spread) -> None:
    if seeds == 1 and spread:
        pytest.skip("one seed says nothing of others: its answer holds for the networks that were trained")
    times = 1000
    make = getattr(decisions, kind)
    options = {"seeds": seeds, "items": 300, "seed_points": spread}
    for draw in (
        decisions.setting(make, 0.0, **options),
        functools.partial(make, points=np.full(8, 90.0), **options),
        decisions.setting(make, 0.0, **{**options, "seed_points": spread * np.array([3.0, *[1.0] * 7])}),
    ):
        found = decisions.named(draw, times)
        assert round((1 - found.get(None, 0.0)) * times) <= most(times)


# ---------------------------------------------------------------------------------------------------- a number by items


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values = np.random.default_rng(0).normal(size=20)
    without = [np.delete(values, row).mean() for row in range(20)]
    assert jackknife(values.mean(), without) == pytest.approx(values)


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(size=(1, 30))
    low, high = interval(values) or (0, 0)
    expected = scipy_stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert interval(values[:, :1]) is None


def overlaps(rng, images: int):
    label = torch.tensor(rng.integers(0, 4, (images, 6, 7)))
    label[0, 0, 0] = 255
    found = torch.where(
        torch.tensor(rng.random(label.shape) < 0.6), label.clamp(max=3), torch.tensor(rng.integers(0, 4, label.shape))
    )
    return list(found), {"label": label, "index": torch.arange(images), "mask": torch.ones(images, dtype=torch.bool)}


def test_overlaps_by_image_are_those_of_all_but_one() -> None:
    prediction, batch = overlaps(np.random.default_rng(0), 5)

    def without(row: int | None) -> float:
        metric = SegmentationOverlap(4)
        metric.update(prediction, {**batch, "mask": torch.arange(5) != (-1 if row is None else row)})
        return metric.compute()["mIoU"]

    witness = ImageOverlaps(4, "clouds")
    assert witness.scores() is None
    witness.update(prediction, batch)
    found = witness.scores()
    assert found is not None
    assert found.noun == "clouds"
    assert found.values.mean() == pytest.approx(without(None))
    assert found.values == pytest.approx(jackknife(without(None), [without(row) for row in range(5)]))


def test_overlaps_of_one_labelled_image_alone_are_numbers() -> None:
    prediction, batch = overlaps(np.random.default_rng(0), 3)
    batch["label"][1:] = 255
    witness = ImageOverlaps(4)
    witness.update(prediction, batch)
    found, metric = witness.scores(), SegmentationOverlap(4)
    metric.update(prediction, batch)
    assert found is not None
    assert found.values == pytest.approx(jackknife(metric.compute()["mIoU"], [0, *[metric.compute()["mIoU"]] * 2]))
    batch["label"][:] = 255
    witness.update(prediction, batch)
    assert witness.scores() is None


def test_average_precision_by_image_is_that_of_all_but_one() -> None:
    def of(kept: list[int]) -> CocoAP:
        metric = CocoAP(CLASSES)
        for index in kept:
            metric.update([scene(index)[0]], batch_of([scene(index)], index))
        return metric

    whole = of(list(range(6)))
    before = whole.compute()
    found = whole.item_scores("box")
    assert found is not None
    assert found.noun == "images"
    without = [of([index for index in range(6) if index != left]).compute()["box_AP"] for left in range(6)]
    assert found.values == pytest.approx(jackknife(before["box_AP"], without))
    assert whole.compute() == before
    assert of([0]).item_scores("box") is None


def test_squared_errors_by_stretches_have_the_mean_of_the_windows() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, future = torch.randn(2, 23, 3, 2, generator=generator)
    batch = {"past": torch.zeros(23, 0, 2), "future": future, "mask": torch.arange(23) < 22, "index": torch.arange(23)}
    batch["windows"] = torch.full((23,), 22)
    for drop_last in (0, 4):
        errors, metric = WindowErrors(drop_last), ForecastErrors(3, 2, drop_last=drop_last)
        for part in (slice(0, 10), slice(10, 23)):
            rows = {key: value[part] for key, value in batch.items()}
            errors.update(prediction[part], rows)
            metric.update(prediction[part], rows)
        found = errors.scores()
        assert found is not None
        assert (len(found.values), found.noun, found.chained) == (3, "stretches of 6 windows", True)
        assert found.values.mean() == pytest.approx(metric.compute()["mse"])
