"""The measured parts of ``docs/performance.md``, from the files in ``benchmarks/results/``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tokenmix.pages.bench import share
from tokenmix.runtime_names import runtime_name

OURS = ("affnet", "casvit", "ffnet", "dsm", "mixernet")
Row = Mapping[str, Any]


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown, the first column to the left."""
    titles = list(titles)
    head = f"| {' | '.join(titles)} |\n|---|{'---:|' * (len(titles) - 1)}"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def circumstances(machine: Row, threads: int, limits: Row) -> str:
    """A sentence on where numbers are from."""
    versions, load = machine["versions"], machine["load_average"]
    return (
        f"{machine['cpu']}, {threads} thread{'s' * (threads > 1)} of {machine['cores']} cores; torch "
        f"{versions['torch']}, timm {versions['timm']}, ONNX Runtime {versions['onnxruntime']}; "
        f"{limits['gflops']:.0f} GFLOP/s and {limits['gbytes_per_s']:.1f} GB/s in float32, load {load[0]:g}."
    )


def pair(row: Row) -> tuple[str, str]:
    """Both medians in milliseconds."""
    return milliseconds(row["reference"]["median_ms"]), milliseconds(row["ours"]["median_ms"])


def milliseconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def forms(found: Row) -> str:
    """Our forms against the papers', from ``speed-cpu.json``."""
    mixers = (
        (
            f"`{row['mixer']}`",
            f"{row['side_px']} x {row['side_px']} x {row['channels']}",
            str(row["batch"]),
            *pair(row),
            f"**{row['ratio']:.2f}**",
        )
        for row in found["mixers"]
    )
    models = (
        (
            f"`{row['model']}`",
            f"{runtime_name(row['runtime'])}, {row['batch']}",
            *pair(row),
            f"**{row['ratio']:.2f}**",
            f"{row['limit_ms']:.3g} ({row['bound']})",
            f"{share(row['share']['reference'])} → {share(row['share']['ours'])}",
        )
        for row in found["inference"]
        if "reason" not in row
    )
    failed = [
        f"`{row['model']}` in its papers' form has no ONNX file: {row['reason']}"
        for row in found["inference"]
        if "reason" in row
    ]
    steps = (
        (
            f"`{row['model']}`",
            *pair(row),
            f"**{row['ratio']:.2f}**",
            f"{row['kept_mb']['reference']:.0f} → {row['kept_mb']['ours']:.0f}",
            f"{row['peak_mb']['reference']:.0f} → {row['peak_mb']['ours']:.0f}",
            f"**{row['peak_share']:.2f}**",
        )
        for row in found["training"]
    )
    titles = ["papers' form, ms", "ours, ms", "times faster"]
    parts = [
        circumstances(found["machine"], found["threads"], found["limits"]),
        "### Mixers alone, PyTorch eager",
        table(["mixer", "map", "batch", *titles], mixers),
        "### Whole models in inference",
        table(["model", "runtime, batch", *titles, "limit, ms (by)", "of the limit"], models),
        *failed,
        "### A training step, batch 8",
        table(["model", *titles, "kept for the backward pass, MB", "peak, MB", "share"], steps),
    ]
    return "\n\n".join(parts)


def peers(found: Row) -> str:
    """Published accuracy against measured time, from ``peers-cpu.json``: who wins where, and all times."""
    threads = found["timings"][0]["threads"]
    times = {(row["model"], row["runtime"]): row for row in found["timings"] if row["threads"] == threads}
    runtimes = list(dict.fromkeys(runtime for _, runtime in times))
    facts = {name: entry for name, entry in found["models"].items() if entry["published"]}
    ordered = sorted(facts, key=lambda name: -facts[name]["published"]["top1"])
    lines = []
    for name in ordered:
        entry = facts[name]
        cells = [f"{'**' if ours(name) else ''}{short(name)}{'**' if ours(name) else ''}"]
        cells += [f"{entry['published']['top1']:.1f}", f"{entry['params'] / 1e6:.1f}", f"{entry['gflops']:.2f}"]
        for runtime in runtimes:
            row = times.get((name, runtime))
            cells += ["", ""] if row is None else [f"{row['median_ms']:.1f}", share(row["share"])]
        lines.append(cells)
    titles = ["model", "published top-1, %", "params, M", "GFLOPs"]
    for runtime in runtimes:
        titles += [f"{runtime_name(runtime)}, ms", "of the limit"]
    parts = [circumstances(found["machine"], threads, found["limits"][str(threads)])]
    for runtime in runtimes:
        parts += [f"### Who wins in {runtime_name(runtime)}", table(*duels(facts, times, runtime))]
    return "\n\n".join([*parts, "### All of them", table(titles, lines)])


def duels(facts: Row, times: Mapping[tuple[str, str], Row], runtime: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """For each model of ours: peers at least as accurate that are faster, and those no more accurate but slower.

    Only where the intervals do not touch.
    """
    rows = []
    top1 = {name: entry["published"]["top1"] for name, entry in facts.items()}
    others = [name for name in facts if not ours(name) and (name, runtime) in times]
    for name in facts:
        if not ours(name) or (name, runtime) not in times:
            continue
        own = times[name, runtime]
        better = [
            (other, times[other, runtime])
            for other in others
            if top1[other] >= top1[name] and times[other, runtime]["high_ms"] < own["low_ms"]
        ]
        worse = [
            (other, times[other, runtime])
            for other in others
            if top1[other] <= top1[name] and times[other, runtime]["low_ms"] > own["high_ms"]
        ]

        def said(found: list[tuple[str, Row]], own: Row = own) -> str:
            ranked = sorted(found, key=lambda one: one[1]["median_ms"])
            return ", ".join(f"{short(other)} ({own['median_ms'] / row['median_ms']:.2f})" for other, row in ranked)

        rows.append((f"**{short(name)}**", f"{top1[name]:.1f}", said(better) or "nobody", said(worse) or "nobody"))
    titles = ["ours", "top-1, %", "loses to: at least as accurate, and this many times faster"]
    return [*titles, "wins against: at most as accurate, and slower (their speed in units of ours)"], rows


def growth(found: Row) -> str:
    """Exponents of growth, from ``growth-cpu.json``."""
    lines = []
    for row in found["growth"]:
        if len(row["points"]) < 2:
            continue
        points = sorted(row["points"], key=lambda point: point["tokens"])
        before, last = points[-2:]
        step = math.log(last["median_ms"] / before["median_ms"]) / math.log(last["tokens"] / before["tokens"])
        lines.append(
            (
                f"`{row['name']}`",
                row["variable"],
                f"**{row['exponent']:.2f}**",
                "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}",
                f"{step:.2f}",
                ", ".join(f"{point['tokens']:,}: {point['median_ms']:.3g}" for point in points),
            )
        )
    return table(["name", "grows with the", "exponent", "95 % interval", "last step", "tokens: ms"], lines)


def gpu(found: Row) -> str:
    """Mixers alone on a GPU, in float32 and under bfloat16 autocast, from ``mixers-h100.json``."""
    machine = found["machine"]
    versions = machine["versions"]
    rows = {dtype: [row for row in found["rows"] if row["dtype"] == dtype] for dtype in ("float32", "bfloat16")}
    lines = [
        (
            f"`{name}`",
            *(
                " → ".join(milliseconds(row["mixers"][name]["median_ms"]) for row in pair)
                for pair in zip(*rows.values(), strict=True)
            ),
        )
        for name in found["rows"][0]["mixers"]
    ]
    sizes = [f"{row['side_px']} x {row['side_px']} x {row['channels']}, ms" for row in rows["float32"]]
    words = (
        f"{machine['gpu']}, PyTorch {versions['torch']} eager, {machine['cores']} cores of {machine['cpu']}, batch "
        f"{found['rows'][0]['batch']}; medians in float32 → under bfloat16 autocast."
    )
    return f"{words}\n\n{table(['mixer', *sizes], lines)}"


def ours(name: str) -> bool:
    """Whether a model is of this project."""
    return name.startswith(OURS)


def short(name: str) -> str:
    """A name without the tag of its weights, as code."""
    return f"`{name.partition('.')[0]}`"
