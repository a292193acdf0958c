"""What `tokenmix bench` prints: times, layers and exponents as tables, and what must not be read into them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tokenmix.pages.bench import caveats, kept_limit, place, share
from tokenmix.runtime_names import runtime_name
from tokenmix.text_tables import table


def timing_tables(result: Mapping[str, Any]) -> list[str]:
    """One table for each runtime, number of threads and kind of batch: only what stands in one is ranked."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in result["timings"]:
        groups[row["runtime"], row["threads"], row["best_batch"], 0 if row["best_batch"] else row["batch"]].append(row)
    tables = []
    for (runtime, threads, best, batch), rows in groups.items():
        what = "training step" if result["kind"] == "training" else runtime_name(runtime)
        head = f"{what}, {threads} thread{'s' * (threads > 1)}, {'best batch' if best else f'batch {batch}'}"
        rate = f"{result['noun']}/s"
        titles = ["model", "place", *(["batch"] if best else []), "median ms", "95 % interval", "fastest", rate]
        inference = result["kind"] == "inference"
        titles += ["of the limit", "limited by"] if inference else []
        titles += ["peak MB"] if any(_peak(result, row) for row in rows) else []
        titles += ["top-1 %"] if any(result["models"][row["model"]]["published"] for row in rows) else []
        cells = []
        for row in sorted(rows, key=lambda row: row["median_ms"] / row["batch"]):
            fact = result["models"][row["model"]]["published"]
            known = {
                "model": row["model"],
                "place": place(row, rows),
                "batch": str(row["batch"]),
                "median ms": f"{row['median_ms']:.3g}",
                "95 % interval": f"{row['low_ms']:.3g}-{row['high_ms']:.3g}",
                "fastest": f"{row['min_ms']:.3g}",
                rate: f"{row['images_per_s']:.4g}",
                "of the limit": share(row.get("share")),
                "limited by": row.get("bound", ""),
                "peak MB": _peak(result, row),
                "top-1 %": "" if fact is None else f"{fact['top1']:.1f}",
            }
            cells.append([known[title] for title in titles])
        tables.append(f"{head}\n{table(titles, cells)}")
    return tables


def layer_tables(result: Mapping[str, Any]) -> list[str]:
    """Each model's layers in plain PyTorch at batch 1, added up by kind."""
    tables = []
    for name, entry in result["models"].items():
        if not entry["layers"]:
            continue
        kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in entry["layers"]:
            kinds[row["kind"] or row["name"]].append(row)
        rows = []
        for kind, members in sorted(kinds.items(), key=lambda pair: -sum(row["ms"] for row in pair[1])):
            time, least = sum(row["ms"] for row in members), sum(row.get("limit_ms", 0.0) for row in members)
            count = str(len(members)) if least else ""
            rows.append(
                [kind, count, f"{time:.3g}", f"{least:.3g}" if least else "", share(least / time) if least else ""]
            )
        head = f"{name}: layers, PyTorch, {result['settings']['threads'][0]} thread(s), batch 1"
        tables.append(f"{head}\n{table(('kind', 'layers', 'ms', 'limit ms', 'of the limit'), rows)}")
    return tables


def growth_tables(result: Mapping[str, Any]) -> list[str]:
    """Exponents with their intervals, and the times behind them."""
    rows = []
    for row in result["growth"]:
        interval = "" if row.get("low") is None else f"{row['low']:.2f} to {row['high']:.2f}"
        exponent = f"{row['exponent']:.2f}" if "exponent" in row else "too few sizes"
        times = ", ".join(f"{point['tokens']:,}: {point['median_ms']:.3g}" for point in row["points"])
        rows.append([row["name"], row["variable"], exponent, interval, times])
    return [table(("name", "grows with the", "exponent", "95 % interval", "tokens: ms"), rows)]


def serving_tables(result: Mapping[str, Any]) -> list[str]:
    """One table for each model, runtime and number of threads: its loads by rising rate."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in result["serving"]:
        groups[row["model"], row["runtime"], row["threads"]].append(row)
    limit, tables = result["settings"]["p99_limit_ms"], []
    titles = ["sent/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "mean batch", "requests"]
    titles += [] if limit is None else [f"p99 below {limit:g} ms"]
    for (model, runtime, threads), rows in groups.items():
        head = f"{model}: {runtime_name(runtime)}, {threads} thread{'s' * (threads > 1)}, "
        head += f"at most {rows[0]['capacity']:.4g} {result['noun']}/s"
        cells = []
        for row in rows:
            numbers = [f"{row[key]:.4g}" for key in ("rate", "achieved", "p50_ms", "p95_ms", "p99_ms")]
            cells.append([*numbers, f"{row['mean_batch']:.2f}", str(row["requests"])])
            if limit is not None:
                cells[-1].append(kept_limit(row))
        tables.append(f"{head}\n{table(titles, cells)}")
    return [*tables, "requests come at random times (Poisson), so some wait at any rate"]


def notes(result: Mapping[str, Any]) -> list[str]:
    """The machine's limits, what was left out, and the caveats."""
    lines = []
    for threads, limit in result.get("limits", {}).items():
        many = "s" * (threads != "1")
        rate, bandwidth = limit["gflops"], limit["gbytes_per_s"]
        lines.append(f"this machine, {threads} thread{many}: {rate:.0f} GFLOP/s, {bandwidth:.1f} GB/s (float32)")
    return lines + caveats(result)


def _peak(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """At batch 1, or of a training step; only where it was measured."""
    peak = result["models"][row["model"]].get("peak_memory_mb", {}).get(row["runtime"])
    at_one = row["batch"] == 1 or result["kind"] == "training"
    return f"{peak:.0f}" if peak is not None and at_one else ""
