"""The simulator's twin: what the exchange had at any millisecond, worked out here, and no call made for it.

The simulator is pure in (seed, time, trades), so that whatever the gateway shows can be held against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from proofs.witnesses import Value, balance_said, positions_said, price_said
from server.simulator.account import Modes
from server.simulator.clock import Clock
from server.simulator.exchange import Exchange
from server.simulator.instruments import Category
from server.simulator.rows import kline_rows, ticker_row

REMEMBERED = 200_000
CLOSED = "closed"
MARKET = ("volume24h", "turnover24h", "openInterest", "bid1Size", "ask1Size")
"""What changes within milliseconds, so that it tells when it was true."""


class Piece(NamedTuple):
    """What changes as one, by its kind and a name.

    price, market, position (the open rows of a symbol), row (one of them), totals (of the wallet), coin, kline (the
    candle that forms), closed (the last one that does not any more).
    """

    kind: str
    name: str = ""


class Twin:
    """What the exchange of `seed` had, piece by piece. `steady` is held while a trade is made, by whoever looks too."""

    def __init__(self, seed: int) -> None:
        self._exchange = Exchange(seed, Clock(), Modes())
        self._linear = self._exchange.catalogue[Category.LINEAR]
        self._value = lru_cache(maxsize=REMEMBERED)(self._worked_out)
        self._wallet = lru_cache(maxsize=REMEMBERED // 10)(self._balance)
        self._before_trades: dict[tuple[Piece, int], Value] = {}
        self.steady = asyncio.Lock()

    def at(self, piece: Piece, at_ms: int) -> Value:
        """What it had at that millisecond of its clock."""
        return self._value(piece, at_ms)

    def trade(self, symbol: str, side: str, size: str, at_ms: int) -> None:
        """The account has traded. In that same millisecond it may have been asked before."""
        coins = (Piece("coin", coin) for coin in ("USDT", "USDC", "BTC"))
        for piece in (Piece("position", symbol), Piece("row", f"{symbol} 0"), Piece("totals"), *coins):
            self._before_trades[piece, at_ms] = self._value(piece, at_ms)
        self._exchange.account.trade(symbol, 0, side == "Buy", size, self._exchange.modes, at_ms)
        self._value.cache_clear()
        self._wallet.cache_clear()

    def when(self, piece: Piece, value: Value, moments_ms: Iterable[int]) -> int | None:
        """The first of `moments_ms` at which it had `value`; None for none of them."""
        for at_ms in moments_ms:
            if value in (self._value(piece, at_ms), self._before_trades.get((piece, at_ms))):
                return at_ms
        return None

    def _worked_out(self, piece: Piece, at_ms: int) -> Value:
        account, modes = self._exchange.account, self._exchange.modes
        if piece.kind in ("price", "market"):
            row = self._ticker(piece.name, at_ms)
            return price_said(row) if piece.kind == "price" else tuple(row[name] for name in MARKET)
        if piece.kind == "position":
            rows = account.symbol_rows(self._linear[piece.name], modes, at_ms)
            return positions_said(row for row in rows if row["side"])
        if piece.kind == "row":
            symbol, _, side = piece.name.partition(" ")
            rows = account.symbol_rows(self._linear[symbol], modes, at_ms)
            return positions_said(row for row in rows if row["side"] and row["positionIdx"] == int(side))
        if piece.kind in ("kline", CLOSED):
            return self._candle(piece, at_ms)
        *totals, coins = self._wallet(at_ms)
        return tuple(totals) if piece.kind == "totals" else next(coin for coin in coins if coin[0] == piece.name)

    def _ticker(self, symbol: str, at_ms: int) -> dict[str, Any]:
        instrument = self._linear[symbol]
        return ticker_row(instrument, self._exchange.market.ticker(instrument, at_ms))

    def _candle(self, piece: Piece, at_ms: int) -> Value:
        """The one that forms, or the last one that has closed."""
        symbol, _, interval = piece.name.partition(" ")
        instrument = self._linear[symbol]
        forming, closed = kline_rows(instrument, self._exchange.market.kline(instrument, interval, at_ms, limit=2))
        return tuple(closed if piece.kind == CLOSED else forming)

    def _balance(self, at_ms: int) -> Value:
        return balance_said(self._exchange.account.wallet(self._exchange.modes, at_ms))


def outwards(near_ms: int, earliest_ms: int, latest_ms: int) -> Iterator[int]:
    """The milliseconds between two, the nearest ones first."""
    for away_ms in range(max(near_ms - earliest_ms, latest_ms - near_ms) + 1):
        if earliest_ms <= near_ms + away_ms <= latest_ms:
            yield near_ms + away_ms
        if away_ms and earliest_ms <= near_ms - away_ms <= latest_ms:
            yield near_ms - away_ms
