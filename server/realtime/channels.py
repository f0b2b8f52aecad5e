"""Channels: every name that can be subscribed to, what it is made of, and how its messages look."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec.structs import asdict

from ..errors import InvalidRequest, Overloaded
from ..models import INTERVALS_MS, Candles, Kind, Ticker, Topic, open_positions
from .channel import Channel, Compose, Moment, Numbers, Origin, Readings
from .messages import (
    BalanceMessage,
    IndicatorsMessage,
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
    "indicators:SYMBOL:INTERVAL:NAMES": IndicatorsMessage,
}
"""What the snapshots of each kind of channel are, by the form of its name."""
FORMS = tuple(SNAPSHOTS)

INDICATORS = "indicators"
MOST_ASKED = 500
"""Different channels of indicators at one time: each costs some computing whenever its candles change."""

Parts = dict[str, Topic]
Anatomy = tuple[Parts, Compose, Readings]
P = TypeVar("P", bound=PushMessage)


class Answering(Protocol):
    """What channels need of indicators."""

    def follow(self, topic: Topic, names: str | None, renewed: Callable[[], None], *, on_close: bool) -> Readings:
        """What is read of a kline topic are the answers to `names`, or to the classic set; `renewed` tells of each.

        Raises InvalidRequest.
        """


class Channels:
    """Finds or makes the channel of a name; forgets those that nobody has any more, but never a seq.

    Within this process's epoch a name's seq only grows: who comes back to a name goes on above the highest seq of all
    that were forgotten.
    """

    def __init__(
        self,
        readings: Readings,
        answering: Answering,
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
        self._answering = answering
        self._origin = Origin(exchange, epoch)
        self._category = category
        self._stale_after_s = stale_after_s
        self._check_form = check_form
        self._clock = clock
        self._watcher: Callable[[Channel], None] | None = None
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._floor = 0

    def __len__(self) -> int:
        return len(self._channels)

    def positions(self, symbol: str) -> Channel:
        """Position, balance and price of one symbol."""
        return self.find(f"positions:{symbol}")

    def find(self, name: str, *, on_close: bool = False) -> Channel:
        """The channel of that name; of indicators, that of each change, or of each candle that closes.

        Raises InvalidRequest, saying what is allowed; Overloaded for one channel of indicators too many.
        """
        on_close = on_close and is_asked(name)
        channel, sibling = (self._channels.get((name, each)) for each in (on_close, not on_close))
        if channel is None:
            parts, compose, readings = self._asked(name, on_close=on_close) if is_asked(name) else self._anatomy(name)
            channel = self._channels[name, on_close] = Channel(
                name,
                parts,
                compose,
                readings,
                self._origin,
                stale_after_s=self._stale_after_s,
                numbers=Numbers(self._floor) if sibling is None else sibling.numbers,
                repeats=not on_close,
                clock=self._clock,
            )
        elif sibling is not None:
            channel.unshare()  # whoever comes from the one to the other must not find an older seq
        return channel

    def watch(self, renewed: Callable[[Channel], None]) -> None:
        """Have `renewed` called with each channel whose indicators have been computed anew."""
        self._watcher = renewed

    def _renewed(self, key: tuple[str, bool]) -> None:
        if self._watcher is not None and (channel := self._channels.get(key)) is not None:
            self._watcher(channel)

    def forget(self, channel: Channel) -> None:
        """Nobody has `channel` any more."""
        if self._channels.pop((channel.name, not channel.repeats), None) is not None:
            self._floor = max(self._floor, channel.sequence)

    def _asked(self, name: str, *, on_close: bool) -> Anatomy:
        """Of `indicators:SYMBOL:INTERVAL:NAMES`: the names are whole, with all their colons; without any, the set."""
        symbol, _, rest = name.partition(":")[2].partition(":")
        interval, has_names, names = rest.partition(":")
        topic = self._kline(f"{symbol}:{interval}")
        if sum(is_asked(other) for other, _ in self._channels) >= MOST_ASKED:
            raise Overloaded(f"{MOST_ASKED} channels of indicators are in use, and there may be no more")
        renewed = partial(self._renewed, (name, on_close))
        readings = self._answering.follow(topic, names if has_names else None, renewed, on_close=on_close)
        return {INDICATORS: topic}, partial(_indicators_message, topic), readings

    def _anatomy(self, name: str) -> Anatomy:
        kind, _, rest = name.partition(":")
        if kind == "positions" and rest == EVERY:
            topic = Topic(Kind.POSITIONS, category=self._category)
            return {"position": topic}, _listing_message, self.readings
        if kind == "positions":
            return self._of_symbol(rest), partial(_positions_message, rest), self.readings
        if kind == "price":
            topic = Topic(Kind.TICKER, self._symbol(rest), category=self._category)
            return {"price": topic}, partial(_price_message, topic), self.readings
        if name == "balance":
            return {"balance": Topic(Kind.WALLET)}, _balance_message, self.readings
        if kind == "kline":
            topic = self._kline(rest)
            return {"kline": topic}, partial(_kline_message, topic), self.readings
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
            raise InvalidRequest("channel", f"the interval of the channel is {interval[:20]!r}; allowed: {allowed}")
        return Topic(Kind.KLINE, symbol, interval, self._category)


def is_asked(name: str) -> bool:
    """Whether the channel of that name is one of indicators."""
    return name.partition(":")[0] == INDICATORS


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


def _indicators_message(topic: Topic, moment: Moment) -> IndicatorsMessage:
    (body,) = moment.values
    if body is None:
        unknown = dict.fromkeys(("candle_count", "candle_closed", "data"))
        body = {"symbol": topic.symbol, "category": topic.category, "interval": topic.interval, **unknown}
    return _single(moment, IndicatorsMessage, **body)
