"""YOLO's text files: a line per object, its class's number and a box or polygon in shares of the picture's sides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tokenmix.data.inventory import Inventory, summary
from tokenmix.data.natural import same
from tokenmix.data.split_words import split_in, split_of
from tokenmix.data.text_files import read_text
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.pairing import Pairing
from tokenmix.tasks.dense.values import text_of, whole_of

_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt", "classes.names", "labels.txt")
_MOST_SHARE = 8  # of a picture's side: a box may reach over the edge, but numbers beyond are pixels
_MOST_YAML, _MOST_ALIASES, _DEEPEST = 2**18, 20, 20  # bytes; 20 aliases make at most 1,500 copies
_OTHER_TEXTS = ("readme", "classes", "notes", "license", "requirements", "labels", "train", "val", "test", "valid")


def find_yolo(inventory: Inventory) -> str:
    """What speaks for this layout: ``data.yaml``, or text files with the names of pictures; empty if nothing does."""
    if (path := _yaml_path(inventory)) is not None:
        return path.relative_to(inventory.root).as_posix()
    labels = Pairing(_label_files(inventory))
    for picture in inventory.pictures:
        file = labels.of(picture)
        if file is not None and _is_label_text(inventory.root / file):
            return f"text files with the names of pictures, such as {file}"
    return ""


def _is_label_text(path: Path) -> bool:
    """Whether the first line of a text is a class's number and at least four numbers, or there is none."""
    try:
        line = next((line for line in text_of(path).splitlines() if line.strip()), "")
        return not line or len([float(word) for word in line.split()]) >= 5
    except (OSError, ValueError):
        return False


def _yaml_path(inventory: Inventory) -> Path | None:
    """``data.yaml`` in the root, or in a folder in which all pictures lie, as archives have one around everything."""
    named = sorted((name for name in inventory.others if PurePosixPath(name).name in _YAMLS), key=_depth_and_rank)
    for name in named:
        folder = name.rpartition("/")[0]
        if len(inventory.below(folder or ".")) == len(inventory.pictures):
            return inventory.root / name
    return None


def _depth_and_rank(name: str) -> tuple[int, int]:
    return name.count("/"), _YAMLS.index(PurePosixPath(name).name)


def _label_files(inventory: Inventory) -> list[str]:
    """The text files that may be a picture's."""
    named = [name for name in inventory.others if name.lower().endswith(".txt")]
    return [name for name in named if "/" in name or Path(name).stem.lower() not in _OTHER_TEXTS]


def read_yolo(inventory: Inventory) -> Layout:
    """The pictures that ``data.yaml`` or the folders' names give, with the text files of their names.

    Label files lie beside the pictures, or in folders that are called ``labels`` where those of the pictures are called
    ``images``. A picture without a file has no objects. The classes' names stand in ``data.yaml``, ``classes.txt``,
    ``obj.names`` or ``_darknet.labels``.

    Raises:
        ValueError: No names, no training pictures, no label file for any picture, or ``data.yaml`` says what is not so.
    """
    root = inventory.root
    stated = _yaml(inventory)
    numbers, classes = _classes(inventory, stated)
    parts, notes = _stated_parts(inventory, stated)
    parts = parts or _parts_by_folder(inventory)
    if not any(parts.values()):
        raise ValueError(f"{root}: no pictures; expected images/train and labels/train, or data.yaml with 'train'")
    layout = Layout("YOLO", classes, {split: [] for split in SPLITS})
    layout.strays += notes
    labels = Pairing(_label_files(inventory))
    points = _points(stated)
    bare, seen = list[str](), set[int]()
    for split, files in parts.items():
        for file in files:
            label_file = labels.of(file)
            if label_file is None:
                bare.append(file)
            objects = _objects(root, label_file, numbers, points, layout, seen) if label_file else []
            if isinstance(objects, str):
                layout.splits[split].append(Item(file, problem=objects))
            else:
                layout.splits[split].append(Item(file, objects))
    total = sum(map(len, parts.values()))
    if len(bare) == total:
        raise ValueError(
            f"{root}: no label file for any of its {total:,} pictures: {bare[0]} wants a text file of its name beside "
            "it, or in a folder 'labels' beside 'images'"
        )
    if seen and min(seen) == 1 and max(seen) == len(classes) and [*numbers] == [*range(len(classes))]:
        raise ValueError(
            f"{root}: the classes in its label files are numbered 1 to {max(seen)}; of the {len(classes)} names "
            f"the first, {classes[0]!r}, is 0: subtract 1 from the numbers, or put a name before the first"
        )
    layout.strays += [("picture without a label file: read as one without objects", name) for name in bare]
    lonely = [name for name in labels.left() if name not in inventory.used]
    layout.strays += [("label file without a picture: not used", name) for name in lonely]
    layout.strays += labels.doubts
    inventory.use([*labels.taken, *lonely])
    return layout


def _points(stated: dict[str, Any]) -> int:
    """How many numbers of key points stand behind each box."""
    shape = stated.get("kpt_shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) and 0 < side < 10_000 for side in shape):
        return 0
    return math.prod(shape)


def _yaml(inventory: Inventory) -> dict[str, Any]:
    """What ``data.yaml`` says; nothing where there is none."""
    import yaml  # comes with timm

    path = _yaml_path(inventory)
    if path is None:
        return {}
    inventory.use([path.relative_to(inventory.root).as_posix()])
    text = read_text(path, most=_MOST_YAML)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    try:
        _refuse_growth(yaml.parse(text, Loader=loader))
        content = yaml.load(text, Loader=loader)
    except Exception as error:  # YAML's constructors raise nearly every type on odd values
        raise ValueError(f"{path} cannot be read as YAML: {error or type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the keys train, val and names")
    return content


def _refuse_growth(events: Iterable[Any]) -> None:
    """Refuse a text whose aliases could multiply what it says, and one nested beyond any use, before it is built."""
    import yaml

    aliases = depth = 0
    for event in events:
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > _MOST_ALIASES:
            raise ValueError(f"it has more than {_MOST_ALIASES} aliases (*name): write the values out")
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _stated_parts(inventory: Inventory, stated: dict[str, Any]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The pictures of each part as ``data.yaml`` gives them: a folder, a text file of pictures, or a list of these.

    Test pictures that are not there are only named: tools write their place down by default, and seldom export any.

    Raises:
        ValueError: Another one of them is not there.
    """
    root, parts = inventory.root, dict[str, list[str]]()
    notes = list[tuple[str, str]]()
    for key in ("train", "val", "valid", "test"):
        places = stated.get(key)
        if not places:
            continue
        split, files = split_in(key), []
        for place in places if isinstance(places, list) else [places]:
            found = _pictures_at(inventory, stated, place)
            if found is None and (end := _end_of(inventory, stated, place)):
                notes.append(
                    ("path of data.yaml from another machine: its end is read here", f"{key}: {place} as {end}")
                )
                found = _pictures_at(inventory, stated, end)
            if found is None and key == "test":
                notes.append(("part that data.yaml names and that is not there: left out", f"test: {place}"))
                continue
            if found is None:
                tops = sorted({f"{name.split('/')[0]}/" for name in inventory.pictures if "/" in name})
                near = f"; its folders are {', '.join(tops[:8])}" if tops else ""
                raise ValueError(f"{root}: data.yaml says {key}: {place}, and there is no such folder or list{near}")
            files += found
        parts[split] = list(dict.fromkeys([*parts.get(split, []), *files]))
    return parts, notes


def _pictures_at(inventory: Inventory, stated: dict[str, Any], place: Any) -> list[str] | None:
    """The pictures of a folder or list as ``data.yaml`` names it, or None where there is none."""
    root = inventory.root
    clean = str(place).replace("\\", "/").removeprefix("./")
    while clean.startswith("../"):  # as some tools write it, although the folder is beside data.yaml
        clean = clean.removeprefix("../")
    inner, home = root.resolve(), (_yaml_path(inventory) or root / "data.yaml").parent
    for base in (home / str(stated.get("path", ".")), home, home / home.name / "..", root):
        path = (base / clean).resolve()
        if not path.is_relative_to(inner):
            continue
        relative = path.relative_to(inner).as_posix()
        if path.is_dir():
            found = inventory.below(relative)
            inside = [name for name in found if f"{relative}/images/".removeprefix("./") in f"{name}/"]
            return inside or found
        if path.is_file() and path.suffix.lower() == ".txt":
            inventory.use([relative])
            return _listed(inventory, text_of(path).splitlines(), path)
    return None


def _end_of(inventory: Inventory, stated: dict[str, Any], place: Any) -> str:
    """Of an absolute path the longest end that is there, as of ``/content/set/images/train`` ``images/train``."""
    clean = str(place).replace("\\", "/")
    if not clean.startswith("/") and clean[1:3] != ":/":
        return ""
    parts = clean.strip("/").split("/")
    ends = ("/".join(parts[begin:]) for begin in range(1, len(parts)))
    return next((end for end in ends if _pictures_at(inventory, {}, end)), "")


def _listed(inventory: Inventory, lines: Sequence[str], path: Path) -> list[str]:
    """The pictures that a text file names, one a line, by their paths from the folder or from anywhere above it."""
    there = {same(name): name for name in inventory.pictures}
    found, missing = list[str](), list[str]()
    for line in filter(None, (line.strip().replace("\\", "/").removeprefix("./") for line in lines)):
        parts = line.split("/")
        tails = ("/".join(parts[begin:]) for begin in range(len(parts)))
        name = next((there[same(tail)] for tail in tails if same(tail) in there), None)
        (found if name else missing).append(name or line)
    if missing and not found:
        raise ValueError(f"{path}: none of the {len(missing):,} pictures it names is there ({summary(missing)})")
    return found + missing


def _parts_by_folder(inventory: Inventory) -> dict[str, list[str]]:
    """The pictures by the split that a folder of their path means, or a list ``train.txt`` names; else all train."""
    lists = {split_of(Path(name).stem): name for name in inventory.others if "/" not in name and name.endswith(".txt")}
    lists = {split: name for split, name in lists.items() if split}
    if "train" in lists:
        root = inventory.root
        inventory.use(lists.values())
        return {
            split: _listed(inventory, text_of(root / name).splitlines(), root / name) for split, name in lists.items()
        }
    parts: dict[str, list[str]] = {}
    for name in inventory.pictures:
        words = [split_of(part) for part in name.split("/")[:-1]]
        parts.setdefault(next(filter(None, words), ""), []).append(name)
    if "train" not in parts and "" in parts:
        parts["train"] = parts.pop("")
    if len(parts) > 1:
        parts.pop("", None)
    return parts


def _classes(inventory: Inventory, stated: dict[str, Any]) -> tuple[dict[int, int], list[str]]:
    """The place in the list of each class's number, and the list."""
    root = inventory.root
    names: dict[int, str] = {}
    given = stated.get("names")
    if isinstance(given, dict):
        keys = {key: number for key in given if (number := _number(key)) is not None and number >= 0}
        if len(keys) < len(given):
            raise ValueError(f"{root}: the names in data.yaml must be a list, or numbered 0, 1, 2, ...")
        names = {number: given[key] for key, number in sorted(keys.items(), key=lambda entry: entry[1])}
    elif isinstance(given, list):
        names = dict(enumerate(given))
    if any(isinstance(name, list | dict | tuple | set) for name in names.values()):
        raise ValueError(f"{root}: a name in data.yaml is a list of its own: give a word for each class")
    if not names:
        files = [name for name in inventory.others if name.rsplit("/", 1)[-1].lower() in _NAMES]
        if not files:
            raise ValueError(
                f"{root}: no names of the classes: write them into classes.txt, one a line, or data.yaml, 'names'"
            )
        file = min(files, key=lambda name: (name.count("/"), name))
        inventory.use(files)
        lines = [line.strip() for line in text_of(root / file).rstrip().splitlines()]
        if "" in lines:
            raise ValueError(
                f"{root / file}: line {lines.index('') + 1} is empty: which number has the class below it?"
            )
        names = dict(enumerate(lines))
    count = stated.get("nc")
    if count is not None and _number(count) != len(names):
        raise ValueError(f"{root}: data.yaml says nc: {count}, but names {len(names)} classes: put one of them right")
    return {number: place for place, number in enumerate(names)}, [str(name) for name in names.values()]


def _number(value: Any) -> int | None:
    """A whole number, also as a text; None for anything else."""
    try:
        return whole_of(value)
    except ValueError:
        return None


def _objects(
    root: Path, file: str, numbers: dict[int, int], points: int, layout: Layout, seen: set[int]
) -> list[RawObject] | str:
    """The objects in a file, or what is wrong with it; ``points`` numbers stand behind each box.

    The classes' numbers, as the file has them, are added to ``seen``.
    """
    try:
        lines = text_of(root / file).splitlines()
    except (OSError, ValueError):
        return "label file that cannot be read: left out"
    objects = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, *values = [float(word) for word in line.split()]
        except ValueError:
            label, values = math.nan, []
        if points and len(values) in (4 + points, 5 + points):
            values = values[:4]
        if len(values) == 5:  # a score, as predictions have it
            values = values[:4]
        wrong = label != label or label % 1 or (len(values) != 4 and (len(values) < 6 or len(values) % 2))
        if wrong or (points and len(values) != 4):
            layout.strays.append(("line that is no object: left out", f"{file} line {number}"))
            continue
        if any(abs(value) > _MOST_SHARE for value in values):
            kind = f"line with numbers beyond {_MOST_SHARE}, which are no shares of the sides: left out"
            layout.strays.append((kind, f"{file} line {number}"))
            continue
        seen.add(int(label))
        place = numbers.get(int(label))
        known = None if place is None else place + 1
        name = f"line {number}"
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            objects.append(RawObject(known, box, relative=True, name=name))
        else:
            objects.append(RawObject(known, None, relative=True, shape=[values], name=name))
    return objects
