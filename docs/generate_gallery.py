"""Make the gallery anew from real runs: ``python docs/generate_gallery.py`` (some five minutes of two idle cores).

It trains, compares, times and looks inside, in a folder of its own, and copies the pages to ``docs/gallery``. Where
there is a browser (`tests.browser`), it takes their pictures too, for the README. ``--only compare`` makes one anew.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from examples import photographs  # noqa: E402
from tests import browser  # noqa: E402
from tokenmix.cli import main as tokenmix  # noqa: E402
from tokenmix.pages.bench import bench_page  # noqa: E402

GALLERY, IMAGES = ROOT / "docs" / "gallery", ROOT / "docs" / "images"
MOST_BYTES = 6_000_000  # of all pages together
WIDTH, HEIGHT = 1200, 900  # of a picture, in pixels
SMALL = ["model=mixernet_pico", "image_size=48", "batch_size=16", "epochs=8"]


def run(*words: str) -> None:
    """A command of ours; one that fails ends the script."""
    print("tokenmix", *words, flush=True)
    if code := tokenmix(list(words)):
        sys.exit(f"tokenmix {' '.join(words)}: exit code {code}")


def photos() -> None:
    """Folders of crops of real photographs, few, so that the pages stay small; and two pictures with names."""
    if not Path("photos").is_dir():
        photographs.build(Path("photos"), textures=40, scenes=10)
        for name in ("brick", "coins"):
            shutil.copyfile(f"photos/textures/test/{name}/0000.png", f"{name}.png")


def train(mixer: str = "aff") -> Path:
    """A classifier of textures, in a folder of the mixer's name."""
    photos()
    run("train", "basic", *SMALL, f"model_args.mixers={mixer}", "--data", "photos/textures", "--out", mixer)
    return Path(mixer, "report.html")


def compare() -> Path:
    """What ``make demo`` runs."""
    run("compare", "matching_digits", "--out", "compare")
    return Path("compare/report.html")


def bench() -> Path:
    """Our models beside 32 peers: the measurement of ``docs/performance.md``, which takes hours, as a page."""
    found = json.loads((ROOT / "benchmarks/results/peers-cpu.json").read_text(encoding="utf-8"))
    Path("bench.html").write_text(bench_page(found), encoding="utf-8")
    return Path("bench.html")


def inspect() -> Path:
    """Inside the classifier of textures, beside another one with another mixer."""
    train()
    train("ffnified")
    run("inspect", "aff", "brick.png", "coins.png", "--against", "ffnified", "--out", "inspect")
    return Path("inspect/report.html")


PAGES: dict[str, Callable[[], Path]] = {"compare": compare, "train": train, "bench": bench, "inspect": inspect}
SHOWN = {"inspect": "slots"}  # the part of a page that its picture shows, where that is not the beginning


def picture(name: str) -> None:
    """What a browser shows of a page, as a small PNG file."""
    with browser.chromium(width=WIDTH, height=HEIGHT) as driver:
        browser.screen(driver, WIDTH, HEIGHT)
        driver.get((GALLERY / f"{name}.html").resolve().as_uri())
        for _ in range(3 if name in SHOWN else 1):  # pictures that are drawn meanwhile move what is below them
            driver.execute_script("document.getElementById(arguments[0])?.scrollIntoView()", SHOWN.get(name, ""))
            time.sleep(2)
        shown = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    shown.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"gallery-{name}.png", optimize=True)


def main(words: Sequence[str] | None = None) -> None:
    """Make the pages, and check that they are small enough to be kept in the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gallery", help="where the runs go")
    args = parser.parse_args(words)
    args.work.mkdir(parents=True, exist_ok=True)
    os.chdir(args.work)
    GALLERY.mkdir(exist_ok=True)
    for name in args.only:
        shutil.copyfile(PAGES[name](), GALLERY / f"{name}.html")
    if why := browser.missing():
        print(f"no pictures of the pages: {why}")
    else:
        for name in args.only:
            picture(name)
    size = sum(path.stat().st_size for path in GALLERY.iterdir())
    print(f"{size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"the gallery is over {MOST_BYTES / 1e6:g} MB: train shorter, or show fewer pictures")


if __name__ == "__main__":
    main()
