"""Give hostile files and unkind machines to the commands, and see that each ends as it must.

    python benchmarks/security.py [files] [conditions] [fuzz] [--cases NAME ...] [--seed 0] [--inputs 500]

Every case runs in a fork of this process that is watched: by Python's audit events for what it runs, imports and opens,
for its time and for its memory. Without options it writes ``benchmarks/results/security.json`` and the tables of
``docs/security.md``. The exit code is 0 if every case ended as it must, else 1.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process whose threads have worked would hang

from hostile import conditions, files, fuzz
from hostile.page import RESULTS, write_tables
from hostile.sandbox import watch
from hostile.stock import Stock, make_stock

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix_runtime.names import unknown

Row = dict[str, Any]


def tell(name: str, end: Any, why: str) -> Row:
    """Print how a case ended, with its words if it ended wrongly; its row."""
    print(f"{'right' if not why else 'WRONG'}  {name}  {end.seconds:.1f} s  {why}", flush=True)
    if why:
        print("       " + end.text.strip()[-1500:].replace("\n", "\n       "), flush=True)
    return {"name": name, "right": not why, "why": why, "code": end.code, "seconds": round(end.seconds, 1)}


def try_files(names: Iterable[str], stock: Stock, folder: Path) -> list[Row]:
    """Give each hostile file to its command."""
    rows = []
    for name in names:
        case, place = files.FILES[name], folder / name
        place.mkdir()
        end = watch(case.make(place, stock), place)
        rows.append(tell(name, end, files.judge(case, end, place)))
        shutil.rmtree(place)
    return rows


def try_conditions(names: Iterable[str], stock: Stock, folder: Path) -> list[Row]:
    """Run each command on its machine."""
    rows = []
    for name in names:
        case, place = conditions.CONDITIONS[name], folder / name
        place.mkdir()
        end = watch(
            case.words(place, stock),
            place,
            condition=case.set_up,
            seconds=case.seconds,
            disturb=lambda pid, case=case, place=place: case.disturb(pid, place),
        )
        rows.append(tell(name, end, conditions.judge(case, end, place)))
        shutil.rmtree(place)
    return rows


def try_inputs(seed: int, count: int, stock: Stock, folder: Path, seconds: float = float("inf")) -> list[Row]:
    """Generate inputs, the same for the same seed; stop after some time, and say so."""
    rows: list[Row] = []
    begin = time.monotonic()
    kinds = list(fuzz.KINDS)
    for number in range(count):
        if time.monotonic() - begin > seconds:
            print(f"stopped after {number} of {count} inputs: {seconds:.0f} s are over")
            break
        kind, place = kinds[number % len(kinds)], folder / f"fuzz-{number}"
        place.mkdir()
        words = fuzz.KINDS[kind](place, stock, random.Random(f"{seed} {number}"))
        end = watch(words, place, seconds=10 if kind != "command line" else 30)
        why = end.fault() or ("exit code 1, which is for bugs" if end.code == 1 else "")
        row = {"name": f"{kind} {number}", "right": not why, "why": why, "code": end.code}
        rows.append(tell(row["name"], end, why) if why else row)
        shutil.rmtree(place)
    print(f"{sum(row['right'] for row in rows)} of {len(rows)} generated inputs ended as they must")
    return rows


def chosen(table: dict[str, Any], names: list[str] | None) -> list[str]:
    """The cases of a table that were asked for."""
    return [name for name in table if names is None or name in names]


def main() -> int:
    """Parse, try, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="files, conditions, fuzz (default: all three)")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these files and conditions")
    parser.add_argument("--seed", type=int, default=0, help="of the generated inputs (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=500, metavar="N", help="how many (default: %(default)s)")
    args = parser.parse_args()
    parts = args.parts or ([] if args.cases else ["files", "conditions", "fuzz"])
    for part in parts:
        if part not in ("files", "conditions", "fuzz"):
            parser.error(unknown("part", part, ("files", "conditions", "fuzz")))
    for name in args.cases or ():
        if name not in {**files.FILES, **conditions.CONDITIONS}:
            parser.error(unknown("case", name, [*files.FILES, *conditions.CONDITIONS]))
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="tokenmix-hostile-") as place:
        folder = Path(place)
        (folder / "stock").mkdir()
        stock = make_stock(folder / "stock")
        steps: dict[str, Callable[[], list[Row]]] = {
            "files": lambda: try_files(chosen(files.FILES, args.cases), stock, folder),
            "conditions": lambda: try_conditions(chosen(conditions.CONDITIONS, args.cases), stock, folder),
            "fuzz": lambda: try_inputs(args.seed, args.inputs, stock, folder),
        }
        for part, step in steps.items():
            if part in parts or (args.cases and part != "fuzz"):
                found[part] = step()
    rows = [row for part in found.values() for row in part]
    wrong = [row["name"] for row in rows if not row["right"]]
    if not args.parts and not args.cases:
        write_json(RESULTS, {"machine": describe(), "seed": args.seed, **found})
        write_tables()
    print(
        f"{len(rows) - len(wrong)} of {len(rows)} cases ended as they must"
        + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
