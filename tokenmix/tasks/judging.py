"""What follows an evaluation beside the metric, and what is told at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tokenmix.metrics import ItemScores, Metric
from tokenmix.tasks.objective import Batch

if TYPE_CHECKING:
    from tokenmix.data import Samples


@dataclass(frozen=True)
class Judged:
    """Samples that a model is judged by.

    Attributes:
        name: Of the data.
        samples: They.
        facts: Of the data set that they belong to.
        labelled: Whether their answers are known; else they can only be predicted.

    Examples:
        >>> from tokenmix.data import Samples
        >>> judged = Judged("pets", Samples(["cat.jpg", "dog.jpg"]), {"classes": ("cat", "dog")})
        >>> len(judged.samples), judged.labelled
        (2, True)
    """

    name: str
    samples: Samples
    facts: Mapping[str, Any]
    labelled: bool = True


class Witness(Protocol):
    """What else may follow an evaluation: a metric, or whoever keeps the answers.

    Examples:
        >>> class Seen:
        ...     batches = 0
        ...     def update(self, prediction, batch):
        ...         self.batches += 1
        >>> witness: Witness = Seen()
    """

    def update(self, prediction: Any, batch: Batch) -> None:
        """See a batch, and what the objective predicts for it."""


class Evidence(Protocol):
    """What a page shows of the weights that are kept: gathered while they are validated, as plain data.

    ``witnesses`` see the validation; ``gather``, called by every process after each one, gives values small enough for
    a checkpoint; ``picture`` makes of an entry of their ``mistakes`` what the page shows.

    Examples:
        >>> from tokenmix.tasks import find_task
        >>> evidence = find_task("classification").evidence(recipe, data)  # doctest: +SKIP
        >>> [type(one).__name__ for one in evidence.witnesses]  # doctest: +SKIP
        ['Answers']
    """

    @property
    def witnesses(self) -> Sequence[Witness]:
        """They see the validation."""

    def gather(self, metric: Metric) -> dict[str, Any]:
        """The evidence of all processes, from what the witnesses saw, which they forget, and the task's own metric."""

    def picture(self, entry: Mapping[str, Any]) -> Any:
        """What the page shows of an entry, as the task's page reads it.

        Raises:
            NotImplementedError: The samples only stream.
            OSError: The file is gone.
            ValueError: It is broken.
        """


class Judging:
    """What an evaluation of a task notes beside its metric, and what it tells at the end.

    Args:
        metric: The objective's own.
        facts: Of the data set, see `Task.facts`.

    Examples:
        >>> from tokenmix.metrics import TopK
        >>> judging = Judging(TopK(), {"classes": ("cat", "dog")})
        >>> judging.numbers(), judging.rows(), judging.base_line()  # what a task adds; here nothing
        ({}, [], None)
    """

    def __init__(self, metric: Metric, facts: Mapping[str, Any]) -> None:
        self.metric, self.facts = metric, facts
        self.witnesses: tuple[Witness, ...] = ()

    def finish(self) -> None:
        """Gather what the witnesses saw; every process must call this once, after the last batch."""

    def numbers(self) -> dict[str, float]:
        """What is told beside the metric's own numbers."""
        return {}

    def base_line(self) -> tuple[float, str] | None:
        """The headline that needs no model, and how it is reached in words; None where there is none."""
        return None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each class, variable or other part of the data; none where there are no parts."""
        return []

    def item_scores(self) -> ItemScores | None:
        """The headline by test items, in the order of the set, of one process; None where it cannot be told so."""
        return None


class PredictionsWriter(Witness, Protocol):
    """Writes the answers of an evaluation: while it runs, or at its end."""

    def finish(self, judging: Judging) -> None:
        """Write what is left; called in the first process."""
