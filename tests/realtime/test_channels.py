"""Channels: composed to the exchange's digit, shared while young, and honest about what is missing, old or broken."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from server.api.keys import LOAD
from server.errors import ExchangeBusy, ExchangeTimeout, GatewayError
from server.market.feeds import Feeds
from server.models import Kind, Position, PositionRow, Reading, Ticker, Topic, Wallet
from server.realtime.channel import Readings
from server.realtime.channels import PARTS, Channels
from server.realtime.frames import Frame
from tests.conftest import Exchange, StartGateway, receive

from .sockets import TEXT, eventually, parse_frame, raw, signed

MOMENT_MS = 1_732_280_123_456
MINUTE_MS = 60_000
LONG, FLAT = MOMENT_MS, MOMENT_MS + 4 * MINUTE_MS
"""When the account of seed 7 is long BTCUSDT, and when it is flat."""

KEYS = [
    "type", "channel", "exchange", "symbol", "epoch", "seq", "timestamp_ms", "has_position", "positions", "balance",
    "current_price", "ticker", "age_ms", "stale",
]  # fmt: skip
POSITION_KEYS = [
    "symbol", "position_idx", "side", "size", "entry_price", "mark_price", "leverage", "position_value",
    "unrealised_pnl", "realised_pnl", "liquidation_price", "take_profit", "stop_loss", "updated_time_ms",
]  # fmt: skip
BALANCE_KEYS = [
    "account_type", "currency", "equity", "wallet_balance", "available_balance", "unrealised_pnl", "coins",
]  # fmt: skip
COIN_KEYS = ["coin", "equity", "wallet_balance", "available_balance", "unrealised_pnl"]
TICKER_KEYS = ["mark_price", "index_price", "bid_price", "ask_price", "funding_rate"]

POSITION_PATH, WALLET_PATH = "/v5/position/list", "/v5/account/wallet-balance"


def position_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the exchange in the contract's words."""
    return {
        "symbol": row["symbol"],
        "position_idx": row["positionIdx"],
        "side": row["side"],
        "size": row["size"],
        "entry_price": row["avgPrice"],
        "mark_price": row["markPrice"],
        "leverage": row["leverage"],
        "position_value": row["positionValue"],
        "unrealised_pnl": row["unrealisedPnl"],
        "realised_pnl": row["curRealisedPnl"],
        "liquidation_price": row["liqPrice"] or None,
        "take_profit": row["takeProfit"] or None,
        "stop_loss": row["stopLoss"] or None,
        "updated_time_ms": int(row["updatedTime"]),
    }


def coin_of(row: dict[str, Any], *, available: str | None) -> dict[str, Any]:
    """The same for a coin of the wallet."""
    return {
        "coin": row["coin"],
        "equity": row["equity"],
        "wallet_balance": row["walletBalance"],
        "available_balance": available,
        "unrealised_pnl": row["unrealisedPnl"],
    }


def ticker_of(row: dict[str, Any]) -> dict[str, Any]:
    """The same for a ticker."""
    return {
        "mark_price": row["markPrice"],
        "index_price": row["indexPrice"],
        "bid_price": row["bid1Price"],
        "ask_price": row["ask1Price"],
        "funding_rate": row["fundingRate"],
    }


async def ticker_row(exchange: Exchange, symbol: str) -> dict[str, Any]:
    """The exchange's own ticker of a symbol."""
    row: dict[str, Any] = (await exchange.ask("/v5/market/tickers", category="linear", symbol=symbol))["list"][0]
    return row


async def position_rows(exchange: Exchange, symbol: str) -> list[dict[str, Any]]:
    """The exchange's own rows of a symbol, by position index."""
    rows = (await signed(exchange, POSITION_PATH, category="linear", symbol=symbol))["list"]
    return sorted(rows, key=lambda row: int(row["positionIdx"]))


async def wallet_row(exchange: Exchange) -> dict[str, Any]:
    """The exchange's own wallet."""
    row: dict[str, Any] = (await signed(exchange, WALLET_PATH, accountType="UNIFIED"))["list"][0]
    return row


@pytest.mark.parametrize(
    ("symbol", "moment_ms", "open_rows"),
    [("BTCUSDT", LONG, 1), ("BTCUSDT", FLAT, 0), ("XRPUSDT", LONG, 2), ("XRPUSDT", MOMENT_MS + 8 * MINUTE_MS, 1)],
    ids=["long", "flat", "hedged", "hedged with one side"],
)
@pytest.mark.parametrize("interval", ["5", "0"])
async def test_first_message_is_the_exchange_to_the_digit(
    start_gateway: StartGateway, exchange: Exchange, symbol: str, moment_ms: int, open_rows: int, interval: str
) -> None:
    """A snapshot comes first, flat or not, with the contract's keys in their order and the exchange's own digits."""
    await exchange.freeze(moment_ms)
    gateway = await start_gateway()
    async with gateway.ws_connect(f"/ws/positions/{symbol}?interval={interval}") as ws:
        first = json.loads((await ws.receive()).data)
    assert list(first) == KEYS
    assert (first["type"], first["channel"], first["symbol"]) == ("snapshot", f"positions:{symbol}", symbol)
    assert first["exchange"] == "simulator"
    assert first["epoch"] == gateway.app[LOAD].epoch
    assert first["stale"] == []
    assert list(first["age_ms"]) == ["position", "balance", "price"]
    assert all(isinstance(age, int) and 0 <= age < 5_000 for age in first["age_ms"].values())
    rows = [position_of(row) for row in await position_rows(exchange, symbol) if row["size"] != "0"]
    assert len(rows) == open_rows
    assert first["positions"] == rows
    assert first["has_position"] is bool(rows)
    assert all(list(position) == POSITION_KEYS for position in first["positions"])
    ticker = await ticker_row(exchange, symbol)
    assert first["current_price"] == ticker["lastPrice"]
    assert first["ticker"] == ticker_of(ticker)
    assert list(first["ticker"]) == TICKER_KEYS
    wallet = await wallet_row(exchange)
    assert list(first["balance"]) == BALANCE_KEYS
    assert first["balance"] == {
        "account_type": "UNIFIED",
        "currency": "USD",
        "equity": wallet["totalEquity"],
        "wallet_balance": wallet["totalWalletBalance"],
        "available_balance": wallet["totalAvailableBalance"],
        "unrealised_pnl": wallet["totalPerpUPL"],
        "coins": [coin_of(row, available=None) for row in wallet["coin"]],
    }
    assert all(list(coin) == COIN_KEYS for coin in first["balance"]["coins"])


async def test_isolated_margin_has_no_available_balance_of_the_account(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """In isolated margin the account's is null and each coin has its own."""
    await exchange.freeze(LONG)
    await exchange.account(margin="isolated")
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws/positions/BTCUSDT") as ws:
        balance = (await receive(ws))["balance"]
    assert balance["available_balance"] is None
    assert balance["equity"] == (await wallet_row(exchange))["totalEquity"]
    assert balance["coins"]
    for coin in balance["coins"]:
        assert re.fullmatch(r"-?\d+(\.\d+)?", coin["available_balance"])


async def test_positions_follow_the_index_whichever_changed_last(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """Hedge mode's two rows stand by index, though the exchange puts the last changed one first."""
    await exchange.freeze(LONG)
    sent = (await signed(exchange, POSITION_PATH, category="linear", symbol="XRPUSDT"))["list"]
    assert [row["positionIdx"] for row in sent] == [2, 1]
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws/positions/XRPUSDT") as ws:
        positions = (await receive(ws))["positions"]
    assert [(row["position_idx"], row["side"]) for row in positions] == [(1, "Buy"), (2, "Sell")]


async def test_two_that_ask_together_get_the_same_bytes(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Sessions that are answered within 50 ms share one frame, sequence and all; a later one gets the next."""
    await exchange.freeze(LONG)
    await exchange.fault("*", latency_s=0.3)
    gateway = await start_gateway()
    path = "/ws/positions/BTCUSDT?interval=60"
    async with raw(gateway, path) as one, raw(gateway, path) as two:
        frames = [await one.frame(), await two.frame()]
        assert frames[0] == frames[1]
        assert frames[0][0] == TEXT
        now = asyncio.get_running_loop().time
        encoded_at = now()
        await eventually(lambda: now() > encoded_at + 0.05)
        async with raw(gateway, path) as three:
            assert (await three.message())["seq"] > json.loads(frames[0][1])["seq"]


async def test_the_upgrade_agrees_on_no_compression(start_gateway: StartGateway) -> None:
    """Raw frames are not compressed, so the extension is not accepted, though the client offers it."""
    gateway = await start_gateway()
    async with raw(gateway, "/ws/positions/BTCUSDT") as client:
        assert client.response.startswith("HTTP/1.1 101 ")
        assert "sec-websocket-extensions" not in client.response.lower()


async def test_sequence_grows_within_one_epoch(start_gateway: StartGateway) -> None:
    """On each socket the sequence grows strictly, over reconnects it never goes back, and the epoch never changes."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.1})
    before, epochs = 0, set()
    for interval in ("0.1", "0", "0.1"):
        async with gateway.ws_connect(f"/ws/positions/BTCUSDT?interval={interval}") as ws:
            channels = [await receive(ws) for _ in range(3)]
        sequences = [snapshot["seq"] for snapshot in channels]
        assert sequences == sorted(set(sequences))
        assert sequences[0] >= before
        before = sequences[-1]
        epochs |= {snapshot["epoch"] for snapshot in channels}
    assert len(epochs) == 1
    assert re.fullmatch(r"[0-9a-z]{6}", epochs.pop())


async def test_ages_count_from_the_asking(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A price that took 300 ms to come is at least that old when it is shown; a part never read has no age."""
    await exchange.fault("tickers", latency_s=0.3)
    await exchange.fault("wallet", status=500)
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=60") as ws:
        ages = (await receive(ws))["age_ms"]
    assert 300 <= ages["price"] < 2_000
    assert 0 <= ages["position"] < 2_000
    assert ages["balance"] is None


class Script:
    """An exchange of three topics: what it answers next, by a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: dict[Kind, Any] = {
            Kind.POSITION: (flat_row(),),
            Kind.WALLET: Wallet("UNIFIED", "USD", "1", "1", "1", "0", ()),
            Kind.TICKER: a_ticker("100"),
        }
        self.hanging: dict[Kind, asyncio.Event] = {}
        self.feeds = Feeds(self.fetch, max_symbols=10, clock=self.clock)

    def clock(self) -> float:
        return self.now

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        (topic,) = topics
        asked_at = self.now
        if topic.kind in self.hanging:
            await self.hanging[topic.kind].wait()
        if isinstance(answer := self.answers[topic.kind], GatewayError):
            raise answer
        return {topic: Reading(answer, asked_at, self.now, 0)}

    async def read(self, *kinds: Kind, symbol: str = "BTCUSDT") -> None:
        """Read these kinds anew, or begin to where they hang."""
        topics = [Topic(kind, "" if kind is Kind.WALLET else symbol) for kind in kinds or self.answers]
        flights = self.feeds.refresh(topics)
        waited = [flight for flight in flights if not any(kind.value in flight.get_name() for kind in self.hanging)]
        if waited:
            await asyncio.wait(waited)

    def channels(self, **options: Any) -> Channels:
        defaults: dict[str, Any] = {
            "exchange": "testnet",
            "category": "linear",
            "epoch": "abcdef",
            "stale_after_s": 3.0,
        }
        return Channels(self.feeds, NoIndicators(), clock=self.clock, **(defaults | options))


class NoIndicators:
    """Indicators are looked at over real connections, in test_indicators.py."""

    def follow(self, topic: Topic, names: str | None, renewed: Callable[[], None], *, on_close: bool) -> Readings:
        raise NotImplementedError


def a_ticker(price: str) -> Ticker:
    """A ticker that knows its price only."""
    return Ticker(price, *[None] * 14)


def flat_row() -> PositionRow:
    """A flat position of BTCUSDT."""
    return PositionRow(Position("BTCUSDT", 0, "", "0", *[None] * 10), sequence=1, is_open=False)


@pytest.fixture
async def script() -> Script:
    """The exchange of a test."""
    return Script()


def document(frame: Frame) -> dict[str, Any]:
    """What a frame says."""
    parsed = parse_frame(frame.data)
    assert parsed is not None
    content: dict[str, Any] = json.loads(parsed[1])
    return content


def status_of(data: bytes) -> dict[str, Any]:
    """What a status frame says."""
    parsed = parse_frame(data)
    assert parsed is not None
    content: dict[str, Any] = json.loads(parsed[1])
    return content


async def test_a_part_never_read_is_null_and_named(script: Script) -> None:
    """Unknown is not flat: nothing read means null everywhere, no age, and every part stale."""
    content = document(script.channels().positions("BTCUSDT").frame(1.0))
    assert list(content) == KEYS
    parts = ("has_position", "positions", "balance", "current_price", "ticker")
    assert [content[name] for name in parts] == [None] * 5
    assert content["age_ms"] == dict.fromkeys(PARTS)
    assert content["stale"] == list(PARTS)
    assert (content["exchange"], content["epoch"], content["seq"]) == ("testnet", "abcdef", 1)


async def test_a_frame_is_shared_for_fifty_milliseconds(script: Script) -> None:
    """Within 50 ms it is the very same frame; from then on a new one with the next sequence and its own ages."""
    channels = script.channels()
    await script.read()
    first = channels.positions("BTCUSDT").frame(1.0)
    script.now += 0.0499
    assert channels.positions("BTCUSDT").frame(1.0) is first
    script.now += 0.0002
    second = channels.positions("BTCUSDT").frame(1.0)
    assert (first.sequence, second.sequence) == (1, 2)
    assert document(first)["age_ms"] == {"position": 0, "balance": 0, "price": 0}
    assert document(second)["age_ms"] == {"position": 50, "balance": 50, "price": 50}


async def test_news_is_never_held_back_by_sharing(script: Script) -> None:
    """A younger reading, or another stale part, makes a new frame at once."""
    channels = script.channels()
    await script.read()
    first = channels.positions("BTCUSDT").frame(1.0)
    script.answers[Kind.TICKER] = a_ticker("101")
    await script.read(Kind.TICKER)
    second = channels.positions("BTCUSDT").frame(1.0)
    script.answers[Kind.TICKER] = ExchangeBusy("busy")
    await script.read(Kind.TICKER)
    third = channels.positions("BTCUSDT").frame(1.0)
    assert [frame.sequence for frame in (first, second, third)] == [1, 2, 3]
    assert [document(frame)["current_price"] for frame in (first, second, third)] == ["100", "101", "101"]
    assert document(third)["stale"] == ["price"]


async def test_thousands_share_one_look(script: Script) -> None:
    """Whoever asks the same within 50 ms is shown the same, until something changes or is no longer enough."""
    channel = script.channels().positions("BTCUSDT")
    assert channel.look(1.0) is None
    await script.read()
    look = channel.look(1.0)
    assert look is not None
    assert (look.frame, look.asked_at, look.overdue_at) == (channel.frame(1.0), script.now, math.inf)
    script.now += 0.04
    assert channel.look(1.0) is look
    assert channel.look(0.03) is None
    assert channel.look(0.5) is not None
    channel.changed()
    script.answers[Kind.TICKER] = a_ticker("101")
    await script.read(Kind.TICKER)
    later = channel.look(1.0)
    assert later is not None
    assert document(later.frame)["current_price"] == "101"
    script.now += 0.0501
    latest = channel.look(1.0)
    assert latest is not None
    assert latest.frame.sequence == later.frame.sequence + 1
    channel.unshare()
    assert channel.look(1.0) is not latest


async def test_what_is_stale_or_to_be_asked_for_is_nothing_to_look_at(script: Script) -> None:
    """A failure, and age, are for who can wait and tell."""
    channel = script.channels().positions("BTCUSDT")
    await script.read()
    assert channel.look(1.0) is not None
    script.answers[Kind.WALLET] = ExchangeBusy("busy")
    await script.read(Kind.WALLET)
    channel.changed()
    assert channel.look(1.0) is None
    script.answers[Kind.WALLET] = Wallet("UNIFIED", "USD", "1", "1", "1", "0", ())
    script.now += 5
    await script.read()
    assert channel.look(1.0) is not None
    script.now += 1.001
    assert channel.look(1.0) is None


async def test_each_symbol_has_its_own_sequence_over_forgetting(script: Script) -> None:
    """Symbols count apart; one that was forgotten goes on where it was, and forgetting an unknown one does nothing."""
    channels = script.channels()
    await script.read()
    assert [channels.positions(symbol).frame(1.0).sequence for symbol in ("BTCUSDT", "ETHUSDT")] == [1, 1]
    channels.forget(channels.positions("BTCUSDT"))
    channels.forget(channels.positions("XRPUSDT"))
    again = channels.positions("BTCUSDT").frame(1.0)
    assert again.sequence == 2
    assert document(again)["has_position"] is False


async def test_old_is_over_the_greater_of_two_limits(script: Script) -> None:
    """Stale by age is more than stale_after_s, or more than twice the age that was asked for."""
    channels = script.channels()
    await script.read()
    script.now += 3.0
    assert channels.positions("BTCUSDT").frame(1.0).stale == ()
    script.now += 0.001
    assert channels.positions("BTCUSDT").frame(1.0).stale == PARTS
    assert channels.positions("BTCUSDT").frame(2.0).stale == ()
    script.now += 1.0
    assert channels.positions("BTCUSDT").frame(2.0).stale == PARTS
    assert channels.positions("BTCUSDT").threshold_s(2.0) == 4.0


async def test_too_old_names_what_has_to_be_asked(script: Script) -> None:
    """What is older than asked for, or has failed, has to be asked for again; what is young enough has not."""
    channels = script.channels()
    position, wallet, ticker = channels.positions("BTCUSDT").topics
    assert channels.positions("BTCUSDT").too_old(1.0) == [position, wallet, ticker]
    await script.read()
    script.now += 1.0
    assert channels.positions("BTCUSDT").too_old(1.0) == []
    script.now += 0.5
    await script.read(Kind.TICKER)
    assert channels.positions("BTCUSDT").too_old(1.0) == [position, wallet]
    script.answers[Kind.TICKER] = ExchangeBusy("busy")
    await script.read(Kind.TICKER)
    assert channels.positions("BTCUSDT").too_old(60.0) == [ticker]


async def test_a_topic_is_of_the_configured_category(script: Script) -> None:
    """Position and ticker are asked for in the category of the settings, the wallet without any."""
    topics = script.channels(category="inverse").positions("BTCUSD").topics
    assert [(topic.kind, topic.symbol, topic.category) for topic in topics] == [
        (Kind.POSITION, "BTCUSD", "inverse"),
        (Kind.WALLET, "", "linear"),
        (Kind.TICKER, "BTCUSD", "inverse"),
    ]


async def test_a_status_names_the_first_reason_that_is_known(script: Script) -> None:
    """The error is that of the first stale part that has one; parts that are stale by age alone have none."""
    channels = script.channels()
    await script.read()
    script.answers[Kind.WALLET] = ExchangeTimeout("too late", retry_after_s=2.5)
    script.answers[Kind.TICKER] = ExchangeBusy("busy")
    await script.read(Kind.WALLET, Kind.TICKER)
    status = status_of(channels.positions("BTCUSDT").status(("position", "balance", "price")))
    assert list(status) == ["type", "channel", "symbol", "stale", "error", "timestamp_ms"]
    assert (status["type"], status["channel"], status["symbol"]) == ("status", "positions:BTCUSDT", "BTCUSDT")
    assert status["stale"] == ["position", "balance", "price"]
    assert status["error"] == {
        "code": "upstream_timeout",
        "detail": "too late",
        "temporary": True,
        "retry_after_ms": 2500,
        "reason": "timeout",
    }
    assert status_of(channels.positions("BTCUSDT").status(("position",)))["error"] is None
    assert status_of(channels.positions("BTCUSDT").status(()))["error"] is None


async def test_a_status_is_shared_while_young(script: Script) -> None:
    """The same list within 50 ms is the same bytes; later, or with another list, it is encoded anew."""
    channels = script.channels()
    first = channels.positions("BTCUSDT").status(("price",))
    script.now += 0.04
    assert channels.positions("BTCUSDT").status(("price",)) is first
    script.now += 0.02
    second = channels.positions("BTCUSDT").status(("price",))
    assert second is not first
    assert channels.positions("BTCUSDT").status(()) is not second
    channels.forget(channels.positions("BTCUSDT"))
    assert channels.positions("BTCUSDT").status(("price",)) is not second


async def test_between_two_questions_age_alone_says_nothing(script: Script) -> None:
    """What answered the last question grows old without being stale, until somebody asks again."""
    channels = script.channels()
    asked_at = script.now
    await script.read()
    script.now += 59.0
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ()
    assert channels.positions("BTCUSDT").overdue_at(1.0, asked_at) == float("inf")
    assert channels.positions("BTCUSDT").stale(1.0) == PARTS


async def test_another_call_under_way_makes_nothing_stale(script: Script) -> None:
    """A flight that somebody else began says nothing of what answered one's own question."""
    channels = script.channels()
    asked_at = script.now
    await script.read()
    script.now += 10.0
    script.hanging[Kind.TICKER] = asyncio.Event()
    await script.read(Kind.TICKER)
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ()
    script.hanging.pop(Kind.TICKER).set()


async def test_an_answer_that_does_not_come_makes_stale_by_age(script: Script) -> None:
    """A part that was too old when it was asked for becomes stale at the limit, until a younger reading is there."""
    channels = script.channels()
    await script.read()
    script.now += 2.0
    await script.read(Kind.POSITION, Kind.WALLET)
    asked_at, release = script.now, asyncio.Event()
    script.hanging[Kind.TICKER] = release
    await script.read(Kind.TICKER)
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ()
    assert channels.positions("BTCUSDT").overdue_at(1.0, asked_at) == script.now + 1.0
    vouched = {Topic(Kind.TICKER, "BTCUSDT")}
    assert channels.positions("BTCUSDT").overdue_at(1.0, asked_at, vouched) == float("inf")
    script.now += 1.001
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ("price",)
    assert channels.positions("BTCUSDT").overdue_at(1.0, asked_at) == float("inf")
    script.now += 5.0
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ("price",)
    del script.hanging[Kind.TICKER]
    release.set()
    feed = script.feeds.feed(channels.positions("BTCUSDT").topics[2])
    await eventually(lambda: feed.flight is None)
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ()


async def test_a_failure_is_stale_at_once(script: Script) -> None:
    """A failed refresh is stale whatever its age, between questions too, and so is what was never read."""
    channels = script.channels()
    asked_at = script.now
    await script.read(Kind.POSITION, Kind.WALLET)
    script.answers[Kind.WALLET] = ExchangeBusy("busy")
    await script.read(Kind.WALLET)
    assert channels.positions("BTCUSDT").stale_meanwhile(1.0, asked_at) == ("balance", "price")
    assert channels.positions("BTCUSDT").stale(1.0) == ("balance", "price")
