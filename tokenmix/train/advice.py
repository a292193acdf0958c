"""What the numbers of a run say is wrong with it, and what to try.

Every rule reads what the run's page is drawn from, says what it has seen, and names one command. The limits are coarse
on purpose: a note that comes without need is read once and never again.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenmix.tasks import Task

FEW_STEPS, FEW_STEPS_TUNED = 300, 60  # of the whole run, with fresh weights and with learnt ones
SETTLED = 5  # epochs before which nothing is concluded from a curve
GAP = 15.0  # points by which what was learnt is better than what was not
FALLEN = 1.3  # the loss over its least, from which on it has risen


@dataclass(frozen=True)
class Advice:
    """A note on a run.

    Attributes:
        kind: One word, the same whenever the rule speaks.
        text: What was seen, and what it means.
        command: To try; empty where there is none.
    """

    kind: str
    text: str
    command: str = ""

    def told(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)


def advise(run: Mapping[str, Any], task: Task, out: Path) -> list[Advice]:
    """The notes on a run as it stands.

    Args:
        run: What `tokenmix.train.reporter` tells of it.
        task: What is learnt.
        out: Its folder, for the commands.
    """
    seen = _Run(run, task, out)
    notes = (note for rule in RULES for note in rule(seen))
    return list({note.kind: note for note in notes}.values())


class _Run:
    """The numbers that the rules read."""

    def __init__(self, run: Mapping[str, Any], task: Task, out: Path) -> None:
        self.run, self.task, self.out = run, task, out
        self.recipe: Mapping[str, Any] = run["recipe"]
        self.history: Sequence[Mapping[str, Any]] = run["history"]
        self.done, self.planned = len(self.history), run["epochs"]
        self.finished = run["status"] == "finished"
        self.sign = -1 if task.lower_is_better else 1
        self.samples = run["data"].get(f"train {task.noun}", 0)

    def column(self, name: str) -> list[float]:
        """A number of each epoch; those that have none are left out."""
        values = (row.get(name) for row in self.history)
        return [float(value) for value in values if value is not None and math.isfinite(value)]

    @property
    def scores(self) -> list[float]:
        """The validation's headline of each epoch, the larger the better."""
        return [self.sign * value for value in self.column(f"val_{self.task.headline}")]

    @property
    def gap(self) -> float | None:
        """By how much what was learnt is better than what was not, at the best epoch; None where nobody knows."""
        row = next((row for row in self.history if row["epoch"] == self.run["best_epoch"]), None)
        learnt = None if row is None else row.get(f"train_{self.task.headline}")
        judged = None if row is None else row.get(f"val_{self.task.headline}")
        return None if learnt is None or judged is None else self.sign * (learnt - judged)

    def again(self, *settings: str) -> str:
        """The command that trains again with other settings; empty where no recipe names the model, made in code."""
        if self.run.get("made"):
            return ""
        words = ["tokenmix", "train", f"{self.out}/recipe.json", "--data", str(self.recipe["run.data"])]
        weights = self.recipe.get("model.weights")
        if weights not in (None, "pretrained"):  # a path, which a person may name and a file may not
            words.append(f"weights={weights}")
        return shlex.join([*words, *settings, "--out", f"{self.out}-2"])

    def longer(self, times: int) -> str:
        """The setting that trains so many times as long."""
        steps = self.recipe["schedule.steps"]
        return f"steps={times * steps}" if steps else f"epochs={times * self.recipe['schedule.epochs']:g}"

    def slower(self, times: int) -> list[str]:
        """The settings for a learning rate that is so many times smaller, and for what would be above it."""
        rate = self.recipe["optimizer.lr"] / times
        ends = [name for name in ("min_lr", "warmup_lr") if self.recipe[f"schedule.{name}"] > rate]
        return [f"lr={rate:g}", *(f"{name}={self.recipe[f'schedule.{name}'] / times:g}" for name in ends)]


def _too_few_steps(run: _Run) -> Iterator[Advice]:
    limit = FEW_STEPS_TUNED if run.recipe.get("model.weights") else FEW_STEPS
    steps = run.run.get("steps")
    if not steps or steps >= limit or run.recipe["schedule.steps"] is not None:
        return
    batch = run.recipe["run.batch_size"]
    smaller = min(batch, max(8, batch // 4))
    factor = math.ceil(limit / steps / (batch / smaller))
    settings = [*([f"batch_size={smaller}"] if smaller < batch else []), f"epochs={run.planned * max(1, factor):g}"]
    yield Advice("steps", f"the whole run has {steps:,} steps, too few to learn much", run.again(*settings))


def _rate_too_high(run: _Run) -> Iterator[Advice]:
    losses = run.column("loss")
    if len(losses) < SETTLED:
        return
    lowest, last = min(losses), sum(losses[-2:]) / 2
    rate = run.recipe["optimizer.lr"]
    if last > FALLEN * lowest and last - lowest > 0.05:
        what = f"the training loss rose again, from {lowest:.3g} to {last:.3g}"
    elif lowest > 0.98 * losses[0] and run.done >= 2 * SETTLED:
        what = f"the training loss does not fall: {losses[0]:.3g} after the first epoch, {last:.3g} now"
    else:
        return
    yield Advice("rate", f"{what}: the learning rate {rate:g} may be too high", run.again(*run.slower(4)))


def _learnt_by_heart(run: _Run) -> Iterator[Advice]:
    gap, scores = run.gap, run.scores
    if run.done < SETTLED or not scores:
        return
    name = run.task.label(run.task.headline)
    losses, judged = run.column("loss"), run.column("val_loss")
    rises = bool(judged) and judged[-1] > FALLEN * min(judged) and bool(losses) and losses[-1] < 0.9 * losses[0]
    wide = gap is not None and (gap > GAP if run.task.unit(run.task.headline) == "%" else False)
    if not (wide or (gap is None and rises)):
        return
    if wide and gap is not None:
        row = next(row for row in run.history if row["epoch"] == run.run["best_epoch"])
        learnt, other = row[f"train_{run.task.headline}"], row[f"val_{run.task.headline}"]
        what = f"{name} is {run.task.shown(name, learnt)} on what was learnt and {other:.2f} % on what was not"
    else:
        what = f"the validation loss rose from {min(judged):.3g} to {judged[-1]:.3g} while the training loss fell"
    yield Advice("overfits", f"{what}: it learns by heart; more data help most, then", run.again(*_stronger(run)))


def _stronger(run: _Run) -> list[str]:
    """Settings that make it harder to learn by heart, the first ones that are not set yet."""
    flat, found = run.recipe, []
    if flat.get("augment.name") in ("none", "light"):
        found.append("augment=standard")
    if flat.get("augment.mixup") == 0.0 and flat.get("augment.cutmix") == 0.0:
        found.append("cutmix=1.0")
    elif flat.get("augment.rand_augment", "") is None:
        found.append("rand_augment=rand-m7-n2")
    if (flat.get("model.drop_path_rate") or 0.0) < 0.1:
        found.append("drop_path_rate=0.1")
    return found[:2] or [f"weight_decay={max(0.05, 2 * flat['optimizer.weight_decay']):g}"]


def _not_learnt_out(run: _Run) -> Iterator[Advice]:
    scores, gap = run.scores, run.gap
    if not run.finished or run.done < 3 or run.done < run.planned or len(scores) < 3:
        return
    late = scores[-max(1, len(scores) // 4) :]
    before = scores[: len(scores) - len(late)] or scores[:1]
    gain = max(late) - max(before)
    share = run.task.unit(run.task.headline) == "%"
    gained = gain > 1.0 if share else gain > 0.02 * abs(max(before))
    if run.run["best_epoch"] < 0.9 * run.done or not gained or (gap is not None and share and gap > GAP):
        return
    name = run.task.label(run.task.headline)
    text = f"{name} still rose in the last quarter of the epochs: it underfits, and a longer run learns more"
    if run.task.lower_is_better:
        text = text.replace("rose", "fell")
    yield Advice("underfits", text, run.again(run.longer(2)))


def _never_found(run: _Run) -> Iterator[Advice]:
    evidence = run.run["evidence"]
    if not evidence or run.done < SETTLED:
        return
    names = run.task.unfound(evidence, run.run["facts"])
    if not names:
        return
    told = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    rare = set(run.task.rare(evidence, run.run["facts"])) & set(names)
    uneven = rare and run.recipe.get("task.balance") in ("none", "weights")
    setting = "balance=sampling" if uneven else run.longer(2)
    yield Advice("classes", f"not one of the validation {run.task.noun} of {told} is right", run.again(setting))


def _base_line(run: _Run) -> Iterator[Advice]:
    evidence, scores = run.run["evidence"], run.scores
    found = run.task.base_line(evidence, run.run["facts"]) if evidence else None
    if found is None or not scores or run.done < SETTLED:
        return
    value, words = found
    if max(scores) - run.sign * value >= 2.0:
        return
    best, name = run.sign * max(scores), run.task.label(run.task.headline)
    text = f"{name} {best:.1f} % is not better than {words}, {value:.1f} %: nothing is learnt yet"
    yield Advice("nothing", text, run.again(run.longer(3), *run.slower(2)))


def _doubtful_labels(run: _Run) -> Iterator[Advice]:
    evidence = run.run["evidence"]
    names = run.task.doubtful(evidence, run.run["facts"]) if evidence and run.done >= SETTLED else ()
    if not names:
        return
    told = "; ".join(names[:3]) + (f"; and {len(names) - 3} more on the page" if len(names) > 3 else "")
    data = shlex.quote(str(run.recipe["run.data"]))
    text = f"labels that look wrong, since the model is sure of something else: {told}"
    yield Advice("labels", text, f"tokenmix data check {data}")


Rule = Callable[[_Run], Iterator[Advice]]
RULES: tuple[Rule, ...] = (
    _too_few_steps,
    _base_line,
    _rate_too_high,
    _learnt_by_heart,
    _not_learnt_out,
    _never_found,
    _doubtful_labels,
)
