"""The page ``docs/reliability.md``, from the results of the two scripts."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenmix.files import write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

HEAD = """# Nothing lost

A training run may be killed at any moment, lose a process, run out of disk or find its newest checkpoint damaged. The
same command given again continues from the last whole checkpoint, in the middle of an epoch too. On a CPU the weights
at the end are bit-identical to those of a run that nothing disturbed; on a GPU the same numbers go in, but its kernels
need not repeat bit for bit.

This page is written by a script that lets these accidents happen:

```sh
python benchmarks/reliability.py            # all of it; --quick: each fault once; --faults NAME ...: only these
python benchmarks/two_hosts.py              # two hosts, one cut off; needs Linux and root
```

## How it is tried

Each trial starts a real `tokenmix train` of a few seconds, on digits or on a folder of small JPEGs, with dropped paths,
mixup, random augmentation and a moving average of the weights, so that a random number drawn once too often would show.
To save the seconds of its imports it is forked from a process that has them; under torchrun it starts as always.
The accident happens at a random moment (drawn from a seed) or at an exact one: the process is held just before it
renames a checkpoint, or when it has written half of its bytes, and is killed there. Then the same command is given
again, and all that the run leaves is compared, bit for bit, with an undisturbed run: weights, moving average,
optimiser, history, best weights and their summary, the samples that each step saw in all sessions, and that no
half-written file is left behind. A fault that has to stop the run must stop it with the documented code and words, and
the run must end the same once the cause is gone. A trial whose accident did not happen as planned counts as lost.

A run that ends says how by its exit code: 0 done; 2 a mistake, too little memory, or a file that is not as it should
be; 75 the disk is full or another process died: the same command continues when that is over; 130 and 143 interrupted
and terminated, after saving; 1 a bug.

What is not tried: a power cut (files and their folder are synced before anything relies on them, but whether a disk
keeps its word is the disk's matter), file systems without atomic renames, GPUs that fail, and clocks that jump.
"""

CONDITIONS = Path(__file__).with_name("conditions.md")  # tried by the tests

HOSTS = """## Two hosts

Two network namespaces joined by a veth pair are two hosts with a shared folder. Each runs

```sh
torchrun --nnodes=1:2 --nproc-per-node=1 --max-restarts=3 --rdzv-backend=c10d --rdzv-endpoint=FIRST_HOST:29401 \\
    -m tokenmix train ... --out SHARED_FOLDER --timeout {timeout_s}
```

In the middle the link of the second goes down; later it comes back, and the same command is given there again.

| what happens | when |
|---|---|
| the first host notices that the second is gone | {noticed_s} s after the cut |
| it goes on alone, from the last checkpoint | {alone_s} s after the cut |
| the second, started again, is taken in and both go on | {together_s} s after the link is back |

After `--timeout` most of the time goes into processes that start again. At the end the weights differ from those of one
undisturbed process by at most {difference:.1e} (float64, a model without batch norm; the order of additions is all that
may differ), the accuracies of all epochs are equal, and every step saw the same samples: `batch_size` is that of all
processes together, however many there are.

What torchrun needs for this: the network device in `GLOO_SOCKET_IFNAME` where a host has several, and for a host that
comes back `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` on all of them; without it the first host tells its address in the
first round only, and the late one waits for it in vain.

Measured on {date} with torch {torch} on {cpu}, {cores} cores, load {load:.0f}.
"""


def page(results: dict[str, Any], hosts: dict[str, Any] | None) -> str:
    """The whole page as Markdown; ``hosts`` is None where two hosts could not be tried."""
    return "\n".join(
        [HEAD, CONDITIONS.read_text(encoding="utf-8"), _faults(results), *([_hosts(hosts)] if hosts else [])]
    )


def _faults(results: dict[str, Any]) -> str:
    faults, machine = results["faults"], results["machine"]
    trials = [trial for fault in faults for trial in fault["trials"]]
    outcomes = [trial["survived"] for trial in trials]
    days = sorted({fault["date"] for fault in faults})
    versions = sorted({f"torch {fault['versions']['torch']}, Python {fault['versions']['python']}" for fault in faults})
    lines = [
        "## What came of it",
        "",
        f"{len(faults)} faults, {len(outcomes) - outcomes.count(None)} trials, {outcomes.count(True)} survived: "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {' and '.join(versions)}, on {machine['cpu']}, "
        f"{machine['cores']} cores. Every trial is in `benchmarks/results/reliability.json`.",
    ]
    for kind, group in groupby(faults, key=lambda fault: fault["kind"]):
        lines += ["", f"### {kind}", "", "| fault | tried | survived | outcome |", "|---|---|---|---|"]
        for fault in group:
            found = [trial["survived"] for trial in fault["trials"]]
            count = len(found) - found.count(None)
            outcome = fault["outcome"] if count else f"not tried: {fault['trials'][0]['why']}"
            lines.append(f"| {fault['fault']} | {count} | {found.count(True)} | {outcome} |")
    return "\n".join([*lines, ""])


def _hosts(hosts: dict[str, Any]) -> str:
    machine, torch = hosts["machine"], hosts["versions"]["torch"]
    return HOSTS.format(
        **hosts, torch=torch, cpu=machine["cpu"], cores=machine["cores"], load=machine["load_average"][0]
    )


def write_page() -> None:
    """Write the page from what the two scripts found last."""
    faults, hosts = RESULTS / "reliability.json", RESULTS / "two_hosts.json"
    if faults.exists():
        results = json.loads(faults.read_text(encoding="utf-8"))
        pair = json.loads(hosts.read_text(encoding="utf-8")) if hosts.exists() else None
        write_text(ROOT / "docs" / "reliability.md", page(results, pair))
