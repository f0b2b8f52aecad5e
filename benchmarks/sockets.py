"""Measure the gateway with many sockets: deliveries, calls to Bybit, REST beside them, CPU and memory. See README.md.

It starts the simulator and the gateway on free ports of 127.0.0.1, loads the gateway with the clients of load.c,
prints a table and stops what it started. It judges nothing: the exit code is 0 unless something did not work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import (
    Cores,
    Gateway,
    Requests,
    Sockets,
    Trouble,
    asked,
    built,
    commanded,
    divided_cores,
    heading,
    running_on,
)
from benchmarks.report import Report, Round
from benchmarks.windows import Bench, Exchange, pass_time, resident_kb
from server.settings import Settings
from server.simulator.child import SimulatorProcess

PATHS = ("/price/BTCUSDT", "/indicators/BTCUSDT")
FIRST_SYMBOL = "BTCUSDT"
WARM_UP_S = 3.0
SETTLING_S = 2.0
STALE_WITHIN_S = 30.0
FRESH_WITHIN_S = 60.0
CLOSED_WITHIN_S = 15.0


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="sockets.py", description="The gateway with many sockets, measured.")
    parser.add_argument("--sockets", type=_from(1, 28_000), default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--symbols", type=_from(1, 500), default=10, metavar="N", help="that they share (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="0.1 to 60 seconds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=_from(1, 100), default=3, metavar="N", help="of three windows (%(default)s)")
    parser.add_argument("--rate", type=_from(1, 20_000), default=200, metavar="N", help="of requests (%(default)s)")
    parser.add_argument("--no-limits", action="store_true", help="let the simulator answer without Bybit's rate limits")
    parser.add_argument("--quick", action="store_true", help="200 sockets, one round of 5 seconds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sockets, options.seconds, options.rounds = 200, 5.0, 1
    if not 0.1 <= options.interval <= 60:
        parser.error("--interval is from 0.1 to 60 seconds")
    if not 2 * options.interval <= options.seconds <= 3600:
        parser.error("--seconds is at least two intervals and at most 3600")
    return options


def _from(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"from {least} to {most}")
        return int(text)

    return number


def measured(bench: Bench, options: argparse.Namespace, symbols: list[str], title: str) -> Round:
    """One round: without sockets, with them, and with them while no position call is answered."""
    off = bench.measure(f"{title} 0 sockets", None)
    before = resident_kb(bench.gateway.pid)
    with Sockets(bench.program, bench.gateway.port, options.sockets, options.interval, symbols) as sockets:
        pass_time("settling", SETTLING_S)
        on = bench.measure(f"{title} {options.sockets} sockets", sockets)
        bench.exchange.hang("position")
        stale_after_s = sockets.wait("position", stale=True, within_s=STALE_WITHIN_S + 2 * options.interval)
        hanging = bench.measure(f"{title} positions hang", sockets)
        bench.exchange.heal()
        recovered_after_s = sockets.wait("position", stale=False, within_s=FRESH_WITHIN_S + 2 * options.interval)
    _wait_until_closed(bench.gateway)
    memory = {"before": before, "after": resident_kb(bench.gateway.pid)}
    return Round(off, on, hanging, sockets.opening, stale_after_s, recovered_after_s, memory)


def _wait_until_closed(gateway: Gateway) -> None:
    deadline = time.monotonic() + CLOSED_WITHIN_S
    while (left := asked(f"{gateway.url}/health")["sockets"]) > 0:
        if time.monotonic() > deadline:
            raise Trouble(f"{left} sockets are still open {CLOSED_WITHIN_S:g} s after their clients closed them")
        time.sleep(0.1)
    pass_time("settling", SETTLING_S)


def _symbols(gateway: Gateway, count: int) -> list[str]:
    """The first symbols that the exchange trades, BTCUSDT, which REST is asked for, at their head."""
    listed = [row["symbol"] for row in asked(f"{gateway.url}/symbols")["symbols"] if row["status"] == "Trading"]
    symbols = [FIRST_SYMBOL, *(symbol for symbol in listed if symbol != FIRST_SYMBOL)]
    if len(symbols) < count:
        raise Trouble(f"the exchange has {len(symbols)} symbols; --symbols asks for {count}")
    return symbols[:count]


def _title(options: argparse.Namespace, cores: Cores) -> str:
    sockets = f"{options.sockets} sockets on {options.symbols} symbols, a snapshot every {options.interval:g} s"
    limits = "off" if options.no_limits else "on"
    first = f"{sockets}; {options.rate} requests a second in an open loop; rate limits {limits}"
    return heading(first, seconds=options.seconds, rounds=options.rounds, cores=cores)


def _simulated(options: argparse.Namespace) -> list[str]:
    return ["--control", "--symbols", str(options.symbols), *(["--no-limits"] if options.no_limits else [])]


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """More symbols than the gateway follows by default have to be allowed."""
    most = Settings().freshness.max_symbols
    return {"GATEWAY__FRESHNESS__MAX_SYMBOLS": str(options.symbols)} if options.symbols > most else {}


def run(options: argparse.Namespace, folder: Path) -> None:
    """Every round and the table of them, with all that it needs started before and stopped after it. Raises Trouble."""
    cores, report = divided_cores(), Report()
    print(_title(options, cores), flush=True)
    program = built(Path(__file__).with_name("load.c"), folder)
    with ExitStack() as stack:
        stack.enter_context(running_on(cores.others))
        simulator = stack.enter_context(SimulatorProcess(*_simulated(options)))
        assert simulator.pid is not None, "it has started"
        with running_on(cores.gateway):
            gateway = stack.enter_context(Gateway(simulator.url, folder / "gateway.log", settings=_settings(options)))
        exchange = Exchange(simulator.url, simulator.pid)
        bench = Bench(gateway, exchange, program, cores, options.rate, options.seconds, PATHS)
        symbols = _symbols(gateway, options.symbols)
        with Requests(program, gateway.port, options.rate, WARM_UP_S, PATHS) as requests:
            requests.result(WARM_UP_S)
        for number in range(1, options.rounds + 1):
            report.rounds.append(measured(bench, options, symbols, f"round {number} of {options.rounds}:"))
    print("\n" + "\n".join(report.lines()))


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("sockets.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
