"""COCO's JSON: boxes, polygons, run-length codes and crowds (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import math
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tokenmix.data.inventory import Inventory
from tokenmix.data.natural import same
from tokenmix.data.split_words import split_in
from tokenmix.data.text_files import read_json
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.values import Entry, Id, entry_of, key_of, number_of, truth_of, whole_of


class _Image(Entry):
    id: Id
    file_name: str
    width: Any = None
    height: Any = None


class _Category(Entry):
    id: Id
    name: str


class _Annotation(Entry):
    """What is wrong with one of them is no reason to refuse the file: its values are converted one by one."""

    image_id: int | float | str
    category_id: int | float | str
    id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    segmentation: Any = None


_LISTS = ("images", "annotations", "categories")
_LARGEST_OTHER = 2**24  # bytes: a file that is not called as COCO's are is looked into up to this size


def find_coco(inventory: Inventory) -> dict[str, Path]:
    """The annotation file of each split, of those that hold COCO's lists; one without a split's name is ``train``'s.

    Raises:
        ValueError: Two files for one split.
    """
    root = inventory.root
    files = [root / name for name in inventory.others if name.lower().endswith(".json") and name.count("/") <= 3]
    files = [path for path in files if _is_coco(path)]
    told = [path for path in files if path.name.startswith("instances")] or files
    found: dict[str, Path] = {}
    for path in told:
        split = _split(root, path)
        if split in found:
            names = " and ".join(str(one.relative_to(root)) for one in (found[split], path))
            raise ValueError(f"{root}: {names} are both for {split}: keep one of them")
        found[split] = path
    return found


def _split(root: Path, path: Path) -> str:
    """The split that a file speaks of, by its own name or its folder's."""
    inner = path.relative_to(root)
    return split_in(path.stem) or next(filter(None, map(split_in, reversed(inner.parts[:-1]))), "") or "train"


def _is_coco(path: Path) -> bool:
    """Whether a file has COCO's lists; other files of the kind are configurations and notes."""
    if path.name.startswith(("instances_", "_annotations.coco")):
        return True  # what is wrong with it is said when it is read
    try:
        if path.stat().st_size > _LARGEST_OTHER and not split_in(path.stem):
            return False
        content = read_json(path)
    except (OSError, ValueError):
        return bool(split_in(path.stem))  # a broken ``train.json`` is not passed over
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(inventory: Inventory) -> Layout:
    """The data set of `find_coco`'s files; the classes are those of the training file, in the order of their ids.

    Where there is none, as of pictures to be judged, they are those of the first file. Each file has its own numbers
    for the classes, which are matched by name.

    Raises:
        ValueError: A file is not COCO's JSON, or a class is not in the training file.
    """
    root, files = inventory.root, find_coco(inventory)
    first = "train" if "train" in files else next(iter(files))
    contents = {split: _parse(path) for split, path in files.items()}
    listed = {split: _categories(files[split], content) for split, content in contents.items()}
    order = sorted(listed[first].items(), key=lambda entry: (isinstance(entry[0], str), entry[0]))
    names = [name for _, name in order]
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{files[first]}: two categories are called {double[0]!r}: give them names of their own")
    place = {name: number for number, name in enumerate(names, 1)}
    layout = Layout("COCO", names, {split: [] for split in SPLITS}, class_ids=[number for number, _ in order])
    inventory.use(path.relative_to(root).as_posix() for path in files.values())
    for split, content in contents.items():
        if not content["annotations"]:  # COCO's test images come without
            continue
        labels = {number: place[name] for number, name in listed[split].items() if name in place}
        strange = sorted(name for name in listed[split].values() if name not in place)
        used = {_key(entry.get("category_id")) for entry in content["annotations"] if isinstance(entry, dict)}
        shown = {listed[split][number] for number in used if number is not None and number in listed[split]}
        if unknown := [name for name in strange if name in shown]:
            raise ValueError(
                f"{files[split]}: has objects of {unknown[0]!r}, which {files[first].name} does not list "
                f"({', '.join(names[:10])}): classes are matched by name"
            )
        _read_split(inventory, files[split], content, labels, layout, split)
    return layout


def _key(value: Any) -> int | str | None:
    try:
        return key_of(value)
    except ValueError:
        return None


def _parse(path: Path) -> dict[str, list[Any]]:
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content.setdefault("categories", [])
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _LISTS):
        raise ValueError(f"{path} is not COCO's: it needs the lists {', '.join(_LISTS)}")
    return content


def _entries(path: Path, kind: type[Entry], content: Mapping[str, list[Any]], key: str) -> Iterator[Any]:
    """The entries of one of a file's lists.

    Raises:
        ValueError: One lacks something, or has a wrong value.
    """
    for number, entry in enumerate(content[key]):
        try:
            yield entry_of(kind, entry, f"{key}[{number}]")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _categories(path: Path, content: Mapping[str, list[Any]]) -> dict[int | str, str]:
    """The names of a file's classes by their ids."""
    found: dict[int | str, str] = {}
    for entry in _entries(path, _Category, content, "categories"):
        name = entry.name.strip()
        if found.setdefault(entry.id, name) != name:
            raise ValueError(f"{path}: the id {entry.id} is that of the classes {found[entry.id]!r} and {name!r}")
    return found


def _read_split(
    inventory: Inventory, path: Path, content: dict, labels: Mapping[Any, int], layout: Layout, split: str
) -> None:
    images: dict[int | str, tuple[str, _Image, Any]] = {}
    for number, image in enumerate(_entries(path, _Image, content, "images")):
        if image.id in images:
            layout.strays.append(("id of two pictures: the second is left out", f"{path.name} images[{number}]"))
            continue
        images[image.id] = (_clean(image.file_name), image, content["images"][number]["id"])
    place = _placed(inventory, path, split, [name for name, *_ in images.values()])
    objects: dict[Any, list[RawObject]] = defaultdict(list)
    seen: set[Any] = set()
    for number, entry in enumerate(_entries(path, _Annotation, content, "annotations")):
        mark = number if entry.id is None else entry.id
        owner = _key(entry.image_id)
        if owner is None or owner not in images:
            layout.strays.append(("object of a picture that is not listed: left out", f"{path.name} annotation {mark}"))
            continue
        if isinstance(entry.id, int | str):
            if entry.id in seen:
                layout.strays.append(("id of two objects: both are used", f"{path.name} annotation {mark}"))
            seen.add(entry.id)
        objects[owner].append(_object(entry, labels, f"annotation {mark}", path.name, layout))
    twice: set[str] = set()
    for key, (name, image, stated) in images.items():
        file = place(name)
        if file in twice:
            layout.strays.append(("picture that is listed twice: the second is left out", f"{path.name} {name}"))
            continue
        twice.add(file)
        size = _size(image)
        if size is None and image.width is not None and image.height is not None:
            layout.strays.append(("claimed size that is no number: not compared", f"{path.name} {name}"))
        layout.splits[split].append(Item(file, objects[key], size=size, id=stated))


def _clean(name: str) -> str:
    """A path as other systems write it: backslashes, and a leading ``./``."""
    return name.replace("\\", "/").removeprefix("./")


def _size(image: _Image) -> tuple[int, int] | None:
    try:
        return whole_of(image.width), whole_of(image.height)
    except ValueError:
        return None


def _object(entry: _Annotation, labels: Mapping[Any, int], name: str, file: str, layout: Layout) -> RawObject:
    box: Any = entry.bbox
    if box is not None:  # without one it is that of the polygons; one that cannot be read is a mistake
        try:
            left, top, width, height = map(number_of, box)
            box = (left, top, left + width, top + height)
        except (TypeError, ValueError):
            box = ()
    try:
        area = number_of(entry.area)
    except ValueError:
        area = math.nan
    try:
        crowd = truth_of(entry.iscrowd)
    except ValueError:
        crowd = False
        layout.strays.append(("iscrowd that is neither yes nor no: taken as no", f"{file} {name}"))
    return RawObject(
        labels.get(_key(entry.category_id)),
        box,
        crowd=crowd,
        area=area if 0 < area < math.inf else None,  # some tools write 0 for all
        shape=_shape(entry.segmentation),
        name=name,
    )


def _shape(shape: Any) -> Any:
    """Polygons as lists of numbers: also one that is not in a list of its own, and numbers as texts; or a code."""
    if isinstance(shape, dict):
        return _code(shape) or None
    if not isinstance(shape, list) or not shape:
        return shape or None
    if not isinstance(shape[0], list):
        shape = [shape]
    try:
        return [[number_of(value) for value in line] for line in shape]
    except (TypeError, ValueError):
        return shape


def _code(shape: dict[str, Any]) -> dict[str, Any]:
    """A run-length code whose whole numbers may be floats or texts; of anything else the same."""
    try:
        lists = {
            name: [*map(whole_of, shape[name])] for name in ("size", "counts") if isinstance(shape.get(name), list)
        }
    except ValueError:
        return shape  # named when it is checked
    return {**shape, **lists}


def _placed(inventory: Inventory, path: Path, split: str, names: list[str]) -> Callable[[str], str]:
    """Where the pictures are: the usual place that has the most of them; else wherever a file has that name.

    Raises:
        ValueError: None of them is there.
    """
    root, there = inventory.root, {same(file): file for file in inventory.pictures}
    year = path.stem.rsplit("_", 1)[-1]  # instances_train2017
    beside = path.parent.relative_to(root).as_posix()
    words = [beside, year, f"images/{year}", split, f"images/{split}", "images", "JPEGImages", "."]
    words += [f"{beside}/images", f"{beside}/../images", f"{beside}/../{split}"]
    places = [place for place in dict.fromkeys(map(posixpath.normpath, words)) if not place.startswith("..")]

    def at(place: str, name: str) -> str:
        return same(name if place == "." else f"{place}/{name}")

    best = max(places, key=lambda place: sum(at(place, name) in there for name in names))
    if any(at(best, name) in there for name in names):
        return lambda name: there.get(at(best, name), at(best, name))
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in inventory.pictures:
        by_name[same(PurePosixPath(file).name)].append(file)
    ends = {name: by_name.get(same(PurePosixPath(name).name), []) for name in names}
    if any(len(files) == 1 for files in ends.values()):
        return lambda name: ends[name][0] if len(ends.get(name, ())) == 1 else name
    if not names:
        return lambda name: name
    looked = ", ".join(places)
    raise ValueError(f"{path}: none of its pictures ({', '.join(names[:3])}) is in {root}; looked in {looked}")
