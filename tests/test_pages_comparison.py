"""The page as text: escaping, completeness, holes; and the tables for terminal and README."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from tests.comparison_results import drawn_pictures, made_up
from tokenmix.pages.comparison import comparison_page, write_comparison
from tokenmix.pages.comparison_table import columns, markdown_table, text_table
from tokenmix.pages.page import Section, page
from tokenmix.pages.result_schema import read

_VOID = {"meta", "link", "input", "img"}


class Checker(HTMLParser):
    """Fails where an element is not closed, or an address points outside the file."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("href", "src"):
                assert (value or "").startswith(("#", "data:")), value
            if key == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    """Every element is closed, no id occurs twice, and no address points outside the file."""
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    return checker


def test_page_is_whole_and_self_contained() -> None:
    page = comparison_page(made_up(compiled=True), drawn_pictures())
    checker = check(page)
    for anchor in ("results", "tradeoff", "curves", "confusion", "samples", "protocol", "definitions"):
        assert anchor in checker.ids
        assert f'href="#{anchor}"' in page
    assert "tokenmix compare digits --mixers aff," in page
    assert "truncated file" in page
    assert page.count("data:image/png;base64,") == 24
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"\b(nan|None|Infinity)\b", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_data_is_json_that_cannot_leave_its_script() -> None:
    hostile = "</script><script>alert(1)</script><!--"
    results = made_up(mixers=2)
    results["mixers"]["aff"]["mixer"] = hostile
    results["data"]["classes"][0] = hostile
    results["data"]["name"] = hostile
    results["command"] = hostile
    results["data"]["skipped"] = [{"name": hostile, "reason": hostile}]
    results["mixers"]["aff"]["samples"][0]["name"] = hostile
    page = comparison_page(results, {hostile: drawn_pictures(1)["digits/0"]})
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page
    check(page)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["confusions"][0]["name"] == hostile


def test_data_of_sections_are_numbers_that_exist_and_text_that_ends_no_script() -> None:
    section = Section("a", "A", Markup("<p>a</p>"), "A", data={"a": [float("nan")], "b": "\u2028<"})
    assert '{"c":1,"a":[null],"b":"\\u2028\\u003c"}' in page("title", Markup(""), [section], {"c": 1})
    assert "&lt;p&gt;" in page("title", Markup(""), [Section("a", "A", "<p>no markup</p>", "A")])


def _holes(value: Any) -> list[tuple[str, ...]]:
    """The path of every entry of nested dictionaries."""
    if not isinstance(value, dict):
        return []
    return [path for key in value for path in [(key,), *((key, *rest) for rest in _holes(value[key]))]]


@pytest.mark.parametrize("remove", [True, False])
def test_any_value_may_be_missing_or_none(remove: bool) -> None:
    whole = made_up(mixers=2, epochs=2)
    paths = [path for path in _holes(whole) if path[0] != "mixers" or path[1:2] == ("aff",)]
    paths = [path for path in paths if path not in [("schema",), ("mixers",)]]
    assert len(paths) > 60
    for path in paths:
        results = copy.deepcopy(whole)
        inner = results
        for key in path[:-1]:
            inner = inner[key]
        if remove:
            del inner[path[-1]]
        else:
            inner[path[-1]] = None
        page = comparison_page(results)
        assert page.endswith("</html>\n"), path
        text_table(results)


def test_nothing_but_a_name_still_makes_a_page() -> None:
    page = comparison_page({"mixers": {"aff": {}}})
    check(page)
    assert "No mixer has been tested yet." in page


def test_unmeasured_columns_are_left_out_and_widths_shown_where_they_differ() -> None:
    results = made_up(mixers=3)
    titles = [column.full for column in columns(read(results))]
    assert "ONNX max error" in titles
    assert "widths" not in titles
    for entry in results["mixers"].values():
        entry["onnx_max_error"] = None
        del entry["latency_ms"]["onnxruntime"]
    results["runtimes"] = ["pytorch"]
    results["mixers"]["aff"]["dims"] = [40, 80, 160, 320]
    titles = [column.full for column in columns(read(results))]
    assert "ONNX max error" not in titles
    assert "widths" in titles
    assert not any("ONNX Runtime batch" in title and "ms" in title for title in titles)


def test_best_values_count_ties_and_ignore_columns_without_difference() -> None:
    made = {column.full: column for column in columns(read(made_up()))}
    assert made["test top-1, %"].best() == {0}
    assert made["params, M"].best() == {7, 10}
    assert made["FFT/DCT, M"].best() == set()


def test_markdown_table() -> None:
    results = made_up(mixers=3)
    results["mixers"]["aff"]["mixer"] = "my_mixer|x"
    lines = markdown_table(results).splitlines()
    assert lines[0].startswith("| mixer | test top-1, % | params, M |")
    assert lines[2].startswith("| my\\_mixer\\|x ◆ | **98.6** |")
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[:5]]
    assert len(set(cells)) == 1
    assert lines[-1].startswith("◆ Pareto front")


def test_text_table_aligns_and_breaks_at_the_width() -> None:
    whole = text_table(made_up()).splitlines()
    assert len({len(line) for line in whole[:14]}) == 1
    assert whole[3].startswith("* aff")
    narrow = text_table(made_up(), width=80)
    assert max(len(line) for line in narrow.splitlines()[:-1]) <= 80
    assert narrow.count("  mixer") > 1
    assert "53.9" in narrow


def test_written_page_is_the_page(tmp_path: Path) -> None:
    write_comparison(made_up(mixers=2), tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == comparison_page(made_up(mixers=2))
