"""The page of one training run, while it works and after: curves, speed, confusions, and the worst mistakes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokenmix.files import write_text
from tokenmix.report.charts import curves
from tokenmix.report.dense import dense_sections
from tokenmix.report.page import Section, page
from tokenmix.report.protocol import flat, part
from tokenmix.report.samples import picture_html

MATRIX = 100  # classes; more make cells that cannot be seen
_ROWS = 12  # of the tables of confusions and classes
_POINTS = list[tuple[float, float]]


def run_page(run: Mapping[str, Any], pictures: Mapping[int, Any] | None = None) -> str:
    """The report of a run as one HTML file that needs neither network nor other files.

    While the run works the page loads itself anew every ten seconds, as long as it is looked at.

    Args:
        run: What ``tokenmix.train.recorder`` tells of it.
        pictures: PNG files of the mistakes, by their ``index``; of dense tasks see `dense_sections`.
    """
    charts, images = _charts(run), run["data"][f"val {run['noun']}"]
    evidence = run["evidence"]
    sections = [
        Section("curves", "Learning curves", _drawn(charts, "learning", images), "Curves"),
        Section("speed", "Speed and memory", _drawn(charts, "speed", images), "Speed"),
        *_evidence(run, pictures or {}),
        Section("recipe", "Recipe, and how to run it again", _recipe(run), "Recipe"),
    ]
    confusion = None
    if evidence and "cells" in evidence and len(run["facts"]["classes"]) <= MATRIX:
        unit = "pixels" if "kind" in evidence else "images"
        confusion = {"size": len(run["facts"]["classes"]), "cells": evidence["cells"], "unit": unit}
    return page(
        f"Training run {run['name']}",
        _intro(run),
        sections,
        styles=["charts.css", "comparison.css", "run.css", "dense.css"],
        scripts=["curves.js", "matrix.js", "run.js"],
        data={
            "classes": run["facts"]["classes"],
            "confusion": confusion,
            "curves": {chart["series"]: {"unit": chart["unit"], "lines": chart["lines"]} for chart in charts},
        },
    )


def write_run(run: Mapping[str, Any], path: str | os.PathLike[str], pictures: Mapping[int, Any] | None = None) -> None:
    """Write `run_page` to a file, atomically."""
    write_text(path, run_page(run, pictures))


def write_failed(run: Mapping[str, Any], path: str | os.PathLike[str], failure: BaseException) -> None:
    """Write how a run stands, and why no more can be drawn: a page that stays from before would tell old news."""
    text = f"<p>The rest of this page could not be drawn: {escape(str(failure) or type(failure).__name__)}</p>"
    sections = [Section("failure", "Why this is all", text, "Failure")]
    intro = _intro({**run, "history": []})
    title, styles = f"Training run {run['name']}", ["charts.css", "comparison.css", "run.css"]
    write_text(path, page(title, intro, sections, styles=styles, scripts=["run.js"], data={}))


def _evidence(run: Mapping[str, Any], pictures: Mapping[int, Any]) -> list[Section]:
    """What the kept weights get wrong, by the kind of task."""
    if run["evidence"] and "kind" in run["evidence"]:
        return dense_sections(run, pictures, len(run["facts"]["classes"]) <= MATRIX)
    return [
        Section("confusion", "Which classes are confused", _confusion(run), "Confusion"),
        Section("mistakes", "Worst mistakes", _mistakes(run, pictures), "Mistakes"),
    ]


# -------------------------------------------------------------------------------------------------------------- the top


def _intro(run: Mapping[str, Any]) -> str:
    history, status = run["history"], run["status"]
    at = f"epoch {run['epoch']:.4g} of {run['epochs']}"
    lead = {"finished": f"Finished after {_count(run['epochs'], 'epoch')}.", "running": f"Running: {at}."}.get(status)
    lead = lead or f"Stopped at {at}. The same command continues."
    cells = []
    headline = run["headline"]
    unit = _unit(headline)
    best = _best(run)
    if best:
        number, note = best[f"val_{headline}"], f"after epoch {best['epoch']}; these weights are kept"
        value = "undefined" if number is None else f"{number:.4g}{unit and ' ' + unit}"
        if number is None:
            note = f"no objects: the validation pictures hold nothing that {headline} could count; {note}"
        cells.append((f"Best validation {headline}", value, note))
    if history:
        row = history[-1]
        if row["loss"] is not None:
            cells.append(("Training loss", f"{row['loss']:.4g}", f"epoch {row['epoch']}"))
        if row.get("images_per_second"):
            wait = f"{row['data_wait']:.0f} % of the time waits for images"
            cells.append(("Throughput", f"{row['images_per_second']:,.0f} images/s", wait))
    left = f"about {_clock(run['left'])} left" if status == "running" and run["left"] is not None else "all sessions"
    cells.append(("Time spent", _clock(run["seconds"]), left))
    answers = "".join(
        f'<div><dt>{escape(term)}</dt><dd class="who">{escape(value)}</dd><dd class="how">{escape(note)}</dd></div>'
        for term, value, note in cells
    )
    why = f'<p class="reason">{escape(run["reason"])}</p>' if run["reason"] else ""
    epoch_s = run["seconds"] / run["epoch"] if run["epoch"] else 0
    live = f' id="live" data-quiet="{max(600, 2 * epoch_s):.0f}"' if status == "running" else ""
    written, when = escape(run["updated"]), escape(run["updated"].replace("T", " ").replace("+00:00", " UTC"))
    return (
        f'<p class="lead"><span class="status {status}"></span>{escape(lead)}</p>{why}'
        f'<p class="muted"{live} data-written="{written}">Written {when}.</p><dl class="answers">{answers}</dl>'
    )


def _best(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the epoch whose weights are kept."""
    kept = run["best_epoch"]
    return next((row for row in run["history"] if row["epoch"] == kept), None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _clock(seconds: float) -> str:
    """A duration in two of its units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _unit(name: str) -> str:
    """The unit of a metric: accuracies are in percent, losses have none."""
    return "" if "loss" in name else "%"


# ----------------------------------------------------------------------------------------------------------- the curves


def _charts(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every chart with a value: its part of the page, series, title, unit, and lines by number."""
    history, curve = run["history"], run["curve"]
    metrics = [name for name in (history[0] if history else {}) if name.startswith("val_") and name != "val_loss"]
    if len(run["facts"]["classes"]) <= 5:
        metrics = [name for name in metrics if name != "val_top5"]  # always 100 %
    metrics = [name for name in metrics if not name.endswith(("_APs", "_APm", "_APl"))]  # six lines can be told apart
    steps, epochs = _points(curve, "epoch", "loss"), _points(history, "place", "val_loss")
    wanted = [
        ("learning", "loss", "loss", "", {"training": steps, "validation": epochs}),
        ("learning", "metric", "validation, %", "%", {_name(key): _points(history, "place", key) for key in metrics}),
        ("learning", "lr", "learning rate", "", {"learning rate": _points(curve, "epoch", "lr")}),
        ("speed", "images", "training, images/s", "/s", _line(history, "images_per_second", "images")),
        ("speed", "wait", "waiting for images, % of the time", "%", _line(history, "data_wait", "waiting")),
        ("speed", "memory", "peak memory, MB", "MB", _line(history, "memory_mb", "peak memory")),
    ]
    return [
        {"part": place, "series": series, "title": title, "unit": unit, "lines": dict(enumerate(lines.items()))}
        for place, series, title, unit, lines in wanted
        if any(lines.values())
    ]


def _line(history: Sequence[Mapping[str, Any]], key: str, name: str) -> dict[str, _POINTS]:
    return {name: _points(history, "place", key)}


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> _POINTS:
    return [(row[x], row[y]) for row in rows if row.get(y) is not None]


def _name(key: str) -> str:
    return key.removeprefix("val_")


def _drawn(charts: Sequence[Mapping[str, Any]], place: str, images: int) -> str:
    """The charts of one part of the page; ``images`` are those that were validated."""
    figures = []
    for chart in charts:
        if chart["part"] != place:
            continue
        lines = {number: points for number, (_, points) in chart["lines"].items()}
        weight = 100 / images if chart["series"] == "metric" else None
        drawing = curves(lines, chart["title"], series=chart["series"], percent_weight=weight, zero=place == "speed")
        names = [(number, name) for number, (name, points) in chart["lines"].items() if points]
        key = "".join(
            f'<span><svg width="22" height="8" aria-hidden="true"><path class="curve c{number}" d="M0 4H22"/></svg>'
            f"{escape(name)}</span>"
            for number, name in names
        )
        figures.append(
            f'<figure>{drawing}<figcaption class="key">{key if len(names) > 1 else ""}</figcaption></figure>'
        )
    if not figures:
        return "" if place == "speed" else "<p>Nothing yet: the first points come with the first checkpoint.</p>"
    note = '<p class="muted">Point at a chart, or use the arrow keys in it, for its values.</p>'
    return f'<div class="panel trio">{"".join(figures)}</div>{note}'


# ---------------------------------------------------------------------------------------------- confusions and mistakes


def _class(run: Mapping[str, Any], number: int) -> str:
    """The name of a class; -1 stands for logits that are not finite."""
    return run["facts"]["classes"][number] if 0 <= number < len(run["facts"]["classes"]) else "not a number"


def _confusion(run: Mapping[str, Any]) -> str:
    evidence = run["evidence"]
    if not evidence:
        return ""
    totals: dict[int, int] = {}
    right: dict[int, int] = {}
    for truth, told, count in evidence["cells"]:
        totals[truth] = totals.get(truth, 0) + count
        if truth == told:
            right[truth] = count
    errors = sorted((cell for cell in evidence["cells"] if cell[0] != cell[1]), key=lambda cell: -cell[2])
    wrong = sum(count for _, _, count in errors)
    text = (
        f"<p>{wrong:,} of {evidence['images']:,} validation images wrong, with the weights of epoch "
        f"{run['best_epoch']}, which are the ones kept.</p>"
    )
    pairs = _table(
        ("Truth", "Predicted", "Images"),
        [(_class(run, truth), _class(run, told), f"{count:,} of {totals[truth]:,}") for truth, told, count in errors],
    )
    hardest = sorted(totals, key=lambda truth: right.get(truth, 0) / totals[truth])
    recalls = [(truth, right.get(truth, 0)) for truth in hardest if right.get(truth, 0) < totals[truth]]
    classes = _table(
        ("Class", "Right", "Recall"),
        [(_class(run, t), f"{n:,}\u00a0of\u00a0{totals[t]:,}", f"{100 * n / totals[t]:.1f} %") for t, n in recalls],
    )
    tables = f"<div><h3>Most confused</h3>{pairs}</div><div><h3>Hardest classes</h3>{classes}</div>" if errors else ""
    if len(run["facts"]["classes"]) > MATRIX:
        return f'{text}<div class="panel pairs-of-tables">{tables}</div>'
    return (
        f'{text}<div class="panel confusion"><div id="matrix"></div><div>{tables}</div></div><p class="muted">Rows are '
        "the truth, columns the prediction, cells count images. Blue: right; orange: wrong, stronger where it is a "
        "larger share of its row.</p>"
    )


def _table(heads: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> str:
    """The first rows; the last column holds numbers."""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[:_ROWS])
    return f'<table class="pairs"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>'


def _mistakes(run: Mapping[str, Any], pictures: Mapping[int, bytes | None]) -> str:
    evidence = run["evidence"]
    if not evidence:
        return ""
    if not evidence["mistakes"]:
        return "<p>None: every validation image is right.</p>"
    cards = []
    for mistake in evidence["mistakes"]:
        truth, told = _class(run, mistake["truth"]), _class(run, mistake["prediction"])
        lines = (("Answer", told, mistake["confidence"], "wrong"), ("Truth", truth, mistake["truth_confidence"], ""))
        rows = "".join(
            f'<tr class="{kind}"><td>{term}</td><td title="{escape(name)}">{escape(name)}</td>'
            f"<td>{100 * share:.{1 if share < 0.0995 else 0}f} %</td></tr>"
            for term, name, share, kind in lines
        )
        cards.append(
            f'<div class="card"><div class="top">{picture_html(pictures.get(mistake["index"]), truth)}<div>'
            f'<p class="truth">{escape(truth)}</p><p class="muted">{escape(mistake["name"])}</p></div></div>'
            f"<table>{rows}</table></div>"
        )
    return (
        '<p class="muted">The wrong answers that the model was surest of, on validation images. Look here first for '
        "wrong labels. Percentages are the model's own confidence.</p>"
        f'<div class="cards mistakes">{"".join(cards)}</div>'
    )


# ----------------------------------------------------------------------------------------------------------- the recipe


def _recipe(run: Mapping[str, Any]) -> str:
    recipe = run["recipe"]
    parts = []
    if run["made"]:
        parts.append("<p>The model was made in code; <code>recipe.json</code> beside this page holds the rest.</p>")
    else:
        name = run["name"]
        command = shlex.join(["tokenmix", "train", f"{name}/recipe.json", "--out", f"{name}-again"])
        parts.append(
            f'<div class="command"><pre id="command">{escape(command)}</pre>'
            '<button type="button" class="copy" data-copy="command">Copy</button></div>'
        )
    parts += [f"<p>{escape(change)}</p>" for change in run.get("changes", ())]
    shown = {
        key: value for key, value in recipe.items() if key not in ("source", "expect") and value not in (None, [], ())
    }
    parts.append('<div class="parts">')
    parts.append(part("Recipe", flat(shown)))
    parts.append(part("Data", flat(run["data"])))
    where = {"device": run["device"], "processes": run["processes"], "loader workers": run["workers"]}
    parts.append(part("Where", flat(where)))
    parts.append(part("Versions", flat(run["versions"])))
    words = {"source": recipe["source"], "expected": recipe["expect"]}
    parts.append(part("Source", flat(words)))
    parts.append("</div>")
    return "".join(parts)
