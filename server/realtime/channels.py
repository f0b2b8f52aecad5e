"""Channels: every name that can be subscribed to, what it is made of, and how its messages look."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import asdict

from ..errors import InvalidRequest
from ..models import INTERVALS_MS, Candles, Kind, Ticker, Topic, open_positions
from .channel import Channel, Compose, Moment, Origin, Readings
from .messages import (
    BalanceMessage,
    KlineMessage,
    ListingMessage,
    Message,
    PriceMessage,
    PushMessage,
    SnapshotMessage,
    TickerMessage,
)

PARTS = ("position", "balance", "price")
"""The parts of `positions:SYMBOL`, in the order of its ages."""
EVERY = "*"
SNAPSHOTS: dict[str, type[Message]] = {
    "positions:SYMBOL": SnapshotMessage,
    "positions:*": ListingMessage,
    "price:SYMBOL": PriceMessage,
    "balance": BalanceMessage,
    "kline:SYMBOL:INTERVAL": KlineMessage,
}
"""What the snapshots of each kind of channel are, by the form of its name."""
FORMS = tuple(SNAPSHOTS)

Parts = dict[str, Topic]
P = TypeVar("P", bound=PushMessage)


class Channels:
    """Finds or makes the channel of a name; forgets those that nobody has any more, but never a seq.

    Within this process's epoch a name's seq only grows: who comes back to a name goes on above the highest seq of all
    that were forgotten.
    """

    def __init__(
        self,
        readings: Readings,
        *,
        exchange: str,
        category: str,
        epoch: str,
        stale_after_s: float,
        check_form: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check_form` raises InvalidRequest for what cannot be a symbol."""
        self.readings = readings
        self._origin = Origin(exchange, epoch)
        self._category = category
        self._stale_after_s = stale_after_s
        self._check_form = check_form
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self._floor = 0

    def __len__(self) -> int:
        return len(self._channels)

    def positions(self, symbol: str) -> Channel:
        """Position, balance and price of one symbol."""
        return self.find(f"positions:{symbol}")

    def find(self, name: str) -> Channel:
        """The channel of that name. Raises InvalidRequest, saying what is allowed."""
        channel = self._channels.get(name)
        if channel is None:
            parts, compose = self._anatomy(name)
            channel = self._channels[name] = Channel(
                name,
                parts,
                compose,
                self.readings,
                self._origin,
                stale_after_s=self._stale_after_s,
                sequence=self._floor,
                clock=self._clock,
            )
        return channel

    def forget(self, channel: Channel) -> None:
        """Nobody has `channel` any more."""
        if self._channels.pop(channel.name, None) is not None:
            self._floor = max(self._floor, channel.sequence)

    def _anatomy(self, name: str) -> tuple[Parts, Compose]:
        kind, _, rest = name.partition(":")
        if kind == "positions" and rest == EVERY:
            return {"position": Topic(Kind.POSITIONS, category=self._category)}, _listing_message
        if kind == "positions":
            return self._of_symbol(rest), partial(_positions_message, rest)
        if kind == "price":
            topic = Topic(Kind.TICKER, self._symbol(rest), category=self._category)
            return {"price": topic}, partial(_price_message, topic)
        if name == "balance":
            return {"balance": Topic(Kind.WALLET)}, _balance_message
        if kind == "kline":
            topic = self._kline(rest)
            return {"kline": topic}, partial(_kline_message, topic)
        raise InvalidRequest("channel", f"there is no channel {name[:60]!r}; allowed: {', '.join(FORMS)}")

    def _symbol(self, text: str) -> str:
        self._check_form(text)
        return text

    def _of_symbol(self, symbol: str) -> Parts:
        self._check_form(symbol)
        topics = (
            Topic(Kind.POSITION, symbol, category=self._category),
            Topic(Kind.WALLET),
            Topic(Kind.TICKER, symbol, category=self._category),
        )
        return dict(zip(PARTS, topics, strict=True))

    def _kline(self, rest: str) -> Topic:
        symbol, _, interval = rest.partition(":")
        self._check_form(symbol)
        if interval not in INTERVALS_MS:
            allowed = ", ".join(INTERVALS_MS)
            raise InvalidRequest("channel", f"the interval of a kline channel is {interval[:20]!r}; allowed: {allowed}")
        return Topic(Kind.KLINE, symbol, interval, self._category)


def _positions_message(symbol: str, moment: Moment) -> SnapshotMessage:
    rows, wallet, ticker = moment.values
    positions = None if rows is None else open_positions(rows)
    return SnapshotMessage(
        type="snapshot",
        channel=moment.channel,
        exchange=moment.origin.exchange,
        symbol=symbol,
        epoch=moment.origin.epoch,
        seq=moment.sequence,
        timestamp_ms=moment.timestamp_ms,
        has_position=None if positions is None else bool(positions),
        positions=positions,
        balance=wallet,
        current_price=None if ticker is None else ticker.last_price,
        ticker=None if ticker is None else _ticker_message(ticker),
        age_ms=dict(zip(PARTS, moment.ages_ms, strict=True)),
        stale=moment.stale,
    )


def _ticker_message(ticker: Ticker) -> TickerMessage:
    return TickerMessage(
        mark_price=ticker.mark_price,
        index_price=ticker.index_price,
        bid_price=ticker.bid_price,
        ask_price=ticker.ask_price,
        funding_rate=ticker.funding_rate,
    )


def _single(moment: Moment, form: type[P], **body: Any) -> P:
    """A message of one part: the fields of every push, then the body of the REST route of the same name."""
    return form(
        type="snapshot",
        channel=moment.channel,
        exchange=moment.origin.exchange,
        epoch=moment.origin.epoch,
        seq=moment.sequence,
        timestamp_ms=moment.timestamp_ms,
        age_ms=moment.ages_ms[0],
        stale=bool(moment.stale),
        **body,
    )


def _listing_message(moment: Moment) -> ListingMessage:
    (rows,) = moment.values
    positions = None if rows is None else open_positions(rows)
    has_position = None if positions is None else bool(positions)
    return _single(moment, ListingMessage, positions=positions, has_position=has_position)


def _price_message(topic: Topic, moment: Moment) -> PriceMessage:
    (ticker,) = moment.values
    fields = dict.fromkeys(Ticker.__struct_fields__) if ticker is None else asdict(ticker)
    return _single(moment, PriceMessage, symbol=topic.symbol, category=topic.category, **fields)


def _balance_message(moment: Moment) -> BalanceMessage:
    return _single(moment, BalanceMessage, balance=moment.values[0])


def _kline_message(topic: Topic, moment: Moment) -> KlineMessage:
    candles: Candles | None = moment.values[0]
    has_any = candles is not None and len(candles) > 0
    last = candles.rows[-1] if candles is not None and has_any else None
    return _single(
        moment,
        KlineMessage,
        symbol=topic.symbol,
        category=topic.category,
        interval=topic.interval,
        candle=None if last is None else (int(last[0]), *last[1:]),
        closed=candles.last_closed if candles is not None and has_any else None,
    )
