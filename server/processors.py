"""How many processors this process may use: what a container allows, not what the machine has."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def processors() -> int:
    """Give the whole processors that affinity and the cgroup's quota leave, at least one."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    limit = quota(CGROUPS, OWN_CGROUP)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def quota(root: Path, own: Path) -> float | None:
    """Give the smallest quota, in processors, of the cgroup named in the file `own` and of those above it.

    Both versions of cgroups are read (`cpu.max`; `cpu.cfs_quota_us`).
    None where there is no limit, or none can be read.
    """
    return min((limit for folder in _folders(root, own) if (limit := _limit(folder)) is not None), default=None)


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """Every place that may hold a limit; in a container the cgroup's own path is often not there, but its root is."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        inner = PurePosixPath(path.lstrip("/"))
        yield from (top / part for part in (inner, *inner.parents) if ".." not in part.parts)


def _limit(folder: Path) -> float | None:
    limit, _, period = _text(folder / "cpu.max").partition(" ")
    if not limit:
        limit, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not limit.strip().isdigit() or not period.strip().isdigit() or int(period) == 0:
        return None  # "max" or -1: without a limit
    return int(limit) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
