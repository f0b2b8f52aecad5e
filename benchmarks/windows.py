"""One window of measuring: what clients saw, what the exchange was asked and what the gateway used at the same time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .processes import Cores, Gateway, Requests, Sockets, asked

T = TypeVar("T")

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLING_S = 0.2
BAR = 24


class Usage(NamedTuple):
    """What a process has used so far: seconds of its first thread, which is the event loop's, and of all others."""

    loop_s: float
    threads_s: float
    at: float

    def since(self, before: Usage) -> Usage:
        """The difference, `at` being the seconds between."""
        return Usage(*(b - a for a, b in zip(before, self, strict=True)))


def usage_of(pid: int) -> Usage:
    """Read from /proc."""
    whole, first = _cpu_s(Path(f"/proc/{pid}/stat")), _cpu_s(Path(f"/proc/{pid}/task/{pid}/stat"))
    return Usage(first, max(0.0, whole - first), time.monotonic())


def _cpu_s(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_kb(pid: int) -> int:
    """The memory of `pid` that is in RAM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def busy_s(cores: frozenset[int]) -> float:
    """Seconds that `cores` were not idle so far, time that the host took away included."""
    names, busy = {f"cpu{core}" for core in cores}, 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            busy += sum(map(int, ticks[:3])) + sum(map(int, ticks[5:8]))
    return busy / TICKS_PER_S


class Exchange(NamedTuple):
    """The simulator, seen from its control."""

    url: str
    pid: int

    def forget_calls(self) -> None:
        """Count from nought."""
        asked(f"{self.url}/_control/calls", method="DELETE")

    def calls(self) -> Counter[str]:
        """Calls since then, by the last two words of the path."""
        counts = asked(f"{self.url}/_control/calls")["counts"]
        return Counter({"/".join(path.split("/")[-2:]): int(count) for path, count in counts.items()})

    def hang(self, endpoint: str) -> None:
        """Answer no call of `endpoint` any more."""
        asked(f"{self.url}/_control/fault", method="PUT", body={"endpoint": endpoint, "hang": True})

    def heal(self) -> None:
        """Answer everything again; what hung is cut."""
        asked(f"{self.url}/_control/fault", method="DELETE")


@dataclass(frozen=True)
class Window:
    """The measurements of one window; `sockets` is None without sockets, `warnings` counts the gateway's log by event.

    `load_s` is the CPU of clients and simulator, `strangers_s` what the gateway's core did for others than the gateway.
    """

    requests: dict[str, Any]
    sockets: dict[str, Any] | None
    calls: Counter[str]
    used: Usage
    load_s: float
    strangers_s: float
    resident_kb: int
    warnings: Counter[str]

    @property
    def seconds(self) -> float:
        """How long the gateway and the exchange were looked at."""
        return self.used.at

    @property
    def calls_per_s(self) -> float:
        """Of all endpoints."""
        return self.calls.total() / self.seconds


class Bench(NamedTuple):
    """What is measured, and by what load."""

    gateway: Gateway
    exchange: Exchange
    program: Path
    cores: Cores
    rate: int
    seconds: float
    paths: tuple[str, ...]

    def measure(self, what: str, sockets: Sockets | None) -> Window:
        """Measure for `seconds`, with `what` beside the progress bar."""
        log_bytes = self.gateway.log.stat().st_size
        with Requests(self.program, self.gateway.port, self.rate, self.seconds, self.paths) as clients:
            time.sleep(SETTLING_S)
            self.exchange.forget_calls()
            if sockets is not None:
                sockets.begin(self.seconds)
            used, simulated_s, strangers_s = self._watched(what)
            calls, resident = self.exchange.calls(), resident_kb(self.gateway.pid)
            requests = clients.result(self.seconds)
        counted = sockets.counted(self.seconds) if sockets is not None else None
        load_s = simulated_s + requests["cpu_s"] + (counted["cpu_s"] if counted is not None else 0.0)
        warnings = warnings_in(self.gateway.log, log_bytes)
        return Window(requests, counted, calls, used, load_s, strangers_s, resident, warnings)

    def _watched(self, what: str) -> tuple[Usage, float, float]:
        """What the gateway used in a window's time, the simulator's seconds of CPU, and those of strangers."""
        before = usage_of(self.gateway.pid), usage_of(self.exchange.pid), busy_s(self.cores.gateway)
        pass_time(what, self.seconds)
        self.gateway.check_alive()
        used = usage_of(self.gateway.pid).since(before[0])
        simulated = usage_of(self.exchange.pid).since(before[1])
        strangers_s = busy_s(self.cores.gateway) - before[2] - used.loop_s - used.threads_s
        return used, simulated.loop_s + simulated.threads_s, max(0.0, strangers_s)


def pass_time(what: str, seconds: float) -> None:
    """Sleep, with a bar on a terminal."""
    until = time.monotonic() + seconds
    for line in _bars(what, seconds, until) if sys.stderr.isatty() else ():
        print(f"\r{line}", end="", file=sys.stderr, flush=True)
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))
    time.sleep(max(0.0, until - time.monotonic()))


def count_up(what: str, done: Iterable[T], total: int) -> Iterator[T]:
    """What `done` gives, with a bar of how many of `total` there were on a terminal."""
    shown = sys.stderr.isatty()
    for number, each in enumerate(done, 1):
        if shown:
            filled = round(BAR * number / total)
            print(f"\r{what:<34} [{'#' * filled}{'.' * (BAR - filled)}] {number}/{total} ", end="", file=sys.stderr)
        yield each
    if shown:
        print("\r" + " " * (34 + BAR + 20) + "\r", end="", file=sys.stderr, flush=True)


def _bars(what: str, seconds: float, until: float) -> Iterator[str]:
    while (left := until - time.monotonic()) > 0:
        done = round(BAR * (1 - left / seconds))
        yield f"{what:<34} [{'#' * done}{'.' * (BAR - done)}] {left:4.0f} s "
    yield " " * (34 + BAR + 12) + "\r"


def warnings_in(log: Path, from_byte: int) -> Counter[str]:
    """The lines of `log` after `from_byte`, by event and what more they say of the kind."""
    with log.open("rb") as file:
        file.seek(from_byte)
        lines = file.read().splitlines()
    return Counter(_event(line) for line in lines)


def _event(line: bytes) -> str:
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError:
        return "a line that is no JSON"
    more = [str(fields[name]) for name in ("endpoint", "outcome") if fields.get(name)]
    return " ".join([str(fields.get("event")), *more])
