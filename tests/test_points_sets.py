"""Sets of clouds: the embedded rooms, and folders in every layout that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokenmix.data.identity import DataIdentity
from tokenmix.tasks import find_task
from tokenmix.tasks.points.cloud import CloudError, make_cloud
from tokenmix.tasks.points.ply import read_ply, write_ply
from tokenmix.tasks.points.rooms import CLASSES, Dice, Solid, room
from tokenmix.tasks.points.sets import S3DIS, SCANNET, open_clouds


def quiet(text: str) -> None:
    """Nobody listens."""


def arrays(folder: Path, label: str = "segment", top: int = 3) -> None:
    """A cloud as Pointcept writes it."""
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", np.random.default_rng(0).random((9, 3)).astype(np.float32))
    np.save(folder / "color.npy", np.full((9, 3), 200, np.uint8))
    np.save(folder / "normal.npy", np.ones((9, 3), np.float32))
    if label:
        np.save(folder / f"{label}.npy", np.arange(9).astype(np.int16)[:, None] % (top + 1))


# -------------------------------------------------------------------------------------------------------------- rooms


def test_a_room_is_a_function_of_seed_and_index():
    first, again = room(0, 3), room(0, 3)
    assert np.array_equal(first.coord, again.coord)
    assert np.array_equal(first.segment, again.segment)
    assert len(room(0, 4)) != len(first)
    assert len(room(1, 3)) != len(first)


def test_a_room_is_what_it_says():
    clouds = [room(0, index) for index in range(4)]
    assert {CLASSES[label] for cloud in clouds for label in np.unique(cloud.segment)} == set(CLASSES)
    for cloud in clouds:
        assert 10_000 < len(cloud) < 60_000
        assert np.ptp(cloud.coord, axis=0).max() < 5.5
        np.testing.assert_allclose(np.linalg.norm(cloud.normal, axis=1), 1, atol=1e-5)
        floor = cloud.segment == CLASSES.index("floor")
        assert abs(np.median(cloud.coord[floor, 2])) < 0.02
        assert (cloud.normal[floor, 2] > 0.5).mean() > 0.9


@pytest.mark.parametrize("kind", ["box", "cylinder", "ball"])
def test_points_lie_on_the_surface_of_solids_evenly(kind):
    size = (1.0, 1.0, 2.0) if kind == "cylinder" else (1.0, 2.0, 3.0) if kind == "box" else (2.0, 2.0, 2.0)
    solid = Solid(kind, (1.0, 2.0, 3.0), size)
    points, normal = solid.sample(Dice(0, 0))
    local = points - solid.centre
    assert np.abs(local).max(0) == pytest.approx(np.array(size) / 2, abs=0.05)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1)
    assert (local * normal).sum(1).min() > 0
    if kind == "box":
        on = np.isclose(np.abs(local) * 2, size)
        assert on.any(1).all()
        share = on[:, 2].mean()
        assert share == pytest.approx(1 * 2 / (1 * 2 + 2 * 3 + 3 * 1), abs=0.02)
    elif kind == "ball":
        np.testing.assert_allclose(np.linalg.norm(local, axis=1), 1)
        assert np.abs(points.mean(0) - solid.centre).max() < 0.05
    else:
        cap = np.isclose(np.abs(local[:, 2]), 1)
        assert cap.mean() == pytest.approx(0.5 / (2 + 0.5), abs=0.02)
        np.testing.assert_allclose(np.hypot(*local[~cap, :2].T), 0.5)


def test_the_embedded_set():
    data = open_clouds("rooms")
    assert data.classes == list(CLASSES)
    names = [name for part in (data.train, data.val, data.test) for name in part.names]
    assert len(set(names)) == len(names)
    assert data.val.load(0) is data.val.load(0)


# ------------------------------------------------------------------------------------------------------------- layouts


def test_s3dis(tmp_path):
    for area in (1, 2, 5):
        arrays(tmp_path / f"Area_{area}" / "office_1")
    content = {"coord": np.random.default_rng(0).random((9, 3)), "color": np.zeros((9, 3)), "normal": np.ones((9, 3))}
    torch.save({**content, "semantic_gt": np.full((9, 1), 12)}, tmp_path / "Area_2" / "hallway_1.pth")
    data = open_clouds(str(tmp_path), log=quiet)
    assert data.classes == list(S3DIS)
    assert len(S3DIS) == 13
    assert data.train.names == ["Area_1/office_1", "Area_2/hallway_1.pth", "Area_2/office_1"]
    assert data.val.names == data.test.names == ["Area_5/office_1"]
    assert data.features == ["color", "normal"]
    assert data.voxel == 0.02
    assert open_clouds(f"{tmp_path}:area=1", log=quiet).val.names == ["Area_1/office_1"]
    with pytest.raises(ValueError, match="no Area_3, but Area_1, Area_2, Area_5"):
        open_clouds(f"{tmp_path}:area=3")


def test_scannet(tmp_path):
    for part in ("train", "val", "test"):
        arrays(tmp_path / part / "scene0000_00", "segment20" if part != "test" else "", top=8)
    np.save(tmp_path / "train" / "scene0000_00" / "segment200.npy", np.full(9, 150))
    np.save(tmp_path / "val" / "scene0000_00" / "segment200.npy", np.full(9, 199))
    data = open_clouds(str(tmp_path), log=quiet)
    assert data.classes == list(SCANNET)
    assert len(SCANNET) == 20
    assert data.test.names == data.val.names == ["val/scene0000_00"]
    many = open_clouds(f"{tmp_path}:classes=200", log=quiet)
    assert len(many.classes) == 200
    assert many.train.load(0).segment.tolist() == [150] * 9
    with pytest.raises(ValueError, match="did you mean 'classes'"):
        open_clouds(f"{tmp_path}:class=200")
    with pytest.raises(ValueError, match="area= is for S3DIS"):
        open_clouds(f"{tmp_path}:area=2")


def files(folder: Path, count: int, top: int = 2, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        points = np.random.default_rng(number).random((12, 3))
        write_ply(folder / f"{number}.ply", make_cloud(points, points * 255, segment=np.arange(12) % (top + 1)))


def test_a_folder_of_files(tmp_path):
    files(tmp_path, 10)
    (tmp_path / "broken.ply").write_text("ply")
    (tmp_path / "notes.md").write_text("hello")
    told: list[str] = []
    data = open_clouds(str(tmp_path), log=told.append)
    assert len(data.train) + len(data.val) + len(data.test) == 10
    assert min(len(data.val), len(data.test)) >= 1
    assert sorted({*data.train.names, *data.val.names, *data.test.names}) == sorted(f"{n}.ply" for n in range(10))
    assert data.classes == ["class 0", "class 1", "class 2"]
    assert data.features == ["color"]
    assert len(told) == len(data.skipped) == 1
    assert "broken.ply" in told[0]
    assert data.train.names == open_clouds(str(tmp_path), log=quiet).train.names


def test_divided_folders_and_names_of_classes(tmp_path):
    files(tmp_path / "train", 3)
    files(tmp_path / "val", 1)
    (tmp_path / "classes.txt").write_text("ground\ntree\nhouse\n")
    data = open_clouds(str(tmp_path), log=quiet)
    assert data.classes == ["ground", "tree", "house"]
    assert data.test.names == data.val.names == ["val/0.ply"]
    assert len(open_clouds(str(tmp_path), check=False).train) == 3
    (tmp_path / "classes.txt").write_text("ground\ntree\n")
    with pytest.raises(ValueError, match="has the label 2, and the classes end at 1"):
        open_clouds(str(tmp_path), log=quiet)
    (tmp_path / "classes.txt").write_text("ground\nground\n")
    with pytest.raises(ValueError, match="each once"):
        open_clouds(str(tmp_path), log=quiet)


def test_folders_without_clouds_are_told(tmp_path):
    with pytest.raises(ValueError, match="no folder of clouds, and the embedded set is called rooms"):
        open_clouds(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has no clouds"):
        open_clouds(str(tmp_path))
    files(tmp_path, 1)
    with pytest.raises(ValueError, match="another is needed to judge by"):
        open_clouds(str(tmp_path))
    write_ply(tmp_path / "1.ply", make_cloud(np.zeros((2, 3))))
    write_ply(tmp_path / "0.ply", make_cloud(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="no labels"):
        open_clouds(str(tmp_path), log=quiet)


def test_a_network_is_judged_by_clouds_from_which_it_has_not_learnt(tmp_path):
    files(tmp_path / "own", 12)
    learnt = open_clouds(str(tmp_path / "own"), seed=3, log=quiet)
    known = DataIdentity.of(learnt).brief()
    told: list[str] = []

    def judged(spec, split=None, known=known):
        told.clear()
        data = open_clouds(str(spec), seed=0, log=quiet)
        return find_task("points").judged_samples(data, str(spec), known, split, seed=0, log=told.append)

    (tmp_path / "own").rename(tmp_path / "moved")
    clouds = judged(tmp_path / "moved")  # whatever the folder is called, and whichever seed it is opened with
    assert clouds.names == learnt.test.names
    assert np.array_equal(clouds.load(0).coord, read_ply(tmp_path / "moved" / clouds.names[0]).coord)
    assert judged(tmp_path / "moved", "val").names == learnt.val.names
    assert len(judged(tmp_path / "moved", "all")) == 12
    assert told == [f"warning: the model has learnt from {12 - len(learnt.test)} of these 12 samples"]

    files(tmp_path / "new" / "Training", 3, first=50)
    files(tmp_path / "new" / "dev", 2, first=60)
    assert len(judged(tmp_path / "new")) == 5
    assert judged(tmp_path / "new", "train").names == [f"Training/{number}.ply" for number in (50, 51, 52)]
    assert judged(tmp_path / "new", known=None).names == ["dev/60.ply", "dev/61.ply"]
    files(tmp_path / "new" / "valid", 1)
    with pytest.raises(ValueError, match="dev and valid are both its part 'val'"):
        judged(tmp_path / "new")


def test_what_cannot_be_judged_by_and_what_means_nothing_is_said(tmp_path):
    files(tmp_path / "set" / "train", 3)
    files(tmp_path / "set" / "val", 1, first=10)
    (tmp_path / "set" / "test").mkdir()
    write_ply(tmp_path / "set" / "test" / "a.ply", make_cloud(np.zeros((2, 3))))
    told: list[str] = []
    data = open_clouds(str(tmp_path / "set"), log=told.append)
    assert data.test.names == data.val.names
    assert "none of its test clouds can be used" in told[-1]
    assert data.summary().endswith("1 skipped; points with color; 3 classes")
    with pytest.raises(ValueError, match="classes= is for ScanNet"):
        open_clouds(f"{tmp_path / 'set'}:classes=200", log=quiet)
    files(tmp_path / "odd:a=1", 4)
    assert len(open_clouds(str(tmp_path / "odd:a=1"), log=quiet).train) == 2
    (tmp_path / "set" / "classes.txt").write_text("a\nb\n")
    late = open_clouds(str(tmp_path / "set"), check=False, log=quiet)
    with pytest.raises(CloudError, match="has the label 2, and the classes end at 1"):
        late.train.load(1)
    for number in range(4):
        write_ply(tmp_path / "none" / f"{number}.ply", make_cloud(np.zeros((2, 3)), segment=np.full(2, -1)))
    with pytest.raises(ValueError, match="none of its points has a label"):
        open_clouds(str(tmp_path / "none"), log=quiet)
