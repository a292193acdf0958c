"""The table of models is what the code and the published numbers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import goldens
from tokenmix.bench import zoo

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_table_is_not_stale():
    assert zoo.zoo() == zoo.count_zoo(), "run `make docs`"


def test_page_is_not_stale():
    assert (ROOT / "docs" / "models.md").read_text(encoding="utf-8") == zoo.markdown(), "run `make docs`"


def test_counts_equal_the_official_code():
    rows = {row["model"].split(".")[0]: row for row in zoo.zoo() if not row["model"].endswith("_384")}
    checked = 0
    for file in sorted(goldens.FOLDER.glob("*.json")):
        golden = json.loads(file.read_text(encoding="utf-8"))
        if golden["model"] in rows and golden["task"] == "classification":
            row = rows[golden["model"]]
            assert (row["params"], row["macs"]) == (golden["params"], golden["macs"]), golden["model"]
            checked += 1
    assert checked >= 9


@pytest.mark.parametrize(
    ("model", "top1"),
    [
        ("affnet_et", 73.0),
        ("affnet_s", 79.8),
        ("ffnet_1.in1k", 81.3),
        ("ffnet_1.dist_in1k", 82.1),
        ("ffnet_3.ft_in1k_384", 84.5),
        ("casvit_t.in1k", 83.9),
        ("casvit_t.ft_in1k_384", 84.1),
        ("dsm_b", None),
    ],
)
def test_published_accuracies(model, top1):
    row = next(row for row in zoo.zoo() if row["model"] == model)
    assert row["top1"] == top1
    assert row["reconstruction"] == model.startswith("dsm")
