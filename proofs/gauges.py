"""Gauges: what a process holds at the moment, read from /proc, and what each worker says of itself."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import Trouble, asked
from benchmarks.windows import resident_kb

LOOK_S = 0.1
FIN_WAIT_1 = "04"
ASK_AGAIN_S = 20.0
"""How long to ask until each worker has answered once; which one does is up to the kernel."""


class Held(NamedTuple):
    """What a process holds, as far as it can leak."""

    descriptors: int
    threads: int
    resident_kb: int
    sockets: int
    sessions: int


def held(pid: int, url: str) -> Held:
    """What the gateway of one process at `url` holds."""
    health = asked(f"{url}/health")
    return Held(descriptors(pid), threads(pid), resident_kb(pid), health["sockets"], health["sessions"])


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


def children(pid: int) -> list[int]:
    """The processes that this one has started and not yet buried."""
    texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return sorted(int(child) for child in " ".join(texts).split())


class Orphans(NamedTuple):
    """Connections that a process has closed and that the kernel keeps, for what their readers have not read."""

    connections: int
    unsent_kb: int


def orphans(port: int) -> Orphans:
    """Those of the server on `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [queue for _, local, _, state, queue, *_ in lines if state == FIN_WAIT_1 and local[-4:] == f"{port:04X}"]
    return Orphans(len(queues), sum(int(queue.partition(":")[0], 16) for queue in queues) // 1000)


def health_of_each(url: str, workers: int) -> list[dict[str, Any]]:
    """What each worker answers to /health, in their order. Raises Trouble where one is not met."""
    answers: dict[int, dict[str, Any]] = {}
    until = time.monotonic() + ASK_AGAIN_S
    while len(answers) < workers:
        if time.monotonic() > until:
            raise Trouble(f"of {workers} workers only {sorted(answers)} answered in {ASK_AGAIN_S:g} s")
        answer = asked(f"{url}/health")
        answers[answer["worker"]["index"]] = answer
    return [answers[index] for index in sorted(answers)]


def seconds_until(true: Callable[[], bool], within_s: float) -> float | None:
    """Seconds until a condition came true, None if it did not in time."""
    began_at = time.monotonic()
    while not true():
        if time.monotonic() > began_at + within_s:
            return None
        time.sleep(LOOK_S)
    return time.monotonic() - began_at


def allow_descriptors(count: int) -> None:
    """Let the processes started from here have so many descriptors each. Raises Trouble where the system does not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, count),) * 2)
    except (ValueError, OSError) as error:
        raise Trouble(f"{count} descriptors a process are needed, {hard} are allowed; see ulimit -Hn") from error
