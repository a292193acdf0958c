"""The page of one training run, while it works and after: curves, speed, what its task shows, the recipe."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tokenmix.files import write_text
from tokenmix.pages.charts import Curves, curves_data
from tokenmix.pages.page import flat, page, render
from tokenmix.pages.result_schema import number
from tokenmix.tasks import Task, find_task
from tokenmix.tasks.section import Section

_Points = list[tuple[float, float]]


def run_page(run: Mapping[str, Any], pictures: Mapping[int, Any] | None = None) -> str:
    """The page of a run as one HTML file that needs neither network nor other files.

    While the run works the page loads itself anew every ten seconds, as long as it is looked at.

    Args:
        run: What ``tokenmix.train.reporter`` tells of it.
        pictures: What the task's evidence drew of the mistakes, by their ``index``.
    """
    task = find_task(run["task"])
    learning, speed = _charts(task, run)
    notes = run.get("advice") or ()
    sections = [
        Section("advice", "What to try", render("advice.html", notes=notes) if notes else "", "What to try"),
        Section("curves", "Learning curves", render("run_charts.html", charts=learning), "Curves"),
        Section("speed", "Speed and memory", render("run_charts.html", charts=speed) if speed else "", "Speed"),
        *(task.run_sections(run, pictures or {}) if run["evidence"] else ()),
        Section("recipe", "Recipe, and how to run it again", _recipe(run), "Recipe"),
    ]
    return page(f"Training run {run['name']}", _intro(task, run), sections, curves_data([*learning, *speed]))


def write_run(run: Mapping[str, Any], path: str | os.PathLike[str], pictures: Mapping[int, Any] | None = None) -> None:
    """Write `run_page` to a file, atomically."""
    write_text(path, run_page(run, pictures))


def write_failed(run: Mapping[str, Any], path: str | os.PathLike[str], failure: BaseException) -> None:
    """Write how a run stands, and why no more can be drawn: a page that stays from before would tell old news."""
    why = str(failure) or type(failure).__name__
    text = Markup("<p>The rest of this page could not be drawn: {}</p>").format(why)
    intro = _intro(find_task(run["task"]), {**run, "history": []})
    section = Section("failure", "Why this is all", text, "Failure")
    write_text(path, page(f"Training run {run['name']}", intro, [section]))


# -------------------------------------------------------------------------------------------------------------- the top


def _intro(task: Task, run: Mapping[str, Any]) -> Markup:
    status, epochs, done = run["status"], run["epochs"], round(run["epoch"])
    at = f"epoch {run['epoch']:.4g} of {epochs}"
    early = f" of {epochs:,}: the validation had not become better for long enough" if done < epochs else ""
    finished = f"Finished after {done:,} epoch{'' if done == 1 else 's'}{early}."
    lead = {"finished": finished, "running": f"Running: {at}."}
    epoch_s = run["seconds"] / run["epoch"] if run["epoch"] else 0
    return render(
        "run_intro.html",
        run=run,
        lead=lead.get(status, f"Stopped at {at}. The same command continues."),
        when=run["updated"].replace("T", " ").replace("+00:00", " UTC"),
        quiet=f"{max(600, 2 * epoch_s):.0f}",
        cells=_answers(task, run),
    )


def _answers(task: Task, run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is asked first: (question, answer, note)."""
    history, noun, cells = run["history"], run["noun"], []
    best = next((row for row in history if row["epoch"] == run["best_epoch"]), None)
    if best:
        name = task.label(run["headline"])
        score, note = best[f"val_{run['headline']}"], f"after epoch {best['epoch']}; these weights are kept"
        value = "undefined" if score is None else f"{score:.4g} {task.unit(run['headline'])}".rstrip()
        if score is None:
            note = f"the validation {noun} hold nothing that {name} could count; {note}"
        cells.append((f"Best validation {name}", value, note))
    if history:
        row = history[-1]
        if row["loss"] is not None:
            cells.append(("Training loss", f"{row['loss']:.4g}", f"epoch {row['epoch']}"))
        if row.get("images_per_second"):
            wait = f"{row['data_wait']:.0f} % of the time waits for {noun}"
            cells.append(("Throughput", f"{row['images_per_second']:,.0f} {noun}/s", wait))
    working = run["status"] == "running" and run["left"] is not None
    left = f"about {_clock(run['left'])} left" if working else "all sessions"
    return [*cells, ("Time spent", _clock(run["seconds"]), left)]


def _clock(seconds: float) -> str:
    """A duration in two of its units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ----------------------------------------------------------------------------------------------------------- the curves


def _charts(task: Task, run: Mapping[str, Any]) -> tuple[list[Curves], list[Curves]]:
    """The charts with a value: of what is learnt, of how fast."""
    history, curve, noun = run["history"], run["curve"], run["noun"]
    names = [name.removeprefix("val_") for name in (history[0] if history else {}) if name.startswith("val_")]
    by_unit: dict[str, list[tuple[str, _Points]]] = {}
    for name in task.curve_names([name for name in names if name != "loss"], run["facts"]):
        lines = by_unit.setdefault(task.unit(name), [])
        lines.append((task.label(name), _points(history, "place", f"val_{name}")))
        if learnt := _points(history, "place", f"train_{name}"):
            lines.append((f"{task.label(name)} on training {noun}", learnt))
    losses = [("training", _points(curve, "epoch", "loss")), ("validation", _points(history, "place", "val_loss"))]
    learning = [Curves("loss", "loss", "", losses)]
    samples = run["data"].get(f"val {noun}")
    share = 100 / samples if task.headline_is_share and samples else 0.05
    for unit, lines in by_unit.items():
        title = (f"validation {lines[0][0]}" if len(lines) == 1 else "validation") + (f", {unit}" if unit else "")
        learning.append(Curves(f"metric {unit}", title, unit, lines, share if unit == "%" else None))
    learning.append(Curves("lr", "learning rate", "", [("learning rate", _points(curve, "epoch", "lr"))]))
    speed = [
        Curves(key, title, unit, [(title.split(",")[0], _points(history, "place", key))], zero=True)
        for key, title, unit in (
            ("images_per_second", f"training, {noun}/s", "/s"),
            ("data_wait", f"waiting for {noun}, % of the time", "%"),
            ("memory_mb", "peak memory, MB", "MB"),
        )
    ]
    return [chart for chart in learning if chart.shown()], [chart for chart in speed if chart.shown()]


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> _Points:
    return [(row[x], value) for row in rows if (value := number(row.get(y))) is not None]


# ----------------------------------------------------------------------------------------------------------- the recipe


def _recipe(run: Mapping[str, Any]) -> Markup:
    recipe, name = run["recipe"], run["name"]
    again = shlex.join(["tokenmix", "train", f"{name}/recipe.json", "--out", f"{name}-again"])
    shown = {key: value for key, value in recipe.items() if key not in ("source", "expect")}
    return render(
        "recipe.html",
        command="" if run["made"] else again,
        changes=run.get("changes", ()),
        parts=[
            ("Recipe", flat(shown)),
            ("Data", flat(run["data"])),
            ("Where", flat({"device": run["device"], "processes": run["processes"], "loader workers": run["workers"]})),
            ("Versions", flat(run["versions"])),
            ("Source", flat({"source": recipe["source"], "expected": recipe["expect"]})),
        ],
    )
