"""What a run shows: files, a report and trackers, all written from what the last checkpoint holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenmix.data.dataset import DataSet
from tokenmix.files import write_csv, write_json, write_text
from tokenmix.pages.run import write_failed, write_run
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks import Evidence, Task
from tokenmix.train.advice import Advice, advise
from tokenmix.train.recorder import RunNotes
from tokenmix.train.schedule import Calendar
from tokenmix.train.trackers import Tracking

REFRESH_S = 30.0  # between two reports within an epoch


@dataclass(frozen=True)
class Moment:
    """What is shown of a moment, which the training leaves as it is.

    Args:
        history: The rows of the epochs.
        steps: Done in the run.
        seconds: Spent on it.
        notes: What the recorder has noted.
        finished: Whether it is the run's end, which may come before the recipe's.
    """

    history: list[dict[str, Any]]
    steps: int
    seconds: float
    notes: RunNotes
    finished: bool


class Reporter:
    """Writes what was noted of a run; only in the first process.

    Args:
        task: What is learnt.
        recipe: What is done.
        data: On what; its validation samples may be shown.
        out: The run's folder.
        first: Whether this is the first process.
        calendar: The run's steps.
        evidence: Makes pictures of what went wrong.
        facts: What else the report tells, such as versions.
        log: Takes plain lines.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        data: DataSet,
        out: Path,
        first: bool,
        calendar: Calendar,
        evidence: Evidence | None,
        facts: dict[str, Any],
        log: Callable[[str], None],
    ) -> None:
        self.task, self.recipe, self.data, self.out = task, recipe, data, out
        self.first, self.calendar, self.evidence = first, calendar, evidence
        self.facts, self.say = facts, log
        self.tracking: Tracking | None = None
        self.pictures: dict[int, Any] = {}
        self.pictured = 0  # the epoch whose evidence they show
        self.changes: list[str] = []  # what was changed of the recipe on the way
        self.published = False  # in this session
        self.broken = False  # whether a failing report needs no word any more
        self.shown = time.monotonic()
        self.spoken: set[str] = set()  # kinds of advice that were given in this session

    def open(self, trackers: Sequence[str], say: Callable[[str], None], moment: Moment) -> None:
        """Start the trackers and give them what they lack; from now on speak with ``say``."""
        self.say = say
        if not self.first:
            return
        config = {**self.recipe.flat(), "processes": self.facts["processes"]}
        self.tracking = Tracking(trackers, self.out, config, say)
        self._send(moment.history, moment.notes)

    def refresh(self, moment: Moment) -> None:
        """Write the files within an epoch, right after a checkpoint, now and then."""
        if time.monotonic() - self.shown >= REFRESH_S:
            self.publish(moment)

    def publish(self, moment: Moment) -> None:
        """Write all files from what the last checkpoint holds."""
        if not self.first:
            return
        self.published = True
        self.shown, history = time.monotonic(), moment.history
        write_text(self.out / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        header = list({name: None for row in history for name in row})  # an epoch may lack what another one has
        write_csv(self.out / "history.csv", header, ([row.get(name) for name in header] for row in history))
        write_text(self.out / "steps.jsonl", "".join(json.dumps(point) + "\n" for point in self.curve(moment.notes)))
        write_json(self.out / "advice.json", self._facts(moment, None)["advice"])
        self.report(moment)
        self._send(history, moment.notes)

    def report(self, moment: Moment, error: BaseException | None = None) -> None:
        """Write the report; ``error`` is why the run stops before its end. A picture of a run is not worth the run."""
        if not self.first:
            return
        path, run = self.out / "report.html", self._facts(moment, error)
        try:
            write_run(run, path, self._pictures(moment.notes))
        except Exception as failure:
            if not self.broken:
                self.say(f"{path} could not be written: {failure}")
            self.broken = True
            try:
                write_failed(run, path, failure)
            except OSError:
                if run["status"] != "running":  # better no page than one that says it runs
                    path.unlink(missing_ok=True)

    def speak_up(self, moment: Moment, say: Callable[[str], None]) -> None:
        """Say what the run's numbers say is wrong with it, each note once."""
        if not self.first:
            return
        for note in self._facts(moment, None)["advice"]:
            if note["kind"] not in self.spoken:
                self.spoken.add(note["kind"])
                say(f"note: {note['text']}" + (f"\n  try: {note['command']}" if note["command"] else ""))

    def close(self, failed: bool) -> None:
        """End the trackers' session; ``failed``: before the run's end."""
        if self.tracking:
            self.tracking.close(failed)

    def curve(self, notes: RunNotes) -> list[dict[str, Any]]:
        """The points of the loss curve: ``step``, ``epoch`` (a fraction), ``loss`` and ``lr``."""
        rate, epochs = self.calendar.lr, self._epochs
        return [
            {"step": step, "epoch": round(epochs(step), 4), "loss": loss, "lr": rate(step - 1)}
            for step, loss in notes.curve
        ]

    def _epochs(self, step: int) -> float:
        """How many epochs the first steps make."""
        for number, length in enumerate(self.calendar.whole):
            if step <= length:
                return number + step / length
            step -= length
        return float(len(self.calendar.whole))

    def _send(self, history: list[dict[str, Any]], notes: RunNotes) -> None:
        """Give the trackers what is new."""
        if self.tracking is None:
            return
        values: dict[int, dict[str, float | None]] = {}
        for point in self.curve(notes):
            values[point["step"]] = {"train/loss": point["loss"], "train/lr": point["lr"], "epoch": point["epoch"]}
        for row in history:
            told = {_tag(name): value for name, value in row.items() if name not in ("epoch", "step", "lr")}
            values.setdefault(row["step"], {"epoch": self._epochs(row["step"])}).update(told)
        ends = list(accumulate(self.calendar.lengths))
        if len(history) < len(ends):
            values.pop(ends[len(history)], None)  # the last step of an epoch goes with its row, and that is to come
        self.tracking.send(values)

    def _facts(self, moment: Moment, error: BaseException | None) -> dict[str, Any]:
        """What the report is drawn from."""
        history, steps, seconds = moment.history, moment.steps, moment.seconds
        total = self.calendar.total
        status = "running" if error is None else "stopped"
        run = {
            "name": self.out.name,
            "status": "finished" if moment.finished else status,
            "reason": _reason(error),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "task": self.task.name,
            "noun": self.task.noun,
            "headline": self.task.headline,
            "epochs": len(self.calendar.lengths),
            "epoch": min(self._epochs(steps), self.calendar.epochs),
            "seconds": seconds,
            "left": seconds / steps * (total - steps) if steps else None,
            "history": [{**row, "place": self._epochs(row["step"])} for row in history],
            "curve": self.curve(moment.notes),
            "best_epoch": moment.notes.best_epoch,
            "evidence": moment.notes.evidence,
            "facts": self.data.facts,
            "data": {
                "name": self.data.name,
                **{f"{part} {self.task.noun}": len(getattr(self.data, part)) for part in ("train", "val", "test")},
            },
            "recipe": self.recipe.flat(),
            "changes": self.changes,
            "steps": total,
            **self.facts,
        }
        return run | {"advice": [note.told() for note in self._advice(run)]}

    def _advice(self, run: Mapping[str, Any]) -> list[Advice]:
        """What to try; nothing where a task's evidence is other than the rules expect: no note is worth the run."""
        try:
            return advise(run, self.task, self.out)
        except (ArithmeticError, LookupError, TypeError, ValueError) as failure:
            if not self.broken:
                self.say(f"{self.out}: no advice: {failure or type(failure).__name__}")
            self.broken = True
            return []

    def _pictures(self, notes: RunNotes) -> dict[int, Any]:
        """The pictures of the mistakes, by their place in the validation set; each is drawn once for an epoch."""
        if self.pictured != notes.best_epoch:
            mistakes = notes.evidence["mistakes"] if notes.evidence else []
            self.pictures = {mistake["index"]: self._picture(mistake) for mistake in mistakes}
            self.pictured = notes.best_epoch
        return self.pictures

    def _picture(self, mistake: dict[str, Any]) -> Any:
        assert self.evidence is not None
        try:
            return self.evidence.picture(mistake)
        except (NotImplementedError, OSError, ValueError):  # gone since, or of a source that only streams
            return None


def _reason(error: BaseException | None) -> str:
    """Why a run stopped, for its report."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "by a signal"
    return f"{error or type(error).__name__}" if error is not None else ""


def _tag(name: str) -> str:
    """How a key of a row is called in a tracker."""
    if name.startswith("val_"):
        return f"val/{name.removeprefix('val_')}"
    return "train/epoch_loss" if name == "loss" else f"run/{name}"
