"""A plan on 240 composed scenes: ``python benchmarks/small_scenes.py``, for boxes and for masks.

240 of the embedded scenes are written as people have them, pictures with COCO's JSON for boxes and with PNG masks for
pixels, in ``train`` and ``val``; the test part is the embedded one, whose objects and backgrounds training never saw.
Then ``tokenmix train --data FOLDER --budget 20min`` on one thread, and what it says of the test part. What is in
``--out`` is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.planning import Budget
from tokenmix.planning.training import train_model
from tokenmix.tasks.dense.scenes import load_scenes
from tokenmix_runtime.untrusted import read_json

TASKS = ("detection", "segmentation")
LEARNT = {"train": 200, "val": 40}  # pictures, 240 together


def written(task: str, folder: Path) -> Path:
    """The folder of the scenes for a task; written once."""
    if folder.exists():
        return folder
    new = folder.with_name(folder.name + ".new")
    data = load_scenes(task)
    for part, samples in (("train", data.train), ("val", data.val), ("test", data.test)):
        names = range(LEARNT.get(part, len(samples)))
        (new / part / "images").mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for index in names:
            picture, target = samples.load(index), samples.target(index)
            picture.save(new / part / "images" / f"{index:04}.png")
            if task == "segmentation":
                (new / part / "masks").mkdir(exist_ok=True)
                mask = Image.fromarray(target["label"].numpy().astype(np.uint8))
                mask.save(new / part / "masks" / f"{index:04}.png")
                continue
            images.append(
                {"id": index, "file_name": f"{index:04}.png", "width": picture.width, "height": picture.height}
            )
            for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
                left, top, right, bottom = box
                size = [left, top, right - left, bottom - top]
                objects.append({"id": len(objects) + 1, "image_id": index, "category_id": label, "bbox": size})
        if task == "detection":
            categories = [{"id": number + 1, "name": name} for number, name in enumerate(data.classes)]
            file = new / part / "_annotations.coco.json"
            file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    if task == "segmentation":
        (new / "classes.txt").write_text("\n".join(data.classes) + "\n")
    new.rename(folder)
    return folder


def main() -> None:
    """Train what is not there yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path(__file__).parent / "results" / "small_scenes.json")
    add("--work", type=Path, default=Path("runs/small-scenes"), help="folders of pictures and runs")
    add("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    add("--budget", type=float, default=1200.0, help="seconds (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_json(args.out)["rows"] if args.out.exists() else {}
    for task in args.tasks:
        if task in rows and rows[task].get("budget_s", args.budget) == args.budget:
            continue
        folder = written(task, args.work / task)
        begin, wall = time.process_time(), time.monotonic()
        lines: list[str] = []

        def log(line: str, lines: list[str] = lines) -> None:
            lines.append(line)
            print(line, flush=True)

        out = args.work / f"run-{task}"
        trained = train_model(data=folder, out=out, budget=Budget(args.budget), device="cpu", log=log, progress=False)
        rows[task] = {
            "test": trained.test,
            "tested": trained.test_samples,
            "budget_s": args.budget,
            "learnt": LEARNT,
            "cpu_minutes": round((time.process_time() - begin) / 60, 2),
            "minutes": round((time.monotonic() - wall) / 60, 2),
            "plan": [line for line in lines if line.startswith(("plan:", "  "))][:5],
        }
        write_json(args.out, {"machine": describe(), "rows": rows})
        print(task, rows[task]["test"], flush=True)


if __name__ == "__main__":
    main()
