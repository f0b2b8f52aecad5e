"""What the gateway knows and says: topics, readings, and the values behind them.

Prices, quantities and money are decimal strings exactly as the exchange sent them, checked to be plain finite
decimals; None where the exchange sent nothing. Times in `_ms` are Unix milliseconds; `asked_at` and `arrived_at` are
seconds of the process's monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from .rows import Row, Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

V = TypeVar("V")


class Kind(enum.StrEnum):
    """What a topic is about. TICKERS, POSITIONS (open ones) and INSTRUMENTS are listings of a whole category."""

    TICKER = "ticker"
    TICKERS = "tickers"
    POSITION = "position"
    POSITIONS = "positions"
    WALLET = "wallet"
    KLINE = "kline"
    INSTRUMENTS = "instruments"


class Topic(NamedTuple):
    """Everything a client can ask for, as a key: `ticker BTCUSDT`, `wallet`, `kline 240 BTCUSDT`."""

    kind: Kind
    symbol: str = ""
    interval: str = ""
    category: str = "linear"

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind.value, self.interval, self.symbol) if part)


class Source(enum.StrEnum):
    """Where a reading came from."""

    POLL = "poll"
    PUSH = "push"


class Reading(Struct, Generic[V], frozen=True, eq=False):
    """The value of one topic at one moment. Its age counts from `asked_at`, so that it never flatters."""

    value: V
    asked_at: float
    arrived_at: float
    exchange_time_ms: int
    source: Source = Source.POLL

    def age_s(self, now: float) -> float:
        """Seconds since the value was asked for; never negative."""
        return max(0.0, now - self.asked_at)

    def confirmed(self, at: float) -> Reading[V]:
        """The same, known to have been true still at that moment of the monotonic clock."""
        return replace(self, asked_at=at)


class Ticker(Struct, frozen=True):
    """The market of one symbol, in the words of `GET /price/{symbol}`."""

    last_price: str
    mark_price: str | None
    index_price: str | None
    bid_price: str | None
    bid_size: str | None
    ask_price: str | None
    ask_size: str | None
    high_price_24h: str | None
    low_price_24h: str | None
    change_24h: str | None
    volume_24h: str | None
    turnover_24h: str | None
    open_interest: str | None
    funding_rate: str | None
    next_funding_time_ms: int | None


class Position(Struct, frozen=True):
    """One open position as clients see it."""

    symbol: str
    position_idx: int
    side: str
    size: str
    entry_price: str | None
    mark_price: str | None
    leverage: str | None
    position_value: str | None
    unrealised_pnl: str | None
    realised_pnl: str | None
    liquidation_price: str | None
    take_profit: str | None
    stop_loss: str | None
    updated_time_ms: int | None


class PositionRow(Struct, frozen=True):
    """A position, flat ones too, with the exchange's sequence number that orders it among its versions."""

    position: Position
    sequence: int
    is_open: bool


PositionRows = tuple[PositionRow, ...]


def open_positions(rows: Iterable[PositionRow]) -> list[Position]:
    """The open ones among `rows`, in their order."""
    return [row.position for row in rows if row.is_open]


class Coin(Struct, frozen=True):
    """One coin of the wallet; `available_balance` only in isolated margin, where the account has none."""

    coin: str
    equity: str | None
    wallet_balance: str | None
    available_balance: str | None
    unrealised_pnl: str | None


class Wallet(Struct, frozen=True):
    """The unified account, its totals in USD."""

    account_type: str
    currency: str
    equity: str | None
    wallet_balance: str | None
    available_balance: str | None
    unrealised_pnl: str | None
    coins: tuple[Coin, ...]


class Instrument(Struct, frozen=True):
    """One row of the exchange's instrument list; None where a category has no such thing."""

    symbol: str
    status: str
    base_coin: str
    quote_coin: str
    settle_coin: str | None
    tick_size: str | None
    quantity_step: str | None
    min_quantity: str | None
    max_leverage: str | None


Instruments = dict[str, Instrument]

CandleRow = Row
"""Open time in ms, open, high, low, close, volume, turnover: as the exchange sent them."""


class CandlePush(Struct, frozen=True):
    """One candle as a stream tells of it; `is_closed` by the exchange's own word."""

    row: CandleRow
    is_closed: bool


class Candles(Struct, frozen=True, eq=False, weakref=True):
    """OHLCV of one kline topic, oldest first: the rows as sent, and their columns as float64 arrays of equal length.

    The arrays are contiguous, and nobody ever writes into one. `last_closed` says, by the exchange's clock, whether the
    last row is closed or still forming.
    """

    rows: Rows
    open_times_ms: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    last_closed: bool
    depth: int
    """How many are kept while newer ones come."""
    is_from_start: bool = False
    """Whether the exchange is known to have none before the first."""
    computed: dict[Any, Any] = field(default_factory=dict)
    """What was computed from these candles, by question, so that a repeated question costs a lookup."""

    def __len__(self) -> int:
        return len(self.open_times_ms)

    @property
    def newest(self) -> tuple[CandleRow, bool] | None:
        """The last one as sent, and whether it is closed; None where there is none."""
        return (self.rows[-1], self.last_closed) if len(self.rows) else None

    @property
    def nbytes(self) -> int:
        """About how much memory they take, without what was computed from them."""
        columns = (self.open_times_ms, self.open, self.high, self.low, self.close, self.volume)
        return self.rows.nbytes + sum(column.nbytes for column in columns)

    def last(self, count: int) -> Candles:
        """The newest `count` (at least 1) by views of the arrays, nothing copied; the same where there are no more.

        What is computed from them they do not share with these.
        """
        if count >= len(self):
            return self
        return self._cut(slice(-count, None), self.rows.last(count))

    def first(self, count: int) -> Candles:
        """The oldest `count`, all of them closed: views as those of `last`; the same where there are no more."""
        if count >= len(self):
            return self
        return self._cut(slice(count), self.rows.first(count))

    def _cut(self, part: slice, rows: Rows) -> Candles:
        return Candles(
            rows=rows,
            open_times_ms=self.open_times_ms[part],
            open=self.open[part],
            high=self.high[part],
            low=self.low[part],
            close=self.close[part],
            volume=self.volume[part],
            last_closed=self.last_closed or part.start is None,
            depth=self.depth,
            is_from_start=self.is_from_start and part.start is None,
        )


class KeyInfo(Struct, frozen=True):
    """What the API key may do, and until when (None: for ever). Nothing here tells whose key it is."""

    is_read_only: bool
    permissions: tuple[str, ...]
    """As group:permission, sorted. A read-only key has them too, for looking."""
    expires_at_ms: int | None
    is_address_bound: bool


class Part(Struct, frozen=True, eq=False):
    """What a consumer gets to see of a feed: the newest reading if there is any, and why it is not younger.

    Its age counts from `as_of`: when it was asked for, or when a stream last said that nothing had changed.
    """

    reading: Reading[Any] | None
    error: Exception | None
    is_waiting: bool
    as_of: float
    is_kept: bool = False
    """Whether a stream keeps the reading true."""

    def age_s(self, now: float) -> float:
        """Seconds since the reading was known to be true; never negative."""
        return max(0.0, now - self.as_of)

    @property
    def has_failed(self) -> bool:
        """Whether there is nothing, or the last refresh failed."""
        return self.error is not None or self.reading is None

    def is_stale(self, now: float, threshold_s: float) -> bool:
        """No reading, or the last refresh failed, or older than `threshold_s`."""
        return self.has_failed or now - self.as_of > threshold_s


INTERVALS_MS: dict[str, int] = {
    **{str(minutes): minutes * 60_000 for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
    "D": 86_400_000,
    "W": 604_800_000,
    "M": 2_678_400_000,
}
"""Kline intervals by Bybit's names, and their length; a month counts 31 days here and is asked of the calendar."""
