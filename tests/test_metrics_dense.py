"""COCO's AP equals pycocotools' from JSON files, mIoU equals sums over pixels; on empty sets and crowds too."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tokenmix.metrics import CocoAP, SegmentationOverlap

SIZE = (200, 260)
CLASSES = 3


def random_boxes(rng, count: int) -> torch.Tensor:
    height, width = SIZE
    corner = rng.uniform(0, (width * 0.6, height * 0.6), (count, 2))
    sides = rng.uniform(2, (width, height), (count, 2)) ** rng.uniform(0.6, 1, (count, 1))
    ends = np.minimum(corner + 2 + sides, (width, height))
    return torch.tensor(np.concatenate((corner, ends), 1).reshape(-1, 4), dtype=torch.float32)


def drawn(boxes: torch.Tensor, rng) -> torch.Tensor:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = torch.tensor(rng.random((bottom - top, right - left)) < 0.9)
        mask[top, left] = 1
    return masks


def scene(seed: int, truths: int | None = None, finds: int | None = None, crowd: bool | None = None):
    """What is in an image and what was found: some of it near the truth, some not."""
    rng = np.random.default_rng(seed)
    truths = int(rng.integers(0, 7)) if truths is None else truths
    finds = int(rng.integers(0, 12)) if finds is None else finds
    boxes = random_boxes(rng, truths)
    crowds = torch.tensor(rng.random(truths) < 0.2) if crowd is None else torch.full((truths,), crowd)
    target = {"boxes": boxes, "labels": torch.tensor(rng.integers(1, CLASSES + 1, truths))}
    target |= {"iscrowd": crowds.long(), "masks": drawn(boxes, rng)}
    target["area"] = target["masks"].sum((1, 2)).float()
    found = random_boxes(rng, finds)
    labels = torch.tensor(rng.integers(1, CLASSES + 1, finds))
    for row in range(min(truths, finds)):
        moved = boxes[row] + torch.tensor(rng.normal(0, 2, 4), dtype=torch.float32)
        found[row] = torch.cat((moved[:2].clamp(min=0), torch.maximum(moved[2:], moved[:2].clamp(min=0) + 2)))
        labels[row] = target["labels"][row]
    limits = torch.tensor([SIZE[1], SIZE[0]] * 2)
    found = torch.minimum(found, limits)
    scores = torch.tensor(rng.choice([0.1, 0.5, 0.9], finds) + rng.random(finds).round(1) / 10, dtype=torch.float32)
    masks = drawn(found, rng)[:, None].float() * 0.9
    return {"boxes": found, "labels": labels, "scores": scores, "masks": masks}, target


def batch_of(scenes, start: int, mask=None):
    return {
        "target": [target for _, target in scenes],
        "size": torch.tensor([SIZE] * len(scenes)),
        "index": torch.arange(start, start + len(scenes)),
        "mask": torch.tensor(mask or [True] * len(scenes)),
    }


def judged(scenes, size: int = 4) -> CocoAP:
    metric = CocoAP(CLASSES, masks=True)
    for start in range(0, len(scenes), size):
        part = scenes[start : start + size]
        metric.update([found for found, _ in part], batch_of(part, start))
    return metric


def encoded(mask) -> dict:
    code = coco_mask.encode(np.asfortranarray(np.asarray(mask, np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def directly(scenes, folder: Path, kind: str) -> COCOeval:
    """The reference as its users call it: two JSON files, each detection with a box or a mask."""
    truth = {"images": [], "annotations": [], "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)]}
    results = []
    for index, (found, target) in enumerate(scenes):
        truth["images"].append({"id": index, "height": SIZE[0], "width": SIZE[1]})
        for row in range(len(target["boxes"])):
            left, top, right, bottom = target["boxes"][row].tolist()
            entry = {"image_id": index, "id": len(truth["annotations"]) + 1, "category_id": int(target["labels"][row])}
            entry |= {"bbox": [left, top, right - left, bottom - top], "area": float(target["area"][row])}
            entry |= {"iscrowd": int(target["iscrowd"][row]), "segmentation": encoded(target["masks"][row])}
            truth["annotations"].append(entry)
        for row in range(len(found["boxes"])):
            left, top, right, bottom = found["boxes"][row].tolist()
            entry = {"image_id": index, "category_id": int(found["labels"][row]), "score": float(found["scores"][row])}
            if kind == "bbox":
                entry["bbox"] = [left, top, right - left, bottom - top]
            else:
                entry["segmentation"] = encoded(found["masks"][row, 0] > 0.5)
            results.append(entry)
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        judge = COCOeval(coco, coco.loadRes(str(folder / "results.json")) if results else COCO(), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def equal(one: float, other: float) -> bool:
    return (math.isnan(one) and other == -1) or abs(one / 100 - other) < 1e-9


CASES = {
    "random": [scene(seed) for seed in range(14)],
    "others": [scene(seed) for seed in range(100, 110)],
    "nothing found": [scene(seed, finds=0) for seed in range(3)],
    "nothing there": [scene(seed, truths=0) for seed in range(3)],
    "neither": [scene(seed, truths=0, finds=0) for seed in range(3)],
    "crowds only": [scene(seed, truths=3, crowd=True) for seed in range(4)],
    "one image": [scene(5, truths=1, finds=1, crowd=False)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_average_precision_is_cocos(tmp_path, case, kind) -> None:
    scenes = CASES[case]
    reference = directly(scenes, tmp_path, {"box": "bbox", "mask": "segm"}[kind])
    metric = judged(scenes)
    values = metric.compute()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    for name, expected in zip(names, reference.stats, strict=False):
        assert equal(values[f"{kind}_{name}"], expected), name
    precision = reference.eval["precision"]
    for number, row in enumerate(metric.by_class()):
        assert equal(row[f"{kind}_AP"], precision[:, :, number, 0, 2].mean())
        assert equal(row[f"{kind}_AP50"], precision[0, :, number, 0, 2].mean())
        assert equal(row[f"{kind}_AP75"], precision[5, :, number, 0, 2].mean())
        curve = row[f"{kind}_precision"]
        there = precision[0, 0, number, 0, 2] >= 0
        assert len(curve) == (101 if there else 0)
        assert not there or np.allclose(np.array(curve) / 100, precision[0, :, number, 0, 2], atol=1e-9, rtol=0)


def test_the_random_case_says_something() -> None:
    values = judged(CASES["random"]).compute()
    assert all(5 < value < 95 for value in values.values()), values


def test_padding_and_order_of_images_do_not_count() -> None:
    scenes = CASES["random"]
    expected = judged(scenes).compute()
    assert judged(scenes, size=1).compute() == expected
    metric = CocoAP(CLASSES, masks=True)
    for index in reversed(range(len(scenes))):
        pair = [scenes[index], scenes[0]]
        metric.update([found for found, _ in pair], batch_of(pair, index, [True, False]))
    assert metric.compute() == expected
    with pytest.raises(ValueError, match="nothing was evaluated"):
        CocoAP(CLASSES).compute()


@pytest.mark.parametrize("lost", ["box", "score"])
def test_detections_that_are_not_finite_find_nothing(lost) -> None:
    box, mask = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.zeros(1, *SIZE)
    mask[:, :10, :10] = 1
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": mask, "iscrowd": torch.tensor([0])}
    target["area"] = torch.tensor([100.0])
    found = {"boxes": box.clone(), "labels": torch.tensor([1]), "scores": torch.tensor([0.9]), "masks": mask[:, None]}
    assert judged([(found, target)]).compute()["mask_AP"] == pytest.approx(100)
    wrong = {name: value.clone() for name, value in found.items()}
    wrong["boxes" if lost == "box" else "scores"].view(-1)[0] = torch.nan
    values = judged([(wrong, target)]).compute()
    assert values["box_AP"] == values["mask_AP"] == 0
    both = {name: torch.cat((wrong[name], found[name] * (0.5 if name == "scores" else 1))) for name in found}
    values = judged([(both, target)]).compute()  # the false one comes first
    assert values["box_AP"] == values["mask_AP"] == pytest.approx(50)


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ValueError, match=r"pip install 'tokenmix\[detection\]'"):
        CocoAP(2)


def brute_force(predictions, labels, classes: int) -> dict[str, float]:
    """Pixel by pixel."""
    table = [[0] * classes for _ in range(classes)]
    for found, label in zip(predictions, labels, strict=True):
        for seen, true in zip(found.flatten().tolist(), label.flatten().tolist(), strict=True):
            if true != 255:
                table[true][seen] += 1
    ious, recalls = [], []
    for k in range(classes):
        there, seen = sum(table[k]), sum(row[k] for row in table)
        ious += [table[k][k] / (there + seen - table[k][k])] if there + seen else []
        recalls += [table[k][k] / there] if there else []
    total = sum(map(sum, table))
    mean = lambda values: 100 * sum(values) / len(values) if values else math.nan  # noqa: E731
    right = 100 * sum(table[k][k] for k in range(classes)) / total if total else math.nan
    return {"mIoU": mean(ious), "mAcc": mean(recalls), "aAcc": right}


def maps(seed: int, count: int, classes: int, ignored: float, present: int):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, (count, 2))
    predictions = [torch.tensor(rng.integers(0, classes, size)) for size in sizes]
    labels = [torch.tensor(rng.integers(0, min(present, classes), size)) for size in sizes]
    for label in labels:
        label[torch.tensor(rng.random(label.shape) < ignored)] = 255
    return predictions, labels


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 7))
def test_overlap_is_counted_pixel_by_pixel(seed, count, classes, ignored, present) -> None:
    predictions, labels = maps(seed, count, classes, ignored, present)
    metric = SegmentationOverlap(classes)
    for begin in range(0, count, 2):
        rows = slice(begin, begin + 2)
        mask = torch.ones(len(labels[rows]), dtype=torch.bool)
        metric.update(predictions[rows], {"label": labels[rows], "mask": mask})
    metric.update(predictions[:1], {"label": labels[:1], "mask": torch.tensor([False])})
    values, expected = metric.compute(), brute_force(predictions, labels, classes)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-9, nan_ok=True)
    rows = metric.by_class()
    there = [row["IoU"] for row in rows if not math.isnan(row["IoU"])]
    assert len(rows) == classes
    if there:
        assert sum(there) / len(there) == pytest.approx(values["mIoU"], abs=1e-9)


def test_nothing_segmented() -> None:
    with pytest.raises(ValueError, match="nothing was evaluated"):
        SegmentationOverlap(2).compute()


SCRIPT = """
import json, sys
import torch.distributed as dist
from tests.test_metrics_dense import CLASSES, CASES, batch_of, maps
from tokenmix.metrics import CocoAP, SegmentationOverlap
import torch

dist.init_process_group("gloo")
rank = dist.get_rank()
scenes = CASES["random"]
metric = CocoAP(CLASSES, masks=True)
for index in range(rank, len(scenes) - 1, 2):  # the second process has one image less, and pads
    metric.update([scenes[index][0]], batch_of([scenes[index]], index))
metric.update([scenes[-1][0]], batch_of([scenes[-1]], len(scenes) - 1, [rank == 0]))
predictions, labels = maps(3, 5, 4, 0.2, 4)
overlap = SegmentationOverlap(4)
for index in range(rank, 5, 2):
    overlap.update(predictions[index : index + 1], {"label": labels[index : index + 1], "mask": torch.tensor([True])})
print(json.dumps(metric.compute() | overlap.compute()))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_count_what_one_does() -> None:
    root = Path(__file__).parents[1]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "RANK": str(rank)}
        environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", SCRIPT]
        started.append(subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=240)[0] for process in started]
    predictions, labels = maps(3, 5, 4, 0.2, 4)
    overlap = SegmentationOverlap(4)
    overlap.update(predictions, {"label": labels, "mask": torch.ones(5, dtype=torch.bool)})
    expected = judged(CASES["random"]).compute() | overlap.compute()
    assert [json.loads(words) for words in told] == [expected, expected]
