"""What every test run does: one thread for each process, what `make test` leaves out, and the counts at the end."""

from __future__ import annotations

import pytest
import torch

from tests.counts import COUNTS
from tests.measure import function, left_out

# Small tensors gain nothing from threads, and the test processes share the cores.
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What repeats other tests is for `make test-all`: ``tests/exhaustive.txt``, see `tests.measure`."""
    names = left_out()
    for item in items:
        if item.nodeid in names or function(item.nodeid) in names:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A pytest-xdist worker sends its counts to the controlling process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = {kind: sorted(names) for kind, names in COUNTS.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """The controlling process adds a worker's counts; a worker that crashed sends none."""
    for kind, names in getattr(node, "workeroutput", {}).get("counts", {}).items():
        COUNTS[kind].update(names)


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the counts."""
    terminalreporter.write_line(", ".join(f"{kind}: {len(names)}" for kind, names in COUNTS.items()))
