"""Pushes: what comes over a stream, topic by topic, as the values that readings hold; without any I/O.

A channel is one argument of a subscription. It keeps what it takes to understand its pushes, and knows after how long a
silence something must be wrong with it. Names and meanings: Bybit V5, "WebSocket Stream", "Ticker", "Kline",
"Position", "Wallet".
"""

from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

from msgspec import UNSET, Raw

from ..errors import BadAnswer
from ..models import CandlePush, CandleRow, Kind, PositionRow, Ticker, Topic
from . import wire
from .parsing import decimal, distinct, position_row_of, ticker_of, ticker_with, wallet_of
from .wire import StreamMessage, decode

FIRST_S = 5.0
"""How long the first push of a ticker or candle may take after the subscription was confirmed."""

Values = Iterable[tuple[Topic, Any]]


class Disorder(Exception):
    """Pushes of one topic do not follow from each other: what is known of it must be read anew."""


class Channel:
    """One argument of a subscription, and how its pushes are understood.

    A channel that `begins_with_push` is in sync only once a push has come; `patience_s` is how long it may be silent.
    """

    begins_with_push: ClassVar[bool] = True
    patience_s: ClassVar[float] = inf

    def __init__(self, arg: str) -> None:
        self.arg = arg
        self.has_begun = False
        self.heard_at = inf

    def restart(self) -> None:
        """Forget everything: whatever comes next comes of another subscription."""
        self.has_begun = False
        self.heard_at = inf

    def confirmed(self, now: float) -> None:
        """The exchange has confirmed the subscription: from now on something should be heard."""
        self.heard_at = now

    def is_overdue(self, now: float) -> bool:
        """Whether it has been silent for too long; never before it is confirmed."""
        patience_s = self.patience_s if self.has_begun or not self.begins_with_push else FIRST_S
        return now - self.heard_at > patience_s

    def take(self, message: StreamMessage) -> Values:
        """What `message` says, by topic. Raises Disorder, or BadAnswer for what cannot be believed."""
        raise NotImplementedError


class TickerChannel(Channel):
    """The ticker of one symbol: a snapshot, then deltas that carry only what changed, merged before anybody sees them.

    `cs` never falls, and `ts` not while `cs` stays; what comes twice in a row changes nothing. A push that does not
    follow is Disorder, never merged.
    """

    patience_s = 30.0

    def __init__(self, topic: Topic) -> None:
        super().__init__(f"tickers.{topic.symbol}")
        self._topic = topic
        self._ticker: Ticker | None = None
        self._cs = self._ts = 0

    def restart(self) -> None:
        super().restart()
        self._ticker = None
        self._cs = self._ts = 0

    def take(self, message: StreamMessage) -> Values:
        """The whole ticker after `message`."""
        if message.type == "snapshot":
            ticker = self._replaced(message)
        elif message.type == "delta":
            ticker = self._merged(message)
        else:
            raise BadAnswer("the exchange's ticker is neither a snapshot nor a delta")
        self._ticker, self._cs, self._ts = ticker, message.cs, message.ts
        return ((self._topic, ticker),)

    def _replaced(self, message: StreamMessage) -> Ticker:
        if message.cs < self._cs or (not message.cs and message.ts < self._ts):
            raise Disorder("a snapshot from before what is known")
        row = decode(message.data, wire.Ticker)
        if row.symbol != self._topic.symbol:
            raise BadAnswer("the exchange's ticker is another symbol's")
        return ticker_of(row)

    def _merged(self, message: StreamMessage) -> Ticker:
        delta = decode(message.data, wire.TickerDelta)
        if self._ticker is None:
            raise Disorder("a delta without a snapshot")
        if not self._follows(message):
            raise Disorder("a delta that repeats or goes back")
        if delta.symbol is not UNSET and delta.symbol != self._topic.symbol:
            raise BadAnswer("the exchange's delta is another symbol's")
        return ticker_with(self._ticker, delta)

    def _follows(self, message: StreamMessage) -> bool:
        return (message.cs, message.ts) >= (self._cs, self._ts)


class KlineChannel(Channel):
    """The candles of one symbol and interval; the exchange says itself when one is closed."""

    patience_s = 90.0

    def __init__(self, topic: Topic) -> None:
        super().__init__(f"kline.{topic.interval}.{topic.symbol}")
        self._topic = topic

    def take(self, message: StreamMessage) -> Values:
        """Each candle of `message`, in its order."""
        return [(self._topic, self._push(candle)) for candle in decode(message.data, list[wire.StreamCandle])]

    def _push(self, candle: wire.StreamCandle) -> CandlePush:
        numbers = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover)
        if candle.interval != self._topic.interval or None in [decimal(text, "candle") for text in numbers]:
            raise BadAnswer("the exchange's candle is of another interval, or lacks a number")
        row: CandleRow = (str(candle.start), *numbers)
        return CandlePush(row=row, is_closed=candle.confirm)


class PositionChannel(Channel):
    """Every position of the account. It says nothing until one changes: no first push tells how things stand."""

    begins_with_push = False

    def __init__(self, category: str) -> None:
        super().__init__("position")
        self._category = category

    def take(self, message: StreamMessage) -> Values:
        """The rows of `message` by symbol, perhaps one leg of two; rows of other categories are not ours to read."""
        rows: defaultdict[str, list[PositionRow]] = defaultdict(list)
        for raw in decode(message.data, list[Raw]):
            if decode(raw, wire.PositionCategory).category == self._category:
                row = decode(raw, wire.StreamPosition)
                row.avgPrice = row.entryPrice
                rows[row.symbol].append(position_row_of(row))
        for legs in rows.values():
            distinct(legs, lambda row: row.position.position_idx, "position")
        return [(Topic(Kind.POSITION, symbol, "", self._category), tuple(legs)) for symbol, legs in rows.items()]


class WalletChannel(Channel):
    """The wallet. It says nothing until the balance changes, and nothing when only unrealised profit does."""

    begins_with_push = False

    def __init__(self) -> None:
        super().__init__("wallet")

    def take(self, message: StreamMessage) -> Values:
        """The account with its totals; of its coins perhaps only those that changed."""
        return ((Topic(Kind.WALLET), wallet_of(decode(message.data, list[wire.Account]))),)


def channel_of(topic: Topic, category: str) -> Channel | None:
    """The channel that pushes `topic` in a gateway of `category`; None where no stream does."""
    if topic.kind is Kind.WALLET:
        return WalletChannel()
    if topic.category != category:
        return None
    if topic.kind is Kind.TICKER:
        return TickerChannel(topic)
    if topic.kind is Kind.KLINE:
        return KlineChannel(topic)
    return PositionChannel(category) if topic.kind in (Kind.POSITION, Kind.POSITIONS) else None
