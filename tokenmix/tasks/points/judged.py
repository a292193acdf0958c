"""The clouds that a model is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenmix.data.judged import choose, learnt_among, part_of
from tokenmix.tasks.points.sets import CloudSet, Log, PointData


def judged_clouds(
    data: PointData, spec: str, learnt: Mapping[str, Any] | None, split: str | None, *, seed: int, log: Log
) -> CloudSet:
    """The clouds of a set that a network is judged by.

    Args:
        data: The set.
        spec: Its name or folder.
        learnt: What the network says of its data, see `tokenmix.data.judged.choose`.
        split: Which part; None: of a folder all that it has not learnt from, of a set with a name the test part.
        seed: Of the split, where the folder has none and the network does not know the folder.
        log: Hears what was decided.

    Raises:
        ValueError: See `tokenmix.data.judged.choose`.
    """
    parts = {"train": data.train, "val": data.val, "test": data.test}
    if data.train.paths is None or (split in parts and not data.split_off):
        clouds = part_of(data, split, spec)
        notes = learnt_among(clouds.contents(), learnt, split)
    else:  # a file may be in two parts, of which the last is told
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
        clouds = everything.subset(rows)
    for note in notes:
        log(note)
    return clouds
