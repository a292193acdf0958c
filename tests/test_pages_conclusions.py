"""What the report concludes: intervals, ties, the Pareto front, and results with holes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comparison_results import made_up
from tokenmix.pages.comparison import comparison_page
from tokenmix.pages.conclusions import caveats, conclusions, headline, pareto, settling
from tokenmix.pages.result_schema import Row, read, told_apart, wilson
from tokenmix.pages.strips import Strip, strips
from tokenmix.tasks import find_task


def test_pareto_front() -> None:
    assert pareto([]) == []
    assert pareto([(1.0, 90.0), (2.0, 95.0), (3.0, 94.0)]) == [True, True, False]
    assert pareto([(1.0, 90.0), (1.0, 91.0)]) == [False, True]  # as fast, less accurate
    assert pareto([(1.0, 90.0), (2.0, 90.0)]) == [True, False]  # as accurate, slower
    assert pareto([(1.0, 90.0), (1.0, 90.0), (2.0, 80.0)]) == [True, True, False]  # duplicates stay together


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_pareto_front_against_its_definition(points: list[tuple[int, int]]) -> None:
    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return (a[0] <= b[0] and a[1] > b[1]) or (a[0] < b[0] and a[1] >= b[1])

    marks = pareto(points)
    assert marks == [not any(beats(other, point) for other in points) for point in points]
    assert any(marks)


def test_wilson_interval_contains_its_share_and_has_known_values() -> None:
    low, high = wilson(50.0, 100)
    assert (low, high) == pytest.approx((40.38, 59.62), abs=0.01)
    low, high = wilson(100.0, 360)
    assert high == pytest.approx(100.0)
    assert low == pytest.approx(98.94, abs=0.01)
    assert wilson(0.0, 10)[0] == pytest.approx(0.0, abs=1e-9)
    # Newcombe's published example 56/70 against 48/80: the difference's interval is 0.0524 to 0.3339.
    a, b = wilson(80.0, 70), wilson(60.0, 80)
    assert 20 - math.hypot(80 - a[0], b[1] - 60) == pytest.approx(5.24, abs=0.01)


def _row(top1: float, spread: float | None, count: int) -> Row:
    return Row(0, "x", {}, top1, spread, wilson(top1, count))


def test_told_apart_needs_enough_images_and_little_spread() -> None:
    assert not told_apart(_row(98.6, None, 360), _row(98.3, None, 360))
    assert told_apart(_row(98.6, None, 100_000), _row(98.3, None, 100_000))
    assert not told_apart(_row(98.6, 0.3, 100_000), _row(98.3, 0.3, 100_000))
    assert told_apart(_row(98.6, None, 360), _row(90.0, None, 360))


def test_findings_of_a_whole_comparison() -> None:
    found = conclusions(read(made_up()))
    assert found.view == ("onnxruntime", "1")
    assert [row.name for row in found.best] == ["aff"]
    assert found.fastest is not None
    assert found.fastest.name == "identity"
    assert "identity" not in [row.name for row in found.equals]
    assert found.pick is not None
    assert found.pick.name == "pool"
    assert [row.name for row in found.front] == ["identity", "pool", "depthwise", "ffnified", "aff"]


def test_headline_names_the_answers_and_their_doubt() -> None:
    text = headline(made_up())
    assert text.startswith("360 test images cannot tell 10 of the 11 apart: top-1 ")
    assert "; pool is the fastest of them (" in text
    assert "identity is faster still (0.47 ms in ONNX Runtime at batch 1), with top-1 " in text
    assert "best" not in text
    notes = " ".join(caveats(made_up()))
    assert "0.28 points" in notes
    assert "trained once" in notes


def test_headline_of_one_mixer_and_of_ties() -> None:
    assert headline(made_up(mixers=1)) == "aff: top-1 98.6 %, 1.62 ms in ONNX Runtime at batch 1."
    results = made_up(mixers=3)
    for entry in results["mixers"].values():
        entry["test_top1"] = 98.0
        entry["test_top1_per_seed"] = [98.0]
    assert headline(results).startswith("aff, ffnified and additive: top-1 98.0 %; ffnified is the fastest (0.92 ms")


def test_seeds_give_mean_and_sample_deviation() -> None:
    results = made_up(mixers=2)
    results["seeds"] = [0, 1, 2]
    for entry in results["mixers"].values():
        entry["test_top1_per_seed"] = [97.0, 98.0, 99.0]
        entry["test_top1"] = 98.0
    comparison = read(results)
    assert comparison.rows[0].spread == pytest.approx(1.0)
    assert "98.0 ± 1.0 %" in headline(results)
    assert not any("trained once" in note for note in caveats(results))


def test_overlapping_times_are_said() -> None:
    results = made_up(mixers=2)
    for entry in results["mixers"].values():
        entry["latency_range_ms"]["onnxruntime"]["1"] = [0.5, 2.0]
    assert any("overlap with those of the fastest, ffnified" in note for note in caveats(results))


def test_skipped_files_are_said_at_the_top() -> None:
    results = made_up()
    results["data"]["skipped"] = [{"name": "cat/broken.jpg", "reason": "no picture"}]
    assert any("1 file was skipped" in note for note in caveats(results))
    results["data"]["skipped"] = []
    assert not any("skipped" in note for note in caveats(results))


def test_missing_values_are_no_obstacle() -> None:
    assert headline({"mixers": {"aff": {}}}) == "No mixer has been tested yet."
    assert headline({"mixers": {"aff": {"test_top1": 97.5}}}).endswith("no latency was measured.")
    results = made_up(mixers=3)
    results["mixers"]["aff"]["latency_ms"] = None
    results["mixers"]["ffnified"]["test_top1"] = float("nan")
    found = conclusions(read(results))
    assert [row.name for row in found.front] == ["additive"]


def test_the_view_prefers_a_runtime_that_ran_every_mixer() -> None:
    results = made_up(mixers=3)
    results["mixers"]["aff"]["latency_ms"]["compile"] = {"1": 0.001}
    assert conclusions(read(results)).view == ("onnxruntime", "1")
    assert read(results).runtimes == ["pytorch", "onnxruntime", "compile"]


def test_wrong_schema_and_no_mixers_are_errors() -> None:
    with pytest.raises(ValueError, match=r"tokenmix\.compare/1"):
        read({"schema": "tokenmix.compare/9", "mixers": {"aff": {}}})
    with pytest.raises(ValueError, match="no mixer"):
        read({"mixers": {}})


def _decided(ahead: float, seeds: int = 1) -> dict:
    """Results of three mixers with statistics: the first is ahead by so many points."""
    from tokenmix.comparison.statistics import decide

    results = made_up(mixers=3)
    rng = np.random.default_rng(0)
    scores = {
        name: 100.0 * (rng.random((seeds, 360)) < (0.9 if place else 0.9 + ahead / 100) - 0.3 * (place == 2))
        for place, name in enumerate(results["mixers"])
    }
    for name, values in scores.items():
        results["mixers"][name] |= {"test_top1": values.mean(), "test_top1_per_seed": values.mean(1).tolist()}
    return results | {"statistics": decide(scores, noun="images"), "seeds": list(range(seeds))}


def test_a_winner_is_named_where_the_corrected_tests_say_so() -> None:
    pytest.importorskip("scipy")
    results = _decided(9.0)
    assert results["statistics"]["winner"] == "aff"
    assert headline(results).startswith("aff has the best top-1 (")
    assert "which holds at 1 % against every other" in headline(results)
    assert [row.name for row in conclusions(read(results)).equals] == ["aff"]


def test_where_they_do_not_it_says_what_would_settle_it() -> None:
    pytest.importorskip("scipy")
    results = _decided(3.0, seeds=3)
    assert results["statistics"]["winner"] is None
    text = headline(results)
    assert text.startswith("360 test images cannot tell aff and ffnified apart: ")
    wanted = results["statistics"]["unsettled"][0]
    assert wanted["items"] or wanted["seeds"]
    assert "If the differences are what they seem, it takes about " in text
    page = comparison_page(results)
    assert "Which mixers can be told apart" in page
    strips = page.split('class="wide chart strips"')[1].split("</svg>")[0]
    assert strips.count('class="dot"') == 9  # three seeds of three mixers
    assert len(re.findall(r">a</text>", strips)) == 2
    assert len(re.findall(r">b</text>", strips)) == 1


def test_what_nothing_settles_is_told_too() -> None:
    results = made_up(4)
    best, *rivals = results["mixers"]
    counts = [(3000, None), (None, None), (None, 7), (None, None), (5000, None)]
    rivals = rivals[: len(counts)] + [f"r{place}" for place in range(len(counts) - len(rivals))]
    results["mixers"] |= {name: results["mixers"][best] for name in rivals}
    unsettled = [
        {"mixers": [best, name], "items": items, "seeds": seeds}
        for name, (items, seeds) in zip(rivals, counts, strict=True)
    ]
    results["statistics"] = {"unsettled": unsettled, "noun": "images"}
    one, two, three, four, five = rivals
    assert settling(read(results)) == (
        f"If the differences are what they seem, it takes about 3,000 test images to tell {best} from {one}, 5,000 "
        f"from {five} too; about 7 seeds each to tell {best} from {three}. A thousand times as many would not tell "
        f"{best} from {two} and {four}."
    )


def test_results_without_statistics_are_still_told() -> None:
    page = comparison_page(made_up())
    assert "these results are of an older version" in page
    assert headline(made_up()).startswith("360 test images cannot tell 10 of the 11 apart")


def test_a_test_that_tells_nothing_apart_names_no_winner() -> None:
    """Too few items for any statistics: not the same as results from before there were some."""
    results = made_up() | {"statistics": None}
    assert headline(results).startswith("360 test images cannot tell all 11 apart")
    assert "too few to tell any two apart" in comparison_page(results)


def test_of_two_that_are_best_whoever_cannot_be_told_from_one_of_them_counts() -> None:
    pytest.importorskip("scipy")
    from tokenmix.comparison.statistics import decide

    results = made_up(3)
    right = {name: np.ones((1, 1000)) for name in results["mixers"]}
    first, second, third = right
    right[first][0, :100] = right[second][0, 80:180] = 0  # 90 % each
    right[third][0, :130] = 0  # a part of what the first one gets wrong, and more
    for name, values in right.items():
        results["mixers"][name] |= {"test_top1": 100 * values.mean(), "test_top1_per_seed": [100 * values.mean()]}
    found = decide({name: 100 * values for name, values in right.items()}, noun="images")
    apart = {frozenset(pair["mixers"]): pair["p_corrected"] < 0.01 for pair in found["pairs"]}
    assert apart[frozenset((first, third))]
    assert not apart[frozenset((second, third))]
    results["statistics"] = found
    assert {row.name for row in conclusions(read(results)).equals} == {first, second, third}
    assert "cannot tell" in headline(results)


def test_who_was_tested_by_what_chose_it_is_told() -> None:
    results = made_up()
    assert "played no part in training or choosing" in comparison_page(results)
    results["data"]["tested_on"] = "val"
    assert "by which the best epoch of each mixer was chosen" in " ".join(caveats(results))
    page = comparison_page(results)
    assert "played no part in training or choosing" not in page
    assert "there are no others, so that these are tested on" in page


def test_the_length_of_a_training_is_told_as_it_was_asked_for() -> None:
    results = made_up()
    for key, value, words in (
        ("schedule.epochs", 0.4, "trained alike for 0.4 epochs on"),
        ("schedule.epochs", 1.0, "trained alike for 1 epoch on"),
        ("schedule.steps", 1200, "trained alike for 1,200 steps on"),
    ):
        results["recipe"][key] = value
        assert words in comparison_page(results)
    narrowed = made_up() | {"timed": {"in": "pytorch", "ms": 2.0, "mixers": {"aff": 1.9}}, "match": None}
    assert "narrower where an answer takes longer than the budget" in comparison_page(narrowed)


def test_what_is_answered_at_a_time_has_its_own_name() -> None:
    page = comparison_page(made_up())
    assert "Images/s" in page
    assert find_task("forecasting").timed_noun == "windows"
    results = made_up() | {"task": "super_resolution", "noun": "pictures", "headline": "psnr", "unit": "dB"}
    for entry in results["mixers"].values():
        entry["test_psnr"] = entry["test_top1"] / 3
    assert "Patches/s" in comparison_page(results)


def test_what_was_left_out_is_told() -> None:
    notes = " ".join(caveats(made_up() | {"left_out": {"selective_scan": 7.25}}))
    assert "no widths make the budget of time: selective_scan (7.25 ms)" in notes


def test_many_letters_leave_room_for_the_dots() -> None:
    rows = [Strip(f"m{row}", row, [50.0 + row], 50.0 + row, None, range(row, row + 9), ["told"]) for row in range(4)]
    narrow, wide = (strips(rows, values="top-1, %", title="strips", width=width) for width in (360, 880))
    assert ">c</text>" not in narrow
    assert ">c</text>" in wide
    assert narrow.count('class="dot"') == wide.count('class="dot"') == 4
