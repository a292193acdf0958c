"""What `check_data` says of data sets whose faults were put there, and what `pack_data` writes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from tests.shard_files import write_shards
from tokenmix.cli import main
from tokenmix.data.tars import read_contents
from tokenmix.sources import load_data
from tokenmix.tasks.classification.check import check_data
from tokenmix.tasks.classification.images import ArrayImages, ClassData
from tokenmix.tasks.classification.write_shards import pack_data
from tokenmix_runtime.images import ImageError


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path_factory.mktemp("cache")))


def picture(number: int, width: int = 48, height: int = 40) -> Image.Image:
    draws = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(draws).resize((width, height), Image.Resampling.BICUBIC)


def fill(folder: Path, first: int, count: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number).save(folder / f"{number}.{suffix}")


@pytest.fixture
def clean(tmp_path) -> Path:
    """Two classes of 8 training, 3 validation and 3 test pictures each, all different."""
    root = tmp_path / "photos"
    for label, first in (("ant", 0), ("bee", 100)):
        fill(root / "train" / label, first, 8)
        fill(root / "val" / label, first + 20, 3)
        fill(root / "test" / label, first + 40, 3, "jpg")
    return root


def findings(spec) -> dict[str, tuple[str, str]]:
    return {found["kind"]: (found["level"], found["message"]) for found in check_data(spec, log=silent)["findings"]}


def test_a_clean_folder(clean):
    report = check_data(clean, log=silent)
    assert report == {
        "data": "photos",
        "classes": ["ant", "bee"],
        "splits": {
            "train": {"images": 16, "per_class": [8, 8]},
            "val": {"images": 6, "per_class": [3, 3]},
            "test": {"images": 6, "per_class": [3, 3]},
        },
        "sizes": {
            "width": {"min": 48, "median": 48.0, "max": 48},
            "height": {"min": 40, "median": 40.0, "max": 40},
            "tiny": [],
        },
        "formats": {"PNG": 22, "JPEG": 6},
        "modes": {"RGB": 28},
        "broken": [],
        "duplicates": [],
        "leaks": [],
        "alike": [],
        "depth": {"dark": [], "scaled": [], "pages": []},
        "imbalance": {
            "largest": ["bee", 8],
            "smallest": [["ant", 8], ["bee", 8]],
            "ratio": 1.0,
            "effective": pytest.approx(2.0),
        },
        "findings": [],
    }
    json.dumps(report, allow_nan=False)


def test_leaks_are_found_by_pixels_and_named(clean):
    picture(0).save(clean / "val" / "ant" / "copy.bmp")  # other bytes, same pixels
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture(3).transpose(Image.Transpose.ROTATE_90)
    turned.save(clean / "test" / "bee" / "turned.png", exif=exif)  # the camera's rotation undoes it
    report = check_data(clean, log=silent)
    assert report["leaks"] == [
        {"of": "val", "in": "train", "images": 1, "pairs": [["val/ant/copy.bmp", "train/ant/0.png"]]},
        {"of": "test", "in": "train", "images": 1, "pairs": [["test/bee/turned.png", "train/ant/3.png"]]},
    ]
    assert [(found["level"], found["kind"]) for found in report["findings"]] == [
        ("error", "leak"),
        ("error", "leak"),
        ("warning", "conflicting labels"),
    ]
    assert report["findings"][0]["message"] == (
        "1 of 7 val images (14.3 %) are also in train: val/ant/copy.bmp = train/ant/0.png"
    )
    assert report["findings"][2]["message"] == (
        "1 pictures have several labels: train/ant/3.png (ant) = test/bee/turned.png (bee)"
    )


def test_a_few_leaks_are_a_warning(clean):
    for i in range(99):
        picture(1000 + i).save(clean / "val" / "ant" / f"{1000 + i}.png")
    picture(0).save(clean / "val" / "ant" / "copy.png")
    level, message = findings(clean)["leak"]
    assert level == "warning"
    assert "1 of 106 val images (0.9 %)" in message


def test_leaks_between_val_and_test(clean):
    picture(20).save(clean / "test" / "ant" / "copy.png")
    assert findings(clean)["leak"][1].startswith(
        "1 of 7 test images (14.3 %) are also in val: test/ant/copy.png = val/"
    )


def test_duplicates_within_a_split(clean):
    for i in range(7):
        picture(0).save(clean / "train" / "ant" / f"copy{i}.png")
    found = findings(clean)
    assert list(found) == ["duplicates"]
    assert found["duplicates"][0] == "warning"
    assert (
        "1 pictures are there more than once in a split: train/ant/0.png = train/ant/copy0.png = "
        in (found["duplicates"][1])
    )


def test_broken_files_and_classes_without_images(clean):
    (clean / "train" / "ant" / "cut.jpg").write_bytes((clean / "test" / "ant" / "40.jpg").read_bytes()[:300])
    (clean / "train" / "cow").mkdir()
    (clean / "train" / "cow" / "text.jpg").write_text("text")
    (clean / "train" / "dog").mkdir()
    for file in (clean / "val" / "bee").iterdir():
        file.unlink()
    report = check_data(clean, log=silent)
    assert [broken["name"] for broken in report["broken"]] == ["train/ant/cut.jpg", "train/cow/text.jpg"]
    found = [(found["level"], found["kind"], found["message"]) for found in report["findings"]]
    assert found[0] == ("error", "missing class", "2 classes without train images: cow, dog")
    assert found[1] == ("warning", "missing class", "1 classes without val images: bee")
    assert found[2][:2] == ("warning", "broken")
    assert "2 images cannot be used: train/ant/cut.jpg (" in found[2][2]


def test_imbalance_and_tiny_pictures(clean):
    fill(clean / "train" / "bee", 200, 92)
    picture(500, 31, 100).save(clean / "test" / "ant" / "thin.png")
    report = check_data(clean, log=silent)
    assert report["imbalance"]["ratio"] == 12.5
    shares = np.array([8, 100]) / 108
    assert report["imbalance"]["effective"] == pytest.approx(2 ** -(shares @ np.log2(shares)))
    assert [(found["level"], found["message"]) for found in report["findings"]] == [
        ("warning", "the largest class has 12 times the smallest's images: ant 8, bee 100"),
        ("warning", "1 images have a side below 32 pixels: test/ant/thin.png"),
    ]


def test_pictures_that_are_not_of_eight_bits(tmp_path):
    """Twelve bits in sixteen, floats of any range, several pages: each is told, with what helps."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            values = np.random.default_rng(number + 10 * (label == "b")).integers(0, 4096, (40, 48), np.uint16)
            Image.fromarray(values).save(tmp_path / label / f"{number}.png")
    Image.fromarray(np.random.default_rng(1).random((40, 48), np.float32)).save(tmp_path / "a" / "x.tif")
    page = Image.fromarray(np.random.default_rng(2).integers(0, 255, (40, 48, 3), np.uint8))
    page.save(tmp_path / "b" / "y.tif", save_all=True, append_images=[page])
    found = findings(tmp_path)
    assert found["dark"][0] == found["scaled"][0] == found["pages"][0] == "warning"
    assert found["dark"][1].startswith("16 images of 16 bits or more have no level above 32 of 255")
    assert found["scaled"][1].endswith("a/x.tif")
    assert found["pages"][1].endswith("b/y.tif")


def test_shards_and_a_damaged_one(tmp_path):
    paths = write_shards(tmp_path, "train", [30, 30])
    assert set(findings(tmp_path)) == {"tiny"}
    paths[1].write_bytes(paths[1].read_bytes()[: read_contents(paths[1]).samples[28].offset])
    level, message = findings(tmp_path)["damaged shard"]
    assert level == "error"
    assert message.startswith("train-000001.tar: it ends after ")


def test_a_class_that_no_shard_has(tmp_path):
    write_shards(tmp_path, "train", [20])
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert findings(tmp_path)["missing class"] == ("warning", "1 classes without test images: d")
    assert check_data(tmp_path, log=silent)["findings"][0]["message"] == "1 classes without train images: d"


def test_the_splits_are_those_of_training(tmp_path):
    for label, first in (("a", 0), ("b", 100)):
        fill(tmp_path / label, first, 10)
    (tmp_path / "a" / "broken.png").write_bytes(b"")
    data = load_data(tmp_path, seed=4, log=silent)
    report = check_data(tmp_path, seed=4, log=silent)
    assert report["splits"]["val"]["per_class"] == np.bincount(data.val.labels).tolist()
    # A picture of val is copied under the name of the broken one.
    copied = data.val.names[0]
    (tmp_path / "a" / "broken.png").write_bytes((tmp_path / copied).read_bytes())
    after = load_data(tmp_path, seed=4, log=silent)
    splits = {name: split for split in ("train", "val", "test") for name in getattr(after, split).names}
    report = check_data(tmp_path, seed=4, log=silent)
    assert bool(report["leaks"]) == (splits[copied] != splits["a/broken.png"])
    assert len(report["duplicates"]) == 1


def test_the_command(clean, capsys):
    assert main(["data", "check", str(clean)]) == 0
    text = capsys.readouterr().out
    assert "photos: 16 training, 6 validation and 6 test images of 2 classes" in text
    assert "nothing wrong was found" in text
    picture(500, 31, 31).save(clean / "test" / "ant" / "tiny.png")
    assert main(["data", "check", str(clean)]) == 0
    assert main(["data", "check", str(clean), "--strict"]) == 3
    picture(0).save(clean / "test" / "ant" / "copy.png")
    capsys.readouterr()
    assert main(["data", "check", str(clean), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["leaks"][0]["of"] == "test"
    assert main(["data", "check", str(clean)]) == 3
    assert "error: 1 of 8 test images (12.5 %) are also in train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek", "x"], "unknown action 'chek'; did you mean 'check'"),
        (["check", "nowhere"], "unknown data set 'nowhere'"),
        (["check", "digits", "more"], "unexpected argument 'more'"),
        (["check", "."], "no class folders"),
        (["pack", "digits"], "pack needs a folder to write to"),
        (["pack", "digits", "."], "is not an empty folder"),
        (["pack", "digits", "new", "--shard-size", "0"], "--shard-size: the number must be from 1 to"),
        (["check"], "required: path"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def packed(folder: Path) -> list[dict]:
    samples = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as stream:
            samples += list(group_by_keys([file | {"__url__": path.name} for file in tar_file_iterator(stream)]))
    return samples


def test_pack_keeps_files_splits_and_classes(clean, tmp_path):
    (clean / "train" / "ant" / "0.png").rename(clean / "train" / "ant" / "a.b c\u00e9.PNG")
    data = load_data(clean, log=silent)
    assert pack_data(data, tmp_path / "out", shard_size=5, log=silent) == {"train": 4, "val": 2, "test": 2}
    assert pack_data(data, tmp_path / "again", shard_size=5, log=silent) == {"train": 4, "val": 2, "test": 2}
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert len(packed(tmp_path / "out")) == 28
    again = load_data(tmp_path / "out", log=silent)
    assert again.classes == ["ant", "bee"]
    for split in ("train", "val", "test"):
        before, after = getattr(data, split), getattr(again, split)
        files = {before.encoded(i): label for i, label in enumerate(before.labels)}
        assert {after.encoded(i): label for i, label in enumerate(after.labels)} == files
    assert [name.partition("/")[2] for name in again.val.names[:2]] == ["00000000-20.png", "00000001-21.png"]
    assert any(name.endswith("-a_b_c_.png") for name in again.train.names)
    first = [label for name, label in zip(again.train.names, again.train.labels, strict=True) if "000000.tar" in name]
    assert set(first) == {0, 1}


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 30), size=st.integers(1, 40))
def test_pack_has_every_picture_once(count, size, tmp_path_factory):
    import torch

    out = tmp_path_factory.mktemp("pack") / "out"
    pixels = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8)
    images = ArrayImages(pixels, [i % 2 for i in range(count)], [f"x/{i}" for i in range(count)])
    none = ArrayImages(pixels[:0], [], [])
    shards = pack_data(ClassData("x", images, none, none, 4, ["a", "b"]), out, shard_size=size, log=silent)
    assert shards == {"train": -(-count // size), "val": 0, "test": 0}
    samples = packed(out)
    found = {
        sample["__key__"].rpartition("-")[2]: np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples
    }
    assert len(samples) == len(found) == count
    assert all(np.array_equal(found[str(i)], pixels[i].permute(1, 2, 0)) for i in range(count))


def test_pack_leaves_nothing_behind_when_it_fails(clean, tmp_path):
    data = load_data(clean, log=silent)
    (clean / "test" / "bee" / "140.jpg").unlink()
    with pytest.raises(ImageError, match=r"140.jpg"):
        pack_data(data, tmp_path / "out", log=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_pack_command(clean, tmp_path, capsys):
    assert main(["data", "pack", str(clean), str(tmp_path / "out"), "--shard-size", "10"]) == 0
    assert "wrote 4 shards to" in capsys.readouterr().out
    with tarfile.open(tmp_path / "out" / "val-000000.tar") as tar:
        assert len(tar.getnames()) == 12
    assert main(["data", "check", str(tmp_path / "out"), "--strict"]) == 0
