"""Classes from tables beside the pictures, in the layouts in which people get them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tokenmix.sources import load_data
from tokenmix.tasks.classification.folder import ClassFolders, read_class_folders

CLASSES = "abc"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder with pictures, by their paths, and files of text."""

    def function(pictures: list[str], **texts: str) -> Path:
        for number, name in enumerate(pictures):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number % 3 * 90, number, 99)).save(path)
        for name, text in texts.items():
            (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        return tmp_path

    return function


def classes_of(found: ClassFolders) -> dict[str, str]:
    return {name: label for _, label, name in found.rows()}


def splits_of(found: ClassFolders) -> dict[str, str]:
    return {name: split for split, _, name in found.rows()}


NAMES = [f"images/{i:03d}.png" for i in range(12)]
TRUE = {name: CLASSES[i % 3] for i, name in enumerate(NAMES)}


def table(form: str, head: str = "", names: list[str] = NAMES) -> str:
    rows = [form.format(name=name, stem=Path(name).stem, i=i, c=CLASSES[i % 3]) for i, name in enumerate(names)]
    return "\n".join([head, *rows] if head else rows)


@pytest.mark.parametrize(
    "texts",
    [
        {"labels__csv": table("{name},{c}", "file,label")},
        {"labels__csv": table("{stem};{c}", "image_id;class")},
        {"labels__csv": table("{i},{c}", "id,breed")},  # 7 for 007.png
        {"labels__csv": table("C:\\data\\{stem}.jpg,{c}", "path,target")},
        {"labels__csv": table("{name},{c}")},
        {"labels__csv": table("{stem},{i}.5,{c}", "id,age,kind")},  # the only column that repeats
        {"labels__tsv": table("{i}\t{stem}.png\t{c}", "\tfile_name\tlabel")},
        {"list__txt": table("{name} {c}")},
        {"metadata__jsonl": table('{{"file_name": "{stem}.png", "label": "{c}", "boxes": [1]}}')},
        {"a__csv": table("{name},{c}", "file,label", NAMES[:5]), "b__csv": table("{name},{c}", "file,label")},
    ],
)
def test_pictures_and_classes_are_found(make: Make, texts: dict[str, str]) -> None:
    found = read_class_folders(make(NAMES, **texts))
    assert classes_of(found) == TRUE
    assert found.whole
    assert not found.unused
    assert all("pictures by" in note for note in found.notes)


def test_a_column_for_each_class(make: Make) -> None:
    rows = [f"{Path(n).stem}," + ",".join(f"{float(c == TRUE[n]):.1f}" for c in CLASSES) for n in NAMES]
    folder = make(NAMES, truth__csv="\n".join(["image,a,b,c", *rows]))
    assert classes_of(read_class_folders(folder)) == TRUE
    (folder / "truth.csv").write_text("\n".join(["image,a,b,c", *rows[:-1], "011,1,1,0"]))
    with pytest.raises(ValueError, match="a row has several classes, a, b"):
        read_class_folders(folder)


def test_numbers_get_the_names_of_a_list(make: Make) -> None:
    numbers = "\n".join(f"{name} {i % 3}" for i, name in enumerate(NAMES))
    folder = make(NAMES, train__txt=numbers, classes__txt="a\nb\nc\n")
    found = read_class_folders(folder)
    assert classes_of(found) == TRUE
    assert found.notes[-1] == "classes.txt: names of the classes"
    (folder / "classes.txt").write_text("2 c\n0 a\n1 b\n")
    assert classes_of(read_class_folders(folder)) == TRUE


def test_parts_by_a_column_by_folders_and_by_names_of_tables(make: Make) -> None:
    wanted = {name: ("train", "val", "test")[i // 4] for i, name in enumerate(NAMES)}
    rows = [f"{name},{TRUE[name]},{wanted[name]}" for name in NAMES]
    folder = make(NAMES, all__csv="\n".join(["file,label,split", *rows]))
    assert splits_of(read_class_folders(folder)) == wanted
    (folder / "all.csv").unlink()
    for begin, split in ((0, "train"), (4, "valid"), (8, "testing")):
        (folder / f"{split}.csv").write_text(table("{name},{c}", "file,label", NAMES[begin : begin + 4]))
    assert list(splits_of(read_class_folders(folder)).values()) == list(wanted.values())


def test_of_two_pictures_of_one_name_it_is_that_of_the_tables_part(make: Make) -> None:
    pictures = [f"{part}_images/{i}.png" for part in ("train", "test") for i in range(6)]
    labels = table("{i},{c}", "id,label", pictures[:6])
    folder = make(pictures, train__csv=labels, sample_submission__csv=labels.replace("b", "a"))
    found = read_class_folders(folder)
    assert sorted(classes_of(found)) == pictures[:6]
    assert found.unlabelled == pictures[6:]
    (folder / pictures[0]).unlink()  # its namesake among the test pictures is another one
    found = read_class_folders(folder)
    assert sorted(classes_of(found)) == pictures[1:6]
    assert found.unused["row of train.csv whose picture is not there: not used"] == ["0"]
    (folder / "train.csv").write_text(table("train_images/{i}.png,{c}", "id,label", pictures[:6]))
    assert sorted(classes_of(read_class_folders(folder))) == pictures[1:6]
    (folder / "train.csv").write_text(labels.replace("0,a\n", ""))
    (folder / "train.csv").rename(folder / "labels.csv")
    with pytest.raises(ValueError, match=r"'1' can be test_images/1\.png or train_images/1\.png: write their paths"):
        read_class_folders(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table("{name},{i},{c}", "file,label,class") + "\nimages/000.png,0,b", "columns 'label', 'class': leave one"),
        (table("{name},{c},x{c}", "file,kind,sort"), "columns 'kind', 'sort': call its column 'label'"),
        (table("{name},{c}", "file,label") + "\nimages/000.png,b", "000.png has two classes, 'a' and 'b'"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(make: Make, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_class_folders(make(NAMES, labels__csv=text))


def test_rows_and_pictures_without_each_other_are_named(make: Make) -> None:
    folder = make(
        [*NAMES, "images/more.png"], labels__csv=table("{name},{c}", "file,label") + "\ngone.png,a\nmore.png,"
    )
    said: list[str] = []
    data = load_data(folder, log=said.append)
    assert sum(map(len, (data.train, data.val, data.test))) == len(NAMES)
    text = "\n".join(said)
    assert "1 x row of labels.csv whose picture is not there: not used: gone.png" in text
    assert "1 x row of labels.csv whose class is empty: not used: more.png" in text
    assert "1 x picture without a class in the table: not used: images/more.png" in text


def test_folders_of_classes_come_before_tables(make: Make) -> None:
    pictures = [f"{c}/{i}.png" for c in CLASSES for i in range(4)]
    found = read_class_folders(make(pictures, labels__csv="file,label\n" + "\n".join(f"{p},x" for p in pictures)))
    assert classes_of(found) == {name: name[0] for name in pictures}
    assert found.unused == {"file that is no picture and that nothing here reads: not used": ["labels.csv"]}


def test_pictures_to_be_judged_may_lie_beside_any_table(make: Make) -> None:
    folder = make([f"{i}.png" for i in range(12)], notes__csv=table("{i},{c},x{c}", "id,kind,sort"))
    found = read_class_folders(folder, judged=True)
    assert len(found.unlabelled) == 12
    assert "call its column 'label'; the table is not used" in found.notes[0]
    (folder / "notes.csv").write_text(table("{i},{c}", "id,label"))
    assert classes_of(read_class_folders(folder, judged=True)) == {f"{i}.png": CLASSES[i % 3] for i in range(12)}


def test_folders_called_after_parts_are_no_classes(make: Make) -> None:
    folder = make([f"{part}_images/{i}.png" for part in ("train", "test") for i in range(3)])
    with pytest.raises(ValueError, match="'test_images' and 'train_images' hold pictures, but no folder of a class"):
        read_class_folders(folder)
    pictures = [f"{part}/{c}/{i}.png" for part in ("train_set2", "images_val") for c in CLASSES for i in range(2)]
    for old in folder.iterdir():
        old.rename(folder.parent / f"{folder.name}-{old.name}")
    found = read_class_folders(make(pictures))
    assert splits_of(found) == {name: "train" if "train" in name else "val" for name in pictures}
    assert set(classes_of(found).values()) == set(CLASSES)
