"""How many processor cores this process may really use: a container's quota counts, not only the machine."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Logical cores that this process may use, 1 or more: the least of the machine, its affinity and its CPU quota.

    A quota of 2.5 cores counts as 2: a third thread would make the others wait for it. ``OMP_NUM_THREADS``, which says
    how many threads PyTorch takes, is not asked.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota())))


def cpu_quota() -> float:
    """Cores' worth of time that Linux's control groups, version 1 or 2, grant this process; infinite without a limit.

    All groups above its own count too. Inside a container the own group's path may be the machine's, which does not
    exist there; then it is the root that has the limit.
    """
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return float("inf")
    quota = float("inf")
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots = [CGROUPS, CGROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [CGROUPS / controllers, CGROUPS / "cpu"]
        else:
            continue
        own = Path(path.lstrip("/"))
        quota = min([quota, *(_limit(root / group) for root in roots for group in (own, *own.parents))])
    return quota


def _limit(group: Path) -> float:
    """The limit of one control group, in cores; infinite if it has none."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else float("inf")
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")
