"""Prove that many sockets on several workers are all served, and spread evenly. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, Sockets, Trouble, built
from benchmarks.windows import Usage, resident_kb, usage_of
from proofs.gauges import allow_descriptors, children, health_of_each
from proofs.verdict import LOAD, Verdict, proved
from server.simulator.child import SimulatorProcess

COINS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB", "LTC", "AVAX", "DOT")
SYMBOLS = tuple(f"{coin}USDT" for coin in COINS)
INTERVAL_S = 5.0
SPREAD = 1.3
STATE_KB = 40
"""The most resident memory that a socket may cost."""
MISSED = 0.001
"""Of all snapshots, those that may come later than the next one is due."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="sockets.py", description="Many sockets on several workers.")
    parser.add_argument("--sockets", type=int, default=15_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--fresh", type=int, default=2000, metavar="N", help="that come later (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--interval", type=float, default=INTERVAL_S, metavar="S", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="they are held (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    options = parser.parse_args(arguments)
    if not (1 <= options.sockets <= 60_000 and 1 <= options.fresh <= 60_000 and options.workers >= 2):
        parser.error("--sockets and --fresh are up to 60000, --workers at least 2")
    if options.seconds < options.interval:
        parser.error("--seconds is at least one interval")
    return options


class Workers(NamedTuple):
    """The gateway's workers, by process id."""

    pids: list[int]

    def resident_kb(self) -> int:
        return sum(map(resident_kb, self.pids))

    def used(self) -> list[Usage]:
        return [usage_of(pid) for pid in self.pids]


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Hold many sockets, then let more come."""
    allow_descriptors(options.sockets + options.fresh + 1000)
    settings = {
        "WORKERS": str(options.workers),
        "GATEWAY__WEBSOCKET__MAX_CONNECTIONS": str(2 * (options.sockets + options.fresh)),
    }
    program = built(LOAD, folder)
    with (
        SimulatorProcess("--no-limits") as simulator,
        Gateway(simulator.url, folder / "gateway.log", settings=settings) as gateway,
    ):
        health_of_each(gateway.url, options.workers)  # each is there
        workers = Workers(children(gateway.pid))
        if len(workers.pids) != options.workers:
            raise Trouble(f"{options.workers} workers were asked for, {workers.pids} are there")
        empty_kb = workers.resident_kb()
        with Sockets(program, gateway.port, options.sockets, options.interval, SYMBOLS) as sockets:
            _held(verdict, options, workers, sockets, empty_kb)
            _fresh(verdict, options, program, gateway, sockets)


def _held(verdict: Verdict, options: argparse.Namespace, workers: Workers, sockets: Sockets, empty_kb: int) -> None:
    """Hold all of them for as long as was asked."""
    time.sleep(2 * options.interval)  # until each keeps its own beat
    before = workers.used()
    sockets.begin(options.seconds)
    time.sleep(options.seconds)
    used = [now.since(then) for now, then in zip(workers.used(), before, strict=True)]
    counted = sockets.counted(options.interval)
    _all_there(verdict, f"{options.sockets} sockets held for {options.seconds:g} s: none is lost", counted)
    each = int(options.seconds / options.interval + 1e-6)
    late = counted["late_us"] or {"p50": 0.0, "p99": 0.0}
    verdict.add(
        "every one gets its snapshots",
        counted["fewest"] >= each - 1 and counted["on_time"] >= (1 - MISSED * options.patience) * counted["due"],
        f"{counted['on_time']} of {counted['due']} within their interval, none had fewer than {counted['fewest']} "
        f"of {each}; {late['p50'] / 1000:.1f} ms late (p50), {late['p99'] / 1000:.1f} ms (p99)",
    )
    verdict.add(
        "seq only grows, and each socket stays in one epoch",
        not counted["out_of_order"] and not counted["protocol_errors"] and len(counted["epochs"]) == options.workers,
        f"{counted['out_of_order']} times not, {counted['protocol_errors']} errors; sockets by epoch: "
        + " and ".join(map(str, counted["epochs"].values())),
    )
    state_kb = (workers.resident_kb() - empty_kb) / options.sockets
    cores = ", ".join(f"{(one.loop_s + one.threads_s) / one.at:.0%}" for one in used)
    verdict.add(
        f"a socket costs at most {STATE_KB} kB, and no worker is busy all the time",
        state_kb <= STATE_KB * options.patience and all(one.loop_s < 0.9 * one.at for one in used),
        f"{state_kb:.1f} kB resident each; CPU of the workers {cores} of a core",
    )


def _all_there(verdict: Verdict, statement: str, counted: dict[str, Any]) -> None:
    seen = f"{counted['open']} of {counted['sockets']} are open, closed by code: {counted['closes'] or 'none'}"
    verdict.add(statement, counted["open"] == counted["sockets"] and not counted["closes"], seen)


def _fresh(verdict: Verdict, options: argparse.Namespace, program: Path, gateway: Gateway, sockets: Sockets) -> None:
    """Let more come, and see where they go."""
    before = _sockets_of_each(gateway, options.workers)
    with Sockets(program, gateway.port, options.fresh, options.interval, SYMBOLS) as more:
        after = _sockets_of_each(gateway, options.workers)
        came = [now - then for now, then in zip(after, before, strict=True)]
        more.begin(options.interval)
        first = more.counted(options.interval)
    sockets.begin(options.interval)
    ratio = max(came) / max(1, min(came))
    even = ratio <= SPREAD * options.patience and sum(came) == options.fresh
    verdict.add(
        f"{options.fresh} more spread over the workers within {SPREAD:g}",
        even,
        f"{came} by /health, {ratio:.3f}; all of them {after}; first snapshot after "
        f"{more.opening['first_us']['p50'] / 1000:.0f} ms (p50)",
    )
    _all_there(verdict, "none of these is lost", first)
    _all_there(verdict, "nor any of those before", sockets.counted(options.interval))


def _sockets_of_each(gateway: Gateway, workers: int) -> list[int]:
    return [int(health["sockets"]) for health in health_of_each(gateway.url, workers)]


def main() -> int:
    options = parsed()
    return proved("sockets.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
