"""Specimens: one message of each kind that sockets are sent, and of each that clients may send."""

from typing import Any

from msgspec.structs import asdict

from ..models import Coin, Position, Ticker, Wallet
from ..realtime.messages import (
    AuthMessage,
    BalanceMessage,
    ErrorMessage,
    Fault,
    HeartbeatMessage,
    IndicatorsMessage,
    KlineMessage,
    Listed,
    ListingMessage,
    ListMessage,
    Message,
    PongMessage,
    PriceMessage,
    Refusal,
    SnapshotMessage,
    StatusMessage,
    SubscribedMessage,
    TickerMessage,
    UnsubscribedMessage,
)

MOMENT_MS = 1_760_313_600_123

POSITION = Position(
    symbol="BTCUSDT",
    position_idx=0,
    side="Buy",
    size="0.125",
    entry_price="63987.2",
    mark_price="64321.5",
    leverage="10",
    position_value="7998.4",
    unrealised_pnl="41.79",
    realised_pnl="0",
    liquidation_price=None,
    take_profit=None,
    stop_loss=None,
    updated_time_ms=MOMENT_MS - 10_000,
)
WALLET = Wallet(
    account_type="UNIFIED",
    currency="USD",
    equity="10523.77",
    wallet_balance="10481.98",
    available_balance="8217.31",
    unrealised_pnl="41.79",
    coins=(Coin("USDT", "10523.77", "10481.98", None, "41.79"),),
)
TICKER = Ticker(
    last_price="64321.5",
    mark_price="64321.4",
    index_price="64320.9",
    bid_price="64321.4",
    bid_size="3.2",
    ask_price="64321.6",
    ask_size="1.7",
    high_price_24h="65012.3",
    low_price_24h="63120.8",
    change_24h="0.0123",
    volume_24h="48213.5",
    turnover_24h="3098765432.1",
    open_interest="52310.9",
    funding_rate="0.0001",
    next_funding_time_ms=1_760_342_400_000,
)

QUESTIONS: dict[str, dict[str, Any]] = {
    "subscribe": {"op": "subscribe", "id": 1, "channels": ["price:ETHUSDT", "price:NOUSDT"], "interval": 0.5},
    "unsubscribe": {"op": "unsubscribe", "id": 2, "channels": ["price:ETHUSDT"]},
    "list": {"op": "list", "id": 3},
    "ping": {"op": "ping", "id": 4},
    "auth": {"op": "auth", "token": "TOKEN"},
}
"""What a client sends, as an example of each operation."""


def specimens(exchange: str) -> tuple[Message, ...]:
    """One of each, as a gateway to `exchange` sends them."""
    return *_snapshots(exchange), *_tidings(), *_answers()


def _snapshots(exchange: str) -> tuple[Message, ...]:
    origin: dict[str, Any] = {"exchange": exchange, "epoch": "k3v9x2", "seq": 17, "timestamp_ms": MOMENT_MS}
    push = {**origin, "age_ms": 14, "stale": False}
    return (
        SnapshotMessage(
            type="snapshot",
            channel="positions:BTCUSDT",
            symbol="BTCUSDT",
            has_position=True,
            positions=[POSITION],
            balance=WALLET,
            current_price=TICKER.last_price,
            ticker=TickerMessage(**{name: getattr(TICKER, name) for name in TickerMessage.__struct_fields__}),
            age_ms={"position": 212, "balance": 212, "price": 14},
            stale=(),
            **origin,
        ),
        ListingMessage("snapshot", "positions:*", **push, positions=[POSITION], has_position=True),
        PriceMessage("snapshot", "price:BTCUSDT", **push, symbol="BTCUSDT", category="linear", **asdict(TICKER)),
        BalanceMessage("snapshot", "balance", **push, balance=WALLET),
        KlineMessage(
            "snapshot",
            "kline:BTCUSDT:1",
            **push,
            symbol="BTCUSDT",
            category="linear",
            interval="1",
            candle=(1_760_313_600_000, "64310.2", "64330.1", "64305.7", "64321.5", "12.345", "793912.2"),
            closed=False,
        ),
        IndicatorsMessage(
            "snapshot",
            "indicators:BTCUSDT:15:rsi:14,macd",
            **push,
            symbol="BTCUSDT",
            category="linear",
            interval="15",
            candle_count=1000,
            candle_closed=False,
            data={
                "open_time_ms": 1_760_313_600_000,
                "close_price": 64321.5,
                "rsi:14": 54.2,
                "macd": {"macd": 31.4, "signal": 28.9, "histogram": 2.5},
            },
        ),
    )


def _tidings() -> tuple[Message, ...]:
    fault = Fault("upstream_timeout", "the exchange gave no answer in time", True, 250, "timeout")
    return (
        StatusMessage("status", "positions:BTCUSDT", "BTCUSDT", ("position",), fault, MOMENT_MS),
        HeartbeatMessage("heartbeat", MOMENT_MS, {"positions:BTCUSDT": ("position",)}),
        ErrorMessage("error", None, "unknown_symbol", "the exchange has no symbol NOUSDT", channel="price:NOUSDT"),
    )


def _answers() -> tuple[Message, ...]:
    refusal = Refusal("price:NOUSDT", "unknown_symbol", "the exchange has no linear symbol NOUSDT")
    return (
        AuthMessage("ack", None, "auth"),
        SubscribedMessage("ack", 1, "subscribe", ("price:ETHUSDT",), (refusal,)),
        UnsubscribedMessage("ack", 2, "unsubscribe", ("price:ETHUSDT",), ()),
        ListMessage("list", 3, (Listed("price:ETHUSDT", 0.5),)),
        PongMessage("pong", 4, MOMENT_MS),
    )
