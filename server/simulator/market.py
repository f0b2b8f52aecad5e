"""The market at any instant: prices, candles and tickers in exact integers. Pure in (seed, time).

The 24 hours of a ticker are the last 1,440 minute candles, the forming one among them; its hour is the last 60.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import numpy as np
from msgspec import Struct

from .candles import MINUTE_MS, QUANTUM_MS, Candle, Candles, Forming, grouped, opens_between
from .history import DAY_MINUTES, HIGH, LOW, OPEN, TURNOVER, VOLUME, History
from .instruments import CATALOGUE, Category, Instrument
from .noise import key_of, smooth, unit, word

FUNDING_MS = 8 * 3_600_000
SECOND_MS = 1_000


class Ticker(Struct, frozen=True):
    """One symbol at one instant, in the integers of its candles; `funding_rate` in units of 1e-8."""

    last: int
    mark: int
    index: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    previous_24h: int
    high_24h: int
    low_24h: int
    volume_24h: int
    turnover_24h: int
    previous_1h: int
    open_interest: int
    funding_rate: int
    next_funding_ms: int


class Past(Struct, frozen=True):
    """The closed minutes of a ticker's 24 hours, and where its last hour began, in the integers of candles."""

    open: int
    high: int
    low: int
    volume: int
    turnover: int
    hour_open: int


class Market:
    """Everything public that can be asked of the exchange at an instant given in Unix milliseconds."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.candles = Candles(History(seed))
        self.past = lru_cache(maxsize=4_096)(self._past)
        self.offset = lru_cache(maxsize=8_192)(self._offset)
        self._key = lru_cache(maxsize=16_384)(self._hashed)

    def _hashed(self, purpose: str, instrument: Instrument) -> int:
        return key_of(self.seed, purpose, instrument.category, instrument.symbol)

    def _past(self, instrument: Instrument, minute: int) -> Past:
        """What a ticker in `minute` (since 1970) looks back on."""
        first_ms = (minute - DAY_MINUTES + 1) * MINUTE_MS
        minutes = self.candles.minutes(instrument, first_ms, minute * MINUTE_MS)[:, :-1]
        day = [int(one) for one in grouped(minutes, np.array([0]))[:, 0]]
        return Past(day[OPEN], day[HIGH], day[LOW], day[VOLUME], day[TURNOVER], int(minutes[OPEN, -59]))

    def _offset(self, instrument: Instrument, kind: str) -> int:
        """How many ticks the `mark` or `index` price stands above the path of trades; constant over time."""
        reach = instrument.base_price / float(instrument.tick) * 2e-4
        return round((2.0 * unit(self._key(kind, instrument), 0) - 1.0) * reach)

    def forming(self, instrument: Instrument, now_ms: int) -> Forming:
        return self.candles.forming(instrument, now_ms)

    def last(self, instrument: Instrument, now_ms: int) -> int:
        """The last traded price in ticks."""
        return self.forming(instrument, now_ms).close

    def mark(self, instrument: Instrument, now_ms: int) -> int:
        """The mark price in ticks."""
        return self.forming(instrument, now_ms).path + self.offset(instrument, "mark")

    def index_price(self, coin: str, now_ms: int) -> Decimal:
        """The coin's index price in USD; 1 for the stable coins."""
        instrument = CATALOGUE[Category.LINEAR].get(f"{coin}USDT")
        if instrument is None:
            return Decimal(1)
        ticks = self.forming(instrument, now_ms).path + self.offset(instrument, "index")
        return ticks * Decimal(instrument.tick)

    def kline(
        self,
        instrument: Instrument,
        interval: str,
        now_ms: int,
        *,
        kind: str = "",
        limit: int = 200,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> list[Candle]:
        """Candles oldest first, as `Candles.listing`; those of the `mark` or `index` price where `kind` says so."""
        candles = self.candles.listing(instrument, interval, now_ms, limit=limit, start_ms=start_ms, end_ms=end_ms)
        if not kind:
            return candles
        if candles and len(opens_between(interval, candles[-1].open_ms, now_ms)) == 1:  # the mark follows the path
            candles[-1] = candles[-1]._replace(close=self.forming(instrument, now_ms).path)
        up = self.offset(instrument, kind)
        return [
            one._replace(open=one.open + up, high=one.high + up, low=one.low + up, close=one.close + up)
            for one in candles
        ]

    def ticker(self, instrument: Instrument, now_ms: int) -> Ticker:
        """The ticker; its last price is the close of the forming candle of every interval."""
        past, forming = self.past(instrument, now_ms // MINUTE_MS), self.forming(instrument, now_ms)
        quote, second = self._key("quote", instrument), now_ms // QUANTUM_MS
        above = word(quote, 3 * second) & 1  # whether the last trade lifted the ask or hit the bid
        volume = past.volume + forming.volume
        typical = volume // DAY_MINUTES + 2
        return Ticker(
            last=forming.close,
            mark=forming.path + self.offset(instrument, "mark"),
            index=forming.path + self.offset(instrument, "index"),
            bid=forming.close - above,
            bid_size=1 + word(quote, 3 * second + 1) % typical,
            ask=forming.close - above + 1,
            ask_size=1 + word(quote, 3 * second + 2) % typical,
            previous_24h=past.open,
            high_24h=max(past.high, forming.high),
            low_24h=min(past.low, forming.low),
            volume_24h=volume,
            turnover_24h=past.turnover + forming.turnover,
            previous_1h=past.hour_open,
            open_interest=self._open_interest(instrument, now_ms),
            funding_rate=self._funding_rate(instrument, now_ms),
            next_funding_ms=(now_ms // FUNDING_MS + 1) * FUNDING_MS,
        )

    def _open_interest(self, instrument: Instrument, now_ms: int) -> int:
        """Contracts held, in steps; a smooth curve that moves every second."""
        scale = instrument.daily_turnover_usd / float(instrument.step)
        if instrument.category is not Category.INVERSE:
            scale /= instrument.base_price
        return int(scale * (1.0 + 0.3 * smooth(self._key("interest", instrument), now_ms // SECOND_MS, 86_400)))

    def _funding_rate(self, instrument: Instrument, now_ms: int) -> int:
        return round(12_000 * smooth(self._key("funding", instrument), now_ms // FUNDING_MS, 5)) + 5_000
