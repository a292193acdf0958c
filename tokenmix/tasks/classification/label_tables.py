"""Tables of labels beside the pictures: each row has a picture and its class, as competitions hand them out."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenmix.data.inventory import Inventory
from tokenmix.data.picture_names import PictureFinder, split_of_path
from tokenmix.data.split_words import split_in, split_of
from tokenmix.data.text_files import read_text
from tokenmix_runtime.terminal import shown

ENDINGS = (".csv", ".tsv", ".txt", ".jsonl")
CLASS_COLUMNS = (
    *("class_name", "label_name", "category_name", "classname", "labelname", "label", "class", "category", "target"),
    *("labels", "classes", "species", "breed", "diagnosis", "dx", "y"),
)
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "part", "phase")
CLASS_FILES = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "names.txt", "categories.txt")
MOST_BYTES = 1 << 28
SAMPLE = 200  # rows from which columns are told apart
_Table = tuple[list[str], list[list[str]]]  # names of the columns, "" where there is no header, and rows


@dataclass
class Labels:
    """What tables say of pictures.

    Attributes:
        rows: Picture to (split, class); the split is ``""`` where nothing tells it.
        files: The tables.
        notes: What was decided.
        unused: By the reason, rows that are not used, and pictures without a row.
    """

    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)


def read_label_tables(inventory: Inventory) -> Labels | None:
    """The classes of a folder's pictures by the tables in it; None where no table names its pictures and classes.

    A table is a CSV file or a list with spaces, with or without a header, or JSON lines. The column of pictures is the
    one whose cells name most of them: by their path, their name, or their name without its ending. The classes' column
    goes by its name, or is the only one whose values repeat; a column for each class has a 1 in one of them.

    Raises:
        ValueError: It cannot be told which column has the class, a row has several, or two rows contradict each other.
    """
    found, finder = Labels(), PictureFinder(inventory.pictures)
    for file in inventory.others:
        if not file.lower().endswith(ENDINGS) or "submission" in file.lower() or _base(file) in CLASS_FILES:
            continue
        try:
            table = _read(inventory.root / file)
        except ValueError:
            if file.lower().endswith(".txt"):  # a note, say
                continue
            raise
        hint = split_in(Path(file).stem)
        place = _picture_column(table, finder, file, hint) if table else None
        if table is not None and place is not None:
            _add(found, file, table, place, finder, hint)
    if not found.rows:
        return None
    _name_classes(found, inventory)
    return found


def _add(found: Labels, file: str, table: _Table, place: int, finder: PictureFinder, hint: str) -> None:
    """The rows of one table."""
    header, rows = table
    if finder.find(rows[0][place], file, hint) and not any(header):
        names = [f"column {i + 1}" for i in range(len(rows[0]))]
    else:
        names, rows = (header, rows) if any(header) else (rows[0], rows[1:])
    titles = [name.strip().lower() for name in names]
    others = [i for i in range(len(names)) if i != place]
    split_place = next(
        (i for i in others if titles[i] in SPLIT_COLUMNS and all(split_of(row[i]) for row in rows[:SAMPLE])), None
    )
    columns = {i: [row[i].strip() for row in rows] for i in others if i != split_place}
    classes, told = _classes(file, names, columns)
    if classes is None:
        return
    missing, empty = [], []
    for row, label in zip(rows, classes, strict=True):
        picture = finder.find(row[place], file, hint)
        if not picture:
            missing.append(row[place])
        elif not label:
            empty.append(row[place])
        else:
            split = split_of(row[split_place]) if split_place is not None else split_of_path(picture) or hint
            before = found.rows.setdefault(picture, (split, label))
            if before[1] != label:
                raise ValueError(f"{file}: {shown(picture)} has two classes, {before[1]!r} and {label!r}: leave one")
            if before[0] != split and before[0] and split:
                raise ValueError(f"{file}: {shown(picture)} is in {before[0]} and in {split}")
            found.rows[picture] = before[0] or split, label
    found.files.append(file)
    found.notes.append(f"{file}: pictures by {names[place]!r}, classes by {told}")
    for reason, cells in (("picture is not there", missing), ("class is empty", empty)):
        if cells:
            found.unused[f"row of {file} whose {reason}: not used"] = cells


def _classes(file: str, names: Sequence[str], columns: dict[int, list[str]]) -> tuple[list[str] | None, str]:
    """The class of each row and which column tells it; None where the table has none, as one of pictures to predict."""
    called = sorted(
        (i for i in columns if names[i].strip().lower() in CLASS_COLUMNS),
        key=lambda i: CLASS_COLUMNS.index(names[i].strip().lower()),
    )
    if called:
        first = columns[called[0]]
        for other in called[1:]:
            if len(set(zip(first, columns[other], strict=True))) > len(set(first)):  # a number and a name are one thing
                raise ValueError(
                    f"{file}: the class can be in the columns {', '.join(repr(names[i]) for i in called)}: leave one"
                )
        return [_plain(cell) for cell in first], repr(names[called[0]])
    flags = [i for i, cells in columns.items() if {_plain(cell) for cell in cells} <= {"0", "1"}]
    if len(flags) > 1:
        labels = []
        for row in zip(*(columns[i] for i in flags), strict=True):
            ones = [names[i].strip() for i, cell in zip(flags, row, strict=True) if _plain(cell) == "1"]
            if len(ones) > 1:
                raise ValueError(f"{file}: a row has several classes, {', '.join(ones[:5])}: one is learnt per picture")
            labels.append(ones[0] if ones else "")
        return labels, f"the columns {', '.join(repr(names[i]) for i in flags[:5])}{', ...' if flags[5:] else ''}"
    repeated = [i for i, cells in columns.items() if 1 < len(set(cells)) <= max(2, len(cells) // 2)]
    if len(repeated) > 1:
        raise ValueError(
            f"{file}: the class can be in the columns {', '.join(repr(names[i]) for i in repeated)}: call its column "
            "'label'"
        )
    return (None, "") if not repeated else ([_plain(cell) for cell in columns[repeated[0]]], repr(names[repeated[0]]))


def _plain(cell: str) -> str:
    """Whole numbers without the decimals that tables give them."""
    return cell[:-2] if cell.endswith(".0") and cell[:-2].isdecimal() else cell


def _name_classes(found: Labels, inventory: Inventory) -> None:
    """Names instead of numbers, where a list of classes lies beside the tables."""
    labels = {label for _, label in found.rows.values()}
    if not all(label.isdecimal() and len(label) < 7 for label in labels):
        return
    for file in (name for name in inventory.others if _base(name) in CLASS_FILES):
        lines = [line.strip() for line in read_text(inventory.root / file).splitlines() if line.strip()]
        split = [line.split(maxsplit=1) for line in lines]
        numbered = all(len(parts) == 2 and parts[0].isdecimal() for parts in split)
        names = {parts[0]: parts[1] for parts in split} if numbered else {str(i): line for i, line in enumerate(lines)}
        if labels <= names.keys() and len(set(names.values())) == len(names):
            found.rows = {picture: (part, names[label]) for picture, (part, label) in found.rows.items()}
            found.files.append(file)
            found.notes.append(f"{file}: names of the classes")
            return


def _picture_column(table: _Table, finder: PictureFinder, file: str, hint: str) -> int | None:
    """The column that names most pictures, of at least half of the rows; of two such rather the one without numbers."""
    rows = table[1][:SAMPLE]
    found = [{finder.find(row[i], file, hint, sure=False) for row in rows} - {""} for i in range(len(rows[0]))]
    best = max(range(len(found)), key=lambda i: (len(found[i]), sum(not row[i].isdecimal() for row in rows)))
    return best if len(rows[0]) > 1 and 2 * len(found[best]) >= len(rows) - 1 > 0 else None


def _read(path: Path) -> _Table | None:
    """Names of columns and rows of one width, None of what is no table."""
    lines = [line for line in read_text(path, most=MOST_BYTES).splitlines() if line.strip()]
    if len(lines) < 2:
        return None
    if path.suffix.lower() == ".jsonl":
        return _of_json(lines)
    for delimiter in (",", ";", "\t"):
        try:
            rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        if len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
            return [""] * len(rows[0]), rows
    rows = [line.rsplit(maxsplit=1) for line in lines]
    return ([""] * 2, rows) if all(len(row) == 2 for row in rows) else None


def _of_json(lines: Iterable[str]) -> _Table | None:
    try:
        entries = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    names = [name for name, value in entries[0].items() if isinstance(value, str | int | float)]
    return (names, [[str(entry.get(name, "")) for name in names] for entry in entries]) if names else None


def _base(path: str) -> str:
    return path.rpartition("/")[2].lower()
