"""Witnesses: clients of the gateway that watch each part, and hold every value against what the exchange said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp

PARTS = ("price", "position", "balance", "kline")
PART_OF = {"tickers": "price", "position": "position", "wallet": "balance", "kline": "kline"}
KEPT_S = 180.0
TOLERANCE_S = 0.4
"""What a message may take on its way, and the proxy may be behind the gateway, on a busy machine."""
KLINE_POLL_S = 0.25

Value = Any


class Truth:
    """What the exchange said and when: the only values that may be shown, and how young they may claim to be.

    `symbols` are those whose positions are looked at: what a listing leaves out of them is not open.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self._symbols = frozenset(symbols)
        self._said: dict[tuple[str, str], deque[tuple[float, Value]]] = {}

    def remember(self, endpoint: str, query: dict[str, str], asked_at: float, result: Any) -> None:
        """Take an answer that was passed on as it was."""
        if endpoint == "tickers":
            for row in result["list"]:
                self._note("price", row["symbol"], asked_at, price_said(row))
        elif endpoint == "position":
            for symbol in self._spoken_of(query, result):
                rows = [row for row in result["list"] if row["symbol"] == symbol and row["size"].strip("0.")]
                self._note("position", symbol, asked_at, positions_said(rows))
        elif endpoint == "wallet":
            self._note("balance", "", asked_at, balance_said(result["list"][0]))
        else:
            for row in result["list"]:
                self._note("kline", f"{result['symbol']} {row[0]}", asked_at, tuple(row[1:]))

    def _spoken_of(self, query: dict[str, str], result: Any) -> set[str]:
        """The symbols of which an answer says what is open: a listing of a coin says so of all that settle in it."""
        if "symbol" in query:
            return {query["symbol"]}
        known = {symbol for symbol in self._symbols if symbol.endswith(query["settleCoin"])}
        return known | {row["symbol"] for row in result["list"]}

    def _note(self, part: str, name: str, asked_at: float, value: Value) -> None:
        said = self._said.setdefault((part, name), deque())
        said.append((asked_at, value))
        while said[0][0] < asked_at - KEPT_S and len(said) > 1:
            said.popleft()

    def objection(self, part: str, name: str, value: Value, claimed_at: float | None) -> str | None:
        """What is wrong with showing `value` as asked for at `claimed_at` (None: not said); None if it is right."""
        moments = [asked_at for asked_at, known in self._said.get((part, name), ()) if known == value]
        if not moments:
            return f"{part} {name}: {value!r} was never said"
        if claimed_at is not None and claimed_at > max(moments) + TOLERANCE_S:
            return f"{part} {name}: {value!r} is {claimed_at - max(moments):.2f} s older than claimed"
        return None


def price_said(row: dict[str, str]) -> Value:
    return tuple(
        row[name] for name in ("lastPrice", "markPrice", "indexPrice", "bid1Price", "ask1Price", "fundingRate")
    )


def price_shown(document: dict[str, Any]) -> Value:
    ticker = document["ticker"]
    names = ("mark_price", "index_price", "bid_price", "ask_price", "funding_rate")
    return (document["current_price"], *(ticker[name] for name in names))


def positions_said(rows: Iterable[dict[str, Any]]) -> Value:
    names = ("positionIdx", "side", "size", "avgPrice", "markPrice", "unrealisedPnl", "positionValue", "leverage")
    return tuple(sorted(tuple(row[name] for name in names) for row in rows))


def positions_shown(rows: Iterable[dict[str, Any]]) -> Value:
    names = (
        "position_idx",
        "side",
        "size",
        "entry_price",
        "mark_price",
        "unrealised_pnl",
        "position_value",
        "leverage",
    )
    return tuple(sorted(tuple(row[name] for name in names) for row in rows))


def balance_said(row: dict[str, Any]) -> Value:
    names = ("totalEquity", "totalWalletBalance", "totalAvailableBalance", "totalPerpUPL")
    coins = sorted((coin["coin"], coin["equity"], coin["walletBalance"], coin["unrealisedPnl"]) for coin in row["coin"])
    return (*(row[name] for name in names), tuple(coins))


def balance_shown(balance: dict[str, Any]) -> Value:
    names = ("equity", "wallet_balance", "available_balance", "unrealised_pnl")
    coins = sorted(
        (one["coin"], one["equity"], one["wallet_balance"], one["unrealised_pnl"]) for one in balance["coins"]
    )
    return (*(balance[name] for name in names), tuple(coins))


class Witness:
    """One part of one symbol: since when it is named as stale, and what was wrong with what it showed."""

    def __init__(self, part: str, where: str) -> None:
        self.part = part
        self.where = where
        self.is_stale = True
        self.named_at: float | None = None
        self.fresh_at: float | None = None
        self.claimed_at = float("-inf")

    def begin(self) -> None:
        """Forget when it was named before; a fault begins."""
        self.named_at = None

    def heal(self) -> None:
        """Forget when it was fresh before; the fault has ended."""
        self.fresh_at = None

    def see(self, *, is_stale: bool) -> None:
        """It is named as stale now, or no more."""
        now = time.monotonic()
        self.is_stale = is_stale
        if is_stale:
            self.named_at = self.named_at or now
            self.fresh_at = None
        else:
            self.fresh_at = self.fresh_at or now


class Witnesses:
    """Sockets of two symbols and somebody who asks for candles; open as long as an `async with` block."""

    def __init__(self, url: str, truth: Truth, symbols: tuple[str, ...], secrets: Callable[[], Iterable[str]]) -> None:
        self._url = url
        self._truth = truth
        self._symbols = symbols
        self._secrets = secrets
        self._sequences: dict[str, int] = {}
        self.objections: list[str] = []
        self.messages = 0
        self.all = [Witness(part, symbol) for symbol in symbols for part in PARTS[:3]]
        self.all.append(Witness("kline", symbols[0]))

    async def __aenter__(self) -> Witnesses:
        self._http = aiohttp.ClientSession()
        self._tasks = [asyncio.create_task(self._watch(symbol)) for symbol in self._symbols]
        self._tasks.append(asyncio.create_task(self._ask_candles(self._symbols[0])))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def of(self, parts: Iterable[str]) -> list[Witness]:
        """The witnesses of `parts`."""
        wanted = set(parts)
        return [witness for witness in self.all if witness.part in wanted]

    def check(self) -> None:
        """Raise what has ended one of the clients."""
        for task in self._tasks:
            if task.done():
                task.result()

    def take_objections(self) -> list[str]:
        """What was wrong since the last time."""
        taken, self.objections = self.objections, []
        return taken

    def _witness(self, part: str, where: str) -> Witness:
        return next(one for one in self.all if (one.part, one.where) == (part, where))

    async def _watch(self, symbol: str) -> None:
        async with self._http.ws_connect(f"{self._url}/ws/positions/{symbol}?interval=1") as ws:
            async for message in ws:
                self._hide_and_seek(message.data)
                document = json.loads(message.data)
                self.messages += 1
                if document["type"] == "snapshot":
                    self._snapshot(symbol, document)
                if document["type"] in ("snapshot", "status"):
                    for part in PARTS[:3]:
                        self._witness(part, symbol).see(is_stale=part in document["stale"])
        self.objections.append(f"the socket of {symbol} was closed with {ws.close_code}")
        raise RuntimeError(self.objections[-1])

    def _snapshot(self, symbol: str, document: dict[str, Any]) -> None:
        if document["seq"] <= self._sequences.get(symbol, 0):
            self.objections.append(f"{symbol}: seq {document['seq']} after {self._sequences[symbol]}")
        self._sequences[symbol] = document["seq"]
        shown = {
            "price": document["ticker"] and price_shown(document),
            "position": None if document["positions"] is None else positions_shown(document["positions"]),
            "balance": document["balance"] and balance_shown(document["balance"]),
        }
        for part, value in shown.items():
            self._hold(part, symbol, value, document["age_ms"][part], part in document["stale"])

    def _hold(self, part: str, symbol: str, value: Value, age_ms: int | None, is_stale: bool) -> None:
        witness = self._witness(part, symbol)
        if value is None or age_ms is None:
            if not is_stale or witness.claimed_at > 0:
                self.objections.append(f"{part} of {symbol} is absent")
            return
        claimed_at = time.monotonic() - age_ms / 1000
        if claimed_at < witness.claimed_at - TOLERANCE_S:
            self.objections.append(f"{part} of {symbol} went back {witness.claimed_at - claimed_at:.2f} s")
        witness.claimed_at = max(witness.claimed_at, claimed_at)
        self._object(self._truth.objection(part, "" if part == "balance" else symbol, value, claimed_at))

    def _object(self, objection: str | None) -> None:
        if objection is not None:
            self.objections.append(objection)

    async def _ask_candles(self, symbol: str) -> None:
        witness, url = self._witness("kline", symbol), f"{self._url}/klines/{symbol}?interval=1&limit=5"
        while True:
            async with self._http.get(url) as response:
                text = await response.text()
            self._hide_and_seek(text)
            document = json.loads(text)
            if response.status == 200:
                self._candles(symbol, document)
                witness.see(is_stale=document["stale"])
            elif response.status in (503, 504):
                witness.see(is_stale=True)
            else:
                self.objections.append(f"{url}: {response.status} {text[:200]}")
            await asyncio.sleep(KLINE_POLL_S)

    def _candles(self, symbol: str, document: dict[str, Any]) -> None:
        claimed_at = time.monotonic() - document["age_ms"] / 1000
        *closed, forming = document["candles"]
        for row in closed:
            self._object(self._truth.objection("kline", f"{symbol} {row[0]}", tuple(row[1:]), None))
        self._object(self._truth.objection("kline", f"{symbol} {forming[0]}", tuple(forming[1:]), claimed_at))

    def _hide_and_seek(self, text: str) -> None:
        for secret in self._secrets():
            if secret in text:
                self.objections.append(f"a secret in {text[:80]!r}")


async def until(true: Callable[[], bool], within_s: float) -> bool:
    """Whether a condition came true in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not true():  # noqa: ASYNC110  what is waited for comes from outside
                await asyncio.sleep(0.02)
            return True
    return False
