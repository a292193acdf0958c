"""What each quick test costs and covers; those that repeat what others cover are left to `make test-all`.

    pip install coverage pytest-cov
    python -m tests.measure [--least 0.15] [--keep tests/test_security.py ...]

Runs the quick tests, those that are left out today included, with the branches that each takes and its CPU time,
children included. Then the dearest go first: a test is left out if every branch of it is taken by tests that stay, and
another case of the same function stays. ``tests/exhaustive.txt`` gets their names, a line each. What this cannot see is
judged by people: a function that is named in the file's first part, above the empty line, is left out whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("exhaustive.txt")
Branch = tuple[str, int, int]  # the file, and from which line to which
_COSTS = "TOKENMIX_TEST_COSTS"  # the folder where each process writes what its tests cost


def left_out() -> set[str]:
    """Names of tests, and of functions whose cases are all left out."""
    return {line for line in LIST.read_text(encoding="utf-8").splitlines() if line} if LIST.is_file() else set()


def function(test: str) -> str:
    """``"tests/test_a.py::test_b[1]"`` -> ``"tests/test_a.py::test_b"``."""
    return test.split("[")[0]


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """As a plugin: write down what each test costs."""
    begin = _cpu()
    yield
    with open(Path(os.environ[_COSTS]) / f"{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps([item.nodeid, _cpu() - begin]) + "\n")


def run(folder: Path) -> None:
    """All quick tests, with branches by test."""
    settings = folder / "coverage.ini"
    settings.write_text(
        "[run]\nbranch = True\nsource = tokenmix, tokenmix_runtime\nparallel = True\n"
        f"data_file = {folder / 'branches'}\n"
    )
    words = ["-q", "-n", "2", "--dist", "worksteal", "-m", "not slow and not network", "-p", "tests.measure"]
    words += ["--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", _COSTS: str(folder)}
    subprocess.run([sys.executable, "-m", "pytest", *words], env=environment, check=True)


def costs(folder: Path) -> dict[str, float]:
    """CPU seconds of every test."""
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return {name: max(seconds, 0.0) for name, seconds in rows}


def branches(folder: Path) -> dict[str, set[Branch]]:
    """The branches of every test; under ``""`` those that are taken when modules are imported."""
    found: dict[str, set[Branch]] = defaultdict(set)
    for path in folder.glob("branches*"):
        with sqlite3.connect(path) as data:
            rows = data.execute(
                "select context.context, file.path, arc.fromno, arc.tono from arc "
                "join context on context.id = arc.context_id join file on file.id = arc.file_id"
            )
            for context, file, begin, end in rows:
                found[context.rpartition("|")[0]].add((file, begin, end))
    return found


def chosen(cost: dict[str, float], taken: dict[str, set[Branch]], least: float, whole: set[str]) -> set[str]:
    """The cases to leave out; those below ``least`` seconds stay."""
    stays = {name for name in cost if function(name) not in whole}
    times = Counter(branch for name, own in taken.items() if name == "" or name in stays for branch in own)
    cases = Counter(map(function, stays))
    out = set()
    for name in sorted(stays, key=lambda name: (-cost[name], name)):
        repeated = all(times[branch] > 1 for branch in taken.get(name, ()))
        if cost[name] >= least and repeated and cases[function(name)] > 1:
            out.add(name)
            cases[function(name)] -= 1
            times.subtract(taken.get(name, ()))
    return out


def main() -> None:
    """Measure, then write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=float, default=0.15, help="tests below so many CPU seconds stay")
    parser.add_argument("--keep", nargs="*", default=[], help="files whose tests all stay")
    parser.add_argument("--folder", help="of an earlier measurement, which is read again")
    args = parser.parse_args()
    whole = {name for name in left_out() if "[" not in name}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        if not args.folder:
            LIST.write_text("\n".join(sorted(whole)) + "\n")
            run(folder)
        cost, taken = costs(folder), branches(folder)
    out = {name for name in chosen(cost, taken, args.least, whole) if name.split("::")[0] not in args.keep}
    LIST.write_text("\n".join([*sorted(whole), "", *sorted(out)]) + "\n")
    stay = {name for name in cost if name not in out and function(name) not in whole}
    before, after = (set().union(*(taken.get(name, set()) for name in names)) for names in (cost, stay))
    print(
        f"{len(cost):,} tests, {sum(cost.values()):,.0f} CPU s, {len(before):,} branches; "
        f"{len(stay):,} stay, {sum(cost[name] for name in stay):,.0f} CPU s, {len(after):,} branches"
    )


if __name__ == "__main__":
    main()
