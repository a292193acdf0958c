"""What pages show of networks that enlarge: the parts that they enlarge worst, and every picture in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenmix.pages.page import Cell, Head, render
from tokenmix.pages.result_schema import mapping, number, read, sequence
from tokenmix.tasks.section import Section
from tokenmix.tasks.super_resolution.evidence import MOST

TEMPLATES = Path(__file__).with_name("templates")
Pictures = Mapping[int, tuple[bytes, bytes, bytes] | None]
COLUMNS = {"gain": "gain, dB", "psnr": "PSNR, dB", "ssim": "SSIM", "bicubic_psnr": "bicubic PSNR, dB"}


def run_sections(run: Mapping[str, Any], pictures: Pictures) -> list[Section]:
    """The pictures with the smallest gains over bicubic interpolation, and all of them in numbers.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `PictureEvidence` gathered.
        pictures: PNG files by an entry's ``index``: of bicubic interpolation, of the network, of the truth.
    """
    evidence = run["evidence"]
    values = {"images": evidence["images"], "epoch": run["best_epoch"]}
    files = tuple(TEMPLATES / name for name in ("upscaled.css", "upscaled.js"))
    worst = render(TEMPLATES / "worst.html", **values, cards=evidence["mistakes"], pictures=pictures)
    heads = [Head("picture"), *(Head(title) for title in COLUMNS.values())]
    heads[1] = heads[1]._replace(sort="ascending")
    rows = [(one["name"], False, [_cell(name, one[name]) for name in COLUMNS]) for one in evidence["pictures"]]
    shown = f"Of {evidence['images']:,} pictures the {len(rows):,} with the smallest gains."
    table = render(TEMPLATES / "pictures.html", intro=shown, heads=heads, rows=rows, note="")
    return [
        Section("mistakes", "Worst pictures", worst, "Worst pictures", files=files),
        Section("pictures", "Pictures", table if rows else "", "Pictures"),
    ]


def compare_sections(results: Mapping[str, Any]) -> list[Section]:
    """The PSNR of each test picture, a column for bicubic interpolation and one per mixer."""
    tables: dict[str, dict[str, float | None]] = {}
    bicubic: dict[str, float | None] = {}
    for row in read(results).rows:
        pictures = [mapping(one) for one in sequence(row.entry.get("per_picture"))]
        if pictures:
            tables[row.name] = {str(one.get("picture")): number(one.get("psnr")) for one in pictures}
            bicubic |= {str(one.get("picture")): number(one.get("bicubic_psnr")) for one in pictures}
    if not tables:
        return []
    lines = []
    for name, before in bicubic.items():
        values = [table.get(name) for table in tables.values()]
        there = [value for value in values if value is not None]
        top = max(there) if len(set(there)) > 1 else None
        cells = [_cell("psnr", value, value is not None and value == top) for value in values]
        lines.append((name, False, [_cell("psnr", before), *cells]))
    heads = [Head("picture"), Head("bicubic"), *(Head(name, "descending") for name in tables)]
    html = render(
        TEMPLATES / "pictures.html",
        intro="PSNR of each test picture in dB, with the weights of each mixer's best seed.",
        heads=heads,
        rows=lines[:MOST],
        note="Bold: best of the row.",
    )
    return [Section("pictures", "Pictures", html, "Pictures")]


def _cell(name: str, value: float | None, best: bool = False) -> Cell:
    if value is None:
        return Cell("–", value)
    return Cell(f"{value:.4f}" if "ssim" in name else f"{value:.2f}", value, best=best)
