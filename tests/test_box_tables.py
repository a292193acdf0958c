"""Boxes from CSV tables, in the forms that tools and competitions give them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tokenmix.sources import load_data, recognise
from tokenmix.tasks.dense.sets import DenseData

WIDTH, HEIGHT = 64, 48
BOXES = {i: (4.0 + i, 3.0, 30.0 + i, 20.0 + i) for i in range(10)}


def pictures(root: Path, folder: str, count: int = 10) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 10, 90)).save(root / folder / f"{i}.png")


def load(root: Path, said: list[str] | None = None) -> DenseData:
    return load_data(root, task="detection", log=(said if said is not None else []).append)


def boxes_of(data: DenseData) -> dict[int, list[tuple[float, ...]]]:
    found = {}
    for one in {id(one): one for one in (data.train, data.val, data.test)}.values():
        for name, objects in zip(one.names, one.objects, strict=True):
            found[int(Path(name).stem)] = [tuple(box) for box in objects.boxes.tolist()]
    return found


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "{i}.png,64,48,{c},{0},{1},{2},{3}"),
        ("x_min;y_min;x_max;y_max;label;image_id", "{0};{1};{2};{3};{c};{i}"),
        ("ImageID,Source,LabelName,XMin,XMax,YMin,YMax", "{i},x,{c},{rel[0]},{rel[2]},{rel[1]},{rel[3]}"),
        ("", "images/{i}.png,{0},{1},{2},{3},{c}"),
    ],
)
def test_boxes_of_a_table(tmp_path: Path, head: str, row: str) -> None:
    pictures(tmp_path, "images")
    rows = []
    for i, box in BOXES.items():
        shares = [side / (WIDTH, HEIGHT)[at % 2] for at, side in enumerate(box)]
        rows.append(row.format(*box, i=i, c="ab"[i % 2], rel=shares))
    (tmp_path / "boxes.csv").write_text("\n".join([head, *rows] if head else rows))
    task, evidence = recognise(tmp_path)
    assert (task.name, evidence) == ("detection", "a table of boxes (boxes.csv)")
    data = load(tmp_path)
    assert data.classes == ["a", "b"]
    assert boxes_of(data) == {i: [pytest.approx(box)] for i, box in BOXES.items()}
    first = data.train.objects[0]
    assert first.labels.tolist() == [1 + int(Path(data.train.names[0]).stem) % 2]


def test_parts_by_folders_and_by_names_of_tables(tmp_path: Path) -> None:
    head, row = "filename,class,xmin,ymin,xmax,ymax", "{i}.png,a,{0},{1},{2},{3}"
    rows = [row.format(*box, i=i) for i, box in BOXES.items()]
    for part in ("train", "valid"):  # pictures of one name, each beside its table
        pictures(tmp_path / "beside", part)
        (tmp_path / "beside" / part / "_annotations.csv").write_text("\n".join([head, *rows]))
    data = load(tmp_path / "beside")
    assert (len(data.train), len(data.val)) == (10, 10)
    pictures(tmp_path / "apart", "images")
    for name, begin, end in (("train_labels", 0, 6), ("test_labels", 6, 8), ("val", 8, 10)):
        (tmp_path / "apart" / f"{name}.csv").write_text("\n".join([head, *rows[begin:end]]))
    data = load(tmp_path / "apart")
    assert [len(one) for one in (data.train, data.val, data.test)] == [6, 2, 2]


def test_what_a_table_does_not_tell_is_said(tmp_path: Path) -> None:
    pictures(tmp_path, "images")
    rows = [f"{i}.png,a,{box[0]},{box[1]},{box[2]},{box[3]}" for i, box in BOXES.items() if i != 9]
    wrong = ["gone.png,a,1,1,9,9", "9.png,a,1,1,nine,9", "9.png,a,1,1,nan,9", "9.png,,1,1,9,9", "8.png,a,5,5,500,9"]
    (tmp_path / "t.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows, *wrong]))
    said: list[str] = []
    data = load(tmp_path, said)
    text = "\n".join(said)
    assert "gone.png" in text
    assert "picture missing: left out" in text
    assert "3 x row without four numbers and a class: left out" in text
    assert boxes_of(data)[8] == [BOXES[8], (5.0, 5.0, WIDTH, 9.0)]  # cut at the picture's edge, and counted
    assert boxes_of(data)[9] == []


def test_pictures_without_objects_and_files_of_other_tools(tmp_path: Path) -> None:
    pictures(tmp_path, "images")
    rows = [
        f"images/{i}.png,{','.join(map(str, box))},a" if i % 3 else f"images/{i}.png,,,,," for i, box in BOXES.items()
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert [len(boxes) for _, boxes in sorted(boxes_of(load(tmp_path)).items())] == [int(i % 3 > 0) for i in BOXES]
    for i, (left, top, right, bottom) in BOXES.items():  # a table that was made of XML files lies beside them
        box = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        xml = f"<filename>{i}.png</filename><object><name>b</name><bndbox>{box}</bndbox></object>"
        (tmp_path / "images" / f"{i}.xml").write_text(f"<annotation>{xml}</annotation>")
    assert load(tmp_path).classes == ["b"]
