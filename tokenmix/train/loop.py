"""The training loop: the only one, for every task.

On a CPU a run that is killed at any moment and started again ends with the same weights, bit for bit. That rests on
three things: a batch is a function of (seed, epoch, place in it), the random numbers inside a step are seeded by
(seed, step), and everything else that a step reads is in the checkpoint. The checkpoint is the one truth: the weights,
the history and the summary beside it are written from it after it, and again when a run is resumed.

Under ``torchrun`` or Slurm every process runs this loop on its part of every batch. They hold the same weights, or each
its share of them, decide by the same numbers, and the first one alone writes, but for shares of a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.data.dataset import DataSet
from tokenmix.data.identity import DataIdentity, changes
from tokenmix.data.loader import BatchLoader, check_shares, named_deaths
from tokenmix.evaluate import evaluate, find_device
from tokenmix.files import DiskFull, atomic_path, finite, locked, sha256, sweep, write_json, write_text
from tokenmix.recipes.recipe import Recipe, differences, with_values
from tokenmix.tasks import Batch, find_task
from tokenmix.train import shards
from tokenmix.train.checkpoint import Checkpoints, versions
from tokenmix.train.distributed import TIMEOUT_S, Group, place, processes
from tokenmix.train.log import Progress, pace
from tokenmix.train.memory import kept_memory
from tokenmix.train.recorder import Recorder
from tokenmix.train.reporter import Moment, Reporter
from tokenmix.train.saving import Writer, snapshot
from tokenmix.train.schedule import Calendar
from tokenmix.train.signals import Signals, Terminated, held_signals
from tokenmix.train.trackers import MARKS, check_trackers
from tokenmix.train.training_step import TrainingStep
from tokenmix.weight_files import WEIGHTS, weights_bytes
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.shortage import OutOfMemory, shortage
from tokenmix_runtime.terminal import say
from tokenmix_runtime.untrusted import read_json

__all__ = ["DiskFull", "Diverged", "FitResult", "Terminated", "fit"]

GRACE_S = 10.0  # after a signal, of several processes: for what this one waits for to come, and all to save
LEARNT_POINTS = 20  # so often, at least, a run looks at what it has learnt from; always where its weights are kept
OUTCOMES = ("best.safetensors", "best.json", "test.json")  # of a run, which a fresh one does not keep
LOCK_S = 30.0  # how long the first of several processes waits for the one before it to let go of the folder


class Diverged(ValueError):
    """The loss was not finite for as many steps in a row as the recipe allows.

    Examples:
        >>> from tokenmix.recipes import override
        >>> try:
        ...     fit(recipe, data, "runs/photos")  # doctest: +SKIP
        ... except Diverged:
        ...     fit(override(recipe, ["lr=1e-4"]), data, "runs/photos-slower")
    """


@dataclass(frozen=True)
class FitResult:
    """What a finished run has to show.

    Args:
        best: The row of ``history`` of the best epoch, with ``weights_sha256`` of the file.
        history: One row per epoch: ``epoch`` (from 1), ``step`` (its last), ``loss``, ``val_*`` of the metric, ``lr``
            (of that step), ``seconds`` since the start, over all sessions, and what ``Recorder.speed`` measured.
        seconds: Time spent on training and validation, over all sessions.
        best_weights: The safetensors file.

    Examples:
        >>> result = fit(recipe, data, "runs/photos")  # doctest: +SKIP
        >>> result.history[result.best["epoch"] - 1]["val_top1"] == result.best["val_top1"]  # doctest: +SKIP
        True
    """

    best: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float
    best_weights: Path


@dataclass
class _State:
    """Where a run stands, as it is stored in a checkpoint."""

    epoch: int = 0  # whole epochs behind us, their validation included
    step: int = 0  # steps done in this epoch
    steps: int = 0  # steps done in the run
    loss_sum: float = 0.0  # over the good steps of this epoch
    good: int = 0
    bad: int = 0  # bad steps in a row, up to now
    seconds: float = 0.0
    finished: bool = False
    changes: list[str] = field(default_factory=list)  # of the recipe on the way, in words
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    recipe: Recipe,
    data: DataSet,
    out: Path | str,
    *,
    model: Callable[[], nn.Module] | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    log: Callable[[str], None] = say,
    progress: bool = True,
    label: str = "",
    fresh: bool = False,
    checkpoint_seconds: float = 60.0,
    keep: int = 2,
    parallel: str = "ddp",
    timeout: float = TIMEOUT_S,
    trackers: Sequence[str] = (),
) -> FitResult:
    """Train by the recipe; continue where an earlier run in the same folder stopped; return at once if it finished.

    Writes ``recipe.json``, ``checkpoints/`` (see ``tokenmix.train.checkpoint.Checkpoints``), ``history.jsonl`` and
    ``history.csv`` (a row per epoch), ``steps.jsonl`` (the loss in about a thousand points), ``report.html``,
    ``advice.json`` (what to try, see `tokenmix.train.advice`),
    ``best.safetensors`` (the weights with the highest validation headline, of the average if the recipe keeps one; at a
    tie the lower loss; the last ones within the recipe's slack) and ``best.json``. The global random state is left as
    it was.

    SIGINT and SIGTERM, in the main thread, wait for the step to end and a checkpoint to be written; then they raise
    ``KeyboardInterrupt`` and ``Terminated``. They do not wait for images: what was reached is written at once. Of
    several processes, one that still waits for images or another process after ten seconds ends without, and the run
    continues from the last checkpoint.

    Started by ``torchrun`` or ``srun``, the processes train together, see ``tokenmix.train.distributed``; ``out`` must
    be a folder that all of them see. If one of them is lost, the others end; started again, in any number, they
    continue.

    Args:
        recipe: What to do; everything that decides the result.
        data: Training images to learn from, validation images to choose by; the test images are not touched.
        out: The run's folder.
        model: Makes the network, for one that the recipe cannot name; it is called with the recipe's seed set.
        device: Where to train.
        workers: Processes that load images ahead.
        log: Takes plain lines.
        progress: Show how far it is; warnings are logged in any case.
        label: Stands before each line.
        fresh: Forget the checkpoints in ``out`` and start again.
        checkpoint_seconds: Longest time between two checkpoints; there is one after each epoch anyway.
        keep: How many checkpoints are kept.
        parallel: What several processes hold: ``ddp``, each all weights, or ``fsdp``, each its share, which needs less
            memory and more messages. It is no recipe key since it changes no result; a run may continue with the other.
        timeout: Seconds after which a process that does not answer counts as lost.
        trackers: Who else follows the run: names in ``tokenmix.train.trackers.TRACKERS``.

    Returns:
        What the run has to show, see `FitResult`.

    Raises:
        ValueError: The folder holds a run of another recipe or other data, or no readable checkpoint, or another
            process is at work in it; there are no images, no such model or no such device; an option out of range.
        Diverged: The loss stayed NaN or infinite.
        DiskFull: There is no room for a checkpoint or the results.
        OutOfMemory: A step does not fit into memory; the message says which part of it would. The run goes on with a
            larger ``accumulate``, the one key of a recipe that may change on the way.
        ConnectionError: Another process was lost.

    Examples:
        >>> from tokenmix.recipes import make_recipe
        >>> from tokenmix.sources import load_data
        >>> from tokenmix.train import fit
        >>> result = fit(make_recipe("digits", ["epochs=3"]), load_data("digits"), "runs/digits")  # doctest: +SKIP
        >>> [row["epoch"] for row in result.history]  # doctest: +SKIP
        [1, 2, 3]
    """
    check_trackers(trackers)
    check_number("workers", workers)
    check_number("checkpoint_seconds", checkpoint_seconds)
    recipe = find_task(recipe.task.name).complete(recipe, data)
    if len(data.train):  # before the processes meet: one that has left would be the others' error
        check_shares(min(recipe.run.batch_size, len(data.train)), place().world)
    with processes(find_device(device), parallel=parallel, timeout=timeout) as group:
        cuda = group.device.type == "cuda"
        generators = [torch.cuda.current_device() if group.device.index is None else group.device.index] if cuda else []
        if not group.first:
            log, progress = _silent, False
        with ExitStack() as stack, named_deaths(), torch.random.fork_rng(devices=generators), held_signals() as signals:
            if not cuda:
                stack.enter_context(kept_memory())
            if group.world > 1:
                signals.patience = GRACE_S
                group = replace(group, obeyed=signals.obeyed)
            wait_s = LOCK_S if group.world > 1 else 0.0
            group.by_first(lambda: stack.enter_context(locked(out, wait_s=wait_s)) and None)
            checkpoints = Checkpoints(out, keep)
            run = _Run(recipe, data, Path(out), model, group, workers, log, checkpoint_seconds, checkpoints, signals)
            stack.enter_context(run.writer)
            try:
                run.resume(fresh)
                show = progress and not run.state.finished
                total, done = run.calendar.total, run.state.steps
                size = min(recipe.run.batch_size, len(data.train))
                run.progress = Progress(total, done, size, log, show=show, label=label, noun=run.task.noun)
                run.recorder.say = run.progress.say
                run.reporter.open(trackers, run.progress.say, run.moment)
                run.work()
            except BaseException as error:
                run.writer.settle()
                if run.reporter.published:
                    run.reporter.report(run.moment, error)
                raise
            finally:
                run.progress.clear()
                run.reporter.close(failed=not run.state.finished)
            group.wait()
            return run.result()


def _bytes(state: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in state.values())


def _silent(line: str) -> None:
    """The log of all processes but the first."""


class _Run:
    """A run's parts, and the steps that change them."""

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        out: Path,
        model: Callable[[], nn.Module] | None,
        group: Group,
        workers: int,
        log: Callable[[str], None],
        checkpoint_seconds: float,
        checkpoints: Checkpoints,
        signals: Signals,
    ) -> None:
        self.recipe, self.data, self.out, self.log = recipe, data, out, log
        self.group, self.signals, self.checkpoint_seconds = group, signals, checkpoint_seconds
        self.task = find_task(recipe.task.name)
        for part in ("train", "val"):
            if not len(getattr(data, part)):
                raise ValueError(f"the data set {data.name} has no {self.task.noun} in its part {part!r}")
        self.task.check_fits(data)
        self.trained = TrainingStep(self.task, recipe, data, model, group)
        share = {"workers": workers, "rank": group.rank, "world": group.world}
        self.train_loader, self.val_loader = self.task.loaders(recipe, data, self.trained.preparation, **share)
        self.calendar = Calendar(recipe, lambda epoch: len(self.train_loader.steps(epoch)))
        self.checkpoints, self.versions, self.writer = checkpoints, versions(), Writer(group, log)
        probe = self.task.probe(recipe, data, self.trained.preparation, **share)
        self.recorder = Recorder(self.task, recipe, data, group, self.calendar, workers, probe, log)
        facts = {
            "versions": self.versions,
            "device": str(group.device),
            "processes": group.world,
            "workers": workers,
            "made": bool(model),
        }
        self.reporter = Reporter(
            self.task, recipe, data, out, group.first, self.calendar, self.recorder.evidence, facts, log
        )
        self.identity = DataIdentity.of(data) if group.first else None
        self.fingerprint: str = group.by_first(lambda: self.identity.fingerprint if self.identity else "")
        self.state = _State()
        self.best_weights: dict[str, Tensor] = {}
        self.batch: Batch | None = None  # of the step that is under way
        self.progress = Progress(self.calendar.total, 0, recipe.run.batch_size, log, show=False, label="")
        self.clock = self.saved = time.monotonic()
        # whether one process got a signal, or the first one wants a checkpoint: all know
        self.stopping = self.due = False

    # ------------------------------------------------------------------------------------------------ the checkpoint

    @property
    def facts(self) -> dict[str, Any]:
        """What of the data the results depend on, as far as a few numbers tell."""
        sizes = {"train": len(self.data.train), "val": len(self.data.val)}
        return {**self.data.facts, **sizes, "fingerprint": self.fingerprint}

    def resume(self, fresh: bool) -> None:
        """Take up the checkpoint in the folder, if there is one, and bring the files beside it up to date."""

        def find() -> Path | None:
            if fresh:
                self.checkpoints.clear()
                for name in (MARKS, *OUTCOMES):  # or the folder had the model before until there is a new one
                    (self.out / name).unlink(missing_ok=True)
            sweep(self.out)
            self.checkpoints.sweep()
            return self.checkpoints.whole(self.log)

        path = self.group.by_first(find)
        if path is None:
            self.trained.begin(self.log)
            if words := self.calendar.long_rise():
                self.log(words)
            self.write_recipe()
            self.write(lambda: self.reporter.publish(self.moment), 0)
            return
        if not path.exists():
            raise ValueError(f"process {self.group.rank} does not see {path}: all need the same folder")
        content = self.checkpoints.read(path, self.group)
        self.group.wait()  # all have read before anyone writes
        remedy = "give another output folder, or start again with --fresh (fresh=True)"
        before = Recipe.from_json(content["recipe"])
        if changed := differences(in_parts(before, self.recipe), self.recipe):
            raise ValueError(f"{self.out} holds a run of another recipe: {', '.join(changed)}; {remedy}")
        self.check_data(content["data"], content["state"]["finished"], remedy)
        self.trained.load(content, path)
        self.state = _State(**content["state"])
        self.recorder.load(content["watch"])
        self.best_weights = content["best_weights"]
        if before.run.accumulate != self.recipe.run.accumulate:
            self.take_parts(before)
        self.reporter.changes = self.state.changes
        self.write_recipe()
        self.write(lambda: self.publish(self.moment, weights=True), _bytes(self.best_weights))
        if not self.state.finished:
            self.name_threads(content.get("threads"))
            self.log(f"{self.out}: continuing at epoch {self.state.epoch + 1}, step {self.state.step + 1}")

    def check_data(self, before: dict[str, Any], finished: bool, remedy: str) -> None:
        """Raise unless the data are those of the run before, whatever their path is called."""
        different = [name for name, value in self.facts.items() if name in before and before[name] != value]
        if different:
            told = self.group.by_first(self.data_changes) or [f"its {', '.join(different)} differ"]
            raise ValueError(f"{self.out} holds a run on other data ({'; '.join(told)}); {remedy}")
        if "fingerprint" not in before and self.data.split_off and not finished:
            raise ValueError(
                f"{self.out} holds a run of version 0.1, which split these data in another way: what it learns from "
                f"now would be judged on what it has learnt; {remedy}"
            )

    def data_changes(self) -> list[str]:
        """In words, what is other than in the data that the run's folder describes."""
        file = self.out / "data.json"
        if self.identity is None or not file.is_file():
            return []
        return changes(read_json(file), self.identity)

    def name_threads(self, before: int | None) -> None:
        """Say that a CPU's results depend on the number of threads, if it is not the one of the last session."""
        now = torch.get_num_threads()
        if self.group.device.type == "cpu" and before not in (None, now):
            self.log(
                f"{self.out}: computed with {before} threads until now and with {now} from here on, so the last digits "
                f"may differ; OMP_NUM_THREADS={before} keeps them"
            )

    def take_parts(self, before: Recipe) -> None:
        """Go on with another number of parts per step, and say what that changes; a finished run keeps its own."""
        old, new, batch = before.run.accumulate, self.recipe.run.accumulate, before.run.batch_size
        if self.state.finished:
            self.recipe = self.reporter.recipe = before
            self.log(f"{self.out}: the run has finished, with accumulate={old}, and stays as it is")
            return
        change = (
            f"accumulate={new} instead of {old} from epoch {self.state.epoch + 1}, step {self.state.step + 1} on: the "
            f"batches of {batch} images and the learning rate stay, but batch norm, mixup, cutmix and dropout now see "
            f"parts of {-(-batch // new)} images instead of {-(-batch // old)}"
        )
        self.state.changes = [*self.state.changes, change]
        self.log(f"{self.out}: {change}")

    def save(self, then: Callable[[], None] = lambda: None, needed: int = 0) -> None:
        """Write a checkpoint of this very moment, and ``then`` what follows from it, while the training goes on.

        What goes wrong is raised by the next save, or by whoever waits for the writer. Sharded weights are written at
        once, since all processes have to agree on them.

        Args:
            then: Done by the first process; it reads nothing that changes before the next save.
            needed: About how many bytes that writes.
        """
        self.tick()
        self.writer.wait()
        content = {
            "recipe": self.recipe.to_json(),
            "data": self.facts,
            "versions": self.versions,
            "threads": torch.get_num_threads(),
            "state": asdict(self.state),
            "watch": self.recorder.state(),
            **self.trained.state(),
        }
        if sharded := shards.is_sharded(content):
            self.checkpoints.save({**content, "best_weights": self.best_weights}, self.group)
        elif self.group.first:
            content = {**snapshot(content, self.group.device), "best_weights": self.best_weights}

        def work() -> None:
            if not sharded:
                self.checkpoints.save(content)
            self.checkpoints.with_room(then, needed)

        self.writer.start(work)
        self.saved = time.monotonic()

    def write(self, work: Callable[[], None], needed: int) -> None:
        """Let the first process do ``work``, which writes about that many bytes, with room made for them."""
        self.checkpoints.with_room(lambda: self.group.by_first(work), needed, self.group)

    def write_recipe(self) -> None:
        """Write ``recipe.json``, with which the run can be repeated, and ``data.json``, by which it knows its data."""
        text = self.recipe.to_json()

        def write() -> None:
            write_text(self.out / "recipe.json", text)
            if self.identity is not None:
                write_json(self.out / "data.json", self.identity.to_json())

        self.write(write, len(text))

    def publish(self, moment: Moment, *, weights: bool) -> None:
        """Write the files that follow from a checkpoint, in the first process; doing it twice changes nothing.

        Args:
            moment: What is shown.
            weights: Whether the best weights may be other ones than in the file.
        """
        self.reporter.publish(moment)
        if self.state.best is None or not weights:
            return
        info = {
            "model": self.recipe.model.name,
            "model_args": self.recipe.model.args,
            "head": self.recipe.model.head,
            "task": self.recipe.task.name,
            **self.task.stored(self.recipe),
            **self.data.facts,
            "num_classes": getattr(self.trained.objective.model, "num_classes", None),
            "data": self.identity.brief() if self.identity else None,
            **self.trained.preparation,
        }
        info = {name: value for name, value in info.items() if name != "num_classes" or value is not None}
        with atomic_path(self.out / WEIGHTS) as temporary:
            temporary.write_bytes(weights_bytes(self.best_weights, info))
        digest = sha256(self.out / WEIGHTS)
        write_json(self.out / "best.json", {**self.state.best, "weights_sha256": digest, "versions": self.versions})

    @property
    def moment(self) -> Moment:
        """What is shown of this moment."""
        state = self.state
        return Moment(list(state.history), state.steps, state.seconds, self.recorder.noted, state.finished)

    def tick(self) -> None:
        """Count the time since the last call."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def pause(self) -> None:
        """Save and raise if a signal has asked for it; of several processes all at once."""
        stop = self.signals.stop
        if self.group.world > 1:
            stop = (stop or Terminated()) if self.stopping else None
        if stop is not None:
            self.save()
            self.writer.wait()
            self.progress.say(f"stopped at epoch {self.state.epoch + 1}; the same command continues")
            self.signals.came.clear()
            raise stop

    def arriving(self, loader: BatchLoader, epoch: int, start: int) -> Iterator[Batch]:
        """The loader's batches; a signal that comes while one is awaited is obeyed."""
        batches = loader.batches(epoch, start)
        while True:
            try:
                with self.signals.obeyed():
                    batch = next(batches, None)
            except (Terminated, KeyboardInterrupt):
                if self.group.world == 1:
                    self.pause()
                self.progress.say("stopped while waiting for images; the same command continues at the last checkpoint")
                raise
            if batch is None:
                return
            yield batch

    # ---------------------------------------------------------------------------------------------------- the work

    def work(self) -> None:
        """Do all that is left.

        Raises:
            OutOfMemory: It does not fit; the message says what would.
        """
        try:
            while not self.state.finished:
                self.train_epoch()
                self.end_epoch()
            return self.writer.wait()
        except Exception as error:
            lack = None if isinstance(error, OutOfMemory) else shortage(error)
            if lack is None:
                raise
        # Only here, where the error and what its frames held are gone, is the memory of the step free again.
        raise OutOfMemory(f"{lack} at {self.needs()}")

    def needs(self) -> str:
        """What a step or a validation that did not fit had, and what would fit."""
        recipe, state, batch = self.recipe, self.state, self.batch
        noun, what = self.task.noun, self.task.describe_batch(recipe)
        samples = recipe.run.batch_size // self.group.world if batch is None else len(batch["index"])
        part = -(-samples // recipe.run.accumulate)
        had = (
            f"epoch {state.epoch + 1}, step {state.step + 1}: batch_size={recipe.run.batch_size} {noun}"
            f"{what and f' of {what}'} in parts of {part} (accumulate={recipe.run.accumulate})"
        )
        fits = self.trained.fitting(batch) if batch is not None else None
        if fits == 0:
            return f"{had}; not even one of the {noun} fits: take a smaller image_size or model"
        if batch is None or not fits:
            return f"{had}; a larger accumulate, a smaller batch_size or image_size, or fewer --workers need less"
        count = -(-samples // fits)
        return (
            f"{had}; parts of {fits} fit: the same command with accumulate={count} goes on with the same batches "
            "(a smaller batch_size or image_size needs less too, with other results)"
        )

    def train_epoch(self) -> None:
        """Do the steps of this epoch that are left."""
        state = self.state
        steps = self.calendar.lengths[state.epoch]
        self.trained.freeze_backbone(state.epoch < self.recipe.schedule.freeze_epochs)
        if state.step == steps:
            return  # it was stopped in the validation
        samples = [step.end - step.begin for step in self.train_loader.steps(state.epoch)]
        for batch in self.recorder.waiting(self.arriving(self.train_loader, state.epoch, state.step)):
            self.step(batch, samples[state.step])
            state.step += 1
            self.progress.step(state.steps, self.describe)
            if state.step == steps:
                break
            self.pause()
            if self.due and not state.bad:  # or a run that diverged could not do the skipped steps again
                self.save(partial(self.reporter.refresh, self.moment))
        assert state.step == steps, "the loader ended before its length"

    def step(self, batch: Batch, samples: int) -> None:
        """One step; ``samples`` are those of all processes together."""
        state = self.state
        late = self.group.first and time.monotonic() - self.saved >= self.checkpoint_seconds
        wishes = (self.signals.stop is not None, late)
        rate = self.calendar.lr(state.steps)
        self.batch = batch
        loss, bad, (self.stopping, self.due) = self.trained.step(batch, samples, state.steps, rate, wishes)
        self.batch = None
        if not bad:
            state.loss_sum += loss
            state.good += 1
            state.bad = 0
        elif bad == "loss" or not self.trained.searching:
            self.skip(batch, bad)
        state.steps += 1
        self.recorder.step(state.steps, None if bad else loss, samples)

    def skip(self, batch: Batch, what: str) -> None:
        """Count a bad step, say which it was, and stop if there were too many."""
        state = self.state
        state.bad += 1
        names = [self.data.train.names[index] for index in batch["index"][:4].tolist()]
        place = f"epoch {state.epoch + 1}, step {state.step + 1} ({self.task.noun} {', '.join(names)}, ...)"
        if state.bad >= self.recipe.run.max_bad_steps:
            raise Diverged(
                f"the {what} is not finite, {state.bad} steps in a row, the last at {place}; "
                f"lower lr={self.recipe.optimizer.lr:g}, set clip_grad=1, or look at these {self.task.noun}"
            )
        self.progress.say(f"skipped a step: the {what} is not finite at {place}")

    def end_epoch(self) -> None:
        """Validate, note the row, keep the weights if they are the best, save, publish."""
        state = self.state
        self.writer.wait()  # it reads what changes here, and the loader's processes are forked from one thread
        judged = self.trained.judged
        self.group.share_buffers(judged)
        loader = _Watched(self)
        metric = judged.metric()
        metrics = evaluate(judged, loader, self.group.device, self.recorder.witnesses, metric)
        self.tick()
        state.epoch += 1
        loss = state.loss_sum / state.good if state.good else math.nan
        row = finite(
            {"epoch": state.epoch, "step": state.steps, "loss": loss}
            | {f"val_{name}": value for name, value in metrics.items()}
        )
        better = self.keeps(row)
        last = state.steps >= self.calendar.total
        if better or last or state.epoch % max(1, len(self.calendar.lengths) // LEARNT_POINTS) == 0:
            row |= finite(self.recorder.learnt(judged))
        row |= finite({"lr": self.calendar.lr(state.steps - 1), "seconds": round(state.seconds, 3)})
        row |= finite(self.recorder.speed())
        state.history.append(row)
        if better:
            state.best = row
            self.best_weights = self.group.gather(judged.model.state_dict())
        self.recorder.judged(state.epoch, better, metric)
        state.step, state.loss_sum, state.good = 0, 0.0, 0
        early = self.tired and not last
        state.finished = early or last
        self.save(partial(self.publish, self.moment, weights=better), _bytes(self.best_weights))
        headline = self.task.headline
        value, speed = self.task.shown(headline, row[f"val_{headline}"]), pace(row, self.task.noun)
        shown = f"loss {loss:.3f}  val {headline} {value}  {speed}"
        self.progress.epoch(state.steps, f"epoch {state.epoch}/{len(self.calendar.lengths)}  {shown}")
        if self.progress.show:
            self.reporter.speak_up(self.moment, self.progress.say)
        if early:
            best = state.best["epoch"] if state.best else state.epoch
            self.progress.say(
                f"ended after epoch {state.epoch}: no better {headline} since epoch {best}, whose weights are kept "
                f"(patience={self.recipe.run.patience})"
            )

    @property
    def tired(self) -> bool:
        """Whether as many validations in a row as the recipe's patience were no better than the best one."""
        state, patience = self.state, self.recipe.run.patience
        return patience > 0 and state.best is not None and state.epoch - state.best["epoch"] >= patience

    def keeps(self, row: dict[str, Any]) -> bool:
        """Whether the weights of this validation are to be kept instead of those before."""
        best, slack = self.state.best, self.recipe.run.slack
        if best is None or self.rank(row) > self.rank(best):
            return True
        score = self.rank(row)[0]
        return slack > 0 and math.isfinite(score) and score >= max(self.rank(r)[0] for r in self.state.history) - slack

    def rank(self, row: dict[str, Any]) -> tuple[float, float]:
        """The larger, the better: the headline, then the validation loss."""
        value, loss = row[f"val_{self.task.headline}"], row.get("val_loss")
        sign = -1 if self.task.lower_is_better else 1
        return (-math.inf if value is None else sign * value, -math.inf if loss is None else -loss)

    def describe(self) -> str:
        """Where the run stands, in a few words."""
        state = self.state
        loss = state.loss_sum / state.good if state.good else math.nan
        lengths = self.calendar.lengths
        step = f"step {state.step}/{lengths[min(state.epoch, len(lengths) - 1)]}"
        return f"epoch {state.epoch + 1}/{len(lengths)}  {step}  loss {loss:.3f}"

    def result(self) -> FitResult:
        """The finished run."""
        best = read_json(self.out / "best.json")
        best.pop("versions")
        return FitResult(best, self.state.history, self.state.seconds, self.out / WEIGHTS)


def in_parts(recipe: Recipe, like: Recipe) -> Recipe:
    """The recipe as another one says what a run may go on with: parts per step, and the path of the data.

    The first are a matter of memory, and the data are known by what they are, not by what they are called.
    """
    return with_values(recipe, accumulate=like.run.accumulate, data=like.run.data)


class _Watched:
    """The validation's batches, with signals let through between two of them and while one is awaited."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.run.arriving(self.run.val_loader, epoch, start):
            self.run.pause()
            yield batch
