"""Forecasters as files for other runtimes: normalised past in, normalised future out."""

from __future__ import annotations

from typing import Any

from tokenmix.tasks.file_form import FileForm


class ForecastForm(FileForm):
    """``past`` (N, L, M) -> ``forecast`` (N, H, M), both in standard deviations from the mean of each variable."""

    input_name = "past"
    layout = "NLM"

    @property
    def samples(self) -> str:
        return f"pasts of {self.loaded.model.look_back} rows"

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("forecast",)

    def description(self) -> dict[str, Any]:
        loaded = self.loaded
        return {
            "labels": loaded.facts.get("variables"),
            "preprocess": {
                "look_back": loaded.model.look_back,
                "mean": list(loaded.mean),
                "std": list(loaded.std),
                "season": loaded.facts.get("season"),
                "learnt": loaded.facts.get("learnt"),
                "inside": [],
            },
            "postprocess": {"kind": "forecast", "inside": False, "horizon": loaded.model.horizon},
        }
