"""Latency: how long a push takes from the bytes that go to the gateway to those that come from it. See README.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.live import Subscribers
from benchmarks.processes import ROOT, Cores, Gateway, built, running_on
from proofs.relay import Relay
from proofs.verdict import Verdict
from server.simulator.child import SimulatorProcess

SOURCE = ROOT / "benchmarks" / "fanout.c"
SYMBOL = "BTCUSDT"
AIMS_MS = {1: (1.0, 5.0), 100: (1.0, 5.0), 1000: (10.0, 25.0)}
"""By the number of sockets, p50 and p99 from a push's sending to its receipt."""
TICKS_PER_S = 20
WARM_UP_S = 1.0
AT_ONCE = ("nice", "-n", "-10") if os.geteuid() == 0 else ()
"""Before the reader's command, where that is allowed. It shares its core with the exchange and the relay: it would else
read what has arrived only when these have done their work, up to a millisecond later."""


class Stamped(Subscribers):
    """Live sockets on one price, which count the time since the relay has sent it on."""

    def __init__(self, program: Path, port: int, count: int) -> None:
        say = {"op": "subscribe", "channels": [f"price:{SYMBOL}"], "interval": 0}
        super().__init__(program, port, count, json.dumps(say))
        self._command = [*AT_ONCE, *self._command]

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), "STAMP": '"bid_size":"'}

    def measured(self, seconds: float) -> dict[str, Any]:
        """What they count in so many seconds."""
        time.sleep(WARM_UP_S)
        self.begin(seconds, "spread")
        return self.counted(seconds)


@contextlib.asynccontextmanager
async def serving(rest_url: str, stream_url: str, log: Path, cores: Cores) -> AsyncIterator[Gateway]:
    """A gateway on a core of its own, as long as an `async with` block."""
    gateway = Gateway(rest_url, log, settings={"BYBIT_STREAM_URL": stream_url})
    await asyncio.to_thread(_started, gateway, cores)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.__exit__)


def _started(gateway: Gateway, cores: Cores) -> None:
    with running_on(cores.gateway):
        gateway.__enter__()


async def measure(
    counts: Sequence[int], seconds: float, folder: Path, verdict: Verdict, cores: Cores, *, patience: float
) -> None:
    """Judge how long a push takes to so many sockets, each of `counts` for so many seconds."""
    program = built(SOURCE, folder)
    with SimulatorProcess("--control", "--no-limits", "--ticks-per-s", str(TICKS_PER_S)) as simulator:
        stream_url = simulator.url.replace("http", "ws", 1)
        async with (
            Relay(stream_url) as relay,
            serving(simulator.url, f"ws://127.0.0.1:{relay.port}", folder / "fast.log", cores) as gateway,
        ):
            for count in counts:
                counted = await asyncio.to_thread(_measured, program, gateway.port, count, seconds)
                _judge(verdict, count, counted, patience)


def _measured(program: Path, port: int, count: int, seconds: float) -> dict[str, Any]:
    with Stamped(program, port, count) as sockets:
        return sockets.measured(seconds)


def _judge(verdict: Verdict, count: int, counted: dict[str, Any], patience: float) -> None:
    p50_ms, p99_ms = AIMS_MS.get(count, AIMS_MS[1000])
    took = counted["delivery_us"] or {"p50": float("inf"), "p99": float("inf"), "max": float("inf")}
    held = took["p50"] <= 1000 * p50_ms * patience and took["p99"] <= 1000 * p99_ms * patience
    verdict.add(
        f"a push reaches {count} live sockets in {p50_ms:g} ms (p50) and {p99_ms:g} ms (p99)",
        held and counted["open"] == count and not counted["out_of_order"],
        f"{took['p50'] / 1000:.2f} ms (p50), {took['p99'] / 1000:.2f} ms (p99), {took['max'] / 1000:.2f} ms (most) "
        f"of {counted['snapshots']}; {counted['out_of_order']} out of order",
    )
