"""How a comparison was measured: the facts of the page's last parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import flat, in_words, render
from tokenmix.pages.result_schema import Comparison, dig, mapping, number, sequence
from tokenmix.runtime_names import runtime_name

_MATCHED = {
    "params": "widths adjusted so that all mixers have about the parameters of the first",
    "macs": "widths adjusted so that all mixers have about the MACs of the first",
    "latency": "widths adjusted so that all mixers take about as long for one sample",
}


def method(comparison: Comparison) -> Markup:
    """The command that reproduces the run, data, budget, recipe, machine, versions and files."""
    raw = comparison.raw
    machine = mapping(raw.get("machine"))
    return render(
        "method.html",
        command=str(raw.get("command") or ""),
        parts=[
            ("Comparison", _budget(comparison)),
            ("Data", _data(comparison)),
            ("Recipe", flat(mapping(raw.get("recipe")))),
            ("Machine", flat({key: value for key, value in machine.items() if key != "versions"})),
            ("Versions", flat(mapping(raw.get("versions") or machine.get("versions")))),
        ],
        files=_files(comparison),
    )


def definitions(comparison: Comparison) -> Markup:
    """What each column means and how it was obtained."""
    size, tested = (dig(comparison.raw, "data", name) for name in ("image_size", "tested_on"))
    return render("definitions.html", comparison=comparison, size=_pixels(size), chosen_by_test=tested == "val")


def _budget(comparison: Comparison) -> list[tuple[str, str]]:
    raw = comparison.raw
    pairs = {
        "task": comparison.task.title,
        "skeleton": raw.get("skeleton"),
        "seeds": ", ".join(map(str, sequence(raw.get("seeds")))),
        "matched": _matched(raw) if "match" in raw else None,
        "time of one sample": _timed(comparison),
        "runtimes": ", ".join(map(runtime_name, comparison.runtimes)),
        "batch sizes": ", ".join(comparison.batches),
        "threads": raw.get("threads"),
        "created": raw.get("created"),
    }
    return [(term, str(value)) for term, value in pairs.items() if value]


def _matched(raw: Mapping[str, Any]) -> str:
    if raw.get("match") is None and raw.get("timed"):
        return "same widths for all mixers, narrower where an answer takes longer than the budget"
    return _MATCHED.get(str(raw.get("match")), "same widths for all mixers")


def _timed(comparison: Comparison) -> str | None:
    """The milliseconds that decided the widths, and what was reached."""
    timed = mapping(comparison.raw.get("timed"))
    target = number(timed.get("ms"))
    if target is None:
        return None
    reached = {str(name): number(value) for name, value in mapping(timed.get("mixers")).items()}
    each = ", ".join(f"{name} {value:.3g}" for name, value in reached.items() if value is not None)
    return f"{target:.3g} ms in {runtime_name(str(timed.get('in')))} on this machine; with fresh weights: {each}"


def _data(comparison: Comparison) -> list[tuple[str, str | Markup]]:
    data = mapping(comparison.raw.get("data"))
    pairs: list[tuple[str, str | Markup]] = [("name", str(data["name"]))] if data.get("name") else []
    for key, term in (("train", "training"), ("val", "validation"), ("test", "test")):
        count = number(data.get(key))
        if count is not None:
            pairs.append((f"{term} {comparison.noun}", f"{count:,.0f}"))
    for name in comparison.task.fact_names:
        items = sequence(data.get(name))
        if items:
            pairs.append((name, _folded([str(item) for item in items], 20)))
        else:
            pairs += flat({name: data.get(name)})
    if data.get("image_size"):
        pairs.append(("image size", _pixels(data["image_size"])))
    if "skipped" in data:
        skipped = [mapping(entry) for entry in sequence(data.get("skipped"))]
        pairs.append(("skipped files", render("skipped.html", skipped=skipped) if skipped else "none"))
    return pairs


def _folded(items: list[str], most: int) -> str | Markup:
    """Items with commas between, folded away where they are many."""
    text = ", ".join(items)
    if len(items) <= most:
        return text
    return Markup("<details><summary>{}</summary>{}</details>").format(len(items), text)


def _pixels(size: Any) -> str:
    """An image size, one number or height and width, in words; empty where there is none."""
    return " × ".join(map(in_words, sequence(size) or [size])) + " pixels" if size else ""


def _files(comparison: Comparison) -> list[dict[str, Any]]:
    """Of each mixer with files: its name, theirs, the start of the weights' hash, how often the ONNX file agrees."""
    lines = []
    for row in comparison.rows:
        names = [str(name) for name in mapping(row.entry.get("files")).values()]
        digest = str(row.entry.get("weights_sha256") or "")[:16]
        agreed = next((number(row.entry[key]) for key in row.entry if key.endswith("_agreement")), None)
        if names or digest:
            told = "" if agreed is None else f"{agreed:.4g} %"
            lines.append({"mixer": row.name, "files": names, "digest": digest, "agreed": told})
    return lines
