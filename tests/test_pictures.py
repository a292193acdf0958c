"""Drawings: colours that all eyes tell apart, tags that can be read, and pictures that stay what they are elsewhere."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from tokenmix.pictures import fonts
from tokenmix.pictures.colours import COUNT, class_colour, css_colour, palette
from tokenmix.pictures.drawing import SMALLEST_PX, draw_labels, draw_objects, shares_of
from tokenmix.pictures.fonts import numbered
from tokenmix.pictures.found import FoundLabels, FoundObjects
from tokenmix.pictures.heat import amounts, signed, spread

GREY = Image.new("RGB", (320, 240), (128, 128, 128))
# Another model of colour blindness than the one that chose the colours: Vienot, Brettel and Mollon, 1999.
EYES = {
    "normal": np.eye(3),
    "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


@pytest.mark.parametrize("eye", EYES)
def test_colours_are_told_apart(eye) -> None:
    linear = (palette()[:10] / 255) ** 2.2
    seen = rgb2lab(((linear @ EYES[eye].T).clip(0, 1) ** (1 / 2.2))[None])[0]
    apart = [np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)]
    assert min(apart) > 10  # CIE 1976; 2.3 is just noticeable


def test_every_class_has_its_own_colour() -> None:
    assert len({class_colour(number) for number in range(COUNT)}) == COUNT
    assert class_colour(COUNT + 3) == class_colour(3)
    assert css_colour(0) == "#0072b2"


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_a_box_and_its_tag_are_where_the_object_is() -> None:
    drawn = draw_objects(GREY, [[100, 80, 200, 160]], [2], ["cat", "dog"], scores=[0.875])
    assert drawn.size == (640, 480)  # a small picture is enlarged
    changed = (pixels(drawn) != 128).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (columns[0], columns[-1]) == (200, 399)
    assert rows[-1] == 319
    assert 130 < rows[0] < 160  # the tag stands above the box
    assert not changed[180:300, 220:380].any()  # without a mask the object can be seen
    assert (pixels(drawn)[161 + 1, 300] == class_colour(1)).all()
    assert draw_objects(GREY, [], [], ["cat"]).getcolors() == [(640 * 480, (128, 128, 128))]


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (48, 32), (3000, 2000)])
def test_any_picture_and_any_box(size) -> None:
    picture = Image.new("RGB", size, "white")
    boxes = [[0, 0, *size], [-5, -5, 2, 2], [0, 0, 0, 0], [size[0], size[1], size[0] + 9, size[1] + 9]]
    drawn = draw_objects(picture, boxes, [1, 2, 3, 400], ["a very long name " * 9, "b", ""], scores=[0.1, 0.2, 1, 0])
    assert max(drawn.size) == max(SMALLEST_PX, *size)
    small = draw_objects(picture, boxes, [1, 2, 3, 4], [], masks=np.ones((4, size[1], size[0]), bool), long_side=100)
    assert max(small.size) == 100


def test_tags_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    boxes = [[100, 80, 300, 200]] * 4
    drawn = pixels(draw_objects(GREY, boxes, [1, 2, 3, 4], list("abcd"), scores=[0.9, 0.8, 0.7, 0.6]))
    areas = [int((drawn == class_colour(number)).all(2).sum()) for number in range(4)]
    assert min(areas) > 300


def test_a_mask_is_translucent_with_an_outline() -> None:
    mask = np.zeros((1, 240, 320), bool)
    mask[0, 60:180, 100:200] = True
    drawn = pixels(draw_objects(GREY, [[100, 60, 200, 180]], [1], ["cat"], masks=mask))
    colour = np.array(class_colour(0))
    assert abs(drawn[240, 300] - (0.55 * 128 + 0.45 * colour)).max() <= 1
    assert (drawn[240, 500] == 128).all()
    edge = draw_objects(GREY, [[100, 60, 110, 70]], [1], ["cat"], masks=mask)
    assert (pixels(edge)[358, 300] == colour).all()  # at the mask's end, away from the box


def test_a_map_of_classes() -> None:
    label = np.zeros((240, 320), int)
    label[:, 160:] = 2
    label[200:] = 255
    classes = ["background", "cat", "dog"]
    drawn = draw_labels(GREY, label, classes)
    assert drawn.size[0] == 640
    assert drawn.size[1] > 480  # the legend
    seen = pixels(drawn)
    assert (seen[100, 100] == 128).all()
    assert abs(seen[100, 500] - (0.55 * 128 + 0.45 * np.array(class_colour(2)))).max() <= 1
    assert (seen[100, 321] == class_colour(2)).all()
    assert seen[450, 100].max() < 60  # what is not labelled is dark
    assert draw_labels(GREY, label, classes, legend=False, long_side=160).size == (160, 120)
    assert draw_labels(GREY, label, ["sky", "cat", "dog"]).getpixel((100, 100)) != (128, 128, 128)
    assert shares_of(label, classes) == [(0, "background", 0.5), (2, "dog", 0.5)]
    assert shares_of(np.full((2, 2), 255), classes) == []


def test_a_legend_is_never_cut_off() -> None:
    label = np.arange(30).reshape(5, 6)
    names = [f"rather a long name of class {number}" for number in range(30)]
    narrow = draw_labels(Image.new("RGB", (20, 400)), label, names)
    right = pixels(narrow)[-400:, -3:]
    assert (right == 255).all()


# ------------------------------------------------------------------------------------------------------------ the fonts


@pytest.fixture
def only(monkeypatch, tmp_path):
    """A machine with the fonts that are put into a folder, and no others."""
    monkeypatch.setattr(fonts, "folders", lambda: [tmp_path / "fonts"])
    (tmp_path / "fonts").mkdir()
    for cached in (fonts._file_with, fonts._files):
        cached.cache_clear()
    yield tmp_path / "fonts"
    for cached in (fonts._file_with, fonts._files):
        cached.cache_clear()


def test_a_name_that_no_font_has_is_drawn_as_its_number(only) -> None:
    (only / "broken.ttf").write_bytes(b"no font")
    names = ["cat", "猫", "a b_c-9.%(x)", "کتاب"]
    assert numbered(names) == {1: "猫", 3: "کتاب"}
    boxes = [[100, 80, 200, 160]]
    drawn, plain = (draw_objects(GREY, boxes, [2], classes, scores=[0.5]) for classes in (names, ["", "1"]))
    assert (pixels(drawn) == pixels(plain)).all()
    label = np.ones((240, 320), int)
    drawn, plain = (draw_labels(GREY, label, classes) for classes in (names, ["", "1"]))
    assert (pixels(drawn) == pixels(plain)).all()
    found = FoundLabels(torch.from_numpy(label), names, 4)
    assert found.numbers() == {1: "猫"}
    objects = {"boxes": torch.tensor(boxes), "labels": torch.tensor([4]), "scores": torch.tensor([0.5])}
    assert FoundObjects(objects, names).numbers() == {3: "کتاب"}


DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")


@pytest.mark.skipif(
    not DEJAVU.is_file(), reason="needs the font DejaVu Sans (Debian: apt-get install fonts-dejavu-core)"
)
def test_a_font_of_the_machine_is_taken_where_pillows_own_lacks_letters(only) -> None:
    (only / "LastResort.ttf").write_bytes(DEJAVU.read_bytes())  # by its name a font of boxes
    assert numbered(["Γάτα"]) == {0: "Γάτα"}
    fonts._file_with.cache_clear(), fonts._files.cache_clear()
    (only / "DejaVuSans.ttf").write_bytes(DEJAVU.read_bytes())
    assert numbered(["Γάτα", "кошка", "猫", "chat ébène"]) == {2: "猫"}
    assert fonts.font_for("Γάτα", 20).getname()[0] == "DejaVu Sans"
    assert fonts.font_for("cat", 20).getname()[0] == "Aileron"
    drawn, other = (draw_objects(GREY, [[100, 80, 200, 160]], [1], [name]) for name in ("Γάτα", "Δάτα"))
    assert (pixels(drawn) != pixels(other)).any()


def test_letters_that_join_are_drawn_only_by_what_can_join_them(only, monkeypatch) -> None:
    if DEJAVU.is_file():
        (only / "DejaVuSans.ttf").write_bytes(DEJAVU.read_bytes())
    monkeypatch.setattr(fonts.features, "check", lambda feature: False)
    assert numbered(["کتاب", "cat"]) == {0: "کتاب"}


def test_one_value_that_is_no_number_leaves_the_others_their_colours() -> None:
    values = np.array([[0.0, 1.0], [2.0, np.nan]])
    for draw in (amounts, spread, signed):
        pixels = np.asarray(draw(values))
        assert len({tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}) == 4, draw
