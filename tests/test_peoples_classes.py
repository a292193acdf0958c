"""Folders of classes as people have them: read rightly, or refused with the reason."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import timm
from PIL import Image

from tests.folders_of_people import classes, picture
from tokenmix.checkpoints import convert
from tokenmix.cli import main
from tokenmix.data.inventory import take_inventory
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data, recognise
from tokenmix.tasks import find_task
from tokenmix.train import fit

QUICK = ["model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=1", "warmup_epochs=0"]


def load(root: Path, **options: Any) -> Any:
    return load_data(root, log=lambda line: None, **options)


@pytest.mark.parametrize(
    ("places", "names", "test"),
    [
        (("Training/a", "Training/b", "Testing/a", "Testing/b"), ["a", "b"], 16),
        (("training_set/a", "training_set/b", "test_set/a", "test_set/b"), ["a", "b"], 16),
        (("TRAIN/a", "TRAIN/b", "dev/a", "dev/b"), ["a", "b"], 2),
        (("bus", "car", "train"), ["bus", "car", "train"], 3),
        (("valid", "invalid"), ["invalid", "valid"], 2),
        (("photos/photos/a", "photos/photos/b"), ["a", "b"], 2),
        (("train/train/a", "train/train/b", "test/test/a", "test/test/b"), ["a", "b"], 16),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "_") if isinstance(value, tuple | list) else str(value),
)
def test_the_names_of_splits_are_those_that_people_use(tmp_path: Path, places: Any, names: Any, test: int) -> None:
    data = load(classes(tmp_path, places))
    assert (data.classes, len(data.test)) == (names, test)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (("train", "test"), "no folder of a class"),
        (("train/a", "train/b", "boat"), "a part of the data set.*or a class beside 'boat'"),
        (("train/a", "train/b", "training/a"), "the same split"),
        (("test/a", "test/b"), "no folder 'train'"),
    ],
)
def test_two_readings_are_both_shown(tmp_path: Path, places: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(classes(tmp_path, places))


def test_every_file_is_used_ignored_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = classes(tmp_path / "photos", ("train/cat", "train/dog"))
    folder = root / "train"
    for name in ("train/cat/IMG_1.HEIC", "train/cat/noending", "test/unlabelled.jpg", "stray.jpg", "train/cat/_.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "cat" / "0.jpg", root / name)
    for name in ("Thumbs.db", ".DS_Store", "@eaDir/0.jpg", "__MACOSX/0.jpg", "train/cat/._0.jpg", "notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"\0\1\2")
    (folder / "again").symlink_to(folder / "cat")
    assert main(["data", "check", str(root), "--task", "classification", "--json"]) == 3  # the link makes copies
    found = {one["message"] for one in json.loads(capsys.readouterr().out)["findings"] if one["kind"] == "not used"}
    told = "\n".join(found)
    for name in ("IMG_1.HEIC", "noending", "test/unlabelled.jpg", "stray.jpg", "_.mp4"):
        assert name in told, name
    assert "MACOSX" not in told
    assert main(["data", "check", str(root), "--task", "classification", "--strict"]) == 3
    inventory = take_inventory(root)
    listed = {*inventory.pictures, *inventory.others, *inventory.ignored, *inventory.unusable}
    assert all(
        any(str(path.relative_to(root)) == name or str(path.relative_to(root)).startswith(name) for name in listed)
        for path in root.rglob("*")
        if path.is_file() and "again" not in path.parts
    )


def test_a_picture_of_two_is_read_as_its_first(tmp_path: Path) -> None:
    root = classes(tmp_path, ("cat", "dog"))
    first = Image.open(root / "cat" / "0.jpg")
    first.save(root / "cat" / "stereo.mpo", save_all=True, append_images=[first])
    assert len(load(root).train) + len(load(root).val) + len(load(root).test) == 17


def test_names_in_both_forms_of_unicode_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    data = load(classes(tmp_path, (f"train/{composed}", "train/tea", f"test/{apart}", "test/tea")))
    assert len(data.classes) == 2
    assert len(data.test) == 16


def test_one_more_picture_moves_no_other_into_the_test(tmp_path: Path) -> None:
    root = classes(tmp_path, ("a", "b"), 20)
    before = load(root)
    picture(root / "a" / "new.jpg", seed=77)
    after = load(root)
    moved = set(after.test.names) - set(before.test.names) - {"a/new.jpg"}
    assert len(moved) <= 1
    assert set(after.val.names) - {"a/new.jpg"} <= {*before.val.names, *before.train.names, *before.test.names}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder and a run that has learnt from it, by another seed than 0."""
    root = classes(tmp_path_factory.mktemp("data") / "photos", ("cat", "dog"), 20)
    out = tmp_path_factory.mktemp("runs") / "run"
    recipe = make_recipe("basic", [*QUICK, f"data={root}", "seed=1"])
    fit(recipe, load(root, seed=1), out, progress=False, log=lambda line: None)
    return root, out


def judged(capsys: pytest.CaptureFixture[str], out: Path, data: Path, *options: str) -> tuple[int, dict[str, Any]]:
    code = main(["eval", str(out), "--data", str(data), "--json", *options])
    text = capsys.readouterr()
    return code, json.loads(text.out) if code == 0 else {"error": text.err}


def test_a_run_is_judged_by_its_own_test_pictures(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever seed is given, and wherever the pictures lie now."""
    root, out = run
    shutil.copytree(root, tmp_path / "moved")
    wanted = set(load(root, seed=1).test.names)
    for data, options in ((root, ()), (root, ("--seed", "5")), (tmp_path / "moved", ())):
        file = tmp_path / "answers.csv"
        _, told = judged(capsys, out, data, "--predictions", str(file), *options)
        assert told["images"] == len(wanted)
        assert {line.split(",")[0] for line in file.read_text().splitlines()[1:]} == wanted
    picture(tmp_path / "moved" / "cat" / "new.jpg", seed=99)
    assert judged(capsys, out, tmp_path / "moved")[1]["images"] == len(wanted)
    assert judged(capsys, out, tmp_path / "moved", "--split", "all")[1]["images"] == 41


def test_other_folders_are_judged_whole(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run
    for name, places, count in (
        ("flat", ("cat", "dog"), 16),
        ("test only", ("test/cat", "test/dog"), 16),
        ("one class", ("dog",), 8),
    ):
        root = classes(tmp_path / name, places)
        for path in root.rglob("*.jpg"):
            picture(path, "blue", seed=hash(path.name) % 1000 + 5000)
        code, told = judged(capsys, out, root)
        assert (code, told.get("images")) == (0, count), told
    _, told = judged(capsys, out, classes(tmp_path / "other", ("cat", "horse")))
    assert "horse" in told["error"]


def test_pictures_without_labels_are_only_predicted(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run
    for number in range(3):
        picture(tmp_path / "new" / f"{number}.jpg", seed=number + 900)
    code, told = judged(capsys, out, tmp_path / "new")
    assert code == 2
    assert "--predictions" in told["error"]
    assert main(["eval", str(out), "--data", str(tmp_path / "new"), "--predictions", str(tmp_path / "a.csv")]) == 0
    rows = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()]
    assert len(rows) == 4
    assert all(row[1] == "" and row[2] in ("cat", "dog") for row in rows[1:])


def test_data_are_known_by_what_they_are(run: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = run
    here = tmp_path / "run"
    shutil.copytree(out, here)
    quiet: dict[str, Any] = {"progress": False, "log": lambda line: None}
    for spelling in (f"{root}/", str(root / ".." / root.name)):
        recipe = make_recipe("basic", [*QUICK, f"data={spelling}", "seed=1"])
        assert fit(recipe, load(Path(spelling), seed=1), here, **quiet).best["epoch"] == 1
    other = tmp_path / "photos"
    shutil.copytree(root, other)
    (other / "cat" / "3.jpg").rename(other / "dog" / "3b.jpg")
    recipe = make_recipe("basic", [*QUICK, f"data={other}", "seed=1"])
    with pytest.raises(ValueError, match=r"other data \(.*1 added: dog/3b.jpg; 1 gone: cat/3.jpg"):
        fit(recipe, load(other, seed=1), here, **quiet)


def test_what_a_folder_is_for_is_found_out(tmp_path: Path) -> None:
    assert recognise(classes(tmp_path / "photos", ("cat", "dog")))[0].name == "classification"
    assert recognise("scenes")[0].name == "detection"


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "words", [["predict", "{photo}", "--model", "{model}"], ["eval", "{model}", "--data", "{data}"]]
)
def test_models_of_other_channels_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: int, words: list[str]
) -> None:
    """Pictures are read as RGB; so is a recipe with such a model, before training, whatever its task."""
    root = classes(tmp_path / "photos", ("cat", "dog"), 2)
    model = timm.create_model("casvit_xs", num_classes=2, in_chans=channels)
    convert(model.state_dict(), tmp_path / "model.safetensors")
    places = {"photo": root / "cat" / "0.jpg", "model": tmp_path / "model.safetensors", "data": root}
    assert main([word.format(**places) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"takes pictures of {channels} channels, and they are read as RGB" in line
    for task in ("classification", "detection", "segmentation"):
        recipe = make_recipe("basic", [f"task={task}", f"model_args.in_chans={channels}"])
        with pytest.raises(ValueError, match=r"model\.args\.in_chans"):
            find_task(task).build(recipe, {"classes": ["a", "b"]})
