"""Messages: everything that sockets are sent, as it is encoded. The gateway's description of itself is made from these.

The order of the fields is theirs on the wire. What is sent is a Message, so that none can be without a description.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from ..models import Position, Wallet

Number = int | str | None
"""The `id` of the operation that is answered, as it came; null where it had none."""
Candle = tuple[int, str, str, str, str, str, str]
"""Open time in ms, open, high, low, close, volume, turnover."""


Value = float | None
"""A number; null where there is none."""


class Message(Struct, frozen=True):
    """Anything that is sent as JSON."""


class Fault(Struct, frozen=True):
    """Why something is stale. `reason` names the kind where the exchange is the cause."""

    code: str
    detail: str
    temporary: bool
    retry_after_ms: int | None
    reason: str | None = None


class TickerMessage(Struct, frozen=True):
    """What a snapshot says of the market beside the price."""

    mark_price: str | None
    index_price: str | None
    bid_price: str | None
    ask_price: str | None
    funding_rate: str | None


class SnapshotMessage(Message, frozen=True):
    """Position, balance and price of one symbol. A part never read is null and stale: unknown is not flat."""

    type: Literal["snapshot"]
    channel: str
    exchange: str
    symbol: str
    epoch: str
    seq: int
    timestamp_ms: int
    has_position: bool | None
    positions: list[Position] | None
    balance: Wallet | None
    current_price: str | None
    ticker: TickerMessage | None
    age_ms: dict[str, int | None]
    stale: tuple[str, ...]


class PushMessage(Message, frozen=True):
    """What the snapshots of every channel of one part begin with. `age_ms` is null where nothing was ever read."""

    type: Literal["snapshot"]
    channel: str
    exchange: str
    epoch: str
    seq: int
    timestamp_ms: int
    age_ms: int | None
    stale: bool


class ListingMessage(PushMessage, frozen=True):
    """Every open position; null while that is unknown."""

    positions: list[Position] | None
    has_position: bool | None


class PriceMessage(PushMessage, frozen=True):
    """The market of one symbol, with the fields of a Ticker; all of them null while it is unknown."""

    symbol: str
    category: str
    last_price: str | None
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


class BalanceMessage(PushMessage, frozen=True):
    """The account; null while it is unknown."""

    balance: Wallet | None


class KlineMessage(PushMessage, frozen=True):
    """The last candle, null where there is none. `closed` says whether it is closed or still forming."""

    symbol: str
    category: str
    interval: str
    candle: Candle | None
    closed: bool | None


class IndicatorsMessage(PushMessage, frozen=True):
    """Indicators at the last candle, over `candle_count` of them; null while there are none, or too few."""

    symbol: str
    category: str
    interval: str
    candle_count: int | None
    candle_closed: bool | None
    data: dict[str, Value | dict[str, Value]] | None


class StatusMessage(Message, frozen=True):
    """What is stale of a channel has changed; `error` is the first reason that is known."""

    type: Literal["status"]
    channel: str
    symbol: str
    stale: tuple[str, ...]
    error: Fault | None
    timestamp_ms: int


class HeartbeatMessage(Message, frozen=True):
    """Nothing else was sent for a while: browsers cannot see protocol pings. `stale` has the stale parts by channel."""

    type: Literal["heartbeat"]
    timestamp_ms: int
    stale: dict[str, tuple[str, ...]]


class ErrorMessage(Message, frozen=True):
    """A message could not be obeyed, or the subscription of `channel` has ended; the socket lives on."""

    type: Literal["error"]
    id: Number
    code: str
    detail: str
    channel: str | UnsetType = UNSET


class Refusal(Struct, frozen=True):
    """Why one channel of a request could not be had."""

    channel: str
    code: str
    detail: str


class AuthMessage(Message, frozen=True):
    """The token is a good one, and the socket has its rights."""

    type: Literal["ack"]
    id: Number
    op: Literal["auth"]


class SubscribedMessage(Message, frozen=True):
    """The channels that are subscribed to, and those that cannot be had."""

    type: Literal["ack"]
    id: Number
    op: Literal["subscribe"]
    subscribed: tuple[str, ...]
    errors: tuple[Refusal, ...]


class UnsubscribedMessage(Message, frozen=True):
    """The channels that nothing follows of any more, and those that the socket did not have."""

    type: Literal["ack"]
    id: Number
    op: Literal["unsubscribe"]
    unsubscribed: tuple[str, ...]
    errors: tuple[Refusal, ...]


class Listed(Struct, frozen=True):
    """One subscription, and the seconds between its snapshots: 0 for live, and then of indicators on what."""

    channel: str
    interval: float
    on: str | UnsetType = UNSET


class ListMessage(Message, frozen=True):
    """What the socket is subscribed to."""

    type: Literal["list"]
    id: Number
    channels: tuple[Listed, ...]


class PongMessage(Message, frozen=True):
    """The answer to a ping of the protocol's operations."""

    type: Literal["pong"]
    id: Number
    timestamp_ms: int
