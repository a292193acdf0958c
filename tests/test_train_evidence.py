"""What a report shows of dense runs: the worst images by a clear rule, the same for any number of processes."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_metrics_dense import scene
from tests.test_tasks_dense import MODELS, recipe, sets  # noqa: F401
from tests.train_toys import checkpoint
from tokenmix.evaluate import evaluate
from tokenmix.metrics import CocoAP
from tokenmix.pictures.colours import class_colour
from tokenmix.sources import load_data
from tokenmix.tasks.dense.evidence import DRAWN_PX, IMAGES
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.options import DenseAugment
from tokenmix.tasks.dense.sets import ObjectSet
from tokenmix.tasks.detection.evidence import ObjectEvidence
from tokenmix.tasks.segmentation.evidence import LabelEvidence, WorstMaps
from tokenmix.tasks.segmentation.objective import SegmentationObjective
from tokenmix.train import fit

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, sys
from pathlib import Path
from tests.test_train_evidence import judged
from tokenmix.train.distributed import processes

with processes("cpu") as group:
    told = judged(Path(sys.argv[1]), group.rank, group.world)
if group.first:
    print(json.dumps(told))
"""


def maps(count: int, seed: int = 0):
    """Labels of three classes with ignored pixels, and predictions that are right in a share that grows."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        label = rng.integers(0, 3, (11, 17))
        found = np.where(rng.random(label.shape) < index / count, label, rng.integers(0, 3, label.shape))
        label[rng.random(label.shape) < 0.1] = 255
        yield index, torch.from_numpy(found), torch.from_numpy(label)


def mean_iou(found: np.ndarray, label: np.ndarray) -> float:
    shares = []
    for number in range(3):
        here, told = (label == number), (found == number) & (label != 255)
        if (here | told).any():
            shares.append((here & told).sum() / (here | told).sum())
    return 100 * float(np.mean(shares))


def test_the_worst_maps() -> None:
    worst = WorstMaps(3, count=4)
    order = np.random.default_rng(1).permutation(20).tolist()
    all_maps = list(maps(20))
    for place in order:
        index, found, label = all_maps[place]
        batch = {"label": [label], "index": torch.tensor([index]), "mask": torch.tensor([index != 2])}
        worst.update([found], batch)
    empty = torch.full((4, 4), 255)
    worst.update([empty * 0], {"label": [empty], "index": torch.tensor([90]), "mask": torch.tensor([True])})
    rows = worst.gather()
    scores = {index: mean_iou(found.numpy(), label.numpy()) for index, found, label in all_maps if index != 2}
    assert [row["index"] for row in rows] == sorted(scores, key=lambda index: scores[index])[:4]
    for row in rows:
        assert row["mIoU"] == pytest.approx(scores[row["index"]])
    assert worst.gather() == []


def test_worst_objects_and_their_pictures(tmp_path) -> None:
    scenes = [scene(seed) for seed in range(20)]
    metric = CocoAP(3, masks=True)
    for index, (found, target) in enumerate(scenes):
        batch = {"target": [target], "size": torch.tensor([[200, 260]])}
        metric.update([found], batch | {"index": torch.tensor([index]), "mask": torch.tensor([True])})

    class Scenes(ObjectSet):
        def load(self, index):
            return Image.new("RGB", (260, 200), "white")

        def target(self, index):
            return scenes[index][1]

    class Data:
        classes = ("a", "b", "c")
        val = Scenes(tmp_path, [f"{index}.png" for index in range(20)], [], [], masks=True)

    evidence = ObjectEvidence(Data())
    told = evidence.gather(metric)
    json.dumps(told, allow_nan=False)
    threshold, rows = metric.by_image()
    assert told["threshold"] == threshold
    assert told["hits"] + told["missed"] == sum(int((target["iscrowd"] == 0).sum()) for _, target in scenes)
    scores = [mistake["F1"] for mistake in told["mistakes"]]
    assert len(scores) == IMAGES
    assert scores == sorted(scores)
    assert scores[-1] <= min(row["F1"] for row in rows if row["index"] not in {m["index"] for m in told["mistakes"]})
    for mistake in told["mistakes"]:
        assert len(mistake["found"]) >= mistake["hits"] + mistake["false"]  # those on crowds too
        for file in evidence.picture(mistake):
            with Image.open(io.BytesIO(file)) as picture:
                assert max(picture.size) == DRAWN_PX


def test_the_report_of_a_run(tmp_path, sets) -> None:  # noqa: F811
    data = sets["segmentation"]
    fit(recipe("segmentation", epochs=2), data, tmp_path, model=MODELS["segmentation"], log=lambda line: None)
    evidence = checkpoint(tmp_path)["watch"]["evidence"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * len(evidence["mistakes"]) == 16
    assert "lowest mean IoU" in page
    assert evidence["mistakes"][0]["name"] in page
    truth, found = LabelEvidence(data).picture(evidence["mistakes"][0])
    assert truth != found
    row = evidence["mistakes"][0]["index"]
    top, left = (data.val.target(row)["label"] == 1).nonzero()[0].tolist()
    with Image.open(io.BytesIO(truth)) as picture:
        scale = DRAWN_PX / 48
        seen = np.array(picture.getpixel((round((left + 4) * scale), round((top + 4) * scale)))).astype(int)
    under = np.array(data.val.load(row).getpixel((left + 4, top + 4)))
    assert abs(seen - (0.55 * under + 0.45 * np.array(class_colour(1)))).max() < 40  # JPEG and resizing


def judged(folder: Path, rank: int = 0, world: int = 1) -> dict:
    """The evidence of an untrained segmenter."""
    torch.manual_seed(0)
    data = load_data(folder, task="segmentation", log=lambda line: None)
    kind = {"mean": data.mean, "std": data.std, "augment": DenseAugment(), "train": False}
    loader = DenseLoader(data.val, batch_size=4, image_size=(32, 48), rank=rank, world=world, **kind)
    task, evidence = SegmentationObjective(MODELS["segmentation"](), num_classes=3), LabelEvidence(data)
    metric = task.metric()
    evaluate(task, loader, witnesses=evidence.witnesses, metric=metric)
    return evidence.gather(metric)


@pytest.mark.slow
def test_processes_agree_on_the_worst(tmp_path) -> None:
    from tests.dense_toys import write_plain

    write_plain(tmp_path / "data", count=7)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "data")]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert json.loads(told[0]) == judged(tmp_path / "data")
