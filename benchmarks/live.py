"""Measure live delivery as it is meant to be used: the exchange's stream in, many channels on many sockets out.

It starts a simulator that pushes, the gateway on a core of its own, and sockets that subscribe over /ws, and prints for
each case what arrives, how late, and what it costs. See README.md. It judges nothing: the exit code is 0 unless
something did not work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import (
    Cores,
    Gateway,
    Readers,
    Trouble,
    asked,
    built,
    commanded,
    divided_cores,
    heading,
    running_on,
)
from benchmarks.report import aligned, spread
from benchmarks.windows import Exchange, pass_time, usage_of
from server.simulator.child import SimulatorProcess

HERE = Path(__file__).resolve().parent
WARM_UP_S = 3.0
TICKS_PER_S = 10


class Case(NamedTuple):
    """So many `sockets`, each on the prices of so many `symbols`, of `followed` that the stream brings in all."""

    name: str
    sockets: int
    symbols: int
    followed: int
    aim: str


CASES = (
    Case("one symbol", 100, 1, 1, "added p50 under 1 ms, p99 under 5 ms"),
    Case("one of many symbols", 100, 1, 300, "under 50% of a core"),
    Case("forty symbols a socket", 500, 40, 40, "200,000 messages a second, p99 under 250 ms"),
)
QUICK = (Case("one symbol", 50, 1, 1, ""), Case("forty symbols a socket", 50, 40, 40, ""))


class Sample(NamedTuple):
    """One window of one case."""

    messages_per_s: float
    delay_us: dict[str, float]
    core: float
    pushes_per_s: float
    calls_per_s: float
    counted: dict[str, Any]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="live.py", description="Streams in, many channels out.")
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of all cases (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few sockets, one round of 2 seconds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 2.0, 1
    return options


class Bench(NamedTuple):
    """What every window needs."""

    folder: Path
    exchange: Exchange
    readers: Path
    cores: Cores
    seconds: float

    def measured(self, case: Case, title: str) -> Sample:
        """Start the gateway, subscribe, count for a window, and stop all of it."""
        settings = {"BYBIT_STREAM_URL": self.exchange.url.replace("http", "ws", 1)}
        settings["GATEWAY__FRESHNESS__MAX_SYMBOLS"] = "400"
        gateway = Gateway(self.exchange.url, self.folder / "gateway.log", settings=settings)
        with ExitStack() as stack:
            with running_on(self.cores.gateway):
                stack.enter_context(gateway)
            return self._of(gateway, case, title)

    def _of(self, gateway: Gateway, case: Case, title: str) -> Sample:
        symbols = traded(self.exchange.url, case.followed)
        with (
            subscribed(self.readers, gateway.port, 1, symbols),
            subscribed(self.readers, gateway.port, case.sockets, symbols[: case.symbols]) as readers,
        ):
            pass_time(f"{title} warming up", WARM_UP_S)
            pushes, before = pushes_of(self.exchange.url), usage_of(gateway.pid)
            self.exchange.forget_calls()
            readers.begin(self.seconds, "spread")
            pass_time(title, self.seconds)
            counted = readers.counted(self.seconds)
            used, calls = usage_of(gateway.pid).since(before), self.exchange.calls()
            gateway.check_alive()
            if counted["open"] < case.sockets:
                raise Trouble(f"{case.sockets - counted['open']} of {case.sockets} sockets were closed")
            return Sample(
                messages_per_s=counted["snapshots"] / counted["seconds"],
                delay_us=counted["delivery_us"],
                core=(used.loop_s + used.threads_s) / used.at,
                pushes_per_s=(pushes_of(self.exchange.url) - pushes) / used.at,
                calls_per_s=calls.total() / used.at,
                counted=counted,
            )


def traded(url: str, count: int) -> list[str]:
    """That many linear symbols. Raises Trouble where the exchange has fewer."""
    rows = asked(f"{url}/v5/market/instruments-info?category=linear&limit=1000")["result"]["list"]
    symbols = [row["symbol"] for row in rows if row["status"] == "Trading"]
    if len(symbols) < count:
        raise Trouble(f"the exchange has {len(symbols)} symbols, not {count}")
    return symbols[:count]


def pushes_of(url: str) -> int:
    """How many messages the exchange's streams have sent."""
    return sum(asked(f"{url}/_control/streams")["sent"].values())


def subscribed(program: Path, port: int, sockets: int, symbols: Sequence[str]) -> Readers:
    """Sockets on the prices of these symbols, live; not opened yet."""
    channels = [f"price:{symbol}" for symbol in symbols]
    say = json.dumps({"op": "subscribe", "channels": channels, "interval": 0})
    return Subscribers(program, port, sockets, say)


class Subscribers(Readers):
    """Readers of /ws that subscribe first."""

    def __init__(self, program: Path, port: int, count: int, say: str) -> None:
        super().__init__(program, port, count, ["/ws"])
        self._say_first = say

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "SAY": self._say_first}


def lines(case: Case, samples: list[Sample]) -> Iterator[str]:
    """A case's figures, medians of its windows with their ranges."""
    delays = [sample.delay_us for sample in samples if sample.delay_us]
    yield f"{case.name}: {case.sockets} sockets on {case.symbols} of {case.followed} symbols"
    rows = [["", "median (range)"]]
    rows.append(["pushes from the exchange a second", spread([one.pushes_per_s for one in samples], 0)])
    rows.append(["messages to the clients a second", spread([one.messages_per_s for one in samples], 0)])
    rows.extend(
        [f"encoded to received, {name}, ms", spread([one[name] / 1000 for one in delays], 0)]
        for name in ("p50", "p99", "max")
    )
    rows.append(["the gateway's share of a core, %", spread([100 * one.core for one in samples], 0)])
    rows.append(["REST calls to the exchange a second", spread([one.calls_per_s for one in samples], 2)])
    rows.append(["seq repeated or going back", str(sum(one.counted["out_of_order"] for one in samples))])
    size = statistics.median(one.counted["bytes"] / max(1, one.counted["snapshots"]) for one in samples)
    rows.append(["bytes of a message", f"{size:.0f}"])
    yield from aligned(rows)
    if case.aim:
        yield f"aim: {case.aim}"


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print, with all that it needs started before and stopped after it. Raises Trouble."""
    cores, began = divided_cores(), time.monotonic()
    print(heading("streams in, channels out", seconds=options.seconds, rounds=options.rounds, cores=cores), flush=True)
    program, cases = built(HERE / "fanout.c", folder), QUICK if options.quick else CASES
    simulator = SimulatorProcess("--control", "--no-limits", "--symbols", "320", "--ticks-per-s", str(TICKS_PER_S))
    with running_on(cores.others), simulator:
        assert simulator.pid is not None
        bench = Bench(folder, Exchange(simulator.url, simulator.pid), program, cores, options.seconds)
        samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
        for number in range(1, options.rounds + 1):
            for case in cases:
                samples[case.name].append(bench.measured(case, f"{number}/{options.rounds} {case.name}"))
    for case in cases:
        print("\n" + "\n".join(lines(case, samples[case.name])), flush=True)
    print(f"\ntook {time.monotonic() - began:.0f} s")


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("live.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
