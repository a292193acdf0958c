"""Data sets by name, offline: torchvision's own format, and stand-ins for what needs a network."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import types

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from tokenmix.sources import load_data


def silent(line: str) -> None:
    pass


def parts(data) -> list[set[str]]:
    return [set(images.names) for images in (data.train, data.val, data.test)]


def test_cifar10_from_its_own_files(tmp_path, monkeypatch):
    """A tiny CIFAR-10 in the original format, read by torchvision."""
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="pass --download"):
        load_data("cifar10", log=silent)
    cifar = torchvision.datasets.CIFAR10
    folder = tmp_path / cifar.base_folder
    folder.mkdir()
    sums = {}
    names = [name for name, _ in (*cifar.train_list, *cifar.test_list)]
    for name in (*names, "batches.meta"):
        pixels = np.random.default_rng(len(sums)).integers(0, 256, (20, 3072), np.uint8)
        content: dict = {"data": pixels, "labels": [i % 10 for i in range(20)]}
        if name == "batches.meta":
            content = {"label_names": [f"class{i}" for i in range(10)]}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "train_list", [[name, sums[name]] for name, _ in cifar.train_list])
    monkeypatch.setattr(cifar, "test_list", [[name, sums[name]] for name, _ in cifar.test_list])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    data = load_data("cifar10", log=silent)
    assert [len(part) for part in parts(data)] == [90, 10, 20]
    assert data.classes[3] == "class3"
    assert (data.flip, data.crop_pct, data.image_size) == (True, 1.0, 32)
    assert data.train.load(5).size == (32, 32)
    reference = cifar(tmp_path, train=False)
    assert np.array_equal(data.test.load(7), reference[7][0])
    assert data.test.labels == reference.targets


@pytest.mark.parametrize(("name", "class_name"), [("flowers102", "Flowers102"), ("pets", "OxfordIIITPet")])
def test_torchvisions_photo_sets(name, class_name, tmp_path, monkeypatch):
    calls = []

    class Fake:
        classes = ("a", "b")

        def __init__(self, root, *, split, download):
            calls.append((root, split, download))
            self._labels = [i % 2 for i in range(20)]

        def __getitem__(self, index):
            return Image.new("RGB", (9, 7), (index, 0, 0)), index % 2

    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, class_name, Fake)
    data = load_data(name, download=True, log=silent)
    assert all(call[0] == tmp_path and call[2] for call in calls)
    assert [len(part) for part in parts(data)] == ([20, 20, 20] if name == "flowers102" else [18, 2, 20])
    index = 1
    assert data.train.load(index).getpixel((0, 0))[0] == data.train.rows[index]
    assert data.train.labels[index] == data.train.rows[index] % 2


def fake_hub(monkeypatch, splits: dict[str, list], *, columns: dict[str, object] | None = None) -> None:
    class ImageFeature:
        def __init__(self, decode: bool = True):
            self.decode = decode

    class ClassLabel:
        names = ("cat", "dog")

    class Table:
        def __init__(self, rows):
            self.rows = rows
            self.features = columns or {"img": ImageFeature(), "label": ClassLabel(), "id": object()}

        def cast_column(self, name, feature):
            assert isinstance(feature, ImageFeature)
            assert not feature.decode
            return self

        def __getitem__(self, key):
            return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    module = types.ModuleType("datasets")
    module.Image, module.ClassLabel = ImageFeature, ClassLabel

    def load_dataset(name):
        if name != "owner/pets":
            raise RuntimeError("offline")
        return {split: Table(rows) for split, rows in splits.items()}

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def encoded(level: int) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def test_hugging_face(monkeypatch, tmp_path):
    Image.new("RGB", (5, 5), "red").save(tmp_path / "x.png")
    train = [{"img": encoded(i), "label": i % 2, "id": i} for i in range(20)]
    train[3]["img"] = {"bytes": b"broken", "path": None}
    train[4]["img"] = {"bytes": None, "path": str(tmp_path / "x.png")}
    train[5]["img"] = None
    test = [{"img": encoded(i), "label": -1, "id": i} for i in range(4)]
    fake_hub(monkeypatch, {"train": train, "test": test})
    lines: list[str] = []
    data = load_data("hf:owner/pets", log=lines.append)
    assert data.name == "hf:owner/pets"
    assert data.classes == ["cat", "dog"]
    assert [skipped.name for skipped in data.skipped] == ["train/3", "train/5"]
    assert sum(len(part) for part in parts(data)) == 18  # the unlabelled test images are not used
    assert any("have no label" in line for line in lines)
    for images in (data.train, data.val, data.test):
        for index, name in enumerate(images.names):
            row = int(name.split("/")[1])
            assert images.labels[index] == row % 2
            assert images.load(index).getpixel((0, 0)) == ((255, 0, 0) if row == 4 else (row,) * 3)


def test_hugging_face_errors(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'tokenmix\[hub\]'"):
        load_data("hf:owner/pets")
    fake_hub(monkeypatch, {"test": []})
    with pytest.raises(ValueError, match="cannot be loaded: offline"):
        load_data("hf:owner/other")
    with pytest.raises(ValueError, match="no split 'train', only test"):
        load_data("hf:owner/pets")
    fake_hub(monkeypatch, {"train": []}, columns={"text": object()})
    with pytest.raises(ValueError, match="no column of pictures; it has text"):
        load_data("hf:owner/pets")
