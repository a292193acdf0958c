"""The page of a model as wide as a phone and a screen, light and dark: nothing sticks out, all can be read and used."""

from __future__ import annotations

import pytest

from tests import looks
from tests.web_page.page import Open, choose, photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_everybody_can_read_and_use_it(show: Open, tmp_path) -> None:
    picture = tmp_path / "photo.png"
    photo(120, 90).save(picture)
    for width, dark in ((360, False), (360, True), (1440, False), (1440, True)):
        driver = show("toy", width, 900, dark, fresh=True)
        choose(driver, picture)
        where = f"{width} px, {'dark' if dark else 'light'}"
        assert looks.width(driver) <= width, where
        texts = looks.texts(driver)
        assert len(texts) > 10
        assert [text for text in texts if text.contrast < text.needed] == [], where
    assert looks.use_by_keyboard(driver) == []
