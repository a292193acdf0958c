"""Let accidents happen to training runs and see whether anything is lost.

    python benchmarks/reliability.py [--faults NAME ...] [--times N] [--quick] [--seed 0] [--jobs 2]

Every trial disturbs a real ``tokenmix train`` on small images, gives the same command again as a user would, and
compares what the run left with an undisturbed run, bit for bit: weights, moving average, optimiser, history, files, and
the order of the samples in all sessions. Without ``--faults``, ``--times`` and ``--quick`` it writes
``docs/reliability.md`` and ``benchmarks/results/reliability.json``. The exit code is 0 if nothing was lost, else 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
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
from tokenmix.names import unknown
from tokenmix.train.checkpoint import versions


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
    return {"fault": fault.name, "survived": survived, "why": why, "seconds": round(seconds, 1)}


def run(names: list[str], times: int | None, seed: int, jobs: int) -> list[dict[str, Any]]:
    """All trials of these faults, ``jobs`` of them at once; a fault is a dict with its trials' outcomes."""
    chosen = [FAULTS[name] for name in names]
    with tempfile.TemporaryDirectory(prefix="tokenmix-faults-") as temporary:
        folder = Path(temporary)
        with ThreadPoolExecutor(jobs) as pool:
            trials = [
                (fault, [pool.submit(attempt, fault, number, seed, folder) for number in range(times or fault.times)])
                for fault in chosen
            ]
            return [
                {
                    "name": fault.name,
                    "kind": fault.kind,
                    "fault": fault.sentence,
                    "outcome": fault.outcome,
                    "trials": [trial.result() for trial in pending],
                }
                for fault, pending in trials
            ]


def main() -> int:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", metavar="NAME", help=f"only these: {', '.join(FAULTS)}")
    parser.add_argument("--times", type=int, metavar="N", help="how often each is tried, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="each once")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="another file for the results; the page stays as it is")
    args = parser.parse_args()
    for name in args.faults or []:
        if name not in FAULTS:
            parser.error(unknown("fault", name, FAULTS))
    warm_up()
    started = time.monotonic()
    times = 1 if args.quick else args.times
    faults = run(args.faults or list(FAULTS), times, args.seed, args.jobs)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "seed": args.seed,
        "seconds": round(time.monotonic() - started),
        "versions": versions(),
        "machine": describe(),
        "faults": faults,
    }
    trials = [trial for fault in faults for trial in fault["trials"]]
    tried = [trial for trial in trials if trial["survived"] is not None]
    survived = sum(trial["survived"] for trial in tried)
    print(f"{len(faults)} faults, {survived} of {len(tried)} trials survived, {results['seconds']} s")
    whole = not args.faults and not times
    if args.json or whole:
        write_json(args.json or RESULTS / "reliability.json", results)
    if whole and not args.json:
        write_page()
    return int(survived < len(tried))


if __name__ == "__main__":
    sys.exit(main())
