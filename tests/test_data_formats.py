"""Each format: a random set with random harmless spellings is read back equal; a damaged file is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.format_writers import HEIGHT, OBJECTS, WIDTH, Drawn, write_classes, write_masks
from tokenmix.data.inventory import take_inventory
from tokenmix.data.natural import same
from tokenmix.sources import load_data, recognise

NAMES = (
    st.text("abcxyzABC019 éßñ猫кот()-+&'", min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda name: name and name[0] not in "-+(" and not name.isdigit())
)
WORDS = ("train", "val", "valid", "test", "dev", "all", "x", "y", "gt")  # which mean something as a folder's name
CLASSES = st.lists(
    NAMES.filter(lambda name: name.casefold() not in WORDS),
    min_size=2,
    max_size=3,
    unique_by=lambda name: same(name).casefold(),
)
STEMS = st.lists(
    NAMES.filter(lambda name: "." not in name and not name.casefold().endswith(("mask", "gt"))),
    min_size=4,
    max_size=6,
    unique_by=lambda name: same(name).casefold(),
)


@st.composite
def boxes(draw: Callable[..., Any]) -> tuple[int, int, int, int]:
    left, top = draw(st.integers(0, WIDTH - 4)), draw(st.integers(0, HEIGHT - 4))
    return left, top, draw(st.integers(left + 3, WIDTH)), draw(st.integers(top + 3, HEIGHT))


@st.composite
def sets(draw: Callable[..., Any]) -> Drawn:
    """Every class occurs, on the first pictures; a picture has one to three objects."""
    classes = tuple(draw(CLASSES))
    labels = st.integers(0, len(classes) - 1)
    pictures = {}
    for number, stem in enumerate(draw(STEMS)):
        first = (number % len(classes), draw(boxes()))
        more = draw(st.lists(st.tuples(labels, boxes()), max_size=2))
        pictures[stem] = (first, *more)
    return Drawn(classes, pictures)


CHANCES = st.integers(0, 2**32 - 1).map(random.Random)


def quickly(test: Callable[..., None]) -> Callable[..., None]:
    return settings(max_examples=5, deadline=None)(test)


def at_length(test: Callable[..., None]) -> Any:
    return pytest.mark.slow(settings(max_examples=150, deadline=None)(test))


def silent(line: str) -> None:
    pass


def load(root: Path, task: str, log: Callable[[str], None] = silent) -> Any:
    return load_data(root, task=task, log=log)


def parts(data: Any) -> list[Any]:
    """The parts that share no picture."""
    return [part for number, part in enumerate((data.train, data.val, data.test)) if number < 2 or part is not data.val]


def objects_of(data: Any) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    found = {}
    for part in parts(data):
        for row, name in enumerate(part.names):
            target = part.target(row)
            labels = [data.classes[label - 1] for label in target["labels"].tolist()]
            rounded = [tuple(map(round, box)) for box in target["boxes"].tolist()]
            assert np.allclose(target["boxes"].numpy().reshape(-1, 4), np.array(rounded).reshape(-1, 4), atol=1e-3)
            found[Path(name).stem] = sorted(zip(labels, rounded, strict=True))
    return found


# ------------------------------------------------------------------------------------------------------- read back


def read_back_objects(tmp_path_factory: Any, kind: str, drawn: Drawn, chance: random.Random) -> None:
    root = tmp_path_factory.mktemp("set")
    OBJECTS[kind](root, drawn, chance)
    task, evidence = recognise(root)
    assert task.name == "detection", evidence
    data = load(root, "detection")
    assert objects_of(data) == drawn.objects()
    assert not data.unused
    harmless = {"picture that is listed twice: the second is left out"}
    assert not set(data.problems.found) - harmless


@pytest.mark.parametrize("kind", OBJECTS)
@quickly
@given(drawn=sets(), chance=CHANCES)
def test_objects_are_read_back(tmp_path_factory: Any, kind: str, drawn: Drawn, chance: random.Random) -> None:
    read_back_objects(tmp_path_factory, kind, drawn, chance)


@pytest.mark.parametrize("kind", OBJECTS)
@at_length
@given(drawn=sets(), chance=CHANCES)
def test_many_sets_of_objects_are_read_back(
    tmp_path_factory: Any, kind: str, drawn: Drawn, chance: random.Random
) -> None:
    read_back_objects(tmp_path_factory, kind, drawn, chance)


def read_back_masks(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    root = tmp_path_factory.mktemp("set")
    write_masks(root, drawn, chance)
    assert recognise(root)[0].name == "segmentation"
    data = load(root, "segmentation")
    assert data.classes == ["nothing", *drawn.classes]
    assert not data.unused
    found = {Path(name).stem: part.target(row)["label"] for part in parts(data) for row, name in enumerate(part.names)}
    assert found.keys() == drawn.pictures.keys()
    assert all((found[stem].numpy() == drawn.labels(stem)).all() for stem in found)


@quickly
@given(drawn=sets(), chance=CHANCES)
def test_masks_are_read_back(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    read_back_masks(tmp_path_factory, drawn, chance)


@at_length
@given(drawn=sets(), chance=CHANCES)
def test_many_masks_are_read_back(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    read_back_masks(tmp_path_factory, drawn, chance)


def read_back_classes(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    root = tmp_path_factory.mktemp("set")
    first = next(iter(drawn.pictures.values()))
    stems = [*drawn.pictures, "one more 1", "one more 2"]  # three of each class
    rows = {stem: ((number % 2, first[0][1]),) for number, stem in enumerate(stems)}
    drawn = Drawn(drawn.classes[:2], rows)
    write_classes(root, drawn, chance)
    assert recognise(root)[0].name == "classification"
    data = load(root, "classification")
    found = {
        Path(name).stem: data.classes[label]
        for part in (data.train, data.val, data.test)
        for name, label in zip(part.names, part.labels, strict=True)
    }
    assert found == {stem: drawn.classes[rows[0][0]] for stem, rows in drawn.pictures.items()}
    assert not data.unused


@quickly
@given(drawn=sets(), chance=CHANCES)
def test_folders_of_classes_are_read_back(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    read_back_classes(tmp_path_factory, drawn, chance)


@at_length
@given(drawn=sets(), chance=CHANCES)
def test_many_folders_of_classes_are_read_back(tmp_path_factory: Any, drawn: Drawn, chance: random.Random) -> None:
    read_back_classes(tmp_path_factory, drawn, chance)


# ----------------------------------------------------------------------------------------------------- random damage


def cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * chance.uniform(0.05, 0.7))])


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"\xff" + chance.randbytes(60))


DAMAGES = [cut, empty, noise]


def damaged(
    tmp_path_factory: Any, task: str, write: Callable[..., list[Path]], drawn: Drawn, chance: random.Random
) -> None:
    """Damage one picture or one file of answers; what is said must hold its name."""
    root = tmp_path_factory.mktemp("set")
    answers = write(root, drawn, chance)
    pictures = [root / name for name in take_inventory(root).pictures]
    pictures = [path for path in pictures if path not in answers]
    if pictures and (chance.random() < 0.4 or task == "classification"):
        path, damage = chance.choice(pictures), chance.choice(DAMAGES)
    else:
        path = chance.choice(answers)
        # A text that was cut is still one, and an empty one says that there are no objects.
        damage = chance.choice([noise] if path.suffix == ".txt" else DAMAGES)
    damage(path, chance)
    told: list[str] = []
    try:
        load(root, task, told.append)
    except ValueError as error:
        told.append(str(error))
    assert path.stem in "\n".join(told), (damage.__name__, path, told)


@pytest.mark.parametrize("kind", OBJECTS)
@quickly
@given(drawn=sets(), chance=CHANCES)
def test_a_damaged_file_of_objects_is_named(
    tmp_path_factory: Any, kind: str, drawn: Drawn, chance: random.Random
) -> None:
    damaged(tmp_path_factory, "detection", OBJECTS[kind], drawn, chance)


@pytest.mark.parametrize("kind", OBJECTS)
@at_length
@given(drawn=sets(), chance=CHANCES)
def test_any_damaged_file_of_objects_is_named(
    tmp_path_factory: Any, kind: str, drawn: Drawn, chance: random.Random
) -> None:
    damaged(tmp_path_factory, "detection", OBJECTS[kind], drawn, chance)


@pytest.mark.parametrize(("task", "write"), [("segmentation", write_masks), ("classification", write_classes)])
@quickly
@given(drawn=sets(), chance=CHANCES)
def test_a_damaged_picture_or_mask_is_named(
    tmp_path_factory: Any, task: str, write: Callable[..., list[Path]], drawn: Drawn, chance: random.Random
) -> None:
    damaged(tmp_path_factory, task, write, drawn, chance)


@pytest.mark.parametrize(("task", "write"), [("segmentation", write_masks), ("classification", write_classes)])
@at_length
@given(drawn=sets(), chance=CHANCES)
def test_any_damaged_picture_or_mask_is_named(
    tmp_path_factory: Any, task: str, write: Callable[..., list[Path]], drawn: Drawn, chance: random.Random
) -> None:
    damaged(tmp_path_factory, task, write, drawn, chance)
