"""Say and draw what is on pictures.

Of a classifier the most likely classes with bars; of a detector the objects, of a segmenter the share of each class,
and both are drawn: NAME-boxes.png, NAME-masks.png or NAME-segments.png; of a very long name the begin.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tokenmix.checkpoints import open_model
from tokenmix.cli.options import add_common, add_task_options, task_options
from tokenmix.cli.output import print_json
from tokenmix.evaluate import find_device
from tokenmix.exported import answer_of, expanded, is_exported, left_out, open_exported
from tokenmix.files import is_full, write_csv
from tokenmix.tasks import Answer, Option, Task, find_task
from tokenmix_runtime.images import ImageError
from tokenmix_runtime.terminal import say


def _options(task: Task) -> tuple[Option, ...]:
    return task.predict_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix predict``."""
    add = parser.add_argument
    add(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="picture files, folders of them, patterns such as '*.jpg', or a list of paths (.list, .txt)",
    )
    add(
        "--model",
        required=True,
        help="a run's folder, a .safetensors file, an official checkpoint, a model's name, or an exported .onnx file",
    )
    add(
        "--csv",
        metavar="FILE.csv",
        help="write the answers as a table too, each with its picture: a row for each of the most likely classes, for "
        "each object, or for each class that a segmenter sees",
    )
    add_common(parser, "--device", "--json", json={"help": "print the answers as JSON"})
    add_task_options(parser, _options)


def _files(images: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each file that is named, with nothing; a folder or pattern that names none, with what is wrong with it."""
    for image in images:
        try:
            yield from ((path, "") for path in expanded([image]))
        except ValueError as error:
            yield image, str(error)
        if os.path.isdir(image):
            for line in left_out(image):
                say(f"warning: {line}", file=sys.stderr)


def run(args: argparse.Namespace) -> None:
    """Predict every picture; one that cannot be answered is named, the others are still answered.

    In JSON it has an ``error`` in the place of its answer, in a table in a column of its own. The exit code is then 2.
    """
    if args.csv and not args.csv.endswith(".csv"):
        raise ValueError(f"--csv {args.csv}: the file's name must end in .csv")  # told before the work
    device = find_device(args.device)
    exported = is_exported(args.model)
    loaded = open_exported(args.model) if exported else open_model(args.model)
    task = find_task(loaded.task)
    options = task_options(args, task, _options)
    loaded.model.to(device)
    if exported and "out" in options:
        raise ValueError("--out: an exported file only says what it sees; the model that it was made of draws it")
    answer: Callable[[str], Answer] = (
        partial(answer_of, loaded, **options) if exported else task.answerer(loaded, device, **options)
    )
    answers, rows, broken = [], list[dict[str, Any]](), []
    for path, lacking in _files(args.images):
        try:
            if lacking:
                raise ImageError(lacking)
            found = answer(path)
        except (ValueError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and is_full(error):
                raise
            broken.append(str(error) if isinstance(error, ImageError) else f"{path}: {error or 'not enough memory'}")
            answers.append({"image": path, "error": broken[-1]})
            rows.append(answers[-1])
            continue
        answers.append({"image": path, **found.values})
        rows += [{"image": path, **row} for row in found.rows or [{}]]
        if not args.json:
            say("\n".join(found.lines))
    if args.csv:
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "error"]
        names += ["error"] * bool(broken)
        write_csv(args.csv, names, ([row.get(name) for name in names] for row in rows))
        say(f"{args.csv}: {len(rows):,} rows", file=sys.stderr)
    if args.json:
        print_json(answers)
    if broken:
        raise ValueError("\n".join(broken))
