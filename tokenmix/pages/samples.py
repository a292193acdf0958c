"""Sample predictions as cards: picture, truth, and what each mixer saw, the hardest ones first."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tokenmix.pages.result_schema import Comparison, Row, mapping, number, sequence

_SHOWN = 8  # cards before the rest is folded away
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class _Sample:
    name: str
    truth: Any
    seen: list[tuple[Row, Any, float | None]] = field(default_factory=list)

    def wrong(self) -> int:
        return sum(prediction != self.truth for _, prediction, _ in self.seen)


def samples_html(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    """The cards, those that most mixers get wrong first; nothing where there is no sample."""
    samples: dict[str, _Sample] = {}
    for row in comparison.rows:
        for entry in sequence(row.entry.get("samples")):
            values = mapping(entry)
            name = str(values.get("name"))
            sample = samples.setdefault(name, _Sample(name, values.get("truth")))
            sample.seen.append((row, values.get("prediction"), number(values.get("confidence"))))
    if not samples:
        return ""
    order = sorted(samples.values(), key=lambda sample: -sample.wrong())
    cards = [_card(sample, comparison, pictures.get(sample.name)) for sample in order]
    missed = sum(sample.wrong() > 0 for sample in order)
    text = (
        f'<p class="muted">{len(cards)} of the test images; at least one mixer is wrong on {missed} of them, and these '
        "come first, so that accuracy is not to be guessed from them. Percentages are the model's own confidence.</p>"
    )
    text += f'<div class="cards">{"".join(cards[:_SHOWN])}</div>'
    if len(cards) > _SHOWN:
        rest = "".join(cards[_SHOWN:])
        text += f'<details><summary>{len(cards) - _SHOWN} more</summary><div class="cards">{rest}</div></details>'
    return text


def _card(sample: _Sample, comparison: Comparison, picture: bytes | None) -> str:
    truth = comparison.class_name(sample.truth)
    lines = []
    for row, prediction, confidence in sorted(sample.seen, key=lambda seen: seen[1] == sample.truth):
        kind = "" if prediction == sample.truth else ' class="wrong"'
        sure = "" if confidence is None else f"{100 * confidence:.0f} %"
        said = escape(comparison.class_name(prediction))
        name = escape(row.name)
        lines.append(f'<tr{kind}><td title="{name}">{name}</td><td title="{said}">{said}</td><td>{sure}</td></tr>')
    right = len(sample.seen) - sample.wrong()
    return (
        f'<div class="card"><div class="top">{picture_html(picture, truth)}<div><p class="muted">Truth</p>'
        f'<p class="truth">{escape(truth)}</p><p class="muted">{right} of {len(sample.seen)} right</p>'
        f'<p class="muted">{escape(sample.name)}</p></div></div><table>{"".join(lines)}</table></div>'
    )


def picture_html(picture: bytes | None, truth: str) -> str:
    """A picture of a class from its PNG file, or an empty box."""
    if not picture or not picture.startswith(_PNG):
        return '<div class="blank"></div>'
    small = int.from_bytes(picture[16:20], "big") < 84  # the width, from the PNG's header
    source = base64.b64encode(picture).decode("ascii")
    kind = ' class="pixels"' if small else ""
    return f'<img{kind} alt="image of class {escape(truth)}" src="data:image/png;base64,{source}">'
