"""The page of a benchmark: accuracy against latency, all times, shares of the limit, layers, growth, the machine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokenmix.report.charts import scatter, standalone
from tokenmix.report.page import Section, facts, page, scroll_box
from tokenmix.report.protocol import flat
from tokenmix.report.reading import read
from tokenmix.report.table import head
from tokenmix.runtime_names import runtime_name


def place(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A place among the rows' models, with "=" where others share it; empty where there is no other."""
    return f"{row['place']}{'=' if row['tied_with'] else ''}" if len(rows) > 1 else ""


def share(value: float | None) -> str:
    """A share in percent; empty where it is not known."""
    return "" if value is None else f"{100 * value:.3g} %" if value < 0.1 else f"{100 * value:.0f} %"


def caveats(result: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers, in plain words."""
    lines = []
    for (runtime, threads, batch), rows in _groups(result).items():
        tied = [row for row in rows if row["tied_with"]]
        if not tied:
            continue
        where = f"{runtime_name(runtime)}, {threads} thread{'s' * (threads > 1)}, {batch}"
        fewest = min(row["rounds"] for row in rows)
        why = "the intervals overlap" if fewest >= 5 else f"{fewest} rounds say too little, give more --seconds"
        if len(tied) == len(rows) and len({row["place"] for row in rows}) == 1:
            lines.append(f"no ranking in {where}: these models cannot be told apart ({why})")
            continue
        for _, group in itertools.groupby(sorted(tied, key=lambda row: row["place"]), key=lambda row: row["place"]):
            names = [row["model"] for row in group]
            lines.append(f"cannot be told apart in {where}: {', '.join(names[:-1])} and {names[-1]}")
    for threads, drift in result["clock"]["drift"].items():
        if drift > result["clock"]["limit"]:
            lines.append(
                f"the machine's pace drifted by {100 * drift:.0f} % during the measurement with {threads} thread"
                f"{'s' * (threads != '1')}: times are comparable with each other, but not with other runs"
            )
    before, cores = result["load_average"]["before"], result["machine"]["cores"]
    if before and before[0] > 0.5 * cores:
        lines.append(f"the machine was busy when this began: load {before[0]:g} on {cores} cores")
    for row in result["skipped"]:
        where = ", ".join(filter(None, (row["model"], runtime_name(row["runtime"]))))
        lines.append(f"left out: {where}: {row['reason']}")
    for row in result.get("growth", []):
        for tokens, reason in row["left_out"].items():
            lines.append(f"left out: {row['name']} at {tokens} tokens ({row['variable']}): {reason}")
    return lines


def bench_page(result: Mapping[str, Any]) -> str:
    """The report as one HTML file that needs neither network nor other files.

    Args:
        result: What the functions of `tokenmix.bench.main` return.
    """
    machine = result["machine"]
    kinds = {"inference": "Inference speed", "training": "Training steps", "growth": "Growth with the number of tokens"}
    where, day = str(machine["cpu"] or machine["architecture"]), result["created"][:10]
    intro = (
        f'<p class="lead">{escape(kinds[result["kind"]])} on {escape(where)}</p>'
        f'<p class="muted">{escape(day)}. All take turns in random order in one process; small print: 95 % intervals '
        "of the median.</p>"
    )
    notes = "".join(f"<li>{escape(line)}</li>" for line in caveats(result))
    limits = [
        (
            f"{threads} thread{'s' * (threads != '1')}",
            f"{limit['gflops']:.0f} GFLOP/s, {limit['gbytes_per_s']:.1f} GB/s",
        )
        for threads, limit in result.get("limits", {}).items()
    ]
    sections = [
        Section("tradeoff", "Accuracy against latency", _charts(result), "Accuracy against latency"),
        Section("times", "Times", _times(result), "Times"),
        Section("models", "Models", _models(result), "Models"),
        Section("layers", "Layers", _layers(result), "Layers"),
        Section("growth", "Growth", _growth(result), "Growth"),
        Section("doubt", "What must not be read into this", f"<ul>{notes}</ul>" if notes else "", "Doubts"),
        Section("limits", "What this machine can do", facts(limits), "Limits"),
        Section(
            "machine",
            "How it was measured",
            facts(flat({**machine, "load": result["load_average"], "clock": result["clock"]}))
            + facts(flat(result["settings"])),
            "Machine",
        ),
    ]
    return page(f"tokenmix bench: {kinds[result['kind']].lower()}", intro, sections, styles=["charts.css"])


def _groups(result: Mapping[str, Any]) -> dict[tuple[str, int, str], list[Mapping[str, Any]]]:
    """Rows that are ranked together: one runtime, number of threads and kind of batch."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in result.get("timings", []):
        batch = "best batch" if row["best_batch"] else f"batch {row['batch']}"
        groups.setdefault((row["runtime"], row["threads"], batch), []).append(row)
    return groups


def _chart(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **size: int) -> str:
    """Published accuracy against the times of one group of rows as ``<svg>``, a colour for each family; or nothing."""
    entries: dict[str, Any] = {}
    for row in rows:
        fact = result["models"][row["model"]]["published"]
        if fact is not None:
            entries[row["model"].partition(".")[0]] = {
                "test_top1": fact["top1"],
                "latency_ms": {row["runtime"]: {"1": row["median_ms"]}},
                "latency_range_ms": {row["runtime"]: {"1": [row["low_ms"], row["high_ms"]]}},
            }
    if not entries:
        return ""
    families = list(dict.fromkeys(name.partition("_")[0] for name in entries))
    colours = {name: families.index(name.partition("_")[0]) for name in entries}
    runtime = rows[0]["runtime"]
    return scatter(read({"mixers": entries}), runtime, "1", accuracy="published top-1", colours=colours, **size)


def bench_svg(result: Mapping[str, Any], runtime: str, threads: int = 1) -> str:
    """Published accuracy against latency at batch 1 as a standalone SVG file, for documentation.

    Raises:
        ValueError: Nothing with a published accuracy was measured there.
    """
    title = f"{runtime_name(runtime)}, {threads} thread{'s' * (threads > 1)}"
    drawing = _chart(result, _groups(result).get((runtime, threads, "batch 1"), ()), width=1180, height=640)
    if not drawing:
        raise ValueError(f"no model with a published accuracy was measured in {title} at batch 1")
    caption = f"Published top-1 against latency at batch 1: {title}. Line and filled dots: Pareto front"
    return standalone(drawing, caption, 1180, 640)


def _charts(result: Mapping[str, Any]) -> str:
    """A picture for each runtime and number of threads at batch 1, of the models with a published accuracy."""
    if result["kind"] != "inference":
        return ""
    drawn = []
    for (runtime, threads, batch), rows in _groups(result).items():
        chart = _chart(result, rows) if batch == "batch 1" else ""
        if chart:
            title = f"{runtime_name(runtime)}, {threads} thread{'s' * (threads > 1)}"
            drawn.append(f'<h3>{escape(title)}</h3><figure class="panel">{chart}</figure>')
    if not drawn:
        return ""
    sources = sorted({entry["published"]["source"] for entry in result["models"].values() if entry["published"]})
    note = (
        "The line and the filled dots are the Pareto front. Accuracies are the published ones on ImageNet-1K, not "
        f"measured here: {'; '.join(sources)}."
    )
    return "".join(drawn) + f'<p class="muted">{escape(note)}</p>'


def _times(result: Mapping[str, Any]) -> str:
    titles = ["model", "place", "batch", "median, ms", "fastest, ms", "images/s"]
    inference = result["kind"] == "inference"
    titles += ["limit, ms", "of the limit", "limited by"] if inference else []
    parts = []
    for (runtime, threads, batch), rows in _groups(result).items():
        lines = []
        for row in sorted(rows, key=lambda row: row["median_ms"] / row["batch"]):
            interval = f"<small>{row['low_ms']:.3g}–{row['high_ms']:.3g}</small>"
            cells = [
                (row["place"], place(row, rows)),
                (row["batch"], str(row["batch"])),
                (row["median_ms"], f"{row['median_ms']:.3g}{interval}"),
                (row["min_ms"], f"{row['min_ms']:.3g}"),
                (row["images_per_s"], f"{row['images_per_s']:,.4g}"),
            ]
            if inference:
                least = row.get("limit_ms")
                cells += [
                    (least, "" if least is None else f"{least:.3g}"),
                    (row.get("share"), share(row.get("share"))),
                    (None, escape(row.get("bound", ""))),
                ]
            lines.append((row["model"], cells))
        title = f"{runtime_name(runtime)}, {threads} thread{'s' * (threads > 1)}, {batch}"
        parts.append(f"<h3>{escape(title)}</h3>{_table(titles, lines, title)}")
    return "".join(parts)


def _models(result: Mapping[str, Any]) -> str:
    titles = [
        "model",
        "input, px",
        "params, M",
        "GFLOPs",
        "least bytes, MB",
        "peak memory, MB",
        "top-1, %",
        "published",
    ]
    lines = []
    for name, entry in result.get("models", {}).items():
        fact, peaks = entry["published"], entry.get("peak_memory_mb", {})
        numbers = [
            (entry["params"] and entry["params"] / 1e6, ".2f"),
            (entry.get("gflops"), ".3f"),
            (entry.get("least_mbytes"), ".1f"),
        ]
        cells: list[tuple[float | None, str]] = [(entry["image_size"][0], " × ".join(map(str, entry["image_size"])))]
        cells += [(value, "" if value is None else f"{value:{style}}") for value, style in numbers]
        said = ", ".join(f"{runtime_name(runtime)} {peak:.0f}" for runtime, peak in peaks.items())
        cells.append((min(peaks.values()) if peaks else None, escape(said)))
        cells.append((fact and fact["top1"], "" if fact is None else f"{fact['top1']:.1f}"))
        note = "" if fact is None else ", ".join(filter(None, (fact["note"], fact["source"])))
        lines.append((name, [*cells, (None, escape(note))]))
    return _table(titles, lines, "Models") if lines else ""


def _layers(result: Mapping[str, Any]) -> str:
    titles = ["layer", "kind", "ms", "MFLOPs", "MB", "limit, ms", "of the limit", "limited by"]
    parts = []
    for name, entry in result.get("models", {}).items():
        lines = []
        for row in entry.get("layers", []):
            cells: list[tuple[float | None, str]] = [(None, escape(row["kind"])), (row["ms"], f"{row['ms']:.3g}")]
            keys = ("mflops", "mbytes", "limit_ms")
            cells += [(row.get(key), f"{row[key]:.3g}" if key in row else "") for key in keys]
            cells += [(row.get("share"), share(row.get("share"))), (None, escape(row.get("bound", "")))]
            lines.append((row["name"], cells))
        if lines:
            inner = _table(titles, lines, f"Layers of {name}")
            parts.append(f"<details><summary>{escape(name)}: {len(lines)} layers</summary>{inner}</details>")
    return "".join(parts)


def _growth(result: Mapping[str, Any]) -> str:
    rows = result.get("growth", [])
    titles = ["name", "grows with the", "exponent", "95 % interval", "sizes"]
    lines = []
    for row in rows:
        low = row.get("low")
        interval = "" if low is None else f"{low:.2f} to {row['high']:.2f}"
        exponent = row.get("exponent")
        cells: list[tuple[float | None, str]] = [(None, escape(row["variable"]))]
        cells += [(exponent, "" if exponent is None else f"{exponent:.2f}"), (None, interval)]
        lines.append((row["name"], [*cells, (len(row["points"]), str(len(row["points"])))]))
    return _table(titles, lines, "Exponents") if lines else ""


def _table(titles: Sequence[str], lines: Sequence[tuple[str, Sequence[tuple[float | None, str]]]], label: str) -> str:
    """A sortable table: of each line its name, and a value to sort by with its HTML for each further column."""
    heads = "".join(head(title, "ascending", None) for title in titles)
    body = []
    for name, cells in lines:
        row = "".join(
            f"<td>{html}</td>" if value is None else f'<td data-value="{value!r}">{html}</td>' for value, html in cells
        )
        body.append(
            f'<tr><th scope="row" data-value="{escape(name)}"><span class="name">{escape(name)}</span></th>{row}</tr>'
        )
    inner = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return scroll_box(inner, label)
