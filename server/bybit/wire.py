"""The rows of Bybit V5 answers by Bybit's own names, as far as the gateway reads them.

Decimal numbers are strings there and stay strings. What Bybit leaves out in some categories or account modes has ""
as its default; what is always there has none, so that an answer without it is recognised as broken.
"""

from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..errors import BadAnswer
from ..models import CandleRow

T = TypeVar("T")


class Envelope(Struct):
    """The outside of every V5 answer; `result` stays raw until its type is known, and a refusal may have none."""

    retCode: int
    retMsg: str
    result: Raw = Raw(b"null")
    time: Annotated[int, Meta(ge=0, lt=10**14)] = 0
    retExtInfo: Raw = Raw(b"{}")


class Ticker(Struct):
    """A row of Get Tickers."""

    symbol: str
    lastPrice: str
    markPrice: str = ""
    indexPrice: str = ""
    bid1Price: str = ""
    bid1Size: str = ""
    ask1Price: str = ""
    ask1Size: str = ""
    highPrice24h: str = ""
    lowPrice24h: str = ""
    price24hPcnt: str = ""
    volume24h: str = ""
    turnover24h: str = ""
    openInterest: str = ""
    fundingRate: str = ""
    nextFundingTime: str = ""


class Tickers(Struct):
    """The result of Get Tickers."""

    rows: list[Ticker] = msgspec.field(name="list")


class Kline(Struct):
    """The result of Get Kline, newest first."""

    symbol: str
    rows: list[CandleRow] = msgspec.field(name="list")


class Position(Struct):
    """A row of Get Position Info."""

    symbol: str
    positionIdx: int
    side: str
    size: str
    avgPrice: str = ""
    markPrice: str = ""
    leverage: str = ""
    positionValue: str = ""
    unrealisedPnl: str = ""
    curRealisedPnl: str = ""
    liqPrice: str = ""
    takeProfit: str = ""
    stopLoss: str = ""
    updatedTime: str = ""
    seq: int = 0


class Positions(Struct):
    """One page of Get Position Info."""

    rows: list[Position] = msgspec.field(name="list")
    nextPageCursor: str = ""


class Coin(Struct):
    """One coin of Get Wallet Balance."""

    coin: str
    equity: str = ""
    walletBalance: str = ""
    unrealisedPnl: str = ""
    totalPositionIM: str = ""
    totalOrderIM: str = ""
    locked: str = ""
    bonus: str = ""


class Account(Struct):
    """One account of Get Wallet Balance."""

    accountType: str
    totalEquity: str
    totalWalletBalance: str
    totalAvailableBalance: str
    totalPerpUPL: str
    coin: list[Coin]


class Wallet(Struct):
    """The result of Get Wallet Balance."""

    rows: list[Account] = msgspec.field(name="list")


class PriceFilter(Struct):
    """The price steps of an instrument."""

    tickSize: str = ""


class LotSizeFilter(Struct):
    """The quantity steps of an instrument; spot says basePrecision for qtyStep."""

    qtyStep: str = ""
    basePrecision: str = ""
    minOrderQty: str = ""


class LeverageFilter(Struct):
    """The leverage of an instrument; spot has none."""

    maxLeverage: str = ""


class Instrument(Struct):
    """A row of Get Instruments Info."""

    symbol: str
    status: str
    baseCoin: str
    quoteCoin: str
    settleCoin: str | None = None
    priceFilter: PriceFilter = msgspec.field(default_factory=PriceFilter)
    lotSizeFilter: LotSizeFilter = msgspec.field(default_factory=LotSizeFilter)
    leverageFilter: LeverageFilter = msgspec.field(default_factory=LeverageFilter)


class InstrumentPage(Struct):
    """One page of Get Instruments Info."""

    rows: list[Raw] = msgspec.field(name="list")
    nextPageCursor: str = ""


class Time(Struct):
    """The result of Get Bybit Server Time."""

    timeSecond: str
    timeNano: str


StreamTime = Annotated[int, Meta(ge=0, lt=10**14)]


class StreamMessage(Struct):
    """Whatever comes over a stream: a push has a `topic`, an answer an `op`. Private pushes say creationTime for ts."""

    topic: str = ""
    type: str = ""
    ts: StreamTime = 0
    creationTime: StreamTime = 0
    cs: Annotated[int, Meta(ge=0)] = 0
    data: Raw = Raw(b"null")
    op: str = ""
    success: bool | None = None
    ret_msg: str | None = ""
    req_id: str | None = ""


class TickerDelta(Struct):
    """What has changed of a ticker: a field that is not there has not."""

    symbol: str | UnsetType = UNSET
    lastPrice: str | UnsetType = UNSET
    markPrice: str | UnsetType = UNSET
    indexPrice: str | UnsetType = UNSET
    bid1Price: str | UnsetType = UNSET
    bid1Size: str | UnsetType = UNSET
    ask1Price: str | UnsetType = UNSET
    ask1Size: str | UnsetType = UNSET
    highPrice24h: str | UnsetType = UNSET
    lowPrice24h: str | UnsetType = UNSET
    price24hPcnt: str | UnsetType = UNSET
    volume24h: str | UnsetType = UNSET
    turnover24h: str | UnsetType = UNSET
    openInterest: str | UnsetType = UNSET
    fundingRate: str | UnsetType = UNSET
    nextFundingTime: str | UnsetType = UNSET


class StreamCandle(Struct):
    """A candle as streams push it; `confirm` says that it is closed."""

    start: StreamTime
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    confirm: bool


class PositionCategory(Struct):
    """The category of a pushed position, by which it is known whether the rest is ours to read."""

    category: str


class StreamPosition(Position):
    """A position as streams push it: Get Position Info's row, with entryPrice for avgPrice."""

    entryPrice: str = ""


Permission = Annotated[str, Meta(pattern=r"^[A-Za-z0-9 _.-]{1,40}\Z")]
"""A name that may be shown to people."""


class Key(Struct):
    """The result of Get API Key Information, without everything that tells whose key it is."""

    readOnly: int
    permissions: dict[Permission, Annotated[list[Permission], Meta(max_length=100)]]
    expiredAt: str = ""
    ips: list[str] = []


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        Envelope,
        Tickers,
        Kline,
        Positions,
        Wallet,
        InstrumentPage,
        Instrument,
        Time,
        Key,
        StreamMessage,
        Ticker,
        TickerDelta,
        list[StreamCandle],
        list[Raw],
        PositionCategory,
        StreamPosition,
        list[Account],
    )
}


def decode(raw: bytes | Raw, kind: type[T]) -> T:
    """`raw` as a `kind`. Raises BadAnswer with what does not fit and where, never with the data itself."""
    try:
        return cast(T, _decoders[kind].decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the exchange's answer has not the documented shape: {error}") from error
