"""See with your own eyes that sockets do not slow REST, and that nothing blocks while Bybit hangs. See README.md.

`make verify` starts the gateway against its simulator, opens sockets, asks REST at the same time, and prints a table
and a verdict in words. About a minute; the last line says how many statements hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, Requests, Sockets, built, divided_cores, running_on
from benchmarks.report import aligned, spread
from benchmarks.windows import Bench, Exchange, Window, pass_time
from proofs.verdict import LOAD, Verdict, proved
from server.simulator.child import SimulatorProcess

PATHS = ("/price/BTCUSDT", "/indicators/BTCUSDT")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT")
RATE = 200
INTERVAL_S = 1.0
SETTLING_S = 1.0
TIMES, MORE_MS = 2.0, 3.0
"""A p99 beside the sockets may be so many times that without, or so much more; and a p90 while Bybit hangs, for in that
window all sockets are told at once what is stale, and a request of that moment waits for some tens of milliseconds."""
ON_TIME = 0.999
QUANTILES = ("p50", "p90", "p99", "max")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="verify.py", description="REST without and beside many sockets.")
    parser.add_argument("--sockets", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


class Look:
    """The windows of all rounds: without sockets, beside them, and beside them while Bybit answers no position call."""

    def __init__(self) -> None:
        self.off: list[Window] = []
        self.on: list[Window] = []
        self.hanging: list[Window] = []

    @property
    def columns(self) -> tuple[list[Window], ...]:
        """In the order of the table."""
        return self.off, self.on, self.hanging

    def add(self, bench: Bench, sockets_wanted: int, title: str) -> None:
        """One more round."""
        self.off.append(bench.measure(f"{title} without sockets", None))
        with Sockets(bench.program, bench.gateway.port, sockets_wanted, INTERVAL_S, SYMBOLS) as sockets:
            pass_time("settling", SETTLING_S)
            self.on.append(bench.measure(f"{title} beside {sockets_wanted} sockets", sockets))
            bench.exchange.hang("position")
            self.hanging.append(bench.measure(f"{title} while Bybit hangs", sockets))
            bench.exchange.heal()
        pass_time("settling", SETTLING_S)

    def lines(self, sockets: int) -> list[str]:
        """The table."""
        rows = [["", "without sockets", f"beside {sockets} sockets", "and Bybit hangs"]]
        for path in PATHS:
            rows += [[f"GET {path} {name}, ms", *self._cells(latency(path, name))] for name in QUANTILES]
        rows.append(["not answered 200", *self._cells(lambda window: float(failed(window)), digits=0)])
        rows.append(["snapshots on time, %", "-", *self._cells(lambda window: 100 * on_time(window), of=(1, 2))])
        rows.append(["of a core", *self._cells(used)])
        return [*aligned(rows)]

    def _cells(self, value: Callable[[Window], float], *, of: Sequence[int] = (0, 1, 2), digits: int = 2) -> list[str]:
        return [spread([value(window) for window in self.columns[place]], digits) for place in of]


def latency(path: str, name: str) -> Callable[[Window], float]:
    """A quantile of a path's latencies, in ms."""
    return lambda window: float(window.requests["latency_us"][path][name]) / 1000


def failed(window: Window) -> int:
    """Requests that were answered something else than 200."""
    return int(window.requests["requests"] - window.requests["statuses"].get("200", 0))


def on_time(window: Window) -> float:
    """Of the snapshots due, the share that came before the next one was."""
    return window.sockets["on_time"] / max(1, window.sockets["due"]) if window.sockets is not None else 1.0


def used(window: Window) -> float:
    """Cores that the gateway used."""
    return (window.used.loop_s + window.used.threads_s) / window.seconds


def judge(look: Look, verdict: Verdict, *, patience: float) -> None:
    """In words."""
    for path in PATHS:
        for name, when, column in (("p99", "beside the sockets", look.on), ("p90", "while Bybit hangs", look.hanging)):
            off, value = (statistics.median(map(latency(path, name), windows)) for windows in (look.off, column))
            held = value <= max(off * TIMES, off + MORE_MS) * patience
            verdict.add(f"GET {path} is as fast {when}", held, f"{name} {value:.2f} ms, without sockets {off:.2f} ms")
    every = [window for windows in look.columns for window in windows]
    wrong = sum(map(failed, every))
    verdict.add("every request is answered", wrong == 0, f"{wrong} were not answered 200")
    least = min(map(on_time, look.on))
    verdict.add("every socket gets its snapshots", least >= ON_TIME, f"{least:.2%} came before the next was due")
    closed = sum(window.sockets["sockets"] - window.sockets["open"] for window in every if window.sockets)
    verdict.add("no socket is closed", closed == 0, f"{closed} were")


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Look, print and judge. Raises Trouble."""
    cores, look = divided_cores(), Look()
    program = built(LOAD, folder)
    with ExitStack() as stack:
        stack.enter_context(running_on(cores.others))
        simulator = stack.enter_context(SimulatorProcess("--control"))
        assert simulator.pid is not None, "it has started"
        with running_on(cores.gateway):
            gateway = stack.enter_context(Gateway(simulator.url, folder / "gateway.log"))
        exchange = Exchange(simulator.url, simulator.pid)
        bench = Bench(gateway, exchange, program, cores, RATE, options.seconds, PATHS)
        with Requests(program, gateway.port, RATE, SETTLING_S, PATHS) as requests:
            requests.result(SETTLING_S)
        for number in range(1, options.rounds + 1):
            look.add(bench, options.sockets, f"{number}/{options.rounds}")
    print(f"{RATE} requests a second; a snapshot a second on each socket, {options.rounds} rounds, medians (ranges)\n")
    print("\n".join(look.lines(options.sockets)) + "\n")
    judge(look, verdict, patience=options.patience)
    good = not verdict.failed
    print("\nSockets do not slow REST on this machine." if good else "\nNot as it should be: see what FAILED above.")


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return proved("verify.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    raise SystemExit(main())
