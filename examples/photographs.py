"""Two small folders of real photographs, to try training on: ``python examples/photographs.py photos``.

The pictures come with scikit-image and scikit-learn (``pip install scikit-image scikit-learn``), nothing is downloaded.
Each becomes a class: it is cut into a grid of cells, every cell belongs to train, val or test alone, and grey square
crops of random size are taken inside the cells, so that no pixel is in two parts. ``photos/textures`` has 9 classes of
many crops, to learn first features from; ``photos/scenes`` has 8 other classes of few, the folder that someone has.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
from pathlib import Path

import skimage.data
import sklearn.datasets
from PIL import Image

TEXTURES = ("brick", "cell", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "retina")
SCENES = ("astronaut", "camera", "cat", "coffee", "rocket", "stereo_motorcycle", "china.jpg", "flower.jpg")
GRID = 5  # cells per side
CELLS = {"train": 15, "val": 4, "test": 6}  # of the 25
SMALLEST = 40  # pixels


def photograph(name: str) -> Image.Image:
    """The whole picture, grey: colour alone would tell most of them apart."""
    if name.endswith(".jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
    else:
        pixels = getattr(skimage.data, name)()
    if isinstance(pixels, tuple):  # a stereo pair and its disparity
        pixels = pixels[0]
    return Image.fromarray(pixels).convert("L")


def crops(picture: Image.Image, split: str, count: int, seed: str) -> list[Image.Image]:
    """Squares of ``SMALLEST`` pixels up to a cell's shorter side, spread evenly over the cells of a split."""
    rng = random.Random(seed)
    width, height = picture.width // GRID, picture.height // GRID
    cells = [(column * width, row * height) for row in range(GRID) for column in range(GRID)]
    rng.shuffle(cells)  # the same for all splits: their seeds are the same
    begin = sum(CELLS[other] for other in list(CELLS)[: list(CELLS).index(split)])
    mine = cells[begin : begin + CELLS[split]]
    found = []
    for number in range(count):
        left, top = mine[number % len(mine)]
        side = rng.randint(SMALLEST, min(width, height))
        x, y = left + rng.randint(0, width - side), top + rng.randint(0, height - side)
        found.append(picture.crop((x, y, x + side, y + side)))
    return found


def write(folder: Path, names: tuple[str, ...], counts: dict[str, int], seed: int) -> None:
    """``folder/split/class/number.png``, anew."""
    others = [path for path in folder.rglob("*") if path.is_file() and not re.fullmatch(r"\d{4}\.png", path.name)]
    if others:
        raise SystemExit(f"{folder} holds files of somebody else, such as {others[0]}: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        picture = photograph(name)
        for split, count in counts.items():
            target = folder / split / name.removesuffix(".jpg")
            target.mkdir(parents=True)
            for number, crop in enumerate(crops(picture, split, count, f"{seed} {name}")):
                crop.save(target / f"{number:04}.png")


def build(out: Path, seed: int = 0, textures: int = 300, scenes: int = 24) -> None:
    """Both folders.

    Args:
        out: Where they are written.
        seed: Decides which cells are whose, and the crops.
        textures: Training images per class of the first folder.
        scenes: Training images per class of the second one.
    """
    write(out / "textures", TEXTURES, {"train": textures, "val": 30, "test": 30}, seed)
    write(out / "scenes", SCENES, {"train": scenes, "val": 12, "test": 30}, seed)


def main() -> None:
    """Write the folders and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder, or one that this script made")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.out, args.seed)
    for name in ("textures", "scenes"):
        print(f"{args.out / name}: {sum(1 for _ in (args.out / name).rglob('*.png')):,} images")


if __name__ == "__main__":
    main()
