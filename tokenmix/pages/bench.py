"""The page of a benchmark: accuracy against latency, all times, shares of the limit, layers, growth, the machine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tokenmix.pages.charts import Point, both_sizes, scatter, short
from tokenmix.pages.conclusions import pareto
from tokenmix.pages.page import Cell, Head, flat, page, render
from tokenmix.runtime_names import runtime_name
from tokenmix.tasks.section import Section

_KINDS = {
    "inference": "Inference speed",
    "training": "Training steps",
    "growth": "Growth with the number of tokens",
    "serving": "Throughput under a server's load",
}
_HOW = "All take turns in random order in one process; small print: 95 % intervals of the median."
_HOW_SERVED = "One worker answers requests, which come at random times, in batches; latencies count from then on."
_Rows = Sequence[Mapping[str, Any]]
_Table = tuple[str, list[Head], list[tuple[str, bool, list[Cell]]]]  # title, heads, rows


def place(row: Mapping[str, Any], rows: _Rows) -> str:
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
        where = f"{_where(runtime, threads)}, {batch}"
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
    few = [row["requests"] for row in result.get("serving", []) if row["requests"] < 100 and not row["given_up"]]
    if few:
        lines.append(f"a 99th percentile of fewer than 100 requests ({min(few)}) is the slowest: give more --seconds")
    for row in result.get("growth", []):
        for tokens, reason in row["left_out"].items():
            lines.append(f"left out: {row['name']} at {tokens} tokens ({row['variable']}): {reason}")
    return lines


def kept_limit(row: Mapping[str, Any]) -> str:
    """Whether a load kept to the limit of its latency, in words."""
    if row["within"] is None:
        return ""
    return (
        "no, ended early" if row["given_up"] else "no" if not row["within"] else "highest" if row["highest"] else "yes"
    )


def bench_page(result: Mapping[str, Any]) -> str:
    """The results as one HTML file that needs neither network nor other files.

    Args:
        result: What the functions of `tokenmix.bench.main` return.
    """
    machine = result["machine"]
    kind = _KINDS[result["kind"]]
    limits = [
        (_threads(threads), f"{limit['gflops']:.0f} GFLOP/s, {limit['gbytes_per_s']:.1f} GB/s")
        for threads, limit in result.get("limits", {}).items()
    ]
    measured = flat({**machine, "load": result["load_average"], "clock": result["clock"]})
    sections = [
        Section("tradeoff", "Accuracy against latency", _charts(result), "Accuracy against latency"),
        Section("load", "Throughput against latency", _load_charts(result), "Throughput"),
        Section("serving", "Loads", _tables(_loads(result)), "Loads"),
        Section("times", "Times", _tables(_times(result)), "Times"),
        Section("models", "Models", _tables(_models(result)), "Models"),
        Section("layers", "Layers", _tables(_layers(result), folded=True), "Layers"),
        Section("growth", "Growth", _tables(_growth(result)), "Growth"),
        Section("doubt", "What must not be read into this", _part("doubt", caveats(result)), "Doubts"),
        Section("limits", "What this machine can do", _part("facts", limits), "Limits"),
        Section("machine", "How it was measured", _part("facts", [*measured, *flat(result["settings"])]), "Machine"),
    ]
    how = _HOW_SERVED if result["kind"] == "serving" else _HOW
    where, day = str(machine["cpu"] or machine["architecture"]), result["created"][:10]
    return page(f"tokenmix bench: {kind.lower()}", _part("intro", (f"{kind} on {where}", day, how)), sections)


def bench_svg(result: Mapping[str, Any], runtime: str, threads: int = 1) -> str:
    """Published accuracy against latency at batch 1 as a standalone SVG file, for documentation.

    Raises:
        ValueError: Nothing with a published accuracy was measured there.
    """
    title = _where(runtime, threads)
    points = _points(result, _groups(result).get((runtime, threads, "batch 1"), ()))
    if not points:
        raise ValueError(f"no model with a published accuracy was measured in {title} at batch 1")
    caption = f"Published top-1 against latency at batch 1: {title}. Line and filled dots: Pareto front"
    return str(scatter(points, size=(1180, 640), caption=caption, **_axes(title))) + "\n"


def _part(name: str, content: Any, folded: bool = False) -> Markup:
    """A part of the template ``bench.html``, or nothing where it has no content."""
    return render("bench.html", part=name, content=content, folded=folded) if content else Markup("")


def _tables(tables: Sequence[_Table], folded: bool = False) -> Markup:
    return _part("tables", [table for table in tables if table[2]], folded)


def _threads(count: int | str) -> str:
    return f"{count} thread{'s' * (str(count) != '1')}"


def _where(runtime: str, threads: int) -> str:
    return f"{runtime_name(runtime)}, {_threads(threads)}"


def _groups(result: Mapping[str, Any]) -> dict[tuple[str, int, str], list[Mapping[str, Any]]]:
    """Rows that are ranked together: one runtime, number of threads and kind of batch."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in result.get("timings", []):
        batch = "best batch" if row["best_batch"] else f"batch {row['batch']}"
        groups.setdefault((row["runtime"], row["threads"], batch), []).append(row)
    return groups


# ----------------------------------------------------------------------------------------------------------- the charts


def _points(result: Mapping[str, Any], rows: _Rows) -> list[Point]:
    """The models with a published accuracy among the rows of one group, a colour for each family."""
    facts = {row["model"]: result["models"][row["model"]]["published"] for row in rows}
    known = [row for row in rows if facts[row["model"]] is not None]
    marks = pareto([(row["median_ms"], facts[row["model"]]["top1"]) for row in known])
    families = list(dict.fromkeys(row["model"].partition("_")[0] for row in known))
    points = []
    for row, mark in zip(known, marks, strict=True):
        name, top1 = row["model"].partition(".")[0], facts[row["model"]]["top1"]
        told = [name, f"published top-1 {top1:.1f} %"]
        told += [f"{row['median_ms']:.3g} ms ({row['low_ms']:.3g} to {row['high_ms']:.3g})"]
        told += ["on the Pareto front"] if mark else []
        number, span = families.index(row["model"].partition("_")[0]), (row["low_ms"], row["high_ms"])
        points.append(Point(row["median_ms"], top1, short(name), told, number, mark, span))
    return points


def _axes(title: str) -> dict[str, Any]:
    titles = {"costs": "latency at batch 1, ms", "values": "published top-1, %"}
    return {**titles, "title": f"{title}, batch 1: published top-1 against latency", "weight": 0.05}


def _charts(result: Mapping[str, Any]) -> Markup:
    """A picture for each runtime and number of threads at batch 1, of the models with a published accuracy."""
    if result["kind"] != "inference":
        return Markup("")
    drawn = []
    for (runtime, threads, batch), rows in _groups(result).items():
        points = _points(result, rows) if batch == "batch 1" else []
        if points:
            title = _where(runtime, threads)
            drawn.append((title, both_sizes(points, **_axes(title))))
    sources = {entry["published"]["source"] for entry in result["models"].values() if entry["published"]}
    return _part("charts", {"drawn": drawn, "sources": "; ".join(sorted(sources))} if drawn else None)


def _load_charts(result: Mapping[str, Any]) -> Markup:
    """A picture for each number of threads: answers per second against the latency that 99 % do not exceed."""
    drawn = []
    rows = [row for row in result.get("serving", []) if not row["given_up"]]
    several = len({row["model"] for row in rows}) > 1
    for threads in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == threads]
        marks = pareto([(row["p99_ms"], row["achieved"]) for row in here])
        names = [f"{row['model']}, " * several + runtime_name(row["runtime"]) for row in here]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        points = [
            Point(row["p99_ms"], row["achieved"], short(name), _load_told(row, name), numbers[name], mark)
            for row, name, mark in zip(here, names, marks, strict=True)
        ]
        axes = {"costs": "99th percentile of the latency, ms", "values": "answered per second"}
        title = f"{_threads(threads)}: answers per second against the 99th percentile"
        drawn.append((_threads(threads), both_sizes(points, title=title, **axes)))
    return _part("charts", {"drawn": drawn, "sources": ""} if drawn else None)


def _load_told(row: Mapping[str, Any], name: str) -> list[str]:
    percentiles = f"{row['p50_ms']:.3g}, {row['p95_ms']:.3g}, {row['p99_ms']:.3g} ms (50th, 95th, 99th percentile)"
    return [name, f"{row['rate']:.4g} requests/s, {row['achieved']:.4g} answered", percentiles]


# ----------------------------------------------------------------------------------------------------------- the tables


def _number(value: float | None, style: str) -> Cell:
    return Cell("" if value is None else f"{value:{style}}", value)


def _times(result: Mapping[str, Any]) -> list[_Table]:
    titles = ["model", "place", "batch", "median, ms", "fastest, ms", f"{result.get('noun', 'images')}/s"]
    inference = result["kind"] == "inference"
    titles += ["limit, ms", "of the limit", "limited by"] if inference else []
    tables = []
    for (runtime, threads, batch), rows in _groups(result).items():
        lines = []
        for row in sorted(rows, key=lambda row: row["median_ms"] / row["batch"]):
            cells = [
                Cell(place(row, rows), row["place"]),
                _number(row["batch"], "d"),
                Cell(f"{row['median_ms']:.3g}", row["median_ms"], f"{row['low_ms']:.3g}–{row['high_ms']:.3g}"),
                _number(row["min_ms"], ".3g"),
                _number(row["images_per_s"], ",.4g"),
            ]
            if inference:
                cells += [_number(row.get("limit_ms"), ".3g"), Cell(share(row.get("share")), row.get("share"))]
                cells.append(Cell(row.get("bound", "")))
            lines.append((row["model"], False, cells))
        tables.append((f"{_where(runtime, threads)}, {batch}", [Head(title) for title in titles], lines))
    return tables


def _loads(result: Mapping[str, Any]) -> list[_Table]:
    titles = ("model", "runtime", "threads", "requests/s", "answered/s", "p50, ms", "p95, ms", "p99, ms", "mean batch")
    lines = []
    for row in result.get("serving", []):
        cells = [Cell(runtime_name(row["runtime"])), _number(row["threads"], "d")]
        cells += [_number(row[key], ".4g") for key in ("rate", "achieved", "p50_ms", "p95_ms", "p99_ms")]
        cells += [_number(row["mean_batch"], ".2f"), _number(row["requests"], "d"), Cell(kept_limit(row))]
        lines.append((row["model"], row["highest"], cells))
    return [("", [Head(title) for title in (*titles, "requests", "within the limit")], lines)]


def _models(result: Mapping[str, Any]) -> list[_Table]:
    sizes = ("input, px", "params, M", "GFLOPs", "least bytes, MB", "peak memory, MB")
    titles = ("model", *sizes, "top-1, %", "published")
    lines = []
    for name, entry in result.get("models", {}).items():
        fact, peaks = entry["published"], entry.get("peak_memory_mb", {})
        told = ", ".join(f"{runtime_name(runtime)} {peak:.0f}" for runtime, peak in peaks.items())
        cells = [
            Cell(" × ".join(map(str, entry["image_size"])), entry["image_size"][0]),
            _number(entry["params"] and entry["params"] / 1e6, ".2f"),
            _number(entry.get("gflops"), ".3f"),
            _number(entry.get("least_mbytes"), ".1f"),
            Cell(told, min(peaks.values()) if peaks else None),
            _number(fact and fact["top1"], ".1f"),
            Cell("" if fact is None else ", ".join(filter(None, (fact["note"], fact["source"])))),
        ]
        lines.append((name, False, cells))
    return [("", [Head(title) for title in titles], lines)]


def _layers(result: Mapping[str, Any]) -> list[_Table]:
    titles = ("layer", "kind", "ms", "MFLOPs", "MB", "limit, ms", "of the limit", "limited by")
    tables = []
    for name, entry in result.get("models", {}).items():
        lines = []
        for row in entry.get("layers", []):
            numbers = (row.get(key) for key in ("ms", "mflops", "mbytes", "limit_ms"))
            cells = [Cell(row["kind"]), *(_number(value, ".3g") for value in numbers)]
            cells += [Cell(share(row.get("share")), row.get("share")), Cell(row.get("bound", ""))]
            lines.append((row["name"], False, cells))
        tables.append((f"{name}: {len(lines)} layers", [Head(title) for title in titles], lines))
    return tables


def _growth(result: Mapping[str, Any]) -> list[_Table]:
    titles = ("name", "grows with the", "exponent", "95 % interval", "sizes")
    lines = []
    for row in result.get("growth", []):
        interval = "" if row.get("low") is None else f"{row['low']:.2f} to {row['high']:.2f}"
        cells = [Cell(row["variable"]), _number(row.get("exponent"), ".2f"), Cell(interval)]
        lines.append((row["name"], False, [*cells, _number(len(row["points"]), "d")]))
    return [("", [Head(title) for title in titles], lines)]
