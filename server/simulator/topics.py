"""The public topics that somebody follows: tickers and candles, each message encoded once for all who follow it.

What a message says is what REST answers for the instant `ts` of that message. Time here is the exchange's own: while it
stands still, nothing is new.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from .candles import INTERVALS, Candle, opens_between
from .exchange import Exchange
from .instruments import DAY_MS, Category, Instrument
from .noise import key_of
from .rows import Row, kline_rows, ticker_row

KLINE_MS = 1_000
KEPT_CANDLES = 10  # how many a jump of the clock is made up for
CONTRACT_FIELDS = (
    "symbol",
    "price24hPcnt",
    "lastPrice",
    "prevPrice24h",
    "highPrice24h",
    "lowPrice24h",
    "prevPrice1h",
    "markPrice",
    "indexPrice",
    "openInterest",
    "openInterestValue",
    "turnover24h",
    "volume24h",
    "fundingIntervalHour",
    "fundingCap",
    "nextFundingTime",
    "fundingRate",
    "bid1Price",
    "bid1Size",
    "ask1Price",
    "ask1Size",
    "preOpenPrice",
    "preQty",
    "curPreListingPhase",
)
SPOT_FIELDS = (
    "symbol",
    "lastPrice",
    "highPrice24h",
    "lowPrice24h",
    "prevPrice24h",
    "volume24h",
    "turnover24h",
    "price24hPcnt",
    "usdIndexPrice",
)
encode = msgspec.json.Encoder().encode


class Topic(Protocol):
    """A topic that makes its messages by itself, at instants of the exchange's time that never go back.

    `due_ms`: before it there is nothing new.
    """

    name: str
    due_ms: int

    def first(self, now_ms: int) -> bytes | None:
        """What a new follower gets, once `news` of the same instant has gone to the others."""

    def news(self, now_ms: int) -> list[bytes]:
        """What changed since the last call."""


def topic_of(exchange: Exchange, category: Category, name: str, period_ms: int) -> Topic | None:
    """The topic of that name; None where there is none. Tickers change once in `period_ms`."""
    kind, _, rest = name.partition(".")
    interval, _, symbol = rest.rpartition(".")
    instrument = exchange.catalogue[category].get(symbol)
    if instrument is None:
        return None
    if kind == "tickers" and not interval:
        return TickerTopic(exchange, instrument, name, period_ms)
    if kind == "kline" and interval in INTERVALS:
        return KlineTopic(exchange, instrument, name, interval)
    return None


class TickerTopic:
    """One symbol's ticker: for contracts the changed fields, for spot all of them, whenever one changed."""

    def __init__(self, exchange: Exchange, instrument: Instrument, name: str, period_ms: int) -> None:
        self.name, self.due_ms = name, 0
        self._exchange, self._instrument, self._period_ms = exchange, instrument, period_ms
        self._spot = instrument.category is Category.SPOT
        # `cs` grows with time by far more than one a message, as Bybit's does, which is shared with other streams
        self._sequence = key_of(exchange.seed, "cs", instrument.category, instrument.symbol) % 10**11
        self._phase_ms = self._sequence % period_ms
        self._direction, self._last, self._at_ms = "ZeroPlusTick", 0, 0
        self._row: Row = {}

    def _read(self, now_ms: int) -> Row:
        ticker = self._exchange.market.ticker(self._instrument, now_ms)
        row = ticker_row(self._instrument, ticker)
        if self._spot:
            return {name: row[name] for name in SPOT_FIELDS}
        if self._last:
            self._direction = _direction(self._direction, ticker.last - self._last)
        self._last = ticker.last
        read = {name: row[name] for name in CONTRACT_FIELDS}
        read["tickDirection"] = self._direction
        return read

    def _message(self, data: Row, *, delta: bool) -> bytes:
        document = {
            "topic": self.name,
            "type": "delta" if delta else "snapshot",
            "data": data,
            "cs": self._sequence + self._at_ms,
            "ts": self._at_ms,
        }
        return encode(document)

    def first(self, now_ms: int) -> bytes:
        if not self._row:
            self._row, self._at_ms = self._read(now_ms), now_ms
        return self._message(self._row, delta=False)

    def news(self, now_ms: int) -> list[bytes]:
        self.due_ms = (now_ms - self._phase_ms) // self._period_ms * self._period_ms + self._phase_ms + self._period_ms
        before, self._row = self._row, self._read(now_ms)
        changed = {name: value for name, value in self._row.items() if before.get(name) != value}
        if not changed or not before:
            return []
        self._at_ms = now_ms
        if self._spot:
            return [self._message(self._row, delta=False)]
        return [self._message({"symbol": self._instrument.symbol, **changed}, delta=True)]


def _direction(before: str, change: int) -> str:
    """Bybit's tickDirection: where the last trade's price went, or where it went before it stood still."""
    if change:
        return "PlusTick" if change > 0 else "MinusTick"
    return "ZeroPlusTick" if before.endswith("PlusTick") else "ZeroMinusTick"


class KlineTopic:
    """One symbol's candles of one interval: the forming one every second, each closed one once with `confirm`."""

    def __init__(self, exchange: Exchange, instrument: Instrument, name: str, interval: str) -> None:
        self.name, self.due_ms = name, 0
        self._exchange, self._instrument, self._interval = exchange, instrument, interval
        self._phase_ms = key_of(exchange.seed, name) % KLINE_MS
        self._open_ms = 0

    def first(self, _: int) -> None:
        return None  # the next message of everybody is soon enough

    def news(self, now_ms: int) -> list[bytes]:
        candles = self._exchange.market.kline(self._instrument, self._interval, now_ms, limit=KEPT_CANDLES)
        known = bool(self._open_ms) and self._open_ms <= candles[-1].open_ms
        new = [one for one in candles if one.open_ms >= self._open_ms] if known else candles[-1:]
        self._open_ms = new[-1].open_ms
        soon_ms = now_ms - (now_ms - self._phase_ms) % KLINE_MS + KLINE_MS
        self.due_ms = min(soon_ms, self._end_ms(self._open_ms) + 1)
        return [encode(self._document(one, now_ms)) for one in new]

    def _end_ms(self, open_ms: int) -> int:
        return opens_between(self._interval, open_ms, open_ms + 32 * DAY_MS)[1] - 1

    def _document(self, candle: Candle, now_ms: int) -> Row:
        start, opening, high, low, close, volume, turnover = kline_rows(self._instrument, [candle])[0]
        end_ms = self._end_ms(candle.open_ms)
        data = {
            "start": int(start),
            "end": end_ms,
            "interval": self._interval,
            "open": opening,
            "close": close,
            "high": high,
            "low": low,
            "volume": volume,
            "turnover": turnover,
            "confirm": end_ms < now_ms,
            "timestamp": min(now_ms, end_ms),
        }
        return {"topic": self.name, "data": [data], "ts": now_ms, "type": "snapshot"}
