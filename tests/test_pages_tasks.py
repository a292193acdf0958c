"""Pages of any task: with its own unit and direction, sections of its own, and of files that tell no task."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

import tokenmix
from tests.comparison_results import made_up
from tests.test_pages_comparison import check
from tests.test_pages_run import made_up as made_up_run
from tokenmix import tasks
from tokenmix.pages.comparison import comparison_page, pareto_svg
from tokenmix.pages.comparison_table import columns, markdown_table, text_table
from tokenmix.pages.conclusions import caveats, conclusions, headline
from tokenmix.pages.page import Section, render
from tokenmix.pages.result_schema import read
from tokenmix.pages.run import run_page
from tokenmix.tasks import Task, find_task, register_task


class Depths(Task):
    """A task of somebody's own: how far away, in metres; the smaller the error, the better."""

    name = "depths"
    title = "depths"
    noun = "rooms"
    headline = "rmse"
    lower_is_better = True
    headline_meaning = "Root of the mean squared error."
    fact_names = ("far",)
    units = {"": "m", "loss": "", "near": "%"}  # noqa: RUF012
    labels = {"rmse": "RMSE"}  # noqa: RUF012
    template: Path

    def run_sections(self, run: Any, pictures: Any) -> list[Section]:
        html = render(self.template, words=run["evidence"]["words"])
        return [Section("own", "Own", html, "Own", data={"own": 7}, files=(self.template.with_suffix(".js"),))]

    def compare_sections(self, results: Any, pictures: Any) -> list[Section]:
        return [Section("own", "Own", Markup("<p>own section</p>"), "Own")]


for _method in Task.__abstractmethods__:  # pages ask for none of them
    setattr(Depths, _method, lambda *_: None)
Depths.__abstractmethods__ = frozenset()


@pytest.fixture
def depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Depths:
    monkeypatch.setattr(tasks, "_OWN", {})
    task = Depths()
    task.template = tmp_path / "own.html"
    task.template.write_text('{% from "parts.html" import facts %}{{ facts([("said", words)]) }}')
    task.template.with_suffix(".js").write_text("// of its own")
    return register_task(task)


def of_task(results: dict[str, Any], task: str, number: str, unit: str, lower: bool, scale: float) -> dict[str, Any]:
    """The made-up results as if another task's number were the headline: what is missing to 100, scaled, if lower."""
    for entry in results["mixers"].values():
        for key in ("confusion", "samples"):
            del entry[key]
        value = entry.pop("test_top1")
        value = scale * (100 - value if lower else value)
        entry |= {f"test_{number}": value, f"test_{number}_per_seed": [value]}
        for row in entry["history"]:
            row[f"val_{number}"] = row.pop("val_top1") * scale
    told = {"task": task, "headline": number, "unit": unit, "lower_is_better": lower, "noun": find_task(task).noun}
    return results | told


def test_a_smaller_number_may_be_better(depths: Depths) -> None:
    results = of_task(made_up(mixers=3), "depths", "rmse", "m", True, 0.1)
    results["data"]["far"] = 80.5
    answer = conclusions(read(results))
    assert [row.name for row in answer.best] == ["aff"]
    assert [row.name for row in answer.front] == ["ffnified", "aff"]
    assert headline(results).startswith("aff has the best RMSE (0.1390 m); ffnified is the fastest (0.92 ms")
    assert any("RMSE has no interval here" in note for note in caveats(results))
    column = columns(read(results))[0]
    assert (column.full, column.title, column.better, column.best()) == ("test RMSE, m", "RMSE, m", -1, {0})
    assert markdown_table(results).startswith("| mixer | test RMSE, m | params, M |")
    assert [line.split()[0] for line in text_table(results).splitlines()[3:6]] == ["*", "*", "additive"]
    page = comparison_page(results)
    check(page)
    assert "↙ better" in page
    assert "own section" in page
    assert "training rooms" in page
    assert re.search(r"<dt>far</dt><dd>80.5</dd>", page)
    assert "top-1" not in re.sub(r"<script>.*", "", page, flags=re.DOTALL)
    assert "RMSE against latency" in pareto_svg(results)


def test_an_interval_of_the_task_is_taken(depths: Depths) -> None:
    results = of_task(made_up(mixers=3), "depths", "rmse", "m", True, 0.1)
    for entry in results["mixers"].values():
        entry["test_rmse_interval"] = [entry["test_rmse"] - 0.05, entry["test_rmse"] + 0.05]
    answer = conclusions(read(results))
    assert [row.name for row in answer.equals] == ["aff", "ffnified", "additive"]  # 0.139, 0.167, 0.194
    assert answer.pick is not None
    assert answer.pick.name == "ffnified"
    assert "The 95 % interval of the best RMSE is 0.0890 to 0.1890 m." in caveats(results)
    assert "95 % interval of aff" in comparison_page(results)


def test_a_task_of_ones_own_has_its_part_of_a_runs_page(depths: Depths) -> None:
    run = made_up_run() | {"task": "depths", "noun": "rooms", "headline": "rmse", "evidence": {"words": "a < b"}}
    run["facts"], run["data"] = {"far": 80.5}, {"name": "flat", "val rooms": 50}
    for row in run["history"]:
        row["val_rmse"], row["val_near"] = 1 / row["epoch"], row.pop("val_top1")
        del row["val_top5"]
    page = run_page(run)
    check(page)
    assert "<dt>said</dt><dd>a &lt; b</dd>" in page
    assert '"own":7' in page
    assert "// of its own" in page
    assert "Best validation RMSE" in page
    assert re.search(r'class="who">0\.08333 m<', page)
    assert "validation RMSE, m" in page  # each unit has its own chart
    assert "validation near, %" in page
    assert "rooms/s" in page


def test_what_tells_no_task_is_of_version_0_1() -> None:
    old = made_up()
    new = made_up() | {"task": "classification", "noun": "images", "headline": "top1", "unit": "%"}
    new["lower_is_better"] = False
    assert comparison_page(old) == comparison_page(new)
    with pytest.raises(ValueError, match="unknown task 'dephts'"):
        read(old | {"task": "dephts"})


def test_classes_of_a_comparison_that_are_not_just_confused() -> None:
    results = of_task(made_up(mixers=3), "segmentation", "mIoU", "%", False, 0.5)
    for number, entry in enumerate(results["mixers"].values()):
        rows = [{"class": "sky", "IoU": 50.0 + number, "Acc": 60.0}, {"class": "<sea>", "IoU": None, "Acc": None}]
        entry["per_class"] = rows
    page = comparison_page(results)
    check(page)
    text = re.sub(r"\s*<[^>]+>\s*", "|", page)
    assert re.search(r"IoU, %: of each class on the test images", text)
    assert re.search(r"\|sky\|+50\.0\|+51\.0\|+52\.0\|+best\|", text)
    assert re.search(r"\|&lt;sea&gt;\|+–\|+–\|+–\|", text)
    assert "aff has the best mIoU (49.30 %)" in text
    for entry in results["mixers"].values():
        entry["per_class"] = None
    assert "of each class" not in comparison_page(results)


def test_neither_evaluation_nor_measurement_needs_a_page() -> None:
    package = Path(tokenmix.__file__).parent
    for path in [package / "evaluate.py", *(package / "bench").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert "tokenmix.pages" not in ast.unparse(node) or not isinstance(node, ast.Import | ast.ImportFrom), path


def test_what_pages_are_made_of_is_shipped() -> None:
    root = Path(tokenmix.__file__).parent
    settings = tomllib.loads((root.parent / "pyproject.toml").read_text(encoding="utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]["tokenmix"]
    files = [path for folder in root.rglob("templates") for path in folder.iterdir()]
    assert len(files) > 30
    for path in files:
        assert f"**/*{path.suffix}" in globs, path
