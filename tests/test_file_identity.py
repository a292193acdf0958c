"""What a file is, whatever it is called."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tokenmix.data.file_identity import BLOCK, BLOCKS, file_identities, file_identity


@pytest.mark.parametrize("ending", ["bmp", "tif", "pgm", "png"])
@pytest.mark.parametrize("side", [64, 256, 900])
def test_pictures_with_one_border_are_not_one_picture(tmp_path, ending: str, side: int) -> None:
    """Slices on black: begin and end of the files are the same."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.{ending}" for number in range(5)]
    for path in paths:
        values = np.zeros((side, side), np.uint8)
        edge = side // 6
        values[edge:-edge, edge:-edge] = generator.integers(0, 256, (side - 2 * edge, side - 2 * edge))
        Image.fromarray(values).save(path)
    shutil.copyfile(paths[0], tmp_path / f"copy.{ending}")
    found = file_identities([*paths, tmp_path / f"copy.{ending}"])
    assert len(set(found.tolist())) == 5
    assert found[5] == found[0]


def test_a_file_as_long_as_what_is_read_is_read_whole(tmp_path) -> None:
    content = bytearray(BLOCK * BLOCKS)
    seen = set()
    for place in (0, 1, BLOCK * 3 + 7, BLOCK * BLOCKS - 1):
        changed = bytearray(content)
        changed[place] = 1
        (tmp_path / "file").write_bytes(changed)
        seen.add(file_identity(tmp_path / "file"))
    assert len(seen) == 4
    assert file_identity(tmp_path / "nothing") == 0
