"""``eval`` and ``predict`` with detectors and segmenters: numbers, files, drawings and messages."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.dense_runs import HEADS, write_run, write_toys
from tokenmix.checkpoints import open_model
from tokenmix.cli import main
from tokenmix.evaluate import evaluate, judge
from tokenmix.metrics import SegmentationOverlap
from tokenmix.pictures.found import FoundObjects, run_lengths
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.options import DenseAugment
from tokenmix.tasks.dense.sets import read_labels
from tokenmix.tasks.segmentation.objective import SegmentationObjective
from tokenmix.tasks.segmentation.predictions import LabelMaps
from tokenmix_runtime.images import open_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Runs and data by task: ``detection``, ``detection-data`` and so on."""
    folder = tmp_path_factory.mktemp("dense")
    for task in HEADS:
        write_run(folder / task, task)
        write_toys(folder / f"{task}-data", task)
    return folder


def told(capsys, *words: str) -> dict:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("task", ["detection", pytest.param("instances", marks=pytest.mark.slow)])
def test_the_results_file_is_cocos(place, tmp_path, capsys, task) -> None:
    """With the ids of the set's own file, so that COCO's evaluator gives the numbers that we print."""
    data, results = place / f"{task}-data", tmp_path / "results.json"
    numbers = told(capsys, "eval", str(place / task), "--data", str(data), "--predictions", str(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(data / "annotations" / "instances_val2017.json"))
        found = coco.loadRes(str(results))
        for name, kind in (("box", "bbox"), ("mask", "segm"))[: 1 if task == "detection" else 2]:
            judged = COCOeval(coco, found, kind)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
            values = [100 * value if value > -1 else None for value in judged.stats[:6]]
            names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
            if name == "box" and task == "detection":  # loadRes takes areas from masks where there are some
                assert [numbers[f"{name}_{each}"] for each in names] == pytest.approx(values, abs=1e-9)
            assert numbers[f"{name}_AP"] == pytest.approx(values[0], abs=1e-9)
    assert numbers["images"] == 5
    assert [row["class"] for row in numbers["classes"]] == ["red", "green"]
    assert sum(row["box_AP"] for row in numbers["classes"]) / 2 == pytest.approx(numbers["box_AP"])
    assert numbers["box_APl"] is None  # nothing there is large, and JSON has no NaN


def test_the_maps_of_a_segmenter(place, tmp_path, capsys) -> None:
    words = ["eval", str(place / "segmentation"), "--data", str(place / "segmentation-data")]
    numbers = told(capsys, *words, "--predictions", str(tmp_path / "maps"))
    metric = SegmentationOverlap(3)
    for path in sorted((place / "segmentation-data" / "val" / "masks").glob("*.png")):
        found = torch.from_numpy(read_labels(tmp_path / "maps" / "val" / "images" / path.name).astype(np.int64))
        label = torch.from_numpy(read_labels(path).astype(np.int64))
        metric.update([found], {"label": [label], "mask": torch.tensor([True])})
    for name, value in metric.compute().items():
        assert numbers[name] == pytest.approx(value, abs=1e-9)
    assert [row["IoU"] for row in numbers["classes"]] == pytest.approx([row["IoU"] for row in metric.by_class()])


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_pictures_without_answers_are_predicted_and_not_judged(place, tmp_path, capsys, task) -> None:
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    words = ["eval", str(place / task), "--data", str(tmp_path)]
    assert "give --predictions" in refused(capsys, *words)
    out = tmp_path / ("found.json" if task == "detection" else "maps")
    assert main([*words, "--predictions", str(out)]) == 0
    assert "the answers to 2 images" in capsys.readouterr().out
    if task == "detection":
        assert {row["image_id"] for row in json.loads(out.read_text())} <= {"0.png", "1.png"}
    else:
        assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png"]


def test_scales_windows_and_sizes_reach_the_task(place, capsys) -> None:
    data = load_data(place / "segmentation-data", task="segmentation", log=lambda line: None)
    words = ["eval", str(place / "segmentation"), "--data", str(place / "segmentation-data"), "--image-size", "64,96"]
    more = ["--scales", "0.5", "1", "--mirror", "--window", "32,48", "--stride", "24"]
    numbers = told(capsys, *words, *more)
    opened = open_model(place / "segmentation")
    kind = {"mean": opened.mean, "std": opened.std, "augment": DenseAugment(stretch=True)}
    loader = DenseLoader(data.test, batch_size=5, image_size=(64, 96), train=False, **kind)
    options = {"scales": (0.5, 1.0), "mirror": True, "window": (32, 48), "stride": (24, 24)}
    expected = evaluate(SegmentationObjective(opened.model, num_classes=3, **options), loader)
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert told(capsys, *words)["mIoU"] != numbers["mIoU"]


def test_a_window_of_the_command_comes_with_its_own_stride(place, tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "segmentation", task_args={"window": [32, 48], "stride": [32, 48]})
    words = ["eval", str(run), "--data", str(place / "segmentation-data"), "--window", "16"]
    assert told(capsys, *words)["images"] == 5


def test_tables_for_people(place, capsys) -> None:
    assert main(["eval", str(place / "detection"), "--data", str(place / "detection-data")]) == 0
    out = capsys.readouterr().out
    assert "mixernet_pico on 5 images" in out
    assert "box_APl –" in out
    assert "box AP, %" in out
    assert main(["eval", str(place / "segmentation"), "--data", str(place / "segmentation-data")]) == 0
    out = capsys.readouterr().out
    assert "accuracy, %" in out
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["nothing", "red", "green"]


def test_options_and_data_of_other_tasks(place, tmp_path, capsys, monkeypatch) -> None:
    words = {task: ["eval", str(place / task), "--data", str(place / f"{task}-data")] for task in HEADS}
    for option in (["--scales", "1"], ["--mirror"], ["--window", "8"], ["--stride", "8"]):
        error = refused(capsys, *words["detection"], *option)
        assert "segmentation, but this model is for detection" in error
    csv = ["--results", str(tmp_path / "r.csv")]
    assert "r.csv: segmentation has no table of results" in refused(capsys, *words["segmentation"], *csv)
    assert "must end in .json" in refused(capsys, *words["detection"], "--predictions", str(tmp_path / "p.csv"))
    assert "name a folder" in refused(capsys, *words["segmentation"], "--predictions", str(tmp_path / "p.json"))
    assert "no size" in refused(capsys, *words["segmentation"], "--window", "8,9,10")
    assert "set window too" in refused(capsys, *words["segmentation"], "--stride", "8")
    other = ["--data", str(place / "segmentation-data")]
    assert "nobody knows the answers" in refused(capsys, "eval", str(place / "detection"), *other)
    blue = place / "detection-data" / "annotations"
    for path in blue.glob("*.json"):
        content = path.read_text()
        copy = tmp_path / "blue" / "annotations" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(content.replace('"red"', '"blue"'))
    for split in ("train2017", "val2017"):
        (tmp_path / "blue" / split).symlink_to(place / "detection-data" / split)
    error = refused(capsys, "eval", str(place / "detection"), "--data", str(tmp_path / "blue"))
    assert "other classes" in error
    assert "'blue'" in error
    more = write_run(tmp_path / "more", "detection", classes=["red", "grey", "green"])
    assert main(["eval", str(more), *words["detection"][2:]]) == 0  # classes are matched by name
    order = write_run(tmp_path / "order", "detection", classes=["green", "red"])
    assert main(["eval", str(order), *words["detection"][2:]]) == 0
    unnamed = write_run(tmp_path / "two", "detection", classes=None)
    scenes = ["--data", str(place / "detection-data")]
    assert main(["eval", str(unnamed), *scenes]) == 0  # the number is right, and nobody knows the names
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pycocotools.cocoeval", None)
        assert "pip install 'tokenmix[detection]'" in refused(capsys, *words["detection"])
    data = load_data(place / "segmentation-data", task="segmentation", log=lambda line: None)
    with pytest.raises(ValueError, match="has 3 classes, but the data has 2"):
        judge(open_model(place / "segmentation"), data.test, {"classes": ["a", "b"]})


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_processes_share_the_work(place, tmp_path, capsys, task) -> None:
    words = ["eval", str(place / task), "--data", str(place / f"{task}-data"), "--batch-size", "2"]
    out = {"detection": "p.json", "segmentation": "maps"}[task]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tokenmix"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [*words, "--json", "--predictions", str(tmp_path / "two" / out)]
    done = subprocess.run([*command, *both], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    alone = told(capsys, *words, "--predictions", str(tmp_path / "one" / out))
    for name, value in alone.items():
        if isinstance(value, float):
            assert together[name] == pytest.approx(value, abs=1e-9), name
    for one, other in zip(together["classes"], alone["classes"], strict=True):
        assert one == {name: value if isinstance(value, str) else pytest.approx(value) for name, value in other.items()}
    written = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(written) == (1 if task == "detection" else 5)
    for path in written:
        assert (tmp_path / "two" / path).read_bytes() == (tmp_path / "one" / path).read_bytes()


def test_names_of_maps(tmp_path) -> None:
    names = ["a/1.jpg", "a/1.png", "../../b.jpg", "/etc/c"]
    maps = LabelMaps(tmp_path / "maps", names)
    batch = {"index": torch.arange(4), "mask": torch.tensor([True, True, True, False])}
    maps.update([torch.full((2, 3), number) for number in range(4)], batch)
    found = {path.relative_to(tmp_path).as_posix(): read_labels(path)[0, 0] for path in tmp_path.rglob("*.png")}
    assert found == {"maps/a/1.jpg.png": 0, "maps/a/1.png.png": 1, "maps/b.png": 2}


@pytest.mark.parametrize(
    "names",
    [["x.jpg", "x.png", "x.jpg.jpg", "x.jpg-2.png"], ["A.jpg", "a.png", "b.jpg"], ["e\u0301.jpg", "é.png"]],
)
def test_no_two_maps_are_one_file(tmp_path, names) -> None:
    """Also where a system ignores case, or forms of Unicode."""
    files = [unicodedata.normalize("NFC", str(path)).casefold() for path in LabelMaps(tmp_path, names).paths]
    assert len(set(files)) == len(names)


@pytest.mark.parametrize(
    ("task", "ending"),
    [("detection", "boxes"), ("segmentation", "segments"), pytest.param("instances", "masks", marks=pytest.mark.slow)],
)
def test_predict_draws(place, tmp_path, capsys, monkeypatch, task, ending) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (90, 50), "red").save("photo.png")
    Image.new("RGB", (900, 500), "blue").save("other/photo.jpg")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    words = ["predict", "photo.png", "bad.png", "other/photo.jpg", "--model", str(place / task)]
    words += [] if task == "segmentation" else ["--threshold", "0.1"]
    assert main([*words, "--json"]) == 2
    captured = capsys.readouterr()
    assert "bad.png" in captured.err
    answers = json.loads(captured.out)
    assert answers.pop(1)["error"] in captured.err
    assert [answer["drawing"] for answer in answers] == [
        f"predictions/photo-{ending}.png",
        f"predictions/photo-{ending}-2.png",
    ]
    assert [answer["size"] for answer in answers] == [[50, 90], [500, 900]]
    for answer, width in zip(answers, (640, 900), strict=True):
        assert open_image(answer["drawing"]).width == width
    found = find_task(task).look(open_model(place / task), open_image("photo.png"), threshold=0.1)
    assert found.told() == {key: answers[0][key] for key in found.told()}
    assert main([*words[:2], *words[4:], "--out", "else", "--csv", "answers.csv"]) == 0
    out = capsys.readouterr().out
    with open("answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = answers[0].get("objects", answers[0].get("classes"))
    assert [row["class"] for row in rows] == [one["class"] for one in told]
    if task != "segmentation":
        corners = [[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in rows]
        assert np.allclose(corners, [one["box"] for one in told], atol=1e-3)
    assert f"else/photo-{ending}.png" in out
    if task == "segmentation":
        assert sum(row["share"] for row in answers[0]["classes"]) == pytest.approx(1)
        assert "█" in out
    else:
        assert len(answers[0]["objects"]) > 1
        scores = [one["score"] for one in answers[0]["objects"]]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.1
        assert out.splitlines()[1].split() == ["class", "score", "left", "top", "right", "bottom"]


def test_a_very_large_picture_has_a_smaller_map(place, monkeypatch) -> None:
    monkeypatch.setattr("tokenmix.tasks.segmentation.task.LARGEST_PX", 60)
    found = find_task("segmentation").look(open_model(place / "segmentation"), Image.new("RGB", (900, 50)))
    assert found.label.shape == (3, 60)
    assert found.drawn(Image.new("RGB", (900, 50))).width >= 900


def test_predict_refuses(place, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 50), "red").save("photo.png")
    words = {task: ["predict", "photo.png", "--model", str(place / task)] for task in HEADS}
    assert "--top is for classification" in refused(capsys, *words["detection"], "--top", "3")
    error = refused(capsys, *words["segmentation"], "--threshold", "0.3")
    assert "--threshold is for detection and instance segmentation, but this model is for segmentation" in error
    assert "from 0 to 1" in refused(capsys, *words["detection"], "--threshold", "3")
    assert "photo.png is a file" in refused(capsys, *words["segmentation"], "--out", "photo.png")
    assert main([*words["detection"], "--threshold", "1"]) == 0
    assert "nothing found; a lower --threshold" in capsys.readouterr().out


def test_found_objects_with_masks() -> None:
    masks = torch.zeros(3, 1, 6, 5)
    masks[0, 0, 1:4, 2:] = 0.9
    masks[2, 0, 0, 0] = 0.6
    found = {"boxes": torch.rand(3, 4), "labels": torch.tensor([1, 2, 3]), "scores": torch.tensor([0.5, 0.4, 0.9])}
    told = FoundObjects(found | {"masks": masks}, ["a", "b"]).told()["objects"]
    assert [(one["class"], round(one["score"], 3)) for one in told] == [("class 2", 0.9), ("a", 0.5), ("b", 0.4)]
    for one, mask in zip(told, masks[[2, 0, 1], 0], strict=True):
        decoded = coco_mask.decode(coco_mask.frPyObjects(one["mask"], *one["mask"]["size"]))
        assert torch.equal(torch.from_numpy(decoded), (mask > 0.5).to(torch.uint8))


@pytest.mark.parametrize("fill", [0, 1])
def test_run_lengths_of_plain_masks(fill) -> None:
    code = run_lengths(np.full((3, 4), fill, bool))
    assert (coco_mask.decode(coco_mask.frPyObjects(code, 3, 4)) == fill).all()
