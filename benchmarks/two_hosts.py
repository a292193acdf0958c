"""Cut the cable between two hosts that train together: ``python benchmarks/two_hosts.py`` (Linux, as root).

Two network namespaces of this machine, joined by a pair of veth devices, are the hosts; they share a folder, and each
runs ``torchrun --nnodes=1:2 --max-restarts=3``. After some steps the link of host B goes down. Host A must notice
within ``--timeout``, go on alone from the last checkpoint, take B in again when it comes back, and end with the weights
of one undisturbed process: the global batch is the recipe's, whoever computes it. Compared in float64 on a model
without batch norm, where only the order of additions may differ.

Where namespaces are not allowed it says why and does nothing. The outcome goes into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from faults.jobs import outcome, sample_sets
from faults.page import write_page
from faults.session import Lost, Session, begin, launch, require
from faults.trial import DRIVER

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.train.checkpoint import versions

RESULTS = Path(__file__).parent / "results" / "two_hosts.json"
EPOCHS, STEPS_PER_EPOCH = 30, 16
WORDS = ["train", "exact_toy", f"epochs={EPOCHS}", "augment=standard", "ema_decay=0.9", "drop_path_rate=None"]
TIMEOUT_S = 5
TOLERANCE = 1e-9
PORT = 29401
# With the store that torchrun shares by default, the first host tells its address in the first round only, and a host
# that comes later waits for it until it times out (seen with torch 2.14).
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
HEARTBEAT = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"


class Host:
    """A network namespace with one end of the cable."""

    def __init__(self, letter: str, number: int) -> None:
        self.name = f"tokenmix-{letter}-{os.getpid()}"
        self.device = f"tm{letter}{os.getpid() % 10**8}"
        self.address = f"10.213.77.{number}"
        self.first = number == 1
        self.starts = 0

    def ip(self, *words: str) -> None:
        """Run ``ip`` inside."""
        _ip("-n", self.name, *words)

    def plug(self, up: bool) -> None:
        """Switch its end of the cable."""
        self.ip("link", "set", self.device, "up" if up else "down")

    def train(self, first: Host, folder: Path) -> Session:
        """Start torchrun on this host; ``first`` is where they meet."""
        self.starts += 1
        notes = folder / f"notes-{self.device}-{self.starts}"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1"]
        launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{PORT}", "--rdzv-id=two-hosts"]
        launcher += [
            f"--rdzv-conf=is_host={int(self.first)},{HEARTBEAT}",
            "--max-restarts=3",
            f"--local-addr={self.address}",
        ]
        plan = json.dumps({"slow": 0.05})
        command = ["ip", "netns", "exec", self.name, "env"]
        command += [f"GLOO_SOCKET_IFNAME={self.device}", f"TP_SOCKET_IFNAME={self.device}", OWN_STORE, *launcher]
        command += [str(DRIVER), str(notes), plan, *WORDS, "--out", str(folder / "run"), f"--timeout={TIMEOUT_S}"]
        return launch(folder, notes, command)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two namespaces and the cable between them; removed in any case, with all processes in them."""
    pair = Host("a", 1), Host("b", 2)
    made = []
    try:
        for host in pair:
            _ip("netns", "add", host.name)
            made.append(host)
        a, b = pair
        _ip("link", "add", a.device, "netns", a.name, "type", "veth", "peer", "name", b.device, "netns", b.name)
        for host in pair:
            host.ip("address", "add", f"{host.address}/24", "dev", host.device)
            host.ip("link", "set", "lo", "up")
            host.plug(True)
        yield pair
    finally:
        for host in made:
            alive = subprocess.run(["ip", "netns", "pids", host.name], capture_output=True, text=True).stdout.split()
            subprocess.run(["kill", "-9", *alive], capture_output=True)
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)


def unavailable() -> str:
    """Why this machine cannot play two hosts; empty if it can."""
    if sys.platform != "linux":
        return "network namespaces are a matter of Linux"
    try:
        with hosts():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces are not allowed here: {(getattr(error, 'stderr', '') or str(error)).strip()}"


def steps(session: Session) -> int:
    """How many training steps the processes of a host have begun, over all restarts."""
    return sum(len(file.read_text().splitlines()) for file in session.notes.glob("order-*"))


def play(a: Host, b: Host, folder: Path) -> dict[str, Any]:
    """The whole accident; returns when what happened, in seconds since the cut.

    Raises:
        Lost: It did not go as it must.
    """
    on_a, on_b = a.train(a, folder), b.train(a, folder)
    sessions = [on_a, on_b]
    try:
        on_a.until(lambda: steps(on_a) > 100 and steps(on_b) > 100, "100 steps of both")
        b.plug(False)
        cut, before = time.monotonic(), steps(on_a)
        on_a.until(lambda: "has lost another one" in on_a.text, "A to notice", 4 * TIMEOUT_S)
        noticed = time.monotonic() - cut
        on_a.until(lambda: steps(on_a) > before + 2, "A to go on alone", 120)
        alone = time.monotonic() - cut
        on_a.until(lambda: steps(on_a) > before + 60, "A to do 60 steps alone", 120)
        on_b.kill()
        b.plug(True)
        back = time.monotonic()
        again = b.train(a, folder)
        sessions.append(again)
        on_a.until(lambda: steps(again) > 2, "B to be taken in again", 180)
        together = time.monotonic() - back
        require(on_a.wait().code == 0, f"A failed: {on_a.text[-3000:]}")
        require(again.wait().code == 0, f"B failed: {again.text[-3000:]}")
        return {"noticed_s": round(noticed, 1), "alone_s": round(alone, 1), "together_s": round(together, 1)}
    finally:
        for session in sessions:
            session.kill()


def undisturbed(folder: Path) -> dict[str, Any]:
    """The same command in one process."""
    session = begin(folder, folder / "undisturbed-notes", {}, [*WORDS, "--out", "undisturbed"])
    require(session.wait().code == 0, session.text)
    return outcome(folder / "undisturbed")


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Between two runs' weights and moving averages; the history's accuracies must be equal.

    Raises:
        Lost: They are not.
    """
    for a, b in zip(one["history"], other["history"], strict=True):
        require(a["val_top1"] == b["val_top1"], f"epoch {a['epoch']} has another accuracy")
    pairs = [(value, other[part][name]) for part in ("task", "average") for name, value in one[part].items()]
    require(all(value.dtype == torch.float64 for value, _ in pairs), "this is not float64")
    return max(float((a - b).abs().max()) for a, b in pairs)


def main() -> int:
    """Play, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="another file for the results; the page stays as it is")
    args = parser.parse_args()
    if why := unavailable():
        print(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="tokenmix-hosts-") as temporary, hosts() as (a, b):
        folder = Path(temporary)
        try:
            alone = undisturbed(folder)
            times = play(a, b, folder)
            difference = largest_difference(alone, outcome(folder / "run"))
            require(difference < TOLERANCE, f"the weights differ by {difference}")
            notes = list(folder.glob("notes-*"))
            require(sample_sets(notes) == sample_sets([folder / "undisturbed-notes"]), "other samples than undisturbed")
        except Lost as error:
            for output in sorted(folder.glob("notes-*/output")):
                print(f"{output.parent.name}:\n{output.read_text(errors='replace')[-4000:]}\n")
            print(f"LOST: {str(error)[:500]}")
            return 1
    day = datetime.now(UTC).date().isoformat()
    results = {
        "date": day,
        "timeout_s": TIMEOUT_S,
        **times,
        "difference": difference,
        "versions": versions(),
        "machine": describe(),
    }
    print(json.dumps({**times, "difference": difference}))
    write_json(args.json or RESULTS, results)
    if not args.json:
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
