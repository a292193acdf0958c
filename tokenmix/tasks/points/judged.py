"""The clouds of a folder that a model is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenmix.data.judged import choose
from tokenmix.tasks.points.sets import CloudSet, Log, PointData


def judged_clouds(
    data: PointData, spec: str, learnt: Mapping[str, Any] | None, split: str | None, *, seed: int, log: Log
) -> CloudSet:
    """The clouds of a folder that a network is judged by.

    Args:
        data: What lies in the folder.
        spec: The folder, for messages.
        learnt: What the network says of its data, see `tokenmix.data.judged.choose`.
        split: Which part; None: all that it has not learnt from.
        seed: Of the split, where the folder has none and the network does not know the folder.
        log: Hears what was decided.

    Raises:
        ValueError: See `tokenmix.data.judged.choose`.
    """
    parts = {"train": data.train, "val": data.val, "test": data.test}
    # A file may be in two parts, of which the last is told.
    places = {path: (part, row) for part, clouds in parts.items() for row, path in enumerate(clouds.paths or ())}
    order = list(places.values())
    everything = CloudSet(
        [parts[part].names[row] for part, row in order],
        lambda index: parts[order[index][0]].load(order[index][1]),
        list(places),
    )
    folders = ["" if data.split_off else part for part, _ in order]
    labels = [0] * len(order)
    rows, notes = choose(Path(spec), everything.contents(), folders, everything.names, labels, learnt, split, seed)
    for note in notes:
        log(note)
    return everything.subset(rows)
