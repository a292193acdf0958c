"""The pictures of a folder that a trained model is judged by: all of them, or what it has not learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenmix.data.dataset import printable, unreadable
from tokenmix.data.judged import choose
from tokenmix.data.natural import same
from tokenmix.tasks.base import Log
from tokenmix.tasks.classification.folder import read_class_folders, tell
from tokenmix.tasks.classification.images import FileImages
from tokenmix.tasks.judging import Judged
from tokenmix_runtime.names import unknown


@dataclass(frozen=True)
class _Rows:
    files: list[str]
    labels: list[int]
    parts: list[str]  # the split whose folder each lies in, "" where the folder has none
    labelled: bool = True  # else the labels mean nothing


def open_judged_folder(path: Path, loaded: Any, split: str | None, seed: int, log: Log) -> Judged:
    """The pictures of a folder, labelled by the model's classes, which are matched by name.

    Pictures outside of class folders have no label and are only predicted, where there are no others.

    Args:
        path: The folder.
        loaded: The model.
        split: Which part; None: all that it has not learnt from, see `tokenmix.data.judged.choose`.
        seed: Of the split, where the folder has none and the model does not know the folder.
        log: Hears what is chosen, and what is left out.

    Raises:
        ValueError: There is no picture, or one of a class that the model does not know.
    """
    rows = _rows(path, loaded.classes, log)
    images = FileImages(path, rows.labels, rows.files)
    failed = unreadable(images, log)
    kept = [row for row in range(len(images)) if row not in failed]
    if not kept:
        first = next(iter(failed.values()))
        raise ValueError(f"{path}: none of its {len(images):,} pictures can be read ({first.name}: {first.reason})")
    images, parts = images.subset(kept), [rows.parts[row] for row in kept]
    chosen, notes = choose(path, images.contents(), parts, images.names, images.labels, loaded.data, split, seed)
    for note in notes:
        log(note)
    return Judged(path.resolve().name, images.subset(chosen), {"classes": list(loaded.classes)}, rows.labelled)


def _rows(path: Path, classes: Sequence[str] | None, log: Log) -> _Rows:
    found = read_class_folders(path, judged=True)
    labelled = found.rows()
    if classes is None:
        raise ValueError(f"{path}: the model's classes have no names, so pictures cannot be matched to them")
    if not labelled:
        if not found.unlabelled:
            raise ValueError(f"{path}: no pictures")
        for note in found.notes:
            log(f"{path}: {note}")
        log(f"{path}: no folders of classes: its {len(found.unlabelled):,} pictures are predicted, and not judged")
        files = found.unlabelled
        return _Rows(files, [0] * len(files), [""] * len(files), labelled=False)
    tell(found, path, log)
    numbers = {same(name): number for number, name in enumerate(classes)}
    for _, label, name in labelled:
        if same(printable(label)) not in numbers:
            hint = unknown("class", label, list(classes))
            raise ValueError(f"{path} has other classes than the model was trained with ({name}): {hint}")
    parts = ["" if found.whole else split for split, _, _ in labelled]
    return _Rows([n for *_, n in labelled], [numbers[same(printable(label))] for _, label, _ in labelled], parts)
