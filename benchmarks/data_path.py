"""Pictures per second from disk to batches: ``python benchmarks/data_path.py [--workers 0 1 2]``.

Drawn JPEG photographs of 500 x 375 pixels, as files and as tar shards, loaded as for training at 224 pixels, each way
several times in turn; then our loader beside timm's with the same augmentation, without workers. The system has the
files in memory, so that this is what the processor does; PyTorch has one thread. ``cpu_ms`` is the processor time per
picture of all processes: it depends little on what else runs on the machine, and ``images_per_core_s``, 1000 /
``cpu_ms``, is what a core can do.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor

from tokenmix.bench.machine import describe
from tokenmix.data.dataset import DataSet
from tokenmix.files import write_json
from tokenmix.sources import load_data
from tokenmix.tasks.classification.check import check_data
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.options import CROP_AREA, Augment
from tokenmix.tasks.classification.write_shards import pack_data

RESULTS = Path(__file__).parent / "results"
BATCH = 64
ROUNDS = 3
PIXELS = 224
CROP_PCT = 0.9
BESIDE_TIMM = {  # RandAugment and the share of erased pictures; None: evaluation
    "crop and mirror": (None, 0.0),
    "RandAugment": ("rand-m9-mstd0.5-inc1", 0.0),
    "RandAugment and erasing": ("rand-m9-mstd0.5-inc1", 0.25),
    "evaluation": None,
}


def draw(folder: Path, count: int) -> None:
    """Photographs of two classes, about 100 KB each: soft shapes and grain, as cameras make them."""
    for number in range(count):
        draws = np.random.default_rng(number)
        soft = Image.fromarray(draws.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        grain = draws.normal(0, 9, (375, 500, 1)) + draws.normal(0, 4, (375, 500, 3))
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def cpu_s() -> float:
    """Seconds of processor time of this process and of the workers that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def read_epoch(data: DataSet, workers: int) -> dict[str, float]:
    """Two epochs of training batches: pictures per second of the second one, from when it is asked for, when the
    workers are there, and milliseconds of CPU per picture of both, workers included.
    """
    loader = Loader(
        data.train,
        batch_size=BATCH,
        image_size=PIXELS,
        mean=data.mean,
        std=data.std,
        train=True,
        augment="imagenet",
        workers=workers,
    )
    cpu = cpu_s()
    warm = sum(len(batch["label"]) for batch in loader.batches(0))
    begin = time.perf_counter()
    count = sum(len(batch["label"]) for batch in loader.batches(1))
    seconds = time.perf_counter() - begin
    del loader  # ends the workers
    return {"images_per_s": count / seconds, "cpu_ms": 1000 * (cpu_s() - cpu) / (warm + count)}


def our_batches(data: DataSet, change: tuple[str | None, float] | None) -> Iterator[Tensor]:
    """The pictures of an epoch as our loader makes them."""
    options: dict[str, Any] = {"mean": data.mean, "std": data.std, "crop_pct": CROP_PCT, "train": change is not None}
    if change:
        options["augment"] = Augment(name="imagenet", rand_augment=change[0], erase_rate=change[1])
    loader = Loader(data.train, batch_size=BATCH, image_size=PIXELS, **options)
    return (batch["image"] for batch in loader.batches(0))


def timm_batches(data: DataSet, folder: Path, change: tuple[str | None, float] | None) -> Iterator[Tensor]:
    """The same of timm's."""
    options: dict[str, Any] = {"mean": data.mean, "std": data.std, "crop_pct": CROP_PCT, "is_training": bool(change)}
    if change:
        options |= {"auto_augment": change[0], "re_prob": change[1], "re_mode": "pixel", "color_jitter": None}
    loader = create_loader(
        create_dataset("", root=str(folder)),
        (3, PIXELS, PIXELS),
        BATCH,
        scale=(CROP_AREA["imagenet"], 1.0),
        interpolation="bicubic",
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        use_prefetcher=False,
        **options,
    )
    return (images for images, _ in loader)


def beside_timm(data: DataSet, folder: Path) -> list[dict[str, Any]]:
    """Milliseconds of CPU per picture, ours and timm's, and their medians' ratio."""
    rows = []
    for name, change in BESIDE_TIMM.items():
        found: dict[str, list[float]] = {"tokenmix": [], "timm": []}
        for _ in range(ROUNDS + 1):
            for kind, batches in (
                ("tokenmix", our_batches(data, change)),
                ("timm", timm_batches(data, folder, change)),
            ):
                begin = time.process_time()
                count = sum(len(images) for images in batches)
                found[kind].append(1000 * (time.process_time() - begin) / count)
        ours, timms = (statistics.median(values[1:]) for values in found.values())  # the first round warms up
        row = {
            "what": name,
            "tokenmix_cpu_ms": round(ours, 3),
            "timm_cpu_ms": round(timms, 3),
            "tokenmix_images_per_core_s": round(1000 / ours, 1),
            "timm_images_per_core_s": round(1000 / timms, 1),
            "ratio": round(timms / ours, 3),
        }
        rows.append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


def timed(call: Any, *args: Any, **options: Any) -> tuple[Any, float]:
    """What a call returns, and how many seconds it took."""
    begin = time.perf_counter()
    return call(*args, **options), time.perf_counter() - begin


def quiet(line: str) -> None:
    """Hear nothing."""


def main() -> None:
    """Measure, print and write ``results/data_path-cpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "data_path-cpu.json", help="the result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["TOKENMIX_DATA"] = str(root / "cache")
        draw(root / "files", args.images)
        sets = {"files": load_data(root / "files", log=quiet)}
        _, pack_s = timed(pack_data, sets["files"], root / "shards", shard_size=128, log=quiet)
        _, first_s = timed(load_data, root / "shards", check=False, log=quiet)
        sets["shards"], again_s = timed(load_data, root / "shards", check=False, log=quiet)
        report, check_s = timed(check_data, root / "files", log=quiet)
        assert not report["broken"]
        kilobytes = sum(path.stat().st_size for path in (root / "files").rglob("*.jpg")) / args.images / 1000
        rows = []
        for workers in args.workers:
            rounds = [{kind: read_epoch(data, workers) for kind, data in sets.items()} for _ in range(ROUNDS)]
            for kind in sets:
                speeds = sorted(one[kind]["images_per_s"] for one in rounds)
                cpu_ms = statistics.median(one[kind]["cpu_ms"] for one in rounds)
                row = {
                    "source": kind,
                    "workers": workers,
                    "images_per_s": round(statistics.median(speeds), 1),
                    "images_per_s_range": [round(speeds[0], 1), round(speeds[-1], 1)],
                    "cpu_ms": round(cpu_ms, 3),
                    "images_per_core_s": round(1000 / cpu_ms, 1),
                }
                rows.append(row)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        against = beside_timm(sets["files"], root / "files")
    per_1000 = 1000 / args.images
    seconds = {
        "pack": round(pack_s * per_1000, 3),
        "first_index": round(first_s * per_1000, 3),
        "remembered_index": round(again_s * per_1000, 3),
        "check": round(check_s * per_1000, 3),
    }
    print("seconds per 1,000 images:", seconds)
    result = {
        "images": args.images,
        "kilobytes": round(kilobytes, 1),
        "batch_size": BATCH,
        "seconds_per_1000_images": seconds,
        "rows": rows,
        "beside_timm": against,
    }
    write_json(args.out, {"machine": describe(), **result})


if __name__ == "__main__":
    main()
