"""Files of clouds: what is written is read, other programs' files too, and damaged or hostile ones are told plainly."""

from __future__ import annotations

import contextlib
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from tokenmix.tasks.points.cloud import (
    IGNORED,
    Cloud,
    CloudError,
    VoxelTable,
    feature_width,
    features_of,
    grid_of,
    make_cloud,
)
from tokenmix.tasks.points.picture import painted
from tokenmix.tasks.points.ply import read_ply, write_ply
from tokenmix.tasks.points.readers import SEGMENTS_200, is_cloud, read_cloud
from tokenmix.tasks.points.writers import write_answer

FINITE = st.floats(-1000, 1000, width=32)


def example(points: int = 20, seed: int = 0) -> Cloud:
    """A cloud with everything that a cloud can have."""
    draw = np.random.default_rng(seed)
    return make_cloud(
        draw.normal(size=(points, 3)),
        draw.integers(0, 256, (points, 3)),
        draw.normal(size=(points, 3)),
        draw.random(points),
        draw.integers(-1, 5, points),
    )


def assert_same(ours: Cloud, theirs: Cloud) -> None:
    for name in ("coord", "color", "normal", "strength", "segment"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------------------------ clouds


@settings(max_examples=30, deadline=None)
@given(coord=hn.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=FINITE), far=st.booleans())
def test_a_cloud_is_written_and_read_to_the_digit(tmp_path_factory, coord, far):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    world = coord + (np.array([512_345.25, 5_400_000.5, 312.0]) if far else 0.0)
    cloud = make_cloud(world)
    write_ply(path, cloud, classes=["a", "ü\n"])
    again = read_ply(path)
    np.testing.assert_allclose(again.world(), world, atol=1e-3 if far else 0)
    assert again.coord.dtype == np.float32


def test_everything_survives_a_ply_file(tmp_path):
    cloud = example()
    write_ply(tmp_path / "a.ply", cloud, extra={"confidence": np.ones(20)})
    assert_same(read_cloud(tmp_path / "a.ply"), cloud)
    assert b"property float confidence" in (tmp_path / "a.ply").read_bytes()


def test_colours_of_every_range_become_0_to_255():
    points = np.zeros((2, 3))
    white = {"u1": 255, "u2": 65535, "f4": 1.0, "f8": 255.0}
    for code, value in white.items():
        color = make_cloud(points, np.array([[0] * 3, [value] * 3]).astype(code)).color
        assert color is not None
        np.testing.assert_allclose(color, [[0] * 3, [255] * 3])
    dark = make_cloud(points, np.ones((2, 3), np.uint8)).color
    assert dark is not None
    assert dark.max() == 1  # a dark picture in whole numbers is no bright one in fractions


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"coord": np.zeros((0, 3))}, "has 0 points"),
        ({"coord": np.zeros((3, 2))}, "coordinates must be numbers of the shape"),
        ({"coord": np.full((3, 3), np.nan)}, "coordinates of 3 points are no numbers"),
        ({"coord": np.array([["a", "b", "c"]])}, "must be numbers"),
        ({"coord": np.array([[0, 0, 0], [1e9, 0, 0]])}, "far off"),
        ({"coord": np.zeros((3, 3)), "color": np.zeros((2, 3))}, "2 colours for 3 points"),
        ({"coord": np.zeros((3, 3)), "segment": np.zeros(2)}, "2 labels for 3 points"),
        ({"coord": np.zeros((3, 3)), "segment": np.array([0.5, 1, 2])}, "whole numbers"),
        ({"coord": np.zeros((3, 3)), "normal": np.full((3, 3), np.inf)}, "normals of 3 points"),
    ],
)
def test_arrays_that_are_no_cloud_are_told(columns, message):
    with pytest.raises(CloudError, match=message):
        make_cloud(**columns)


def test_features_have_their_usual_ranges():
    cloud = example()
    values = features_of(cloud, ("color", "normal", "coord", "strength"))
    assert values.shape == (20, feature_width(("color", "normal", "coord", "strength"))) == (20, 10)
    assert values[:, :3].min() >= -1
    assert values[:, :3].max() <= 1
    np.testing.assert_allclose(np.linalg.norm(values[:, 3:6], axis=1), 1, atol=1e-5)
    assert values[:, 8].min() == 0  # the floor
    assert -1 <= values[:, 9].min() <= values[:, 9].max() <= 1
    with pytest.raises(CloudError, match="no normal, which the model reads; they have coord"):
        features_of(make_cloud(np.zeros((1, 3))), ("normal",))
    with pytest.raises(ValueError, match="did you mean 'color'"):
        feature_width(("colour",))
    with pytest.raises(ValueError, match="needs features"):
        feature_width(())


@settings(max_examples=30, deadline=None)
@given(
    coord=hn.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=FINITE),
    voxel=st.sampled_from([0.02, 0.5, 30.0]),
)
def test_every_point_is_in_one_voxel_and_every_voxel_has_points(coord, voxel):
    table = VoxelTable.of(coord, voxel)
    assert table.grid.min(0).tolist() == [0, 0, 0]
    cells = {tuple(cell) for cell in table.grid.tolist()}
    assert len(table.counts) == len(cells)
    assert sorted(table.order.tolist()) == list(range(len(coord)))
    seen = set()
    for turn in range(int(table.counts.max())):
        picked = table.pick(np.full(len(table.counts), turn))
        assert len({tuple(cell) for cell in table.grid[picked].tolist()}) == len(cells)
        seen |= set(picked.tolist())
    assert seen == set(range(len(coord)))


def test_voxels_that_are_too_small_are_told():
    with pytest.raises(CloudError, match="larger voxels"):
        grid_of(np.array([[0.0, 0, 0], [1000, 0, 0]]), 1e-5)


# ------------------------------------------------------------------------------------------------------ others' files


def test_plys_of_other_programs(tmp_path):
    text = "ply\r\nformat ascii 1.0\r\ncomment by hand\r\nelement camera 1\r\nproperty float a\r\nproperty float b\r\n"
    text += "element vertex 2\r\nproperty double x\r\nproperty double y\r\nproperty double z\r\n"
    text += "property uchar red\r\nproperty uchar green\r\nproperty uchar blue\r\nproperty float scalar_Label\r\n"
    text += "element face 1\r\nproperty list uchar int vertex_indices\r\nend_header\r\n"
    text += "9 9\r\n1 2 3 255 0 0 4\r\n4 5 6 0 255 0 -1\r\n3 0 1 1\r\n"
    (tmp_path / "ascii.ply").write_bytes(text.encode())
    cloud = read_ply(tmp_path / "ascii.ply")
    assert cloud.coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.color is not None
    assert cloud.color.tolist() == [[255, 0, 0], [0, 255, 0]]
    assert cloud.segment is not None
    assert cloud.segment.tolist() == [4, IGNORED]

    header = b"ply\nformat binary_big_endian 1.0\nelement sensor 1\nproperty short gain\nelement vertex 1\n"
    header += b"property float x\nproperty float y\nproperty float z\nproperty ushort label\nend_header\n"
    data = np.array([7], ">i2").tobytes() + np.array([1, 2, 3], ">f4").tobytes() + np.array([300], ">u2").tobytes()
    (tmp_path / "big.ply").write_bytes(header + data)
    cloud = read_ply(tmp_path / "big.ply")
    assert cloud.coord.tolist() == [[1, 2, 3]]
    assert cloud.segment is not None
    assert cloud.segment.tolist() == [300]


HEAD = "ply\nformat binary_little_endian 1.0\n"
XYZ = "property float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solid cube", "not a PLY file"),
        (HEAD + "element vertex 99999999\n" + XYZ, "promises 99,999,999 points"),
        (HEAD + "element vertex 999999999999\n" + XYZ, "promises 999,999,999,999 points"),
        (HEAD + "element vertex 1\nproperty list uchar int x\nend_header\n", "lists in or before"),
        (HEAD + "element vertex 1\nproperty float x\nproperty float x\nend_header\n", "one name"),
        (HEAD + "element vertex -1\n" + XYZ, "cannot be read"),
        (HEAD + "element face 0\nend_header\n", "has no vertices, but face"),
        (HEAD + "element vertex 0\n" + XYZ, "has 0 points"),
        ("ply\nelement vertex 1\n" + XYZ, "none of the formats"),
        (HEAD + "property float x\nend_header\n", "cannot be read"),
        ("ply\nformat ascii 1.0\nelement vertex 2\n" + XYZ + "1 2 3\n4 5 six\n", "cannot be read as 3 numbers"),
        ("ply\nformat ascii 1.0\nelement vertex 2\n" + XYZ + "1 2 3.00000\n", "promises 2 points, and 1 follow"),
        ("ply\nformat ascii 1.0\nelement vertex 1\n" + XYZ + "\n" * 20, "promises 1 points, and 0 follow"),
        (HEAD + "comment " + "x" * 70_000, "header is longer"),
        (HEAD + "element vertex 1\nproperty float y\nend_header\n    ", "no x, y and z, only y"),
    ],
)
def test_damaged_and_hostile_plys_are_told(tmp_path, text, message):
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(CloudError, match=message):
        read_cloud(tmp_path / "a.ply")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_ply_ends_in_another_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_ply(folder / "a.ply", example(5))
    content = bytearray((folder / "a.ply").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.ply").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(CloudError):
        assert len(read_cloud(folder / "a.ply")) <= 100_000


def test_numpy_and_text(tmp_path):
    cloud = example()
    assert cloud.color is not None
    assert cloud.segment is not None
    table = np.column_stack((cloud.coord, cloud.color, cloud.segment))
    np.save(tmp_path / "a.npy", table)
    np.savez_compressed(tmp_path / "a.npz", coord=cloud.coord, color=cloud.color, segment=cloud.segment)
    rows = "\n".join(" ".join(map(repr, row)) for row in table.tolist())
    (tmp_path / "a.txt").write_text("// x y z r g b label\n" + rows)
    (tmp_path / "a.xyz").write_text(rows.replace(" ", ";"))
    for name in ("a.npy", "a.npz", "a.txt", "a.xyz"):
        read = read_cloud(tmp_path / name)
        np.testing.assert_allclose(read.coord, cloud.coord, atol=1e-6)
        assert read.segment is not None
        assert read.segment.tolist() == cloud.segment.tolist()
    np.save(tmp_path / "b.npy", np.zeros((4, 5)))
    with pytest.raises(CloudError, match=r"shape \(4, 5\).*7: coord, color, segment"):
        read_cloud(tmp_path / "b.npy")
    np.savez(tmp_path / "b.npz", points=np.zeros((4, 3)))
    with pytest.raises(CloudError, match="no array named coord"):
        read_cloud(tmp_path / "b.npz")
    with pytest.raises(CloudError, match=r"clouds are read from \.ply"):
        read_cloud(tmp_path / "a.obj")
    with pytest.raises(CloudError, match="cannot be read"):
        read_cloud(tmp_path / "none.ply")


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_directions_in_the_place_of_colours_are_normals(tmp_path) -> None:
    """ModelNet's text files: x y z nx ny nz; a wall's directions may all be above zero, and then they are colours."""
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(30, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    rows = np.hstack([generator.normal(size=(30, 3)), normal, generator.integers(0, 3, (30, 1))])
    np.savetxt(tmp_path / "a.txt", rows)
    read = read_cloud(tmp_path / "a.txt")
    assert read.color is None
    assert np.allclose(read.normal, normal, atol=1e-4)
    assert read.segment is not None
    np.savetxt(tmp_path / "b.txt", np.hstack([rows[:, :3], 3 * normal]))
    with pytest.raises(CloudError, match="neither colours nor normals"):
        read_cloud(tmp_path / "b.txt")
    colour = generator.integers(0, 65536, (30, 3))
    np.savetxt(tmp_path / "c.txt", np.hstack([rows[:, :3], colour]))
    assert np.allclose(read_cloud(tmp_path / "c.txt").color, colour / 257, atol=0.01)


def test_nothing_in_a_file_is_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([_Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", coord=np.array([_Bomb()], dtype=object))
    torch.save({"coord": _Bomb()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"coord": np.array([_Bomb()], dtype=object)}))
    torch.save({"coord": np.array([None, 1], dtype=object)}, tmp_path / "c.pth")
    for name in ("a.npy", "a.npz", "a.pth", "b.pth", "c.pth"):
        with pytest.raises(CloudError):
            read_cloud(tmp_path / name)


def test_an_array_that_promises_more_than_the_file_has(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(4, 3), }        ", b"(99999999, 3), } ")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(CloudError):
        read_cloud(tmp_path / "a.npy")


def test_pointcepts_folders_and_older_files(tmp_path):
    cloud = example()
    assert cloud.segment is not None
    folder = tmp_path / "scene0000_00"
    folder.mkdir()
    assert not is_cloud(folder)
    for name in ("coord", "color", "normal"):
        np.save(folder / f"{name}.npy", getattr(cloud, name))
    np.save(folder / "segment20.npy", cloud.segment.astype(np.int16)[:, None])
    np.save(folder / "segment200.npy", np.arange(20))
    np.save(folder / "instance.npy", np.arange(20))
    assert is_cloud(folder)
    read = read_cloud(folder)
    np.testing.assert_allclose(read.coord, cloud.coord)
    assert read.segment is not None
    assert read.segment.tolist() == cloud.segment.tolist()
    other = read_cloud(folder, segments=SEGMENTS_200).segment
    assert other is not None
    assert other.tolist() == list(range(20))

    content = {"coord": cloud.coord, "color": cloud.color, "semantic_gt": cloud.segment[:, None], "name": "office"}
    torch.save(content, tmp_path / "office_1.pth")
    read = read_cloud(tmp_path / "office_1.pth")
    np.testing.assert_allclose(read.coord, cloud.coord)
    assert read.segment is not None
    assert read.segment.tolist() == cloud.segment.tolist()
    (tmp_path / "office_2.pth").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CloudError, match="not a file of arrays alone"):
        read_cloud(tmp_path / "office_2.pth")


def test_las_files(tmp_path):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [500_000, 5_400_000, 0]
    las = laspy.LasData(header)
    world = np.array([[512_345.125, 5_400_001.5, 10.0], [512_346.0, 5_400_002.0, 11.0]])
    las.x, las.y, las.z = world.T
    las.red, las.green, las.blue = np.array([65535, 0]), np.array([0, 0]), np.array([0, 65535])
    las.classification, las.intensity = np.array([2, 6]), np.array([0, 65535])
    las.write(tmp_path / "a.las")
    cloud = read_cloud(tmp_path / "a.las")
    np.testing.assert_allclose(cloud.world(), world, atol=2e-3)
    assert cloud.segment is not None
    assert cloud.segment.tolist() == [2, 6]
    assert cloud.color is not None
    np.testing.assert_allclose(cloud.color, [[255, 0, 0], [0, 0, 255]])
    assert cloud.strength is not None
    assert cloud.strength.tolist() == [0, 1]
    (tmp_path / "b.las").write_bytes((tmp_path / "a.las").read_bytes()[:120])
    with pytest.raises(CloudError, match="cannot be read as LAS"):
        read_cloud(tmp_path / "b.las")


def test_without_laspy_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "laspy", None)
    (tmp_path / "a.laz").write_bytes(b"LASF")
    with pytest.raises(CloudError, match="pip install 'laspy"):
        read_cloud(tmp_path / "a.laz")


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("name", ["a.ply", "a.npy", "a.npz", "a.txt", "a.las", "a.laz", "a"])
def test_an_answer_has_the_format_of_the_question(tmp_path, name):
    draw = np.random.default_rng(0)
    coord, label = np.round(draw.random((20, 3)) * 4, 2), np.arange(20) % 3
    coord[:, 0] += 600_000
    source = tmp_path / name
    if name == "a.ply":
        write_ply(source, make_cloud(coord))
    elif name.startswith("a.la"):
        laspy = pytest.importorskip("laspy")
        las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
        las.header.scales, las.header.offsets = [0.01] * 3, [600_000, 0, 0]
        las.x, las.y, las.z = coord.T
        las.intensity = np.arange(20)
        las.write(source)
    elif name == "a":
        source.mkdir()
        np.save(source / "coord.npy", coord)
    elif name == "a.npz":
        np.savez(source, coord=coord)
    else:
        (np.save if name == "a.npy" else np.savetxt)(source, coord)
    cloud = read_cloud(source)
    out = write_answer(source, tmp_path / "out" / "b.1", cloud, label, ["x", "y", "z"], np.ones(20))
    assert out.suffix == (source.suffix if name != "a" else ".npz")
    again = read_cloud(out)
    np.testing.assert_allclose(again.world(), coord, atol=0.01)
    assert again.segment is not None
    assert again.segment.tolist() == label.tolist()
    assert again.color is not None
    assert np.array_equal(np.rint(again.color), painted(label, 3))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("X Y Z Intensity\n0 0 0 100\n1 0 0 200\n", {"strength": [100 / 255, 200 / 255]}),
        ("x,y,z,class,r,g,b\n0,0,0,3,10,20,30\n", {"segment": [3], "color": [[10, 20, 30]]}),
        ("//X Y Z R G B Scalar_Label GpsTime\n0 0 0 10 20 30 4 99\n", {"segment": [4], "color": [[10, 20, 30]]}),
        ("\ufeff0 0 0 1\n1 1 1 2\n2 2 2 3\n", {"segment": [1, 2, 3]}),
        ("2\n3d scan\n0 0 0\n1 1 1\n", {}),
        ("0 0 0 0.5\n1 1 1 0.25\n", {"strength": [0.5, 0.25]}),
        ("0 0 0 0 0 1 5\n1 1 1 0 1 0 6\n", {"normal": [[0, 0, 1], [0, 1, 0]], "segment": [5, 6]}),
    ],
)
def test_texts_say_what_their_columns_are(tmp_path, text, parts):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    cloud = read_cloud(tmp_path / "a.txt")
    assert len(cloud) == text.count("\n0") + text.count("\n1") + text.count("\n2") + (text[0] in "0\ufeff")
    for name in ("color", "normal", "strength", "segment"):
        found = getattr(cloud, name)
        assert (found is None) == (name not in parts), name
        if found is not None:
            np.testing.assert_allclose(found, parts[name], atol=1e-5)


def test_columns_without_names_are_not_guessed(tmp_path):
    rows = np.hstack([np.zeros((60, 3)), np.arange(60)[:, None], np.full((60, 3), 7) + np.arange(60)[:, None]])
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(CloudError, match="more than 50 values: name the columns"):
        read_cloud(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("x y z label\n0 0 0 1 2\n")
    with pytest.raises(CloudError, match="names 4 columns, and there are 5"):
        read_cloud(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("nan 0 0\n0 0 0\n")
    with pytest.raises(CloudError, match="coordinates of 1 points are no numbers"):
        read_cloud(tmp_path / "b.txt")


def test_damaged_archives_are_told(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", coord=np.random.default_rng(0).random((50, 3)))
    content = bytearray((tmp_path / "good.npz").read_bytes())
    content[len(content) // 2] ^= 255
    np.save(tmp_path / "array.npy", np.zeros((2, 3)))
    damaged = {"a.npz": bytes(content), "b.npz": b"", "c.npz": b"PK\3\4 no", "d.npy": b""}
    damaged["e.npz"] = (tmp_path / "array.npy").read_bytes()
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CloudError, match=name):
            read_cloud(tmp_path / name)
    half = {"coord": torch.randn(4, 3, requires_grad=True), "strength": torch.rand(4).bfloat16()}
    torch.save(half, tmp_path / "half.pth")
    assert len(read_cloud(tmp_path / "half.pth")) == 4


def test_an_answer_keeps_the_whole_name_and_never_replaces_its_question(tmp_path):
    cloud, label = example(), np.zeros(20, int)
    for name in ("scan.1", "scan.2"):
        write_ply(tmp_path / f"{name}.ply", cloud)
        write_answer(tmp_path / f"{name}.ply", tmp_path / "out" / f"{name}-points", cloud, label, ["x"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan.1-points.ply", "scan.2-points.ply"]
    with pytest.raises(CloudError, match="is what was given"):
        write_answer(tmp_path / "scan.1.ply", tmp_path / "scan.1", cloud, label, ["x"])


def test_strengths_have_the_range_of_their_type():
    values = np.array([0, 200])
    assert make_cloud(np.eye(3)[:2], strength=values.astype(np.uint16)).strength.max() == pytest.approx(200 / 65535)
    assert make_cloud(np.eye(3)[:2], strength=values.astype(np.uint8)).strength.max() == pytest.approx(200 / 255)
