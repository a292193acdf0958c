"""Which samples of a folder a trained model is judged by, so that it is not judged by what it has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.data.dataset import DataSet
from tokenmix.data.identity import PARTS, stored_contents
from tokenmix.data.random_numbers import stratified

OWN = 0.5  # the share of known samples from which on a folder is the run's own
ALL = "all"
SHARES = {"val": 0.15, "test": 0.15}


def part_of(data: DataSet, split: str | None, name: str) -> Any:
    """A part of a data set that is in parts, samples of its kind; the test part where none is named.

    Raises:
        ValueError: All of it is wanted.
    """
    if split == ALL:
        raise ValueError(f"{name} is in parts: --split all is for folders; name train, val or test")
    return getattr(data, split or "test")


def choose(
    path: Path,
    contents: NDArray[np.uint64],
    folders: Sequence[str],
    names: Sequence[str],
    labels: Sequence[int],
    learnt: Mapping[str, Any] | None,
    split: str | None,
    seed: int,
) -> tuple[list[int], list[str]]:
    """The rows that are judged, and what is to be said about them.

    Of the run's own data, which are known by their contents whatever they are called, its test part, or where it was
    tested on the validation part that one; of any other folder everything; of a folder with parts, where the model does
    not say what it has learnt from, the test part, or else the validation part; with ``split`` the part of that name.

    Args:
        path: The folder, for messages.
        contents: 64 bits of each sample's content, (N,).
        folders: The split whose folder each sample lies in; ``""`` where the folder has none.
        names: Of the samples.
        labels: Their classes, or zeros.
        learnt: What the model says of its data, see `tokenmix.data.identity.DataIdentity.brief`.
        split: ``"train"``, ``"val"``, ``"test"``, ``"all"``, or None.
        seed: Of the split, where nothing else tells it.

    Raises:
        ValueError: The part has no samples.
    """
    count = len(contents)
    known = {part: np.isin(contents, stored_contents(learnt or {}, part)) for part in PARTS}
    of_run = known["train"] | known["val"] | known["test"]
    own = bool(count) and of_run.mean() >= OWN
    notes: list[str] = []
    if split in (None, ALL):
        chosen = np.ones(count, bool)
        if own and split is None:
            chosen = known["test"] & ~known["train"] & ~known["val"]
            new = int((~of_run).sum())
            also = f"; {new:,} new ones are not in it, --split all judges all" if new else ""
            what = "test samples"
            if not chosen.any():  # of a set without a test part the validation samples are tested on
                chosen = known["test"] & ~known["train"]
                what = "validation samples, by which its best epoch was chosen, as there are no test samples"
            notes.append(f"{path}: the model's own data: their {int(chosen.sum()):,} {what}{also}")
            if not chosen.any():
                raise ValueError(f"{path}: the model has learnt from all of it; --split all judges all the same")
        elif split is None and not (learnt or {}).get("parts") and any(folders):
            part = next(part for part in ("test", "val", "train") if part in folders)
            chosen = np.array([folder == part for folder in folders])
            notes.append(f"{path}: the model does not say what it has learnt from: judged by the part {part!r}")
        elif split is None and not (learnt or {}).get("parts"):
            notes.append(
                f"{path}: the model does not say which samples it has learnt from: all {count:,} are judged, and where "
                "it has learnt from these it is flattered; --split test judges those that its run would split off"
            )
        elif split is None and any(folders):
            notes.append(f"{path}: not the model's own data: all of its {count:,} samples are judged")
    elif any(folders):
        chosen = np.array([folder == split for folder in folders])
    elif own:
        chosen = known[split]
    else:
        parts, _ = stratified(labels, list(SHARES.values()), seed, names)
        own_rows = dict(zip((*SHARES, "train"), parts, strict=True))[split]
        chosen = np.isin(np.arange(count), own_rows)
    if not chosen.any():
        raise ValueError(f"{path}: it has no samples in its part {split!r}")
    rows = np.flatnonzero(chosen)
    return rows.tolist(), notes + learnt_among(contents[rows], learnt, split)


def learnt_among(contents: NDArray[np.uint64], learnt: Mapping[str, Any] | None, split: str | None) -> list[str]:
    """What is to be said of samples from which a model has learnt, or by which its best epoch was chosen.

    Args:
        contents: 64 bits of each sample's content, (N,).
        learnt: See `choose`.
        split: The part that the user chose; of ``"train"`` nobody needs to be told.
    """
    train, val, test = (np.isin(contents, stored_contents(learnt or {}, part)) for part in PARTS)
    seen = int((train | (val & ~test)).sum())
    if not seen or split == "train":
        return []
    return [f"warning: the model has learnt from {seen:,} of these {len(contents):,} samples"]
