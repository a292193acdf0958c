"""Let accidents happen to training runs and see whether anything is lost.

    python benchmarks/reliability.py [--quick] [--faults NAME ...] [--times N] [--seed 0] [--jobs 2] [--update]

Every trial disturbs a real ``tokenmix train`` on small images, gives the same command again as a user would, and
compares what the run left with an undisturbed run, bit for bit: weights, moving average, optimiser, history, files, and
the order of the samples in all sessions. Without ``--faults``, ``--times`` and ``--quick`` it writes
``docs/reliability.md`` and ``benchmarks/results/reliability.json``. The exit code is 0 if nothing was lost, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults import FAULTS, Fault
from faults.page import RESULTS, write_page
from faults.session import Lost, Unavailable, warm_up
from faults.trial import Trial

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.train.checkpoint import versions
from tokenmix_runtime.names import unknown


def attempt(fault: Fault, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """One trial: ``survived`` (None: it could not be tried here), ``why`` otherwise, ``seconds``."""
    started = time.monotonic()
    trial = Trial(fault.job, folder / f"{fault.name}-{number}", f"{seed} {fault.name} {number}")
    survived, why = True, ""
    try:
        fault.run(trial)
    except Unavailable as error:
        survived, why = None, str(error)
    except Lost as error:
        survived, why = False, str(error)
    except Exception:  # a fault that cannot be caused as planned has not been survived
        survived, why = False, traceback.format_exc()
    finally:
        trial.close()
    word = {True: "survived", False: "LOST", None: "not tried"}[survived]
    seconds = time.monotonic() - started
    print("\n".join(filter(None, (f"{word:<9}  {fault.name}, trial {number + 1}  {seconds:.0f} s", why))), flush=True)
    return {"survived": survived, "why": why, "seconds": round(seconds, 1)}


def run(names: list[str], times: int | None, seed: int, jobs: int) -> Iterator[dict[str, Any]]:
    """Each fault with its trials' outcomes, as soon as they are known; ``jobs`` trials run at once."""
    with tempfile.TemporaryDirectory(prefix="tokenmix-faults-") as folder, ThreadPoolExecutor(jobs) as pool:
        pending = {
            name: [
                pool.submit(attempt, FAULTS[name], number, seed, Path(folder))
                for number in range(times or FAULTS[name].times)
            ]
            for name in names
        }
        for name, trials in pending.items():
            fault = FAULTS[name]
            yield {
                "name": name,
                "kind": fault.kind,
                "fault": fault.sentence,
                "outcome": fault.outcome,
                "seed": seed,
                "date": datetime.now(UTC).date().isoformat(),
                "versions": versions(),
                "trials": [trial.result() for trial in trials],
            }


def keep(row: dict[str, Any], path: Path) -> None:
    """Put a fault's outcome into the results file, in place of an earlier one."""
    found = json.loads(path.read_text(encoding="utf-8"))["faults"] if path.exists() else []
    rows = {known["name"]: known for known in [*found, row] if known["name"] in FAULTS}
    write_json(path, {"machine": describe(), "faults": [rows[name] for name in FAULTS if name in rows]})


def main() -> int:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", metavar="NAME", help=f"only these: {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, metavar="N", help="how often each is tried, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="each once")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="another file for the results; the page stays as it is")
    parser.add_argument("--update", action="store_true", help="write the outcome of --faults into the page too")
    args = parser.parse_args()
    for name in args.faults or []:
        if name not in FAULTS:
            parser.error(unknown("fault", name, FAULTS))
    times = 1 if args.quick else args.times
    ours = args.update or not (args.faults or times)
    path = args.json or (RESULTS / "reliability.json" if ours else None)
    warm_up()
    outcomes = []
    for row in run(args.faults or list(FAULTS), times, args.seed, args.jobs):
        outcomes += [trial["survived"] for trial in row["trials"]]
        if path:
            keep(row, path)
    if path and not args.json:
        write_page()
    survived, lost, untried = (outcomes.count(outcome) for outcome in (True, False, None))
    print(f"{survived} trials survived, {lost} lost, {untried} not possible here")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
