"""Large sets and large pictures: ``python benchmarks/data_check.py``.

How long ``tokenmix data check`` takes for a folder of 60,000 small JPEGs, which the system has in memory, on the cores
that there are; and how much memory a validation of pictures of 12 megapixels with 150 classes takes at most, above what
a process has that has loaded the model and the set. Each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenmix.bench.machine import describe
from tokenmix.bench.memory import resident_peak
from tokenmix.files import write_json

RESULTS = Path(__file__).parent / "results"
IMAGES, CLASSES = 60_000, 10
LARGE, LABELS = (4000, 3000), 150  # pixels; classes of pixels
SIZE = (512, 2048)  # to which recipes scale a picture for validation: the short side, and the longest one
PEAK_GB, PER_S = 1.5, 2000  # what is asked of them


def draw_small(folder: Path, count: int) -> None:
    """JPEGs of 64 x 48 pixels, about 1.5 KB each, none like another."""
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True)
    for number in range(count):
        soft = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(soft).resize((64, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"class {number % CLASSES}" / f"{number:05}.jpg", quality=80)


def draw_large(folder: Path) -> None:
    """A picture to learn from and one of 12 megapixels to validate on, with masks of 150 classes."""
    draws = np.random.default_rng(0)
    for part, (width, height) in {"train": (160, 120), "val": LARGE}.items():
        soft = Image.fromarray(draws.integers(0, 256, (12, 16, 3), np.uint8))
        labels = Image.fromarray(draws.integers(0, LABELS, (12, 16), np.uint8))
        for kind, image, ending in (("images", soft, "jpg"), ("masks", labels, "png")):
            (folder / part / kind).mkdir(parents=True)
            image.resize((width, height), Image.Resampling.NEAREST).save(folder / part / kind / f"1.{ending}")
    (folder / "classes.txt").write_text("".join(f"class {number}\n" for number in range(LABELS)))


def measure_check(folder: str) -> dict[str, Any]:
    """Seconds of a check of a folder of classes."""
    from tokenmix.tasks.classification.check import check_data

    begin, cpu = time.perf_counter(), time.process_time()
    report = check_data(folder, log=lambda line: None)
    seconds = time.perf_counter() - begin
    count = sum(part["images"] for part in report["splits"].values())
    assert not report["broken"]
    return {
        "images": count,
        "seconds": round(seconds, 2),
        "images_per_s": round(count / seconds, 1),
        "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / count, 3),
        "peak_gb": round(resident_peak() / 1e9, 3),
    }


def measure_validation(folder: str, size: tuple[int, int]) -> dict[str, Any]:
    """The largest memory of a process that judges a segmenter of random weights, and what it had before."""
    import torch

    from tokenmix.checkpoints import LoadedModel
    from tokenmix.evaluate import judge
    from tokenmix.heads import make_dense
    from tokenmix.sources import load_data

    torch.manual_seed(0)
    data = load_data(folder, task="segmentation", log=lambda line: None, check=False)
    model = make_dense("semantic_fpn", "mixernet_pico", LABELS).eval()
    kind: dict[str, Any] = {"mean": data.mean, "std": data.std, "crop_mode": "fit", "image_size": size}
    loaded = LoadedModel(model, "mixernet_pico", "segmentation", head="semantic_fpn", facts=data.facts, **kind)
    before, begin = resident_peak() / 1e9, time.perf_counter()
    judge(loaded, data.val, data.facts, image_size=size, batch_size=1)
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "peak_gb": round(resident_peak() / 1e9, 3),
        "before_gb": round(before, 3),
    }


def apart(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What a function returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def main() -> None:
    """Measure, print and write ``results/data_check-cpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--out", type=Path, default=RESULTS / "data_check-cpu.json", help="the result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["TOKENMIX_DATA"] = str(root / "cache")
        draw_small(root / "small", args.images)
        check = apart(measure_check, str(root / "small"))
        print(f"check: {check}", flush=True)
        draw_large(root / "large")
        validation = apart(measure_validation, str(root / "large"), SIZE)
        print(f"validation: {validation}", flush=True)
    asked = {"images_per_s": PER_S, "peak_gb": PEAK_GB}
    large = {"megapixels": LARGE[0] * LARGE[1] / 1e6, "classes": LABELS, "image_size": list(SIZE)}
    result = {"asked": asked, "check": check, "validation": large | validation}
    write_json(args.out, {"machine": describe(), **result})


if __name__ == "__main__":
    main()
