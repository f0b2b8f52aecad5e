"""The gateway with several workers, seen from outside: its log, its processes, and which connections each holds."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import Gateway, Trouble

START_S = 60.0
FREQUENT = ("request_ended", "connection_ended")
"""Events that nobody here asks for, and that there are many of."""
ESTABLISHED = "01"
NOBODY = "0"
"""The inode of a connection that waits to be accepted."""


class Journal:
    """A log file of JSON lines, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self.lines: list[dict[str, Any]] = []
        self.strange: list[str] = []

    def read(self) -> None:
        """Take in what was written since the last time, up to the last whole line."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            self.strange.append(line.decode(errors="replace"))
            return
        if fields.get("event") not in FREQUENT:
            self.lines.append(fields)

    def of(self, event: str, **data: Any) -> list[dict[str, Any]]:
        """The lines of that event so far, those with these data."""
        return [line for line in self.lines if line["event"] == event and data.items() <= line.items()]

    async def until(self, true: Callable[[], Any], within_s: float) -> bool:
        """Read until a condition on the lines holds; whether it did in time."""
        deadline = time.monotonic() + within_s
        while True:
            self.read()
            if true():
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)

    def crashes(self) -> list[str]:
        """Lines that say that something of the gateway crashed, and lines that no gateway writes."""
        self.read()
        return [*self.strange, *(str(line) for line in self.lines if is_crash(line))]


def is_crash(line: Mapping[str, Any]) -> bool:
    """Whether a line of the log says that something of the gateway crashed."""
    return line["event"].endswith("_crashed") or "exception" in line or line.get("level") == "critical"


class Crew(Gateway):
    """A gateway with `workers`; `settings` are those of its environment."""

    def __init__(
        self, rest_url: str, log: Path, workers: int, *program: str, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            rest_url, log, *program, settings={"WORKERS": str(workers), "LOG_LEVEL": "info", **(settings or {})}
        )
        self.workers = workers
        self.journal = Journal(log)

    def ready(self) -> list[int]:
        """The workers that are ready, by process id, in the order in which they became so."""
        self.journal.read()
        ended = {line["pid"] for line in self.journal.of("worker_ended")}
        return [line["pid"] for line in self.journal.of("worker_ready") if line["pid"] not in ended]

    async def until_complete(self) -> None:
        """Wait until all workers are ready. Raises Trouble where they do not become so."""
        if not await self.journal.until(lambda: len(self.ready()) == self.workers, START_S):
            raise Trouble(f"not all {self.workers} workers were ready in {START_S:g} s; the log:\n{self.end_of_log()}")

    def left(self) -> list[int]:
        """Which of its processes still run."""
        self.journal.read()
        pids = {self.pid, *(line["pid"] for line in self.journal.of("worker_started"))}
        return sorted(pid for pid in pids if state_of(pid) not in "XZ")


class Held(NamedTuple):
    """The connections to a port, by the clients' ports: those that a process has accepted; those that nobody has."""

    accepted: frozenset[int]
    queued: frozenset[int]


def held(pid: int, port: int) -> Held:
    """The connections to `port` as the kernel has them; the process has to be stopped, or it is a guess."""
    inodes = sockets_of(pid)
    ours = [one for one in connections() if one.local == port]
    return Held(
        frozenset(one.remote for one in ours if one.inode in inodes),
        frozenset(one.remote for one in ours if one.inode == NOBODY and one.state == ESTABLISHED),
    )


def connections_to(pid: int, port: int) -> int:
    """How many connections a process has to a port."""
    inodes = sockets_of(pid)
    return sum(one.remote == port and one.inode in inodes for one in connections())


class Row(NamedTuple):
    """One end of a TCP connection: its own port, that of the other end, its state, and the inode of its socket."""

    local: int
    remote: int
    state: str
    inode: str


def connections() -> list[Row]:
    """Each end that the kernel has, over IPv4."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [Row(_port(row[1]), _port(row[2]), row[3], row[9]) for row in rows]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def descriptors_of(pid: int) -> list[str]:
    """What each open descriptor of a process refers to."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return found


def sockets_of(pid: int) -> frozenset[str]:
    """The inodes of the sockets that a process holds."""
    return frozenset(name[8:-1] for name in descriptors_of(pid) if name.startswith("socket:["))


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def state_of(pid: int) -> str:
    """The letter of a process's state; X for one that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


async def stopped(pid: int, number: int) -> None:
    """Send a signal that stops a process, and wait until it has."""
    os.kill(pid, number)
    while state_of(pid) != "T":  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.001)
