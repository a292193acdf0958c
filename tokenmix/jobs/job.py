"""A job: one training run in one folder, described by a file that any process on any machine can take up."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import find_device
from tokenmix.files import Busy, write_json
from tokenmix.recipes import Recipe, differences
from tokenmix.recipes.stored import check_recipe
from tokenmix.safety import judging_anew, trusting
from tokenmix.sources import load_data
from tokenmix.train import FitResult, fit
from tokenmix.train.loop import in_parts
from tokenmix_runtime.shortage import OutOfMemory
from tokenmix_runtime.terminal import say
from tokenmix_runtime.untrusted import read_json, shown

SCHEMA = "tokenmix.job/1"
KINDS = {"data_seed": int, "device": str, "workers": int, "download": bool, "threads": int}  # beside the recipe
MISTAKES = (ValueError, TypeError, OSError, ImportError, OutOfMemory)  # what a user can mend; anything else is a bug

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One training run.

    Args:
        folder: Where it leaves what ``fit`` writes, with ``job.json`` and, at the end, ``outcome.json``.
        recipe: What to do.
        data_seed: Decides how images that come in one heap are split.
        device: Where to train.
        workers: Processes that load images.
        download: Allow named data sets to be downloaded.
        threads: Processor threads; another number may change the last digits.
        label: Stands before each line of progress.
        data: Gives the data to a job of this process, for data that several share; None: the job loads its own.
        make: Makes the network, for one that the recipe cannot name; such a job cannot leave this process.

    Examples:
        >>> from tokenmix.recipes import make_recipe
        >>> Job(Path("runs/a"), make_recipe("basic"), data_seed=0).file.name
        'job.json'
    """

    folder: Path
    recipe: Recipe
    data_seed: int
    device: str = "cpu"
    workers: int = 0
    download: bool = False
    threads: int = field(default_factory=torch.get_num_threads)
    label: str = ""
    data: Callable[[], DataSet] | None = None
    make: Callable[[], nn.Module] | None = None

    @property
    def file(self) -> Path:
        """The description."""
        return self.folder / "job.json"

    @property
    def outcome_file(self) -> Path:
        """What came of it, once it has ended."""
        return self.folder / "outcome.json"

    def write(self) -> None:
        """Write the description."""
        plain = {name: getattr(self, name) for name in KINDS}
        write_json(self.file, {"schema": SCHEMA, "recipe": json.loads(self.recipe.to_json()), **plain})

    @classmethod
    def read(cls, folder: str | Path) -> Job:
        """The job of a folder.

        Raises:
            ValueError: There is none.
        """
        file = Path(folder) / "job.json"
        if not file.is_file():
            raise ValueError(f"{folder} holds no job: there is no {file.name} in it")
        values = read_json(file)
        if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
            raise ValueError(f"{file} is not of the schema {SCHEMA}")
        recipe = Recipe.from_values(values.pop("recipe", None), f"the recipe in {file}")
        if {name: type(value) for name, value in values.items()} != KINDS:
            raise ValueError(f"{file} must hold {', '.join(KINDS)}, and holds {shown(values)}")
        return cls(Path(folder), recipe, **values)


Outcome = FitResult | Exception  # what came of a job, or why it failed
Outcomes = Generator[Outcome, None, None]


class Queued(Exception):
    """Jobs are in a queue, and the results come later: the message says how to watch and to collect them.

    Args:
        message: For the user.
        id: The queue's name for them.
        unfinished: Their folders.

    Examples:
        >>> queued = Queued("the array job 42 is in the queue", "42", [Path("runs/a")])
        >>> queued.id, len(queued.unfinished)
        ('42', 1)
    """

    def __init__(self, message: str, id: str, unfinished: Sequence[Path]) -> None:
        super().__init__(message)
        self.id, self.unfinished = id, list(unfinished)


def claim(jobs: Sequence[Job]) -> None:
    """Write the description of every job into its folder.

    Raises:
        ValueError: A folder holds a run of another recipe or data split; then nothing was written.
    """
    for job in jobs:
        if not job.file.is_file():
            continue
        found = Job.read(job.folder)
        changed = differences(in_parts(found.recipe, job.recipe), job.recipe)
        if found.data_seed != job.data_seed:
            changed.append(f"seed of the split ({found.data_seed} -> {job.data_seed})")
        if changed:
            raise ValueError(
                f"{job.folder} holds a run of another recipe: {', '.join(changed)}; "
                "give another output folder, or start again with --fresh (fresh=True)"
            )
    for job in jobs:
        job.write()


def attempt(job: Job, log: Log) -> Outcome:
    """Train, or continue, or return at once if that is done, and leave what came of it in ``outcome.json``.

    An error is an outcome, a signal is raised. Where another process is at work in the folder, what comes of the job is
    for that one to write.
    """
    outcome: Outcome
    try:
        find_device(job.device)
        recipe = job.recipe
        load = job.data or partial(
            load_data, recipe.run.data, task=recipe.task.name, seed=job.data_seed, download=job.download, log=log
        )
        options: dict[str, Any] = {"device": job.device, "workers": job.workers, "label": job.label}
        outcome = fit(recipe, load(), job.folder, model=job.make, log=log, **options)
    except Exception as error:
        outcome = error
    if not isinstance(outcome, Busy):
        write_json(job.outcome_file, pack(outcome))
    return outcome


def perform(folder: str | Path, log: Log = say, *, trust: bool = False) -> Outcome:
    """Do the job that a folder describes, as `attempt` does it.

    Args:
        folder: Holds ``job.json``.
        log: Takes plain lines.
        trust: The job was described by the caller, and may name Python code, addresses and paths, see
            `tokenmix.safety`. `needs_trust` tells whoever hands it over.

    Returns:
        What the run has to show, or why it failed.

    Raises:
        ValueError: The folder holds no job, or one that says what no file may say.

    Examples:
        >>> from tokenmix.jobs import perform
        >>> outcome = perform("runs/a", trust=True)  # doctest: +SKIP
        >>> outcome if isinstance(outcome, Exception) else outcome.best["epoch"]  # doctest: +SKIP
        3
    """
    with trusting(trust):
        job = Job.read(folder)
        check_recipe(job.recipe, str(job.file))
        torch.set_num_threads(job.threads)
        return attempt(job, log)


def needs_trust(job: Job) -> bool:
    """Whether a job, which the person has described here, is done elsewhere only if that is said to its process.

    The saying goes with what starts the process, never in the job's file, where a stranger could write it too.
    """
    try:
        with judging_anew():
            check_recipe(job.recipe, str(job.file))
    except ValueError:
        return True
    return False


def pack(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    if isinstance(outcome, FitResult):
        return {"best": outcome.best, "history": outcome.history, "seconds": outcome.seconds}
    if isinstance(outcome, MISTAKES):
        return {"mistake": str(outcome)}
    return {"failure": "".join(traceback.format_exception(outcome))}


def unpack(found: dict[str, Any], job: Job) -> Outcome:
    """What ``pack`` put away; a mistake becomes a ValueError, anything else a RuntimeError."""
    if "mistake" in found:
        return ValueError(found["mistake"])
    if "failure" in found:
        return RuntimeError(f"the job in {job.folder} failed:\n{found['failure']}")
    return FitResult(**found, best_weights=job.folder / "best.safetensors")


def outcome_of(job: Job) -> Outcome | None:
    """What `attempt` left in the job's folder; None if the job has not ended."""
    file = job.outcome_file
    return unpack(read_json(file), job) if file.is_file() else None
