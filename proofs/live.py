"""Prove that pushes are fast, and that broken streams cost nothing but their speed. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, asked, divided_cores, running_on
from proofs.crew import Journal
from proofs.exchange import CUT, FLAT, HELD, PATHS, SEED, Exchange, Fault
from proofs.latency import AIMS_MS, measure, serving
from proofs.onlookers import BOUND_S, PARTS, Onlooker, Onlookers
from proofs.verdict import Verdict, proved
from proofs.witnesses import until
from server.simulator.child import SimulatorProcess

CHANNELS = (f"positions:{HELD}", f"positions:{FLAT}", f"price:{HELD}", "balance", f"kline:{HELD}:1")
LISTING = "positions:*"
SYNC_S = 20.0
"""Lines come back within the longest pause between two tries, ten seconds, and what it takes to subscribe."""
SETTLE_S = 2.0
RECONCILE_S = 3.0 * 0.85
"""How often at most what moves with the market is called for beside the streams."""
CALLS_PER_S = 1.0
WATCHDOG_S = 4.0
"""A second of silence, two without an answer, a look each quarter of a second, and some time to write it down."""
YOUNG_S = 1.5
NAMED_S = BOUND_S + 2.0
TRADE_S = (0.5, 2.0)
STORM: tuple[tuple[Fault, ...], ...] = (
    (CUT,),
    ({"kind": "garbage", "rubbish": "not_json", "every": 7},),
    ({"kind": "refuse", "status": 500}, CUT),
    ({"kind": "swallow"},),
    ({"kind": "cut", "code": 1001},),
    ({"kind": "garbage", "rubbish": "types", "every": 3},),
    ({"kind": "old"},),
    ({"kind": "refuse", "hang": True}, CUT),
    ({"kind": "delay", "delay_ms": 700},),
    ({"kind": "garbage", "rubbish": "nan"},),
    ({"kind": "swallow", "path": "private"},),
    ({"kind": "repeat", "every": 2},),
    ({"kind": "subscribe", "ret_msg": "system busy"}, CUT),
    ({"kind": "cut", "every_s": 0.7, "path": "linear"},),
    ({"kind": "garbage", "rubbish": "huge", "every": 11},),
    ({"kind": "refuse"}, CUT),
    ({"kind": "ack"}, CUT),
    ({"kind": "auth", "ret_msg": "system busy"}, CUT),
)
"""What becomes of the streams, in turn. TCP neither loses nor swaps messages, so that nothing here does either."""
OUTAGES: tuple[tuple[Fault, Fault], ...] = (
    ({"kind": "refuse", "status": 500}, {"status": 500}),
    ({"kind": "swallow"}, {"hang": True}),
)
"""What becomes of the streams and of REST at once, in turn."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="live.py", description="Pushes, and streams that break.")
    parser.add_argument("--minutes", type=float, default=3.0, metavar="N", help="of broken streams (%(default)s)")
    parser.add_argument("--fault", type=float, default=3.0, metavar="S", help="one of them lasts (%(default)s)")
    parser.add_argument("--calm", type=float, default=4.0, metavar="S", help="between two (%(default)s)")
    parser.add_argument("--outage-every", type=int, default=5, metavar="N", help="so many of them (%(default)s)")
    parser.add_argument("--sockets", type=int, nargs="+", default=[*AIMS_MS], metavar="N", help="default: 1 100 1000")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of one latency (%(default)s)")
    parser.add_argument("--hold", type=float, default=10.0, metavar="S", help="to count calls in (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


class Proof:
    """A gateway that follows the exchange's streams, and those who look at it."""

    def __init__(self, options: argparse.Namespace, verdict: Verdict, gateway: Gateway, exchange: Exchange) -> None:
        self._patience, self._verdict, self._gateway, self._exchange = options.patience, verdict, gateway, exchange
        self._options = options
        self._faults = 0
        self._outages = 0
        self._named: dict[str, float] = {}
        self._unnamed: set[str] = set()

    def _onlookers(self, *more: str) -> Onlookers:
        """A live one and a paced one with all channels, and two of the same kinds on the socket of one symbol."""
        twin, patience, channels = self._exchange.twin, self._patience, [*CHANNELS, *more]
        parts = len(channels) + (len(PARTS) - 1) * 2
        live = {"op": "subscribe", "channels": channels, "interval": 0}
        return Onlookers(
            [
                Onlooker("live", "/ws", twin, say=live, patience=patience, parts=parts),
                Onlooker("paced", "/ws", twin, say={**live, "interval": 1}, patience=patience, parts=parts),
                Onlooker("one, live", f"/ws/positions/{HELD}?interval=0", twin, say=None, patience=patience),
                Onlooker("one, paced", f"/ws/positions/{HELD}?interval=1", twin, say=None, patience=patience),
            ]
        )

    async def run(self) -> None:
        """All of it, one after the other."""
        await self._exchange.check()
        await self._exchange.trade("Buy", "0.1")
        onlookers = self._onlookers()
        async with onlookers.looking(self._gateway.url):
            await self._until(lambda: onlookers.are_younger(BOUND_S), SYNC_S)
            await self._streams(are_in_sync, SYNC_S)
            await self._take_over(onlookers)
            await self._fall_silent()
            await self._notice_silence(onlookers)
        self._judge_values("with whole streams, and with none", onlookers)
        onlookers = self._onlookers(LISTING)
        async with onlookers.looking(self._gateway.url):
            await self._until(lambda: onlookers.are_younger(BOUND_S), SYNC_S)
            await self._storm(onlookers)
        self._judge_values(f"through {self._faults} faults", onlookers)

    async def _until(self, true: Callable[[], bool], within_s: float) -> float | None:
        """Seconds until it came true, None if it did not in `within_s` times the patience."""
        began_at = time.monotonic()
        return time.monotonic() - began_at if await until(true, within_s * self._patience) else None

    async def _streams(self, are_so: Callable[[dict[str, int]], bool], within_s: float) -> float | None:
        """Seconds until that is so of the streams of either kind, by /health; None if it is not in time."""
        began_at = time.monotonic()
        while time.monotonic() < began_at + within_s * self._patience:
            streams = (await asyncio.to_thread(asked, f"{self._gateway.url}/health"))["streams"].values()
            if all(map(are_so, streams)):
                return time.monotonic() - began_at
            await asyncio.sleep(0.05)
        return None

    async def _take_over(self, onlookers: Onlookers) -> None:
        """The streams are gone: polling has to go on within the bound."""
        onlookers.forget()
        await self._exchange.forget_calls()
        await self._exchange.break_streams({"kind": "refuse", "status": 500}, CUT)
        is_named = await until(lambda: bool(onlookers.stale()), self._options.hold)
        calls, oldest = await self._exchange.calls(), onlookers.oldest()
        is_polled = all(calls[kind] for kind in PATHS.values())
        self._verdict.add(
            f"polling takes over before anything is {BOUND_S:g} s old",
            is_polled and not is_named and max(oldest.values()) <= BOUND_S,
            f"{_counted(calls)} in {self._options.hold:g} s; oldest {_ages(oldest)}; stale: "
            + (", ".join(onlookers.stale()) or "nothing"),
        )

    async def _fall_silent(self) -> None:
        """The streams are back: there is no poll but for what they do not say."""
        await self._exchange.heal()
        took_s = await self._streams(are_in_sync, SYNC_S)
        self._verdict.add(
            f"streams that are back are followed within {SYNC_S:g} s",
            took_s is not None,
            _seconds(took_s),
        )
        await self._exchange.hold(SETTLE_S + self._options.hold + 1.0)
        await asyncio.sleep(SETTLE_S)
        began_at = time.monotonic()
        await self._exchange.forget_calls()
        await asyncio.sleep(self._options.hold)
        calls = await self._exchange.calls()
        seconds = time.monotonic() - began_at
        fewest, most = int(seconds / (RECONCILE_S + 1)), seconds / RECONCILE_S + self._patience
        self._verdict.add(
            "while they are fresh nobody polls, but for an open position and the wallet of one, at times",
            not (calls["price"] or calls["kline"] or calls["flat position"])
            and fewest <= calls["position"] <= most
            and fewest <= calls["wallet"] <= most
            and calls.total() < seconds * CALLS_PER_S + self._patience,
            f"{_counted(calls)} in {seconds:.1f} s, {calls.total() / seconds:.2f} a second in all",
        )

    async def _notice_silence(self, onlookers: Onlookers) -> None:
        """Nothing comes any more, while the connections stay: both lines are given up, and polling goes on."""
        onlookers.forget()
        await self._exchange.break_streams({"kind": "swallow"})
        noticed_s = await self._streams(lambda one: not one["in_sync"], WATCHDOG_S)
        self._verdict.add(
            f"half-open lines are given up within {WATCHDOG_S:g} s", noticed_s is not None, _seconds(noticed_s)
        )
        young_s = await self._until(lambda: onlookers.are_younger(YOUNG_S), 2.0)
        oldest = onlookers.oldest()
        self._verdict.add(
            f"and everything is younger than {YOUNG_S:g} s within 2 s more, by polling",
            young_s is not None and max(oldest.values()) <= (WATCHDOG_S + 1.0) * self._patience,
            f"{_seconds(young_s)}; oldest meanwhile {_ages(oldest)}",
        )
        await self._exchange.heal()

    async def _storm(self, onlookers: Onlookers) -> None:
        """The streams break every few seconds, now and then REST with them, while the account trades."""
        over = asyncio.Event()
        trading = asyncio.create_task(self._trade(over))
        before = await self._exchange.connections()
        try:
            await self._break(onlookers)
        finally:
            over.set()
            await trading
            await self._exchange.heal()
        made = await self._exchange.connections() - before
        took_s = await self._until(lambda: onlookers.are_younger(BOUND_S), SYNC_S)
        self._verdict.add(
            f"after {self._faults} faults of the streams everything is fresh",
            took_s is not None,
            f"{_seconds(took_s)}; {made} lines were opened",
        )
        latest = sorted(((seconds, what) for what, seconds in self._named.items()), reverse=True)[:2]
        self._verdict.add(
            f"where REST fails, too, all is named as stale within {NAMED_S:g} s",
            bool(self._named) and not self._unnamed,
            f"{self._outages} times, last after "
            + ", ".join(f"{s:.1f} s {what}" for s, what in latest)
            + "".join(f"; not {what}" for what in sorted(self._unnamed)[:5]),
        )

    async def _break(self, onlookers: Onlookers) -> None:
        """One fault after the other, until it has been long enough."""
        until_, outages = time.monotonic() + 60 * self._options.minutes, itertools.cycle(OUTAGES)
        for number, faults in enumerate(itertools.cycle(STORM), 1):
            if time.monotonic() > until_:
                return
            self._faults += 1
            if (number - 1) % self._options.outage_every == 0:
                await self._outage(onlookers, *next(outages))
            await self._exchange.break_streams(*faults)
            await asyncio.sleep(self._options.fault)
            await self._exchange.heal()
            await asyncio.sleep(self._options.calm)
            onlookers.check()

    async def _outage(self, onlookers: Onlookers, of_streams: Fault, of_calls: Fault) -> None:
        """Nothing comes from anywhere: each part of each socket has to be named as stale in time."""
        began_at = time.monotonic()
        await self._exchange.break_calls(of_calls)
        await self._exchange.break_streams(of_streams, *(() if of_streams["kind"] == "swallow" else (CUT,)))
        named_s = await self._until(lambda: len(onlookers.stale()) == onlookers.parts, NAMED_S)
        self._outages += 1
        stale = onlookers.stale()
        if named_s is None:
            shown = {f"{part} of {channel} on {one.name}" for one in onlookers.all for channel, part in one.ages_s}
            self._unnamed |= shown - stale.keys()
        for what, since in stale.items():
            self._named[what] = max(since - began_at, self._named.get(what, 0.0))
        await asyncio.sleep(self._options.fault)
        await self._exchange.heal()
        await asyncio.sleep(self._options.calm)

    async def _trade(self, over: asyncio.Event) -> None:
        """A trade now and then, either way; none is broken off, so that the twin knows of all."""
        while not await until(over.is_set, random.uniform(*TRADE_S)):
            side, size = random.choice(("Buy", "Sell")), random.randint(1, 300)
            await self._exchange.trade(side, f"0.{size:03}")

    def _judge_values(self, when: str, onlookers: Onlookers) -> None:
        objections = onlookers.taken()
        self._verdict.add(
            f"{when} no value is wrong, older than it says, from before one that was shown, or old and not stale",
            not objections and onlookers.pieces > 0,
            f"{onlookers.pieces} values of {onlookers.snapshots} snapshots, {len(objections)} objections"
            + "".join(f"\n          {objection}" for objection in objections[:5]),
        )


def are_in_sync(one: dict[str, int]) -> bool:
    """Whether a line is up and all that is wanted of it is in sync, by /health."""
    return one["lines"] > 0 and one["in_sync"] == one["channels"] > 0


def _seconds(seconds: float | None) -> str:
    return "not so" if seconds is None else f"{seconds:.1f} s"


def _counted(calls: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(calls.items())) or "no call"


def _ages(oldest: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {age_s:.1f} s" for part, age_s in sorted(oldest.items()))


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Measure pushes, then break the streams."""
    cores = divided_cores()
    with running_on(cores.others):
        await measure(options.sockets, options.seconds, folder, verdict, cores, patience=options.patience)
        log = folder / "gateway.log"
        with SimulatorProcess("--control", "--no-limits", "--seed", str(SEED)) as simulator:
            stream_url = simulator.url.replace("http", "ws", 1)
            async with serving(simulator.url, stream_url, log, cores) as gateway:
                await Proof(options, verdict, gateway, Exchange(simulator.url)).run()
        journal = Journal(log)
        crashes = journal.crashes()
        verdict.add("nothing crashed", not crashes, "; ".join(crashes[:3]) or f"{len(journal.lines)} warnings")


def main() -> int:
    options = parsed()
    return proved("live.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
