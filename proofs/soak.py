"""Prove that hours of mixed load leave nothing behind: no memory, no descriptor, no thread. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.processes import Gateway, Trouble, asked
from benchmarks.windows import resident_kb
from proofs.crew import Journal, connections_to, descriptors_of, threads_of
from proofs.crowd import SYMBOLS, Asker, Crowd, Reader
from proofs.verdict import Verdict, proved
from server.api.aside import THREADS as COMPUTING
from server.bybit.client import THREADS
from server.simulator.child import SimulatorProcess

MB = 1e6
SAMPLE_S = 1.0
ASKERS = 3
PAUSE_S = 0.15
LIVE_SHARE = 0.1
STAY_S = (5.0, 60.0)
FINE = (200, 400, 404, 422, 503, 504)
"""What may be answered: 503 and 504 where the exchange fails, 4xx to what was asked wrong on purpose."""
FAULTS: tuple[dict[str, object], ...] = (
    {"hang": True},
    {"status": 500},
    {"reset": True},
    {"latency_s": 1.5},
    {"ret_code": 10016, "ret_msg": "Internal server error"},
    {"body": "{"},
    {"drip": True},
)
STREAM_FAULTS: tuple[dict[str, object], ...] = (
    {"kind": "cut"},
    {"kind": "swallow"},
    {"kind": "garbage", "rubbish": "not_json", "every": 20},
    {"kind": "refuse", "status": 500},
)
QUIET_S = 2.0
"""For how long the counts have to stay before they are taken as those of a gateway at rest."""
REST_S = 30.0
MOST_THREADS = sum(THREADS.values()) + COMPUTING + 5 + (os.cpu_count() or 1) - 1
"""All that the pools may start, those that compute, the loop, the log, the watchdog, the one that gives memory back,
libuv's, and numpy's: one a processor, the loop's apart."""
CANDLES = {"GATEWAY__INDICATORS__MAX_CANDLE_BYTES": str(int(16 * MB))}
"""So little that it is full when the warm-up ends: what is let go and fetched anew counts, not what is filled."""
NORMAL_975 = 1.959964
EACH = [
    functools.partial(str, path)
    for symbol in SYMBOLS
    for path in (
        "/symbols",
        "/symbols?category=spot",
        f"/price/{symbol}?category=spot",
        f"/price/{symbol}",
        f"/positions/{symbol}",
        "/positions",
        "/balance",
        f"/klines/{symbol}?interval=3",
        f"/klines/{symbol}?interval=30",
    )
]
"""Questions of which each endpoint has more than threads."""


class Slope(NamedTuple):
    """MB an hour: the regression's, and the ends of its 95% confidence interval."""

    mb_h: float
    low_mb_h: float
    high_mb_h: float
    samples: int
    independent: float

    def __str__(self) -> str:
        return (
            f"{self.mb_h:+.2f} MB an hour, 95% between {self.low_mb_h:+.2f} and {self.high_mb_h:+.2f} "
            f"({self.samples} samples worth {self.independent:.0f})"
        )


def slope(times_s: Sequence[float], values_mb: Sequence[float]) -> Slope:
    """The linear regression of memory over time.

    A sample of memory says nearly what the one before said. So the interval counts only as many as are worth an
    independent one, from the residuals' correlation with the next, r: n (1 - r) / (1 + r), as is done for series of the
    climate (Santer et al. 2000). Where those are too few, it has no ends.
    """
    hours, values = np.asarray(times_s) / 3600, np.asarray(values_mb)
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    steepness = float((centred * values).sum()) / spread
    left = values - values.mean() - steepness * centred
    total = float((left**2).sum())
    if total < 1e-12:  # a straight line
        return Slope(steepness, steepness, steepness, len(values), len(values))
    alike = min(max(float((left[1:] * left[:-1]).sum()) / total, 0.0), 0.9999)
    independent = len(values) * (1 - alike) / (1 + alike)
    if independent <= 3:
        return Slope(steepness, -math.inf, math.inf, len(values), independent)
    error = math.sqrt(total / (independent - 2) / spread)
    half = student_975(independent - 2) * error
    return Slope(steepness, steepness - half, steepness + half, len(values), independent)


def student_975(freedom: float) -> float:
    """The 97.5% quantile of Student's distribution, by its expansion in 1/freedom (Abramowitz and Stegun 26.7.5)."""
    z = NORMAL_975
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="soak.py", description="Mixed load for a long time, and what it leaves.")
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="default: %(default)s")
    parser.add_argument("--sockets", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--warm-up", type=float, default=0.3, metavar="SHARE", help="not measured (%(default)s)")
    parser.add_argument("--settle", type=float, default=15.0, metavar="S", help="of load before (%(default)s)")
    parser.add_argument("--every", type=float, default=45.0, metavar="S", help="between two faults (%(default)s)")
    parser.add_argument("--fault", type=float, default=4.0, metavar="S", help="how long one lasts (%(default)s)")
    parser.add_argument("--allowed", type=float, default=1.0, metavar="MB", help="growth an hour (%(default)s)")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="write seconds and MB there, a line each")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 <= options.warm_up < 1:
        parser.error("--warm-up is from 0 to less than 1")
    return options


def path() -> str:
    """Something to ask, of many thousands; one in twenty is wrong."""
    symbol, interval = random.choice(SYMBOLS), random.choice(("1", "5", "15", "60", "240", "D"))
    age = f"max_age_ms={random.randrange(0, 3000)}"
    return random.choice(
        (
            f"/price/{symbol}?{age}",
            f"/positions/{symbol}?{age}",
            f"/positions?{age}",
            f"/balance?{age}",
            f"/klines/{symbol}?interval={interval}&limit={random.randrange(1, 300)}",
            f"/indicators/{symbol}?interval={interval}&{age}",
            f"/indicators/{symbol}?interval={interval}&names={names()}&results={random.randrange(1, 50)}",
            f"/indicators/{symbol}?interval={interval}&backtrack={random.randrange(0, 50)}",
            *((f"/price/{random.choice('ABCDEFGH')}X{random.randrange(10**6)}USDT", "/klines/BTCUSDT?limit=soon"))
            * (random.random() < 0.25),
        )
    )


def names() -> str:
    """Three indicators with parameters at random."""
    several = (f"{name}:{random.randrange(2, 200)}" for name in random.sample(("sma", "ema", "rsi", "atr", "adx"), 3))
    return ",".join(several)


def mixed(port: int, sockets: int) -> Crowd:
    """Sockets that come and go, a tenth of them live, and askers with kept and new connections."""
    live = round(sockets * LIVE_SHARE)
    return Crowd(
        [Asker(port, path, is_kept=number % 2 == 0, pause_s=PAUSE_S, fine=FINE) for number in range(2 * ASKERS)],
        [
            Reader(
                port,
                SYMBOLS[number % len(SYMBOLS)],
                0.0 if number < live else 1.0,
                stay_s=lambda: random.uniform(*STAY_S),
            )
            for number in range(sockets)
        ],
    )


class Rest(NamedTuple):
    """What a gateway at rest holds.

    Connections to the exchange are kept for the next call, at most one a thread; threads stay once a pool has them.
    """

    descriptors: Counter[str]
    to_exchange: int
    threads: int

    def more_than(self, before: Rest) -> list[str]:
        """What it holds more of than before, or than it may."""
        more = [f"{count} more {kind}" for kind, count in (self.descriptors - before.descriptors).items()]
        if self.to_exchange > self.threads:
            more.append("more connections to the exchange than threads")
        if self.threads > max(before.threads, MOST_THREADS):
            more.append(f"{self.threads - before.threads} more threads")
        return more

    def __str__(self) -> str:
        count = self.descriptors.total()
        return f"{count} descriptors and {self.to_exchange} connections to the exchange, {self.threads} threads"


class Soak:
    """A gateway under mixed load, with an exchange that fails now and then."""

    def __init__(self, gateway: Gateway, exchange_url: str, options: argparse.Namespace) -> None:
        self._gateway, self._exchange_url, self._options = gateway, exchange_url, options
        self.samples: list[tuple[float, float]] = []
        self.faults = 0
        self._trouble_until = 0.0

    def at_rest(self) -> Rest:
        """What it holds right now."""
        pid = self._gateway.pid
        kinds = Counter(name.partition(":")[0] for name in descriptors_of(pid))
        to_exchange = connections_to(pid, int(self._exchange_url.rpartition(":")[2]))
        kinds["socket"] -= to_exchange
        return Rest(kinds, to_exchange, threads_of(pid))

    async def fill(self) -> None:
        """Have each pool of threads start all that it may: the calls hang, and more questions come than threads."""
        await self._control("PUT", {"endpoint": "*", "hang": True})
        crowd = Crowd([Asker(self._gateway.port, each, is_kept=False, pause_s=PAUSE_S, fine=FINE) for each in EACH], [])
        async with crowd.working():
            await asyncio.sleep(self._options.fault)
        await self._control("DELETE")

    async def rested(self) -> Rest:
        """What it holds once all clients have gone and the counts have stayed as they are for a while."""
        deadline, since = time.monotonic() + REST_S * self._options.patience, time.monotonic()
        seen = self.at_rest()
        while time.monotonic() < deadline and time.monotonic() - since < QUIET_S:
            await asyncio.sleep(0.25)
            now = self.at_rest()
            if now != seen:
                seen, since = now, time.monotonic()
        health = await asyncio.to_thread(asked, f"{self._gateway.url}/health")
        if health["sockets"]:
            raise Trouble(f"{health['sockets']} sockets are open that no client has")
        return seen

    @contextlib.asynccontextmanager
    async def failing(self) -> AsyncIterator[None]:
        """Faults of the exchange, one kind after the other, as long as an `async with` block."""
        task = asyncio.create_task(self._fail())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._control("DELETE")
            await self._control("DELETE", what="stream")

    async def _fail(self) -> None:
        """Each of the faults of the exchange's REST with the next one of its streams."""
        for fault, stream_fault in zip(itertools.cycle(FAULTS), itertools.cycle(STREAM_FAULTS), strict=False):
            self.faults += 1
            await self._control("PUT", {"endpoint": "*", **fault})
            await self._control("PUT", stream_fault, what="stream")
            await asyncio.sleep(self._options.fault)
            await self._control("DELETE")
            await self._control("DELETE", what="stream")
            await asyncio.sleep(self._options.every)

    async def _control(self, method: str, body: object = None, *, what: str = "fault") -> None:
        await asyncio.to_thread(asked, f"{self._exchange_url}/_control/{what}", method=method, body=body)

    async def sampled(self, seconds: float) -> None:
        """Note the resident memory each second."""
        began_at = time.monotonic()
        for number in itertools.count():
            at = time.monotonic() - began_at
            if at >= seconds:
                return
            self._gateway.check_alive()
            self.samples.append((at, resident_kb(self._gateway.pid) * 1024 / MB))
            await asyncio.sleep(max(0.0, began_at + (number + 1) * SAMPLE_S - time.monotonic()))


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Load it a little, let it rest, load it for long, let it rest again, and compare."""
    log = folder / "gateway.log"
    with SimulatorProcess("--control", "--no-limits") as simulator:
        streams = {"BYBIT_STREAM_URL": simulator.url.replace("http", "ws", 1)}
        gateway = Gateway(simulator.url, log, settings=CANDLES | streams)
        await asyncio.to_thread(gateway.__enter__)
        try:
            soak, journal = Soak(gateway, simulator.url, options), Journal(log)
            await soak.fill()
            async with mixed(gateway.port, options.sockets).working(), soak.failing():
                await asyncio.sleep(options.settle)
            before, soak.faults = await soak.rested(), 0
            crowd = mixed(gateway.port, options.sockets)
            async with crowd.working(), soak.failing():
                await soak.sampled(options.minutes * 60)
            after = await soak.rested()
        finally:
            await asyncio.to_thread(gateway.__exit__)
    if options.samples is not None:
        options.samples.write_text("".join(f"{at:.0f} {mb:.2f}\n" for at, mb in soak.samples))
    _judge_memory(options, verdict, soak.samples)
    more = after.more_than(before)
    verdict.add("descriptors and threads are as at the beginning", not more, ", ".join([f"{before} → {after}", *more]))
    _judge_clients(verdict, crowd, soak.faults)
    crashes = journal.crashes()
    verdict.add("nothing crashed", not crashes, "; ".join(crashes[:3]) or f"no such line among {len(journal.lines)}")


def _judge_memory(options: argparse.Namespace, verdict: Verdict, samples: Sequence[tuple[float, float]]) -> None:
    measured = [(at, mb) for at, mb in samples if at >= options.warm_up * options.minutes * 60]
    found = slope([at for at, _ in measured], [mb for _, mb in measured])
    # Without an interval, the slope itself is judged: too few samples must not pass for no growth.
    least_mb_h = found.low_mb_h if math.isfinite(found.low_mb_h) else found.mb_h
    verdict.add(
        f"memory does not grow by {options.allowed:g} MB an hour",
        least_mb_h <= options.allowed,
        f"{found}; {samples[0][1]:.1f} MB at first, {measured[0][1]:.1f} when warm, {samples[-1][1]:.1f} at last",
    )


def _judge_clients(verdict: Verdict, crowd: Crowd, faults: int) -> None:
    statuses: Counter[int] = Counter()
    for asker in crowd.askers:
        statuses += asker.statuses
    counts = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    failures = [one.what for one in (*crowd.failures, *crowd.crossed)]
    verdict.add(
        f"every request is answered, through {faults} faults",
        not failures and statuses[200] > 0,
        "; ".join([counts, *failures[:3]]),
    )
    ends = Counter(end.code for end in crowd.ends)
    snapshots, connections = sum(one.snapshots for one in crowd.readers), sum(one.connections for one in crowd.readers)
    verdict.add(
        "no socket is closed, and no seq is wrong",
        not ends and not crowd.wrong and snapshots > 0,
        "; ".join([f"{snapshots} snapshots over {connections} sockets", *map(str, ends.items()), *crowd.wrong[:3]]),
    )


def main() -> int:
    options = parsed()
    return proved("soak.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
