"""How good a plan is on small data: ``python benchmarks/small_data.py``.

Real small sets, none of them in this repository, are written as folders of pictures; on each, with several seeds:

* ``planned``: `tokenmix train --data FOLDER --budget N` alone.
* ``forest``: a random forest on histograms of oriented gradients, which needs seconds (scikit-image, scikit-learn).
* ``timm``: a small network of timm's with its optimiser, schedule and augmentation, as timm's own script has them by
  default for such networks, from fresh weights, for as many seconds of the processor as ``planned`` took.

What was done is in ``--out`` and is not done again, so that the script can be stopped and go on. A set whose package or
file is missing is said and left out. The score is that of the test pictures, by which nothing was chosen.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.pages.result_schema import wilson
from tokenmix.planning import Budget
from tokenmix.planning.training import train_model
from tokenmix.sources import load_data
from tokenmix.tasks.classification.images import ClassData, ImageSet
from tokenmix.tasks.classification.planning import drafts
from tokenmix_runtime.untrusted import read_json

RESULTS = Path(__file__).parent / "results" / "small_data.json"
PARTS = {"train": 0.6, "val": 0.15, "test": 0.25}
HOG_PX = 48
TIMM_MODEL = "resnet10t"  # 4.7 M parameters at 10 classes, timm's smallest plain network for such sizes
Reader = Callable[[argparse.Namespace, int], Iterator[tuple[str, str, Image.Image]]]


# ------------------------------------------------------------------------------------------------------------ the sets


def digits(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    samples = [
        (str(label), Image.fromarray((16 * pixels).clip(0, 255).astype(np.uint8)))
        for pixels, label in zip(data.images, data.target, strict=True)
    ]
    yield from split(samples, seed)


def scenes(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Grey crops of eight photographs, 24 to learn from each, see ``examples/photographs.py``."""
    from examples.photographs import SCENES, crops, photograph

    for name in SCENES:
        picture = photograph(name)
        for part, count in {"train": 24, "val": 12, "test": 30}.items():
            for crop in crops(picture, part, count, f"{seed} {name}"):
                yield part, name.removesuffix(".jpg"), crop


def textures(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Grey crops of nine textures, 60 to learn from each."""
    from examples.photographs import TEXTURES, crops, photograph

    for name in TEXTURES:
        picture = photograph(name)
        for part, count in {"train": 60, "val": 20, "test": 40}.items():
            for crop in crops(picture, part, count, f"{seed} {name}"):
                yield part, name, crop


def cifar(count: int, tested: int = 200) -> Reader:
    """CIFAR-10 with so many pictures per class to learn from, and so many to test."""

    def read(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
        if args.cifar is None:
            raise FileNotFoundError("give --cifar, a zip file with train/CLASS/*.jpg and test/CLASS/*.jpg")
        with zipfile.ZipFile(args.cifar) as archive:
            by_class: dict[tuple[str, str], list[str]] = {}
            for name in archive.namelist():
                if name.endswith((".jpg", ".png")):
                    _, part, label, _ = name.rsplit("/", 3)
                    by_class.setdefault((part, label), []).append(name)
            for (part, label), names in sorted(by_class.items()):
                random.Random(f"{seed} {part} {label}").shuffle(names)
                held = max(10, count // 6)
                cut = [("train", names[:count]), ("val", names[count : count + held])]
                if part == "test":
                    cut = [("test", names[:tested])]
                elif count + held > len(names):
                    cut = [("train", names[: count - held]), ("val", names[count - held : count])]
                for where, chosen in cut:
                    for name in chosen:
                        with archive.open(name) as file:
                            yield where, label, Image.open(file).convert("RGB")

    return read


def cells(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Solar cells of ``elpv-dataset``, whole or broken, 200 of each by chance, at 100 x 100 pixels."""
    from elpv_dataset.utils import load_dataset

    images, probabilities, _ = load_dataset()
    by_class = {"whole": np.flatnonzero(probabilities == 0), "broken": np.flatnonzero(probabilities == 1)}
    samples = []
    for label, rows in by_class.items():
        chosen = random.Random(f"{seed} {label}").sample(rows.tolist(), 200)
        samples += [(label, Image.fromarray(images[row]).resize((100, 100), Image.Resampling.BOX)) for row in chosen]
    yield from split(samples, seed)


STAMPS = (
    "symbols/alphabets",
    "animals/mammals",
    "food/fruit",
    "animals/birds",
    "symbols/money",
    "town/houses",
    "plants/flowers",
    "town/roadsigns",
    "symbols/math",
    "animals/insects",
)


def stamps(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Stamps of Debian's ``tuxpaint-stamps-default`` in ten classes out of balance, on white, at most 128 pixels."""
    if args.stamps is None:
        raise FileNotFoundError("give --stamps, the folder usr/share/tuxpaint/stamps of that package")
    samples = []
    for kind in STAMPS:
        for path in sorted((args.stamps / kind).rglob("*.png")):
            with Image.open(path) as opened:
                picture = opened.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            white.thumbnail((128, 128))
            samples.append((kind.split("/")[1], white.convert("RGB")))
    yield from split(samples, seed)


def glyphs(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Capital letters of the fonts below ``/usr/share/fonts``, at 40 pixels; the test has other families of fonts."""
    families: dict[str, list[ImageFont.FreeTypeFont]] = {}
    for path in sorted(Path("/usr/share/fonts").rglob("*.[ot]tf")):
        font = ImageFont.truetype(str(path), 32)
        if bytes(font.getmask("A")) != bytes(font.getmask("\U0010ffff")):  # else it has no letters, only a box for all
            families.setdefault(str(font.getname()[0]), []).append(font)
    if len(families) < 12:
        raise FileNotFoundError(
            f"{len(families)} families of fonts below /usr/share/fonts, 12 are needed: apt-get install fonts-lato ..."
        )
    names = sorted(families)
    random.Random(seed).shuffle(names)
    ends = (round(0.6 * len(names)), round(0.75 * len(names)))
    for place, name in enumerate(names):
        part = "train" if place < ends[0] else "val" if place < ends[1] else "test"
        for font in families[name]:
            for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
                picture = Image.new("L", (40, 40), 255)
                ImageDraw.Draw(picture).text((20, 20), letter, fill=0, font=font, anchor="mm")
                yield part, letter, picture


def split(samples: list[tuple[str, Image.Image]], seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Samples in parts, each class by the same shares."""
    by_class: dict[str, list[Image.Image]] = {}
    for label, picture in samples:
        by_class.setdefault(label, []).append(picture)
    for label, pictures in by_class.items():
        random.Random(f"{seed} {label}").shuffle(pictures)
        begin = 0
        for part, share in PARTS.items():
            end = len(pictures) if part == "test" else begin + max(1, round(share * len(pictures)))
            for picture in pictures[begin:end]:
                yield part, label, picture
            begin = end


SETS: dict[str, Reader] = {
    "scenes": scenes,
    "stamps": stamps,
    "digits": digits,
    "cells": cells,
    "cifar-100": cifar(100),
    "glyphs": glyphs,
    "textures": textures,
    "cifar-300": cifar(300),
    "cifar-1500": cifar(1500),
}


def skewed(read: Reader, ratio: float) -> Reader:
    """A set whose classes are out of balance where it is learnt from: their sizes fall evenly to a ``ratio``-th."""

    def read_less(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, Image.Image]]:
        samples = list(read(args, seed))
        labels = sorted({label for _, label, _ in samples})
        random.Random(f"{seed} sizes").shuffle(labels)
        count = Counter(label for part, label, _ in samples if part == "train")
        left = {
            label: max(2, round(count[label] * ratio ** (-place / (len(labels) - 1))))
            for place, label in enumerate(labels)
        }
        for part, label, picture in samples:
            if part == "train":
                left[label] -= 1
                if left[label] < 0:
                    continue
            yield part, label, picture

    return read_less


RATIOS = (2, 5, 20)
SKEWED = {
    f"{name}-skewed-{ratio}": skewed(SETS[name], ratio)
    for name in ("digits", "textures", "cifar-300")
    for ratio in RATIOS
}


def written(name: str, args: argparse.Namespace, seed: int) -> Path:
    """The folder of a set; written once."""
    return written_once(args.work / "sets" / f"{name}-{seed}", {**SETS, **SKEWED}[name](args, seed))


def written_once(folder: Path, samples: Iterable[tuple[str, str, Image.Image]]) -> Path:
    """The folder with these samples, unless it is there: part, class and picture of each."""
    if not folder.exists():
        new = folder.with_name(folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        for number, (part, label, picture) in enumerate(samples):
            (new / part / label).mkdir(parents=True, exist_ok=True)
            picture.save(new / part / label / f"{number:05}.png")
        new.rename(folder)
    return folder


# --------------------------------------------------------------------------------------------------------- the methods


def planned(folder: Path, args: argparse.Namespace, out: Path, *settings: str) -> dict[str, Any]:
    """What ``tokenmix train --data FOLDER --budget N`` reaches, with settings if there are some."""
    begin = time.process_time()
    budget = Budget(args.budget)
    trained = train_model(
        None, settings, data=folder, out=out, budget=budget, device="cpu", log=lambda line: None, progress=False
    )
    assert trained.test is not None
    assert trained.result is not None
    recipe = trained.recipe
    told = f"{recipe.model.name}, {recipe.task.image_size[0]} px, {len(trained.result.history)} of {recipe.length}"
    scores = {name: trained.test[name] for name in ("top1", "balanced_top1", "macro_f1", "majority")}
    return {**scores, "cpu_s": time.process_time() - begin, "wall_s": trained.result.seconds, "what": told}


def pixels(part: ImageSet, size: int) -> np.ndarray:
    """(N, size, size, 3) of 0..1."""
    return (
        np.stack([np.asarray(part.load(i).resize((size, size), Image.Resampling.BICUBIC)) for i in range(len(part))])
        / 255
    )


def forest(folder: Path, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """A random forest on histograms of oriented gradients, and of colours."""
    from skimage.feature import hog
    from sklearn.ensemble import RandomForestClassifier

    begin = time.process_time()
    data: ClassData = load_data(folder, log=lambda line: None)

    def features(part: ImageSet) -> np.ndarray:
        rows = []
        for picture in pixels(part, HOG_PX):
            edges = hog(picture, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=-1)
            colours = [np.histogram(picture[..., channel], 16, (0, 1))[0] / HOG_PX**2 for channel in range(3)]
            rows.append(np.concatenate([edges, *colours]))
        return np.stack(rows)

    both = np.concatenate([features(data.train), features(data.val)])  # it chooses nothing by the validation pictures
    labels = data.train.labels + data.val.labels
    seed = int(folder.name.rpartition("-")[2])
    model = RandomForestClassifier(500, class_weight="balanced_subsample", random_state=seed).fit(both, labels)
    told = model.predict(features(data.test))
    return {**scored(told, data), "cpu_s": time.process_time() - begin, "what": "500 trees"}


def timm_script(folder: Path, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """A network of timm's by timm's own parts, from fresh weights, for about the time that the plan took."""
    import timm
    from timm.data import create_transform
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    begin = time.process_time()
    seed = int(folder.name.rpartition("-")[2])
    torch.manual_seed(seed)
    random.seed(seed)
    data: ClassData = load_data(folder, log=lambda line: None)
    size = drafts(data, torch.device("cpu"), published=False)[0].recipe.task.image_size[0]
    model = timm.create_model(TIMM_MODEL, num_classes=len(data.classes))
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1 * args.batch / 256, momentum=0.9, weight_decay=2e-5)
    train = create_transform((3, size, size), is_training=True)
    judge = create_transform((3, size, size), is_training=False, crop_pct=1.0)
    kept = [data.train.load(i) for i in range(len(data.train))]
    labels = torch.tensor(data.train.labels)
    steps = max(1, len(kept) // args.batch)

    def epoch(schedule: CosineLRScheduler | None, number: int) -> None:
        model.train()
        for step, rows in enumerate(torch.randperm(len(kept))[: steps * args.batch].split(args.batch)):
            batch = torch.stack([train(kept[row]) for row in rows.tolist()])
            loss = torch.nn.functional.cross_entropy(model(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step_update(number * steps + step)

    once = time.process_time()
    epoch(None, 0)
    once = time.process_time() - once
    epochs = max(2, int(args.cpu_s / once))
    model = timm.create_model(TIMM_MODEL, num_classes=len(data.classes))
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1 * args.batch / 256, momentum=0.9, weight_decay=2e-5)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        warmup_t=min(5, epochs // 4) * steps,
        warmup_lr_init=1e-5,
        t_in_epochs=False,
    )
    for number in range(epochs):
        epoch(schedule, number)

    @torch.no_grad()
    def answers(part: ImageSet) -> list[int]:
        model.eval()
        pictures = torch.stack([judge(part.load(i)) for i in range(len(part))])
        return [row for batch in pictures.split(64) for row in model(batch).argmax(1).tolist()]

    what = f"{TIMM_MODEL}, {size} px, {epochs} epochs"
    return {**scored(np.array(answers(data.test)), data), "cpu_s": time.process_time() - begin, "what": what}


def scored(told: np.ndarray, data: ClassData) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 of answers to the test pictures, in percent."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    labels = np.array(data.test.labels)
    return {
        "top1": float(100 * (told == labels).mean()),
        "balanced_top1": float(100 * balanced_accuracy_score(labels, told)),
        "macro_f1": float(100 * f1_score(labels, told, average="macro")),
    }


def plain(folder: Path, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The plan, where classes are out of balance, with all pictures counting alike."""
    return planned(folder, args, out, "task.balance=none")


def weighted(folder: Path, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The plan with rare classes counting for more."""
    return planned(folder, args, out, "task.balance=weights")


def sampled(folder: Path, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The plan with all classes shown equally often."""
    return planned(folder, args, out, "task.balance=sampling")


METHODS = {"planned": planned, "forest": forest, "timm": timm_script}
VARIANTS = {"plain": plain, "weighted": weighted, "sampled": sampled}  # of the plan, by which a rule is chosen


# ----------------------------------------------------------------------------------------------------------- the table


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The results as a table in Markdown: the mean over the seeds, the 95 % interval of all test pictures together."""
    names = dict.fromkeys(row["set"] for row in rows.values())
    lines = [
        "| set | to learn from | majority | " + " | ".join(METHODS) + " | CPU seconds each |",
        "|---|---:|---:|" + "---:|" * len(METHODS) + "---:|",
    ]
    for name in names:
        cells, seconds = [], []
        mine = [row for row in rows.values() if row["set"] == name]
        for method in METHODS:
            found = [row for row in mine if row["method"] == method]
            if not found:
                cells.append("not run")
                continue
            mean = statistics.mean(row["top1"] for row in found)
            low, high = wilson(mean, sum(row["tested"] for row in found))
            cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f}), {len(found)} seed{'s' if len(found) > 1 else ''}")
            seconds.append(f"{statistics.mean(row['cpu_s'] for row in found):.0f}")
        majority = next((f"{row['majority']:.0f}" for row in mine if row.get("majority")), "")
        lines.append(f"| {name} | {mine[0]['learnt']} | {majority} | {' | '.join(cells)} | {' / '.join(seconds)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not done yet, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS, help="(default: %(default)s)")
    add(
        "--work", type=Path, default=Path("runs/small-data"), help="folders of pictures and runs (default: %(default)s)"
    )
    sets = [*SETS, *SKEWED]
    add("--sets", nargs="+", default=list(SETS), choices=sets, metavar="SET", help=f"of {', '.join(sets)}")
    choices = {**METHODS, **VARIANTS}
    add(
        "--methods",
        nargs="+",
        default=list(METHODS),
        choices=choices,
        metavar="METHOD",
        help=f"of {', '.join(choices)}",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default: %(default)s)")
    add("--budget", type=float, default=600.0, help="seconds for a planned training (default: %(default)s)")
    add("--batch", type=int, default=32, help="of timm's training (default: %(default)s)")
    add("--cifar", type=Path, help="a zip file with train/CLASS/*.jpg and test/CLASS/*.jpg")
    add("--stamps", type=Path, help="the folder of stamps of Debian's tuxpaint-stamps-default")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    done: dict[str, Any] = read_json(args.out) if args.out.exists() else {"rows": {}}
    rows = done["rows"]
    for seed in args.seeds:
        for name in args.sets:
            try:
                folder = written(name, args, seed)
            except (ImportError, OSError) as error:
                print(f"{name}: left out: {error}", flush=True)
                continue
            for method in args.methods:
                key = f"{name} {method} {seed}"
                if key in rows and rows[key]["budget_s"] == args.budget:
                    continue
                args.cpu_s = rows.get(f"{name} planned {seed}", {}).get("cpu_s", args.budget)
                found = choices[method](folder, args, args.work / "runs" / key.replace(" ", "-"))
                counts = {part: sum(1 for _ in (folder / part).rglob("*.png")) for part in PARTS}
                rows[key] = {"set": name, "method": method, "seed": seed, **found}
                rows[key] |= {"learnt": counts["train"], "tested": counts["test"], "budget_s": args.budget}
                write_json(args.out, {"machine": describe(), "rows": rows})
                print(
                    f"{key}: {found['top1']:.1f} %, {found['cpu_s']:.0f} s of the processor, {found['what']}",
                    flush=True,
                )
    print(table(rows))


if __name__ == "__main__":
    main()
