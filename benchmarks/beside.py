"""Measure REST beside live sockets, and what a second process costs. See README.md.

It starts a simulator that pushes ten changes a second, and in turn the gateway without sockets, with them, with two
processes, and the old design with as many; each answers requests in an open loop meanwhile. It judges nothing: the exit
code is 0 unless something did not work.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import install, peers
from benchmarks.processes import (
    Cores,
    Gateway,
    Readers,
    Requests,
    Server,
    Trouble,
    built,
    commanded,
    divided_cores,
    free_port,
    heading,
    running_on,
)
from benchmarks.report import aligned, median_ratio, spread
from benchmarks.windows import pass_time, usage_of
from server.simulator.child import SimulatorProcess

HERE = Path(__file__).resolve().parent
SOCKET = "/ws/positions/BTCUSDT?interval=0"
REQUEST = "/price/BTCUSDT"
WARM_UP_S = 2.0
TICKS_PER_S = 10
ALONE, BESIDE, TWO, OLD = "no sockets", "live sockets", "live sockets, two processes", "the old design"


class Sample(NamedTuple):
    """One window of one case; `us_per_frame` counts all processes of the server, and its requests too."""

    latency_ms: dict[str, float]
    answered: float
    frames_per_s: float
    us_per_frame: float | None
    core: float


Samples = dict[str, list[Sample]]


class Patient(Readers):
    """Readers that leave their core to the requests, whose latency is what is measured."""

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PATIENT": "1"}


class Bench(NamedTuple):
    """What every window needs."""

    folder: Path
    exchange_url: str
    readers: Path
    requests: Path
    cores: Cores
    sockets: int
    rate: int
    seconds: float

    def measured(self, name: str, title: str) -> Sample:
        """Start the server, open the sockets, ask, and stop all of it."""
        with ExitStack() as stack:
            with running_on(self.cores.gateway):
                server = stack.enter_context(self._server(name))
            readers = None
            if name != ALONE:
                readers = stack.enter_context(Patient(self.readers, server.port, self.sockets, [SOCKET]))
            pass_time(f"{title} warming up", WARM_UP_S)
            before, began = cpu_of_all(server.pid), time.monotonic()
            if readers is not None:
                readers.begin(self.seconds)
            with Requests(self.requests, server.port, self.rate, self.seconds, [REQUEST]) as requests:
                pass_time(title, self.seconds)
                cpu_s, took_s = cpu_of_all(server.pid) - before, time.monotonic() - began
                asked = requests.result(self.seconds)
            counted = None if readers is None else readers.counted(self.seconds)
            server.check_alive()
        return _sample(asked, counted, cpu_s, took_s)

    def _server(self, name: str) -> Server:
        log = self.folder / "server.log"
        if name != OLD:
            streams = self.exchange_url.replace("http", "ws", 1)
            settings = {"BYBIT_STREAM_URL": streams, "WORKERS": "2" if name == TWO else "1"}
            return Gateway(self.exchange_url, log, settings=settings)
        (old,) = [peer for peer in peers(Path()) if peer.name == OLD]
        port, message = free_port(), self.folder / "message.json"
        message.write_text("{}")
        command = [*old.command, str(port), str(self.sockets), str(message), self.exchange_url]
        environment = {**os.environ, "PACE_S": str(1 / TICKS_PER_S)}
        return Server(old.name, command, port=port, log=log, environment=environment)


def _sample(asked: dict[str, Any], counted: dict[str, Any] | None, cpu_s: float, took_s: float) -> Sample:
    latency_us = asked["latency_us"][REQUEST]
    if latency_us is None:
        raise Trouble(f"no request was answered: {asked['statuses']}")
    frames = 0 if counted is None else int(counted["snapshots"])
    return Sample(
        latency_ms={name: value / 1000 for name, value in latency_us.items()},
        answered=asked["statuses"].get("200", 0) / max(1, asked["requests"]),
        frames_per_s=0.0 if counted is None else frames / counted["seconds"],
        us_per_frame=1e6 * cpu_s / frames if frames else None,
        core=cpu_s / took_s,
    )


def cpu_of_all(pid: int) -> float:
    """Seconds of CPU of a process and all that it started."""
    used = usage_of(pid)
    return used.loop_s + used.threads_s + sum(map(cpu_of_all, _children(pid)))


def _children(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, path.read_text().split())


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="beside.py", description="REST beside live sockets; one process and two.")
    parser.add_argument("--sockets", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rate", type=int, default=200, metavar="N", help="of requests (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of all cases (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="100 sockets, one round of 2 seconds, no old design")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sockets, options.seconds, options.rounds = 100, 2.0, 1
    return options


def lines(samples: Samples) -> Iterator[str]:
    """The table, and the two ratios that it is for."""
    quantiles = ("p50", "p99", "max")
    heads = (f"GET {REQUEST} {name}, ms" for name in quantiles)
    rows = [["", *heads, "answered, %", "frames/s", "% of a core", "µs CPU a frame"]]
    for name, of_one in samples.items():
        latencies = (spread([one.latency_ms[quantile] for one in of_one], 2) for quantile in quantiles)
        frames = spread([one.frames_per_s for one in of_one], 0)
        costs = [one.us_per_frame for one in of_one if one.us_per_frame is not None]
        cost = spread(costs, 1) if costs else "-"
        answered = spread([100 * one.answered for one in of_one], 0)
        rows.append([name, *latencies, answered, frames, spread([100 * one.core for one in of_one], 0), cost])
    yield from aligned(rows)
    yield ""
    p99 = {name: [one.latency_ms["p99"] for one in of_one] for name, of_one in samples.items()}
    more = [with_sockets - without for with_sockets, without in zip(p99[BESIDE], p99[ALONE], strict=True)]
    yield (
        f"REST p99 with live sockets: {median_ratio(p99[BESIDE], p99[ALONE]):.2f} times that without, or "
        f"{spread(more, 2)} ms more (aim: 2 times, or 2 ms)"
    )
    costs_of = {name: [one.us_per_frame or 0.0 for one in samples[name]] for name in (BESIDE, TWO)}
    yield f"CPU a frame with two processes: {median_ratio(costs_of[TWO], costs_of[BESIDE]):.2f} times one's (aim: 1.1)"


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print, with all that it needs started before and stopped after it. Raises Trouble."""
    cores, began = divided_cores(), time.monotonic()
    print(heading("REST beside live sockets", seconds=options.seconds, rounds=options.rounds, cores=cores), flush=True)
    names = [ALONE, BESIDE, TWO]
    if not options.quick:
        missing = [*install()]
        names += [] if missing else [OLD]
    programs = built(HERE / "fanout.c", folder), built(HERE / "load.c", folder)
    simulator = SimulatorProcess("--no-limits", "--ticks-per-s", str(TICKS_PER_S))
    with running_on(cores.others), simulator:
        bench = Bench(folder, simulator.url, *programs, cores, options.sockets, options.rate, options.seconds)
        samples: Samples = {name: [] for name in names}
        for number in range(1, options.rounds + 1):
            for name in names:
                samples[name].append(bench.measured(name, f"{number}/{options.rounds} {name}"))
    print("\n" + "\n".join(lines(samples)))
    print(f"\ntook {time.monotonic() - began:.0f} s")


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("beside.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
