"""Bulks: 200 questions over 20 symbols, never the same twice; and what others feel meanwhile."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .processes import Requests, Server, Trouble, asked
from .report import aligned, median_ratio, spread, times
from .windows import count_up, pass_time, usage_of

INTERVAL = "60"
SYMBOLS, LENGTHS = 20, range(5, 15)
SLOWEST = 26, 60
"""MACD's slow periods, one bulk after the other: so many that what one computed is forgotten when it comes again."""
RATE, LIVEZ = 200, "/livez"
AT_ONCE = 20
QUANTILES = ("p50", "p99", "max")
LATE_S = 60.0


class Bulk(NamedTuple):
    """200 questions answered: how long it took, and the server's CPU."""

    ms: float
    cpu_ms: float


class Felt(NamedTuple):
    """What requests of /livez took in one window, and how many bulks went on beside them."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    bulks_per_s: float


class Asker:
    """Asks 200 questions that were not asked just now: in one request of the gateway, or in 200 of the old design."""

    def __init__(self, gateway: Server, old: Server | None) -> None:
        self.gateway = gateway
        self.old = old
        rows = asked(f"{gateway.url}/symbols")["symbols"][:SYMBOLS]
        self._pairs = list(itertools.product([row["symbol"] for row in rows], LENGTHS))
        self._slows = itertools.cycle(range(*SLOWEST))

    def post(self) -> None:
        """Have the gateway answer them all at once. Raises Trouble where one of them is not answered."""
        slow = next(self._slows)
        questions = [
            {"symbol": symbol, "interval": INTERVAL, "names": f"rsi:{length},macd:{length}:{slow}:9"}
            for symbol, length in self._pairs
        ]
        answers = asked(f"{self.gateway.url}/indicators", method="POST", body={"questions": questions})["answers"]
        if failed := [answer for answer in answers if "error" in answer]:
            raise Trouble(f"{len(failed)} questions failed, such as {failed[0]}")

    def get(self, title: str) -> None:
        """Ask the old design one by one, twenty at a time, with a bar: here a person waits. Raises Trouble."""
        assert self.old is not None
        query = f"interval={INTERVAL}&slow={next(self._slows)}"
        urls = [f"{self.old.url}/indicators/{symbol}?{query}&length={length}" for symbol, length in self._pairs]
        with ThreadPoolExecutor(AT_ONCE) as clients:
            answers = clients.map(partial(asked, timeout_s=LATE_S), urls)
            for _ in count_up(title, answers, len(urls)):
                pass


def bulk_lines(gateway: Server, old: Server | None, program: Path, *, seconds: float, rounds: int) -> Iterator[str]:
    """How long bulks take, and what /livez feels without and beside them, for `seconds` in each round."""
    asker = Asker(gateway, old)
    bulks: dict[str, list[Bulk]] = {}
    felt: dict[str, list[Felt]] = {}
    asker.post()
    for number in range(1, rounds + 1):
        bulks.setdefault("the gateway, one POST", []).append(_measured(gateway, asker.post))
        if old is not None:
            get = partial(asker.get, f"{number}/{rounds} 200 GETs")
            bulks.setdefault(f"the old design, {AT_ONCE} GETs at a time", []).append(_measured(old, get))
        felt.setdefault("alone", []).append(_felt(gateway, program, seconds, None))
        felt.setdefault("beside one bulk after the other", []).append(_felt(gateway, program, seconds, asker.post))
    yield from aligned([*_bulk_rows(bulks)])
    yield ""
    yield from aligned([*_felt_rows(felt)])
    yield f"{RATE} requests of {LIVEZ} a second in an open loop"


def _measured(server: Server, work: Callable[[], None]) -> Bulk:
    before, began = usage_of(server.pid), time.monotonic()
    work()
    took_s, used = time.monotonic() - began, usage_of(server.pid).since(before)
    server.check_alive()
    return Bulk(1000 * took_s, 1000 * (used.loop_s + used.threads_s))


def _felt(server: Server, program: Path, seconds: float, post: Callable[[], None] | None) -> Felt:
    """The latencies while `post` is called again and again, or nothing is."""
    until, count = time.monotonic() + seconds, 0
    with Requests(program, server.port, RATE, seconds, [LIVEZ]) as clients:
        if post is None:
            pass_time("without bulks", seconds)
        while post is not None and time.monotonic() < until:
            post()
            count += 1
        quantiles = clients.result(seconds)["latency_us"][LIVEZ]
    return Felt(*(quantiles[name] / 1000 for name in QUANTILES), bulks_per_s=count / seconds)


def _bulk_rows(bulks: dict[str, list[Bulk]]) -> Iterator[list[str]]:
    yield ["200 questions", "ms", "ms CPU", "x the gateway"]
    ours = [bulk.ms for bulk in next(iter(bulks.values()))]
    for title, of_one in bulks.items():
        took, cpu = ([bulk[place] for bulk in of_one] for place in range(2))
        yield [title, spread(took, 0), spread(cpu, 0), times(median_ratio(took, ours))]


def _felt_rows(felt: dict[str, list[Felt]]) -> Iterator[list[str]]:
    yield [f"{LIVEZ} meanwhile", *(f"{name}, ms" for name in QUANTILES), "bulks/s"]
    for title, rounds in felt.items():
        latencies = [spread([one[place] for one in rounds], 2) for place in range(len(QUANTILES))]
        yield [title, *latencies, f"{statistics.median(one.bulks_per_s for one in rounds):.1f}"]
