"""Pushes: what comes over a stream reads like what REST answers, and nothing that is out of order is ever merged."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bybit import parsing
from server.bybit.parsing import TICKER_FIELDS
from server.bybit.pushes import (
    FIRST_S,
    Disorder,
    KlineChannel,
    PositionChannel,
    TickerChannel,
    WalletChannel,
    channel_of,
)
from server.bybit.wire import StreamMessage, Ticker, TickerDelta, decode
from server.errors import BadAnswer
from server.models import CandlePush, Kind, Topic

from .exchanges import CANDLE, POSITION, TICKER, WALLET

BTC = Topic(Kind.TICKER, "BTCUSDT")


def message(**fields: Any) -> StreamMessage:
    return decode(json.dumps(fields).encode(), StreamMessage)


def ticker(kind: str, cs: int, data: dict[str, Any]) -> StreamMessage:
    return message(topic="tickers.BTCUSDT", type=kind, cs=cs, ts=1760325052630, data=data)


def polled(row: dict[str, str]) -> Any:
    """The same ticker as REST would give it."""
    return parsing.parse_ticker(json.dumps({"category": "linear", "list": [row]}).encode(), "BTCUSDT")


def test_the_stream_has_the_fields_of_the_listing() -> None:
    """A delta can change every field that a ticker has, and no other; each is read."""
    assert TickerDelta.__struct_fields__ == Ticker.__struct_fields__ == ("symbol", *TICKER_FIELDS)


number = st.decimals(min_value=0, max_value=10**9, places=2).map(lambda value: f"{value:f}")
deltas = st.lists(st.dictionaries(st.sampled_from([*[*TICKER_FIELDS][:-1], "openInterestValue"]), number, max_size=6))


@given(deltas=deltas, gaps=st.lists(st.integers(1, 1000), min_size=20), snapshot_at=st.integers(0, 8))
def test_merging(deltas: list[dict[str, str]], gaps: list[int], snapshot_at: int) -> None:
    """After each push the ticker is what REST would answer for the snapshot with all changes so far."""
    channel, row, cs = TickerChannel(BTC), dict(TICKER), 7
    assert list(channel.take(ticker("snapshot", cs, row))) == [(BTC, polled(row))]
    for index, delta in enumerate(deltas):
        cs += gaps[index % len(gaps)]
        row = {**row, **delta}
        push = ticker("snapshot", cs, row) if index == snapshot_at else ticker("delta", cs, delta)
        assert list(channel.take(push)) == [(BTC, polled(row))]


@given(order=st.permutations(range(6)), repeat=st.integers(0, 5))
def test_disorder(order: list[int], repeat: int) -> None:
    """Deltas that go back are never merged, the newest may come twice: the last that was taken is the newest of all."""
    channel, newest = TickerChannel(BTC), 100
    channel.take(ticker("snapshot", newest, TICKER))
    for index in (*order, repeat):
        cs = 101 + index * 3
        push = ticker("delta", cs, {"symbol": "BTCUSDT", "lastPrice": f"{cs}"})
        if cs >= newest:
            ((_, value),) = channel.take(push)
            assert value.last_price == str(cs)
            newest = cs
        else:
            with pytest.raises(Disorder):
                channel.take(push)


def test_a_delta_without_a_snapshot() -> None:
    """A delta that comes first is disorder, also after a restart; an older snapshot too."""
    channel = TickerChannel(BTC)
    with pytest.raises(Disorder):
        channel.take(ticker("delta", 1, {"lastPrice": "1"}))
    channel.take(ticker("snapshot", 5, TICKER))
    with pytest.raises(Disorder):
        channel.take(ticker("snapshot", 4, TICKER))
    channel.restart()
    with pytest.raises(Disorder):
        channel.take(ticker("delta", 9, {"lastPrice": "1"}))
    channel.take(ticker("snapshot", 4, TICKER))


def test_without_a_sequence_time_orders() -> None:
    """Where pushes have no sequence, one from before what is known is disorder."""
    channel = TickerChannel(BTC)
    channel.take(message(topic="t", type="snapshot", ts=1000, data=TICKER))
    channel.take(message(topic="t", type="delta", ts=1000, data={"lastPrice": "2"}))
    with pytest.raises(Disorder):
        channel.take(message(topic="t", type="delta", ts=999, data={"lastPrice": "1"}))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("delta", {"lastPrice": "NaN"}),
        ("delta", {"lastPrice": "1e5"}),
        ("delta", {"lastPrice": ""}),
        ("delta", {"lastPrice": 1.5}),
        ("delta", {"bid1Price": None}),
        ("delta", {"symbol": "ETHUSDT"}),
        ("delta", []),
        ("snapshot", {"symbol": "BTCUSDT"}),
        ("snapshot", {**TICKER, "symbol": "ETHUSDT"}),
        ("snapshot", None),
        ("", TICKER),
    ],
)
def test_a_ticker_that_cannot_be_believed(kind: str, data: Any) -> None:
    """What is no number, not the shape or another symbol's is refused."""
    channel = TickerChannel(BTC)
    channel.take(ticker("snapshot", 1, TICKER))
    with pytest.raises(BadAnswer):
        channel.take(ticker(kind, 2, data))


def test_positions() -> None:
    """Rows come out by symbol, in REST's words, with their sequence; other categories are passed over."""
    short = {**POSITION, "side": "Sell", "size": "2", "entryPrice": "27000.5", "symbol": "ETHUSDT"}
    rows = [POSITION, {**POSITION, "positionIdx": 1}, short, {"category": "option", "size": 5}]
    values = dict(PositionChannel("linear").take(message(topic="position", creationTime=1, data=rows)))
    btc, eth = (values[Topic(Kind.POSITION, symbol)] for symbol in ("BTCUSDT", "ETHUSDT"))
    assert [(row.position.position_idx, row.is_open, row.sequence) for row in btc] == [
        (2, False, 8327597863),
        (1, False, 8327597863),
    ]
    assert (eth[0].is_open, eth[0].position.entry_price, eth[0].position.take_profit) == (True, "27000.5", None)
    assert len(values) == 2


@pytest.mark.parametrize(
    "rows",
    [[POSITION, POSITION], [{**POSITION, "size": "NaN"}], [{**POSITION, "side": "Up"}], [{}], {}, None,
     [{**POSITION, "size": "1", "side": "Buy", "entryPrice": ""}]],
)  # fmt: skip
def test_positions_that_cannot_be_believed(rows: Any) -> None:
    """Contradictions, the same leg twice and other shapes are refused."""
    with pytest.raises(BadAnswer):
        PositionChannel("linear").take(message(topic="position", creationTime=1, data=rows))


def test_wallet() -> None:
    """A pushed wallet is what REST would answer."""
    ((topic, wallet),) = WalletChannel().take(message(topic="wallet", creationTime=1, data=[WALLET]))
    assert topic == Topic(Kind.WALLET)
    assert wallet == parsing.parse_wallet(json.dumps({"list": [WALLET]}).encode())
    assert wallet.available_balance == "9556.6056555"
    with pytest.raises(BadAnswer):
        WalletChannel().take(message(topic="wallet", creationTime=1, data=[{**WALLET, "totalEquity": ""}]))


def test_candles() -> None:
    """Each candle has REST's row and the exchange's word for whether it is closed."""
    topic = Topic(Kind.KLINE, "BTCUSDT", "5")
    values = KlineChannel(topic).take(message(topic="k", ts=1, data=[CANDLE, {**CANDLE, "confirm": True}]))
    row = ("1672324800000", "16649.5", "16677", "16608", "16677", "2.081", "34666.4005")
    assert list(values) == [(topic, CandlePush(row, is_closed=False)), (topic, CandlePush(row, is_closed=True))]
    for bad in ({"interval": "15"}, {"open": ""}, {"close": "Infinity"}, {"confirm": "true"}):
        with pytest.raises(BadAnswer):
            list(KlineChannel(topic).take(message(topic="k", ts=1, data=[{**CANDLE, **bad}])))


def test_silence() -> None:
    """A ticker is overdue without its first push soon, and later after its patience; before it is confirmed, never."""
    channel = TickerChannel(BTC)
    assert not channel.is_overdue(1e9)
    channel.confirmed(100.0)
    assert not channel.is_overdue(100.0 + FIRST_S)
    assert channel.is_overdue(100.1 + FIRST_S)
    channel.has_begun = True
    assert not channel.is_overdue(100.0 + channel.patience_s)
    assert channel.is_overdue(100.1 + channel.patience_s)
    wallet = WalletChannel()
    wallet.confirmed(100.0)
    assert not wallet.is_overdue(1e9)


def test_channels() -> None:
    """Each topic has the argument under which the exchange pushes it, or none."""
    args = {
        Topic(Kind.TICKER, "BTCUSDT"): "tickers.BTCUSDT",
        Topic(Kind.KLINE, "BTCUSDT", "D"): "kline.D.BTCUSDT",
        Topic(Kind.POSITION, "BTCUSDT"): "position",
        Topic(Kind.WALLET): "wallet",
    }
    for topic, arg in args.items():
        channel = channel_of(topic, "linear")
        assert channel is not None
        assert channel.arg == arg
    for topic in (Topic(Kind.TICKERS), Topic(Kind.INSTRUMENTS), Topic(Kind.TICKER, "BTCUSDT", category="spot")):
        assert channel_of(topic, "linear") is None


@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever bytes come, they are a message or a BadAnswer, and nothing else is raised."""
    with suppress(BadAnswer):
        assert decode(data, StreamMessage) is not None
