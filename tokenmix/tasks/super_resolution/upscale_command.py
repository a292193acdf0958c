"""Make photographs larger: `tokenmix upscale IN... OUT --model MODEL`.

IN are pictures, or folders of them. OUT is a file, for one picture, or a folder, in which a picture keeps its name and
gets the scale: holiday-x2.jpg. Large pictures are enlarged in tiles whose borders cannot be seen; 16 bits, transparency
and the colour profile are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from tokenmix.argument_types import number, whole
from tokenmix_runtime.terminal import say

TASK = "super_resolution"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix upscale``."""
    add = parser.add_argument
    add("pictures", nargs="+", metavar="IN", help="pictures or folders of pictures, and at the end where they go, OUT")
    add("--model", required=True, help="a run's folder, a .safetensors file, an official checkpoint, or bicubic_x2")
    add("--scale", type=float, metavar="S", help="how many times larger (default: the model's)")
    add("--tile", type=whole("image_size"), metavar="N", help="side of a tile in pixels (default: suits the memory)")
    add(
        "--memory",
        type=number("memory_mb"),
        default=1024,
        metavar="MB",
        help="what the network's maps may take (default: %(default)s)",
    )
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--json", action="store_true", help="print what was written as JSON and nothing else")


def run(args: argparse.Namespace) -> None:
    """Enlarge every picture; one that cannot be is named, the others still are. The exit code is then 2."""
    from tokenmix.checkpoints import open_model
    from tokenmix.evaluate import find_device
    from tokenmix.tasks.super_resolution.upscaling import upscale_file

    device = find_device(args.device)
    loaded = open_model(args.model, tasks=[TASK])
    model = loaded.model.to(device)
    pairs = targets(args.pictures, args.scale or model.scale)  # type: ignore[arg-type]
    told: list[dict[str, Any]] = []
    broken: list[str] = []
    for source, target in pairs:
        begin, progress = time.monotonic(), Progress(str(source), silent=args.json)
        try:
            height, width = upscale_file(
                source, target, model, scale=args.scale, tile=args.tile, memory_mb=args.memory, progress=progress
            )
        except (ValueError, MemoryError) as error:
            broken.append(str(error) if str(source) in str(error) else f"{source}: {error or 'not enough memory'}")
            told.append({"picture": str(source), "error": broken[-1]})
            continue
        finally:
            progress.clear()
        seconds = time.monotonic() - begin
        told.append({"picture": str(source), "written": str(target), "size": [height, width], "seconds": seconds})
        if not args.json:
            say(f"{source} -> {target} ({width} x {height} pixels, {seconds:.1f} s)")
    if args.json:
        print(json.dumps(told, indent=1))
    if broken:
        raise ValueError("\n".join(broken))


def targets(words: list[str], scale: float) -> list[tuple[Path, Path]]:
    """Each picture that the words of the command name, and where it goes.

    Raises:
        ValueError: There is no target, or no picture; or several pictures would go into one file.
    """
    from tokenmix.data.inventory import take_inventory
    from tokenmix.tasks.super_resolution.photographs import WRITERS
    from tokenmix.tasks.super_resolution.upscaling import output_path

    *sources, last = words
    if not sources:
        raise ValueError(f"upscale needs pictures and, at the end, a file or folder for them; only {last} was given")
    out = Path(last)
    pictures: list[Path] = []
    for source in map(Path, sources):
        found = [source / name for name in take_inventory(source).pictures] if source.is_dir() else [source]
        if not found:
            raise ValueError(f"{source}: no pictures in this folder")
        pictures += found
    if out.suffix.lower() in WRITERS and not out.is_dir():
        if len(pictures) > 1:
            raise ValueError(f"{len(pictures)} pictures cannot go into one file, {out}: name a folder")
        return [(pictures[0], out)]
    if out.is_file():
        raise ValueError(f"{out} is a file that would not be a picture any more: name a folder, or a new file")
    taken: dict[Path, Path] = {}
    for picture in pictures:
        taken[output_path(picture, out, scale, {*taken, *pictures})] = picture
    return [(picture, target) for target, picture in taken.items()]


@dataclasses.dataclass
class Progress:
    """Says on a terminal, at most twice a second, how many tiles of a picture are done."""

    name: str
    silent: bool
    shown: float = 0.0
    width: int = 0

    def __call__(self, done: int, count: int) -> None:
        now = time.monotonic()
        if self.silent or not sys.stderr.isatty() or now - self.shown < 0.5 or count == 1:
            return
        line = f"{self.name}: {done} of {count} tiles"
        self.width = max(self.width, len(line))
        self.shown = now
        print(f"\r{line:<{self.width}}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self.width:
            print(f"\r{'':<{self.width}}\r", end="", file=sys.stderr, flush=True)
