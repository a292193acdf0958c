"""``python -m tokenmix_runtime MODEL.onnx IMAGE...``: what an exported model says about pictures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenmix_runtime.console import Output, exit_code
from tokenmix_runtime.images import ImageError
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.manifest import TASKS, ModelError
from tokenmix_runtime.predictor import Predictor
from tokenmix_runtime.results import Enlarged, Result
from tokenmix_runtime.terminal import say


def main(argv: Sequence[str] | None = None) -> int:
    """Answer every picture; a broken one is named, the others are still answered.

    Returns:
        The exit code: 0, or 2 where an answer is missing, 130 after Ctrl-C, and 141 when nobody reads the answers.
    """
    return exit_code(partial(_answer, argv))


def _answer(argv: Sequence[str] | None, output: Output) -> int:
    parser = argparse.ArgumentParser(prog="tokenmix_runtime", description=__doc__)
    add = parser.add_argument
    add("model", help="an ONNX file that tokenmix export wrote")
    add("images", nargs="+", metavar="IMAGE", help="picture files")
    add("--task", choices=TASKS, help="refuse a model for anything else")
    add("--top", type=int, default=5, metavar="K", help="how many classes to show (default: %(default)s)")
    add("--score", type=float, default=0.3, metavar="S", help="show objects above this score (default: %(default)s)")
    add("--out", metavar="DIR", help="write enlarged pictures into this folder, as PNG files")
    add("--json", action="store_true", help="print the answers as JSON, all objects included")
    args = parser.parse_args(argv)
    failed = False

    def fail(error: Exception) -> None:
        nonlocal failed
        failed = True
        say(f"tokenmix_runtime: error: {error}", file=sys.stderr)

    answers = []
    taken = {_place(path) for path in args.images}  # none of which is written over
    try:
        if args.top < 1:
            raise ValueError(f"--top must be 1 or more, got {args.top}")
        check_number("top", args.top, "--top")
        if not 0 <= args.score <= 1:
            raise ValueError(f"--score must be from 0 to 1, not {args.score}")
        predict = Predictor(args.model, task=args.task)
        if args.out is not None and not predict.manifest.reading.enlarges:
            raise ValueError(f"--out is for models that enlarge pictures, and {args.model} is for {predict.task}")
        for path in args.images:
            try:
                answer = predict(path)
                written = None if args.out is None else _written(answer, path, Path(args.out), taken)
            except (ImageError, ModelError) as error:
                fail(error)
                answers.append({"image": path, "error": str(error)})
                continue
            if args.json:
                told: dict[str, Any] = {} if written is None else {"written": str(written)}
                answers.append({"image": path, **answer.as_dict(args.top), **told})
            else:
                named = path if written is None else f"{path} -> {written}"
                say("\n".join([named, *(f"  {line}" for line in answer.lines(args.top, args.score))]))
    except (ValueError, OSError, ImportError) as error:
        if error is output.error:
            raise
        fail(error)
    if args.json and answers:
        print(json.dumps(answers, indent=1, allow_nan=False))
    return 2 if failed else 0


def _written(answer: Result, path: str, folder: Path, taken: set[str]) -> Path:
    """The file, one that is not taken yet, into which an enlarged picture was written."""
    assert isinstance(answer, Enlarged)
    stem, number = f"{Path(path).stem}-x{answer.scale}", 1
    target = folder / f"{stem}.png"
    while _place(target) in taken:
        number += 1
        target = folder / f"{stem}-{number}.png"
    taken.add(_place(target))
    answer.save(target)
    return target


def _place(path: str | Path) -> str:
    """Where a file lies: the same for all names of it, through links and in either case where the system has one."""
    return os.path.normcase(os.path.realpath(path))


if __name__ == "__main__":
    sys.exit(main())
