"""The first hour of three newcomers, as a log: ``python benchmarks/first_hour.py --tokenmix ENVIRONMENT/bin/tokenmix``.

Three folders of real pictures are written into an empty folder, with nothing of this repository beside them: stamps in
ten classes, photographs of solar cells, and composed scenes with boxes. Then a ``tokenmix`` that was installed from a
wheel is used there as a newcomer would, and ``docs/first-hour.md`` gets the commands, what they printed and how long
each took. Of what is long the beginning and the end are kept.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import small_data, small_scenes
from tokenmix.bench.machine import describe
from tokenmix.files import write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "first-hour.md"
LINES = 24  # of what a command prints
TRIALS = {
    "Stamps, ten classes": (
        "data check stamps",
        "train --data stamps --budget 4min --out runs/stamps",
        "eval runs/stamps --data stamps --mirror",
        "export runs/stamps --to onnx --precision int8 --calibration stamps/val --out stamps.onnx",
        "compare stamps image_size=64 --mixers ffnified depthwise identity --budget 2min --out runs/compare",
    ),
    "Solar cells, whole or broken": (
        "train --data cells --budget 3min --out runs/cells",
        "predict {cell} --model runs/cells",
        "export runs/cells --to onnx --out cells.onnx",
        "predict {cell} --model cells.onnx",
    ),
    "Boxes in pictures": (
        "data check boxes",
        "train --data boxes --budget 6min --out runs/boxes",
        "predict {scene} --model runs/boxes --out found",
    ),
}


def prepare(folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """Write the three folders; returns the pictures that the commands name."""
    for name in ("stamps", "cells"):
        small_data.written_once(folder / name, small_data.SETS[name](args, 0))
    small_scenes.written("detection", folder / "boxes")
    cell = next((folder / "cells" / "test" / "broken").glob("*.png"))
    scene = next((folder / "boxes" / "test" / "images").glob("*.png"))
    return {"cell": str(cell.relative_to(folder)), "scene": str(scene.relative_to(folder))}


def run(program: Path, words: str, folder: Path) -> tuple[str, float, int]:
    """What a command printed, how many seconds it took, and its exit code."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TOKENMIX_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    begin = time.monotonic()
    done = subprocess.run(
        [str(program), *shlex.split(words)],
        cwd=folder,
        env={**environment, "COLUMNS": "110"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout), time.monotonic() - begin, done.returncode


def shortened(text: str) -> str:
    """The beginning and the end of what is long; of a line that is written over and over what stands there last."""
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.rstrip().split("\n")]
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"... {len(lines) - LINES} lines ...", *lines[-half:]]
    return "\n".join(lines)


def main() -> None:
    """Run the trials, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tokenmix", type=Path, required=True, metavar="PROGRAM", help="installed from a wheel")
    add("--stamps", type=Path, required=True, help="the folder of stamps of Debian's tuxpaint-stamps-default")
    add("--folder", type=Path, default=Path("first-hour"), help="a new one (default: %(default)s)")
    add("--out", type=Path, default=PAGE, help="(default: %(default)s)")
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} is there: give the name of a new folder")
    args.folder.mkdir(parents=True)
    pictures = prepare(args.folder, args)
    machine = describe()
    parts = [
        "# The first hour, as it went",
        "Three folders of pictures, a `tokenmix` from its wheel in an environment of its own, an empty folder, and\n"
        f"nothing else. {machine['cpu']}, {machine['cores']} core{'s' * (machine['cores'] != 1)}, "
        f"torch {machine['versions']['torch']}.\nWritten by `python benchmarks/first_hour.py`; the middle of long "
        "outputs is left out.",
    ]
    failed = False
    for title, commands in TRIALS.items():
        parts.append(f"## {title}")
        for words in commands:
            words = words.format(**pictures)
            print(f"tokenmix {words}", flush=True)
            text, seconds, code = run(args.tokenmix.resolve(), words, args.folder)
            failed |= code != 0
            parts.append(f"```text\n$ tokenmix {words}\n{shortened(text)}\n```")
            parts.append(f"{seconds:.0f} s" + (f", exit code {code}." if code else "."))
            write_text(args.out, "\n\n".join(parts) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
