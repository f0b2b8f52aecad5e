"""Onlookers: live and paced sockets that hold every value against the exchange's twin, and note age and staleness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import aiohttp

from proofs.twin import CLOSED, Piece, Twin, outwards
from proofs.witnesses import Value, balance_shown, positions_shown

BOUND_S = 3.0
"""max(stale_after_s, 2 * max_age_s) of every socket here, by the gateway's defaults: live ones ask for 0.25 s, paced
ones for 0.5 s."""
ROUNDED_MS = 3
"""By which ages and clocks, in whole milliseconds, may contradict each other."""
PARTS = ("position", "balance", "price")
"""Those of the channel of a symbol's positions; every other channel has one."""
LATE_MS = {"price": 250, "kline": 1300, "position": 100, "balance": 100}
"""By how much a value may be older than its age says: as long as the exchange's stream may keep it to itself. Prices
go out ten times a second and candles once, and what has been said meanwhile proves that nothing else has been."""
MARKET_SHOWN = ("volume_24h", "turnover_24h", "open_interest", "bid_size", "ask_size")
Key = tuple[str, str]
"""A channel and one of its parts."""


class Shown(NamedTuple):
    """One part of a snapshot: its pieces with their values, None where it was never read."""

    part: str
    pieces: list[tuple[Piece, Value]] | None
    age_ms: int | None
    is_stale: bool


class Seen(NamedTuple):
    """A value that was shown, and when the exchange had it, as far as is known."""

    value: Value
    at_ms: int


class Onlooker:
    """One socket: `path`, where `say` is said first unless it is None. It never comes back once closed.

    `parts` is how many parts its channels have.
    """

    def __init__(
        self, name: str, path: str, twin: Twin, *, say: dict[str, Any] | None, patience: float, parts: int = len(PARTS)
    ) -> None:
        self.name, self.parts = name, parts
        self._path, self._say, self._twin, self._patience = path, say, twin, patience
        self.objections: list[str] = []
        self.snapshots = self.pieces = 0
        self.oldest_s: dict[Key, float] = {}
        self.stale_since: dict[Key, float] = {}
        self.ages_s: dict[Key, float] = {}
        self._claimed_ms: dict[Key, int] = {}
        self._sequences: dict[str, int] = {}
        self._seen: dict[tuple[str, Piece], Seen] = {}
        self._epoch = ""

    def forget(self) -> None:
        """Note the oldest ages anew."""
        self.oldest_s = {}

    async def run(self, http: aiohttp.ClientSession, url: str) -> None:
        """Read until cancelled. Raises RuntimeError where the socket ends."""
        async with http.ws_connect(f"{url}{self._path}") as ws:
            if self._say is not None:
                await ws.send_json(self._say)
            async for message in ws:
                async with self._twin.steady:
                    self.take(json.loads(message.data))
        raise RuntimeError(f"the socket of {self.name} was closed with {ws.close_code}")

    def _object(self, objection: str) -> None:
        self.objections.append(f"{self.name}: {objection}")

    def take(self, document: dict[str, Any]) -> None:
        """Look at one message."""
        kind = document["type"]
        if kind == "status":
            self._name(document["channel"], frozenset(document["stale"]))
        elif kind == "snapshot":
            self.snapshots += 1
            self._order(document)
            parts = list(parts_of(document))
            self._name(document["channel"], frozenset(one.part for one in parts if one.is_stale), parts)
            for one in parts:
                self._hold(document["channel"], one, document["timestamp_ms"])
        elif kind == "error" or document.get("errors"):
            self._object(f"{document}")

    def _name(self, channel: str, stale: frozenset[str], parts: Iterable[Shown] = ()) -> None:
        """These parts of the channel are stale now, no others."""
        for part in {one.part for one in parts} | {part for known, part in self.stale_since if known == channel}:
            if part not in stale:
                self.stale_since.pop((channel, part), None)
        for part in stale:
            self.stale_since.setdefault((channel, part), time.monotonic())

    def _order(self, document: dict[str, Any]) -> None:
        channel, sequence = document["channel"], document["seq"]
        self._epoch = self._epoch or document["epoch"]
        if document["epoch"] != self._epoch or sequence <= self._sequences.get(channel, 0):
            self._object(f"{channel}: seq {sequence} after {self._sequences.get(channel)}")
        self._sequences[channel] = sequence

    def _hold(self, channel: str, shown: Shown, timestamp_ms: int) -> None:
        """Hold a part against what the exchange had, and against what was shown before."""
        key = (channel, shown.part)
        if shown.pieces is None or shown.age_ms is None:
            if not shown.is_stale or key in self._claimed_ms:
                self._object(f"{shown.part} of {channel} is absent")
            return
        self.ages_s[key] = shown.age_ms / 1000
        self.oldest_s[key] = max(self.oldest_s.get(key, 0.0), shown.age_ms / 1000)
        if shown.age_ms > BOUND_S * 1000 + ROUNDED_MS and not shown.is_stale:
            self._object(f"{shown.part} of {channel} is {shown.age_ms} ms old and not stale")
        claimed_ms = timestamp_ms - shown.age_ms
        if claimed_ms < self._claimed_ms.get(key, 0) - ROUNDED_MS:
            self._object(f"{shown.part} of {channel} got older by {self._claimed_ms[key] - claimed_ms} ms")
        self._claimed_ms[key] = max(claimed_ms, self._claimed_ms.get(key, 0))
        late_ms = round(LATE_MS[shown.part] * self._patience)
        for piece, value in shown.pieces:
            self._hold_piece(channel, piece, value, range(claimed_ms - late_ms, timestamp_ms + ROUNDED_MS), claimed_ms)

    def _hold_piece(self, channel: str, piece: Piece, value: Value, moments_ms: range, claimed_ms: int) -> None:
        """Hold a piece against all that the exchange had in `moments_ms`."""
        self.pieces += 1
        key, earliest_ms, latest_ms = (channel, piece), moments_ms[0], moments_ms[-1]
        before = self._seen.get(key)
        if before is not None and before.value == value and before.at_ms >= earliest_ms:
            return
        at_ms = self._twin.when(piece, value, outwards(claimed_ms, earliest_ms, latest_ms))
        if at_ms is None:
            long_ago_ms = self._twin.when(piece, value, range(earliest_ms, earliest_ms - 10_000, -1))
            late = "never" if long_ago_ms is None else f"last {claimed_ms - long_ago_ms} ms before its age says"
            self._object(f"{channel}: {' '.join(piece)} was {late} {value!r}")
            return
        if before is not None and before.value != value and at_ms < before.at_ms - ROUNDED_MS:
            if self._twin.when(piece, value, range(before.at_ms - ROUNDED_MS, latest_ms + 1)) is None:
                self._object(f"{channel}: {' '.join(piece)} went back by {before.at_ms - at_ms} ms to {value!r}")
        self._seen[key] = Seen(value, at_ms)


def parts_of(document: dict[str, Any]) -> Iterator[Shown]:
    """The parts of a snapshot of whatever channel."""
    kind, _, name = document["channel"].partition(":")
    if kind == "positions" and name != "*":
        yield from _of_symbol(document)
    else:
        part = {"positions": "position"}.get(kind, kind)
        pieces = None if document["age_ms"] is None else list(_pieces_of(kind, name, document))
        yield Shown(part, pieces, document["age_ms"], document["stale"])


def _pieces_of(kind: str, name: str, document: dict[str, Any]) -> Iterator[tuple[Piece, Value]]:
    """The pieces of a snapshot of one part."""
    if kind == "positions":
        yield from _rows(document["positions"])
    elif kind == "price":
        yield Piece("price", name), _price(document["last_price"], document)
        yield Piece("market", name), tuple(document[field] for field in MARKET_SHOWN)
    elif kind == "balance":
        yield from _balance(document["balance"])
    else:
        yield _candle(document)


def _of_symbol(document: dict[str, Any]) -> Iterator[Shown]:
    symbol, ages, stale = document["symbol"], document["age_ms"], document["stale"]
    rows, balance, ticker = document["positions"], document["balance"], document["ticker"]
    pieces = {
        "position": None if rows is None else [(Piece("position", symbol), positions_shown(rows))],
        "balance": balance and _balance(balance),
        "price": ticker and [(Piece("price", symbol), _price(document["current_price"], ticker))],
    }
    for part, value in pieces.items():
        yield Shown(part, value, ages[part], part in stale)


def _price(last: str, ticker: dict[str, Any]) -> Value:
    names = ("mark_price", "index_price", "bid_price", "ask_price", "funding_rate")
    return (last, *(ticker[name] for name in names))


def _rows(rows: Sequence[dict[str, Any]]) -> list[tuple[Piece, Value]]:
    return [(Piece("row", f"{row['symbol']} {row['position_idx']}"), positions_shown([row])) for row in rows]


def _balance(balance: dict[str, Any]) -> list[tuple[Piece, Value]]:
    """A push names the coins that a trade has changed, so each is as old as it is by itself."""
    *totals, coins = balance_shown(balance)
    return [(Piece("totals"), tuple(totals)), *((Piece("coin", coin[0]), coin) for coin in coins)]


def _candle(document: dict[str, Any]) -> tuple[Piece, Value]:
    kind = CLOSED if document["closed"] else "kline"
    opened_ms, *numbers = document["candle"]
    return Piece(kind, f"{document['symbol']} {document['interval']}"), (str(opened_ms), *numbers)


class Onlookers:
    """All of them, at work as long as an `async with` block of `looking`."""

    def __init__(self, all_: Sequence[Onlooker]) -> None:
        self.all = all_
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def looking(self, url: str) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as http:
            self._tasks = [asyncio.create_task(one.run(http, url)) for one in self.all]
            try:
                yield
                self.check()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what has ended one of them."""
        for task in self._tasks:
            if task.done():
                task.result()

    def forget(self) -> None:
        """Note the oldest ages anew."""
        for one in self.all:
            one.forget()

    def taken(self) -> list[str]:
        """What was wrong since the last time."""
        found = [objection for one in self.all for objection in one.objections]
        for one in self.all:
            one.objections = []
        return found

    def oldest(self) -> dict[str, float]:
        """The oldest age of each part since `forget`."""
        oldest: dict[str, float] = {}
        for one in self.all:
            for (_, part), age_s in one.oldest_s.items():
                oldest[part] = max(age_s, oldest.get(part, 0.0))
        return oldest

    def are_younger(self, than_s: float) -> bool:
        """Whether every part has been shown, the last time younger than that, and none is stale."""
        ages = [age_s for one in self.all for age_s in one.ages_s.values()]
        return len(ages) == self.parts and max(ages) < than_s and not self.stale()

    def stale(self) -> dict[str, float]:
        """Which parts are named as stale now, by socket and channel, and since when."""
        return {
            f"{part} of {channel} on {one.name}": since
            for one in self.all
            for (channel, part), since in one.stale_since.items()
        }

    @property
    def parts(self) -> int:
        """How many parts all the sockets show."""
        return sum(one.parts for one in self.all)

    @property
    def snapshots(self) -> int:
        return sum(one.snapshots for one in self.all)

    @property
    def pieces(self) -> int:
        return sum(one.pieces for one in self.all)
