"""Prove that calls which all hang cost nobody else anything. See README.md; the last line says how many passed."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp

from benchmarks.processes import Gateway, Requests, Sockets, Trouble, asked, built
from benchmarks.windows import Exchange
from proofs.gauges import threads
from proofs.verdict import LOAD, Verdict, proved
from server.bybit.client import THREADS as POOLS
from server.simulator.child import SimulatorProcess

COINS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB", "LTC", "AVAX", "DOT")
SYMBOLS = tuple(f"{coin}USDT" for coin in COINS)
KNOWN = ("/price/BTCUSDT", "/positions/ETHUSDT", "/balance", "/positions")
UNKNOWN = ("/price/ARBUSDT", "/positions/OPUSDT", "/klines/BTCUSDT?interval=15", "/indicators/ETHUSDT?interval=5")
"""What was asked for before the calls began to hang, and what never was."""
CACHED = ("/price/BTCUSDT?max_age_ms=600000", "/balance?max_age_ms=600000")
RATE = 100
CALL_TIMEOUT_S = 5.0
SLACK_S = 1.0
THREADS = sum(POOLS.values()) + 6
"""What the pools may hold, the loop, the logs, and what the process starts for itself."""
LEAVE_S = 10.0
POLITE = 20
"""Sockets whose close codes are looked at."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="pool.py", description="Every call to the exchange hangs.")
    parser.add_argument("--sockets", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long they hang (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


class Questions:
    """REST asked one after the other for as long as calls hang, and what came of it."""

    def __init__(self, url: str, paths: Sequence[str], accept: Callable[[int, Any, Any], bool]) -> None:
        self._url, self._paths, self._accept = url, paths, accept
        self.took_s: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []

    async def ask(self, until: float) -> None:
        """Ask until then."""
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S + 10)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            for path in itertools.cycle(self._paths):
                if time.monotonic() > until:
                    return
                began_at = time.monotonic()
                async with http.get(self._url + path) as response:
                    document = await response.json(content_type=None)
                self.took_s.append(time.monotonic() - began_at)
                self.statuses[response.status] += 1
                if not self._accept(response.status, response.headers, document):
                    self.wrong.append(f"{path}: {response.status} {str(document)[:120]}")
                await asyncio.sleep(0.1)

    @property
    def seen(self) -> str:
        """In words."""
        counts = ", ".join(f"{count} times {status}" for status, count in sorted(self.statuses.items()))
        times = f"{statistics.median(self.took_s):.2f} s (median), {max(self.took_s):.2f} s (most)"
        return "; ".join([counts, times, *self.wrong[:2]])


def is_stale(status: int, _: Any, document: Any) -> bool:
    return status == 200 and document["stale"] is True


def is_told_to_wait(status: int, headers: Any, _: Any) -> bool:
    return status in (503, 504) and int(headers["Retry-After"]) >= 1


async def polite(url: str, opened: asyncio.Event) -> int | None:
    """The code with which one socket is closed."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws/positions/BTCUSDT?interval=1") as ws:
        opened.set()
        async for _ in ws:
            pass
        return ws.close_code


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Let every call hang, and look at everything else."""
    program, log = built(LOAD, folder), folder / "gateway.log"
    with SimulatorProcess("--control", "--no-limits") as simulator:
        exchange = Exchange(simulator.url, simulator.pid or 0)
        gateway = Gateway(simulator.url, log, settings={"GATEWAY__BYBIT__CALL_TIMEOUT_S": f"{CALL_TIMEOUT_S:g}"})
        with gateway, Sockets(program, gateway.port, options.sockets, 1.0, SYMBOLS) as sockets:
            for path in KNOWN:
                await asyncio.to_thread(asked, gateway.url + path)
            calm = await _latency(program, gateway, 5.0)
            await asyncio.to_thread(exchange.hang, "*")
            await _hung(options, verdict, program, gateway, sockets, calm)
            await _left(verdict, gateway)
        exchange.heal()


async def _latency(program: Path, gateway: Gateway, seconds: float) -> dict[str, float]:
    with Requests(program, gateway.port, RATE, seconds, CACHED) as requests:
        result = await asyncio.to_thread(requests.result, seconds)
    if result["failed"] or set(result["statuses"]) != {"200"}:
        raise Trouble(f"cached data was answered {result['statuses']}, {result['failed']} failed")
    latencies = result["latency_us"].values()
    return {name: max(latency[name] for latency in latencies) / 1000 for name in ("p50", "p99")}


async def _hung(
    options: argparse.Namespace,
    verdict: Verdict,
    program: Path,
    gateway: Gateway,
    sockets: Sockets,
    calm: dict[str, float],
) -> None:
    stale_s = await asyncio.to_thread(sockets.wait, "price", stale=True, within_s=30.0)
    verdict.add("every socket is told that it is stale", stale_s is not None, f"after {stale_s} s")
    until, most = time.monotonic() + options.seconds, 0
    sockets.begin(options.seconds)
    known = Questions(gateway.url, KNOWN, is_stale)
    unknown = Questions(gateway.url, UNKNOWN, is_told_to_wait)
    asking = [asyncio.create_task(questions.ask(until)) for questions in (known, unknown)]
    latency = asyncio.create_task(_latency(program, gateway, options.seconds - 2))
    while time.monotonic() < until:
        most = max(most, threads(gateway.pid))
        await asyncio.sleep(0.25)
    await asyncio.gather(*asking)
    hung = await latency
    counted = await asyncio.to_thread(sockets.counted, 10.0)
    verdict.add(
        "what is known is answered, stale",
        not known.wrong and max(known.took_s) < SLACK_S * options.patience,
        known.seen,
    )
    in_time = max(unknown.took_s) < CALL_TIMEOUT_S + SLACK_S * options.patience
    verdict.add("what is not known is 503 or 504 with Retry-After in time", not unknown.wrong and in_time, unknown.seen)
    verdict.add(f"never over {THREADS} threads", most <= THREADS, f"at most {most}")
    figures = f"p50 {calm['p50']:.2f} → {hung['p50']:.2f} ms, p99 {calm['p99']:.2f} → {hung['p99']:.2f} ms"
    verdict.add(
        "cached data is not slower", hung["p99"] <= max(3 * calm["p99"], calm["p99"] + 5) * options.patience, figures
    )
    due = options.sockets * options.seconds
    verdict.add("sockets go on", counted["delivered"] >= 0.95 * due, f"{counted['delivered']} snapshots of {due:.0f}")


async def _left(verdict: Verdict, gateway: Gateway) -> None:
    """SIGTERM with every call hanging."""
    opened = [asyncio.Event() for _ in range(POLITE)]
    closings = [asyncio.create_task(polite(gateway.url, event)) for event in opened]
    await asyncio.gather(*(event.wait() for event in opened))
    began_at = time.monotonic()
    gateway.signal(signal.SIGTERM)
    code = await asyncio.to_thread(gateway.wait, LEAVE_S + 5)
    took_s = time.monotonic() - began_at
    in_time = code == 0 and took_s < LEAVE_S
    verdict.add(f"SIGTERM ends it within {LEAVE_S:g} s", in_time, f"code {code} in {took_s:.2f} s")
    codes = Counter(await asyncio.gather(*closings))
    verdict.add("sockets are closed with 1001", codes == {1001: POLITE}, str(dict(codes)))


def main() -> int:
    options = parsed()
    return proved("pool.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
