"""Detection and segmentation: losses, predictions at the stored size, and training in the one loop."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

import tokenmix
from benchmarks import data_check
from tests.dense_toys import write_coco, write_plain
from tests.scramble import scramble
from tests.test_train_resume import killed, outcome, same
from tests.train_toys import checkpoint, toy_recipe
from tokenmix.cli import main
from tokenmix.recipes import Recipe
from tokenmix.recipes.recipe import override
from tokenmix.sources import load_data
from tokenmix.tasks import to_device
from tokenmix.tasks.detection import objective as detection_objective
from tokenmix.tasks.detection.objective import DetectionObjective, InstancesObjective, enlarged
from tokenmix.tasks.segmentation import objective as segmentation_objective
from tokenmix.tasks.segmentation.objective import SegmentationObjective
from tokenmix.train import fit
from tokenmix.train.checkpoint import Checkpoints


class Trunk(nn.Sequential):
    """(B, 3, H, W) -> (B, 16, H/4, W/4)"""

    out_channels = 16

    def __init__(self) -> None:
        parts = [nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
        super().__init__(*parts)


def detector(masks: bool = False) -> nn.Module:
    """Torchvision's, tiny, on images that have their size and are normalised."""
    options = {"min_size": 32, "max_size": 48, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    options |= {"rpn_anchor_generator": AnchorGenerator(((8, 16),), ((1.0,),)), "box_detections_per_img": 10}
    options |= {"rpn_pre_nms_top_n_train": 50, "rpn_post_nms_top_n_train": 20, "box_batch_size_per_image": 16}
    options |= {"box_head": TwoMLPHead(16 * 49, 32), "box_predictor": FastRCNNPredictor(32, 3)}
    if not masks:
        return FasterRCNN(Trunk(), **options)
    options |= {"mask_head": MaskRCNNHeads(16, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 3)}
    return MaskRCNN(Trunk(), **options)


class Segmenter(nn.Module):
    """(B, 3, H, W) -> {"out", "aux"} in training, else logits."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.out, self.aux = Trunk(), nn.Conv2d(16, 3, 1), nn.Conv2d(16, 3, 1)
        self.drop = nn.Dropout2d(0.2)

    def forward(self, x):
        maps = self.drop(self.trunk(x))
        out, aux = (F.interpolate(head(maps), x.shape[-2:], mode="bilinear") for head in (self.out, self.aux))
        return {"out": out, "aux": aux} if self.training else out


MODELS = {"detection": detector, "instances": partial(detector, True), "segmentation": Segmenter}
RECIPE = {
    "ema_decay": None,
    "label_smoothing": 0.0,
    "lr": 2e-2,
    "augment": "light",
    "image_size": (32, 48),
    "batch_size": 4,
}


def recipe(task: str, **changes) -> Recipe:
    return toy_recipe(**{**RECIPE, "task": task, **changes})


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write_coco(folder / "objects", count=8)
    write_plain(folder / "labels", count=8)
    quiet = {"log": lambda line: None, "image_size": 32}
    found = {task: load_data(folder / "objects", task=task, **quiet) for task in ("detection", "instances")}
    return found | {"segmentation": load_data(folder / "labels", task="segmentation", **quiet)}


@pytest.mark.parametrize("task", MODELS)
def test_training_learns_and_comes_back_from_death(tmp_path, monkeypatch, sets, task) -> None:
    rows = recipe(task, epochs=6)
    options = {"data": sets[task], "model": MODELS[task]}
    quiet = {"progress": False, "log": lambda line: None, "checkpoint_seconds": 0.0}
    result = fit(rows, out=tmp_path / "whole", **options, **quiet)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.8 * losses[0]
    headline = {"detection": "box_AP", "instances": "mask_AP", "segmentation": "mIoU"}[task]
    assert result.best[f"val_{headline}"] == max(row[f"val_{headline}"] for row in result.history)
    assert "val_mask_AP50" in result.best or task != "instances"
    killed(tmp_path / "killed", monkeypatch, "step", 3, rows, **options)
    fit(rows, out=tmp_path / "killed", **options, **quiet)
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("task", "head"), [("segmentation", "semantic_fpn"), ("detection", "ssdlite"), ("instances", "mask_rcnn")]
)
def test_a_head_that_the_recipe_names(tmp_path, sets, task, head) -> None:
    small = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "mixers": "pool"}
    rows = recipe(task, epochs=1, model="mixernet_pico", model_args=small, head=head, drop_path_rate=0.1)
    result = fit(rows, sets[task], tmp_path, progress=False, log=lambda line: None)
    model = tokenmix.load_checkpoint(result.best_weights)
    assert model.num_classes == len(sets[task].classes)
    for name, value in load_file(result.best_weights).items():
        torch.testing.assert_close(model.state_dict()[name], value)
    other = "ssdlite" if task == "segmentation" else "upernet"
    with pytest.raises(ValueError, match=f"head': {other} is for the task"):
        recipe(task, model="mixernet_pico", head=other)


@pytest.mark.slow
def test_a_detector_of_ours_survives_sigkill(tmp_path) -> None:
    """SSDLite on mixernet_pico by the command line, killed twice without a warning, early and later."""
    write_coco(tmp_path / "objects", count=8)
    words = ["train", "mixernet_pico", "head=ssdlite", "task=detection", "label_smoothing=0", "augment=ssd"]
    words += ["image_size=32,48", "batch_size=4", "epochs=12", "warmup_epochs=1", "ema_decay=0.9"]
    words += ["--data", str(tmp_path / "objects"), "--checkpoint-seconds", "0", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0

    root, out = Path(__file__).parents[1], tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}  # as many threads as here
    command = [sys.executable, "-m", "tokenmix", *words, "--out", str(out)]
    for step in (2, 7):  # of 24, each with a checkpoint
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while _newest(out) < step and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert step <= _newest(out) < 24
    assert main([*words, "--out", str(out)]) == 0
    assert same(outcome(out), outcome(tmp_path / "whole"))


def _newest(out: Path) -> int:
    """The number of the step after which the newest checkpoint was written."""
    path = Checkpoints(out).newest()
    return 0 if path is None else int(path.stem.split("-")[1])


def test_segmentation_in_parts_is_the_whole(tmp_path, sets) -> None:
    """With as many ignored pixels as there may be, and float64 and no norm: what is left is rounding."""

    def model() -> nn.Module:
        return nn.Sequential(_Double(), nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 1)).double()

    weights = []
    for accumulate in (1, 4):
        out = tmp_path / str(accumulate)
        quiet = {"progress": False, "log": lambda line: None}
        rows = recipe("segmentation", epochs=2, accumulate=accumulate, augment="standard")
        fit(rows, sets["segmentation"], out, model=model, **quiet)
        weights.append(checkpoint(out)["task"])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-9)


class _Double(nn.Module):
    def forward(self, x):
        return x.double()


def test_segmentation_loss_counts_labelled_pixels() -> None:
    torch.manual_seed(0)
    out, aux, label = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    label[0, :2] = 255

    class Fixed(nn.Module):
        def forward(self, x):
            return {"out": out, "aux": aux}

    def expected(logits):
        total = 0.0
        for image, row, column in (label != 255).nonzero().tolist():
            total -= float(logits[image, :, row, column].log_softmax(0)[label[image, row, column]])
        return total / label.numel()

    batch = {"image": torch.zeros(2, 3, 4, 5), "label": label}
    found = SegmentationObjective(Fixed(), num_classes=3, aux_weight=0.25)(batch)
    assert found["out_loss"].item() == pytest.approx(expected(out), rel=1e-5)
    assert found["loss"].item() == pytest.approx(expected(out) + 0.25 * expected(aux), rel=1e-5)
    label[:] = 255
    assert SegmentationObjective(Fixed(), num_classes=3)(batch)["loss"].item() == 0


def segmenter() -> nn.Module:
    torch.manual_seed(0)
    return scramble(Segmenter()).double().eval()


IMAGE = torch.randn(3, 37, 53, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIZE = [74, 80]


def resized(logits) -> torch.Tensor:
    return F.interpolate(logits, SIZE, mode="bilinear")[0]


def test_one_window_over_all_is_the_whole_image() -> None:
    model = segmenter()
    with torch.no_grad():
        whole = SegmentationObjective(model, num_classes=3).scores(IMAGE, SIZE)
        assert torch.equal(whole, resized(model(IMAGE[None])))
        for window in (53, (37, 53), 400):
            assert torch.equal(SegmentationObjective(model, num_classes=3, window=window).scores(IMAGE, SIZE), whole)


@pytest.mark.parametrize(("window", "stride"), [((16, 24), None), ((20, 20), (20, 20)), ((7, 53), 5), (30, 1)])
def test_windows_cover_every_pixel_and_average(window, stride) -> None:
    model = segmenter()
    task = SegmentationObjective(model, num_classes=3, window=window, stride=stride)
    height, width = task.window
    down, right = task.stride
    total, count = torch.zeros(3, 37, 53, dtype=torch.float64), torch.zeros(37, 53, dtype=torch.float64)
    with torch.no_grad():
        for row in range(math.ceil(max(37 - height, 0) / down) + 1):
            for column in range(math.ceil(max(53 - width, 0) / right) + 1):
                bottom, end = min(row * down + height, 37), min(column * right + width, 53)
                top, left = max(bottom - height, 0), max(end - width, 0)
                total[:, top:bottom, left:end] += model(IMAGE[None, :, top:bottom, left:end])[0]
                count[top:bottom, left:end] += 1
        assert count.min() >= 1
        torch.testing.assert_close(task.scores(IMAGE, SIZE), resized((total / count)[None]), rtol=0, atol=1e-12)


def test_large_pictures_are_classified_in_strips(monkeypatch) -> None:
    """So that scores of all pixels never lie in memory at once; the classes are the same."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 7, 5, stride=4, padding=2)
    objective = SegmentationObjective(model, num_classes=7, scales=(1.0, 0.5), mirror=True)
    batch = {"image": [torch.randn(3, 40, 52), torch.randn(3, 33, 20)], "size": torch.tensor([[81, 103], [33, 20]])}
    whole = objective.predict(batch)
    monkeypatch.setattr(segmentation_objective, "_MOST_SCORES", 7 * 103 * 5)
    strips = objective.predict(batch)
    assert all((one == other).float().mean() > 0.999 for one, other in zip(whole, strips, strict=True))
    for rows in (1, 2, 5, 80):  # however many are in a strip, the answer is the same to the last pixel
        monkeypatch.setattr(segmentation_objective, "_STRIP_SCORES", 7 * 103 * rows)
        assert all(map(torch.equal, strips, objective.predict(batch)))


@pytest.mark.slow
def test_twelve_megapixels_of_150_classes_take_little_memory(tmp_path) -> None:
    """Validated as recipes do it, in a process of its own: less than 1.5 GB with PyTorch and all."""
    data_check.draw_large(tmp_path)
    found = data_check.apart(data_check.measure_validation, str(tmp_path), data_check.SIZE)
    assert found["peak_gb"] < data_check.PEAK_GB, found


def test_scales_and_mirror_average_probabilities() -> None:
    model = segmenter()
    with torch.no_grad():
        found = SegmentationObjective(model, num_classes=3, scales=(0.5, 1.0), mirror=True).scores(IMAGE, SIZE)
        half = F.interpolate(IMAGE[None], (18, 26), mode="bilinear", antialias=True)
        parts = [resized(model(view)).softmax(0) for view in (half, IMAGE[None])]
        parts += [resized(model(view.flip(3))).flip(2).softmax(0) for view in (half, IMAGE[None])]
        torch.testing.assert_close(found, torch.stack(parts).mean(0), rtol=0, atol=1e-12)
        task = SegmentationObjective(model, num_classes=3, scales=(0.5, 1.0), mirror=True)
        (classes,) = task.predict({"image": [IMAGE], "size": torch.tensor([SIZE])})
        assert torch.equal(classes, found.argmax(0))


class Found(nn.Module):
    """Detects the same in every image: a box with a mask, or nothing."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, images, targets=None):
        boxes = torch.tensor([[2.0, 4.0, 10.0, 8.0]])[: self.count]
        masks = torch.zeros(1, 1, 16, 24)
        masks[..., 4:8, 2:10] = 1
        one = {"boxes": boxes, "labels": torch.ones(len(boxes)), "masks": masks[: self.count]}
        return [one for _ in images]


def test_detections_are_those_of_the_stored_image() -> None:
    batch = {"image": [torch.zeros(3, 16, 24)] * 2, "size": torch.tensor([[32, 72], [16, 24]])}
    large, plain = InstancesObjective(Found(1), num_classes=1).predict(batch)
    assert large["boxes"].tolist() == [[6, 8, 30, 16]]
    assert plain["boxes"].tolist() == [[2, 4, 10, 8]]
    assert large["masks"].shape == (1, 1, 32, 72)
    rows, columns = (large["masks"][0, 0] > 0.5).nonzero(as_tuple=True)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [6, 8, 30, 16]
    (nothing, _) = InstancesObjective(Found(0), num_classes=1).predict(batch)
    assert nothing["boxes"].shape == (0, 4)
    assert nothing["masks"].shape == (0, 1, 32, 72)
    with pytest.raises(ValueError, match="must return a dict of losses"):
        DetectionObjective(Found(1), num_classes=1)({"image": batch["image"], "target": [{}, {}]})
    logits = DetectionObjective(nn.Sequential(), num_classes=1)
    logits.model.forward = lambda images: torch.zeros(2, 3)
    with pytest.raises(ValueError, match="must return a list of dicts"):
        logits.predict(batch)


def test_masks_are_enlarged_a_few_at_a_time(monkeypatch) -> None:
    chance = torch.Generator().manual_seed(0)
    found = {"boxes": torch.zeros(5, 4), "masks": torch.rand(5, 1, 16, 24, generator=chance)}
    monkeypatch.setattr(detection_objective, "_MOST_PIXELS", 2 * 33 * 71 + 1)
    large = enlarged(found, torch.Size((16, 24)), [33, 71])["masks"]
    assert large.dtype == torch.bool
    assert torch.equal(large, F.interpolate(found["masks"], (33, 71), mode="bilinear") > 0.5)


def test_lists_go_to_the_device_too() -> None:
    batch = {"image": [torch.zeros(3, 4, 4)], "target": [{"boxes": torch.zeros(1, 4), "image_id": 3}]}
    moved = to_device(batch, "meta")
    assert moved["image"][0].device.type == moved["target"][0]["boxes"].device.type == "meta"
    assert moved["target"][0]["image_id"] == 3


def test_mistakes_are_named(tmp_path, sets) -> None:
    quiet = {"progress": False, "log": lambda line: None}
    with pytest.raises(ValueError, match=r"'augment.mixup' belongs to classification.*set mixup=0.0"):
        recipe("segmentation", mixup=0.2)
    with pytest.raises(ValueError, match=r"'augment\.stretch' belongs to detection"):
        recipe("classification", augment_args={"stretch": True})
    with pytest.raises(ValueError, match=r"loaded for 'detection': use load_data\(\.\.\., task='instances'\)"):
        fit(recipe("instances"), sets["detection"], tmp_path, model=MODELS["instances"], **quiet)
    with pytest.raises(ValueError, match=r"unknown recipe key 'task.windows'; did you mean 'task.window'"):
        override(recipe("segmentation"), ["task_args.windows=32"])
    model = partial(nn.Conv2d, 3, 4, 1)
    with pytest.raises(ValueError, match="build it with num_classes=3"):
        fit(recipe("segmentation"), sets["segmentation"], tmp_path, model=model, **quiet)
    for options, words in (
        ({"scales": ()}, "scales"),
        ({"stride": 3}, "set window too"),
        ({"window": 8, "stride": 9}, "gaps"),
        ({"window": 0}, "window must be"),
    ):
        with pytest.raises(ValueError, match=words):
            SegmentationObjective(Segmenter(), num_classes=3, **options)
