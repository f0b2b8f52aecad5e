"""BybitClient: what the exchange says to the digit, every way it can fail by name, and nothing it must not do."""

import asyncio
import gzip
import inspect
import logging
import math
import socket
import time
import traceback
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import requests
import urllib3
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP
from structlog.testing import capture_logs

from server.bybit import transport
from server.bybit.breaker import LAST_PAUSE_S
from server.bybit.client import MAX_PAGES, THREADS, BybitClient
from server.bybit.clock import ExchangeClock
from server.bybit.failures import REFUSALS, translated
from server.bybit.transport import READABLE_PATHS
from server.errors import (
    AddressBanned,
    BadAnswer,
    CallRefused,
    ClockSkew,
    CredentialsMissing,
    CredentialsRefused,
    ExchangeBusy,
    ExchangeError,
    ExchangeTimeout,
    ExchangeUnreachable,
    RateExceeded,
    TradingKeyRefused,
)
from server.models import Kind, Reading, Topic
from server.settings import Secret
from server.simulator.child import API_KEY, API_SECRET, TRADING_KEY, TRADING_SECRET
from server.simulator.signing import signature
from server.telemetry import QUIET

from ..conftest import Exchange
from .conftest import KEY, SECRET, Connect, until
from .servers import NOW_MS, Answer, Request, Serve, Write, answer_of, dripping, envelope, silent
from .test_parsing import FLAT, KLINE, LINEAR, LONG, OF_THE_USER, TICKER
from .test_parsing import KEY as KEY_ANSWER

WALLET = Topic(Kind.WALLET)
BTC = Topic(Kind.TICKER, "BTCUSDT")
HOUR_MS = 3_600_000
WORDS = "word " * 1000
SIMULATED = {"api_key": Secret(API_KEY), "api_secret": Secret(API_SECRET)}


async def read(client: BybitClient, topic: Topic) -> Reading[Any]:
    """The reading of one topic."""
    readings = await client.fetch(frozenset((topic,)))
    return readings[topic]


async def asked(exchange: Exchange, path: str, query: str) -> Any:
    """The rows of a signed call, straight from the exchange."""
    stamp = str(int(time.time() * 1000))
    headers = {
        "X-BAPI-API-KEY": API_KEY,
        "X-BAPI-TIMESTAMP": stamp,
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": signature(API_SECRET, f"{stamp}{API_KEY}5000{query}"),
    }
    async with exchange._http.get(f"{exchange.url}{path}?{query}", headers=headers) as response:
        return (await response.json())["result"]["list"]


def renamed(row: dict[str, Any], names: dict[str, str], *, no_zero: Iterable[str] = ()) -> dict[str, Any]:
    """The exchange's row in our words: nothing for "", and for zero where it means nothing; times as integers."""
    ours: dict[str, Any] = {name: row.get(theirs, "") or None for name, theirs in names.items()}
    for name in no_zero:
        ours[name] = None if ours[name] and float(ours[name]) == 0 else ours[name]
    return {name: int(text) if text and name.endswith("_ms") else text for name, text in ours.items()}


TICKER_NAMES = {
    "last_price": "lastPrice", "mark_price": "markPrice", "index_price": "indexPrice", "bid_price": "bid1Price",
    "bid_size": "bid1Size", "ask_price": "ask1Price", "ask_size": "ask1Size", "high_price_24h": "highPrice24h",
    "low_price_24h": "lowPrice24h", "change_24h": "price24hPcnt", "volume_24h": "volume24h",
    "turnover_24h": "turnover24h", "open_interest": "openInterest", "funding_rate": "fundingRate",
    "next_funding_time_ms": "nextFundingTime",
}  # fmt: skip
POSITION_NAMES = {
    "symbol": "symbol", "position_idx": "positionIdx", "side": "side", "size": "size", "entry_price": "avgPrice",
    "mark_price": "markPrice", "leverage": "leverage", "position_value": "positionValue",
    "unrealised_pnl": "unrealisedPnl", "realised_pnl": "curRealisedPnl", "liquidation_price": "liqPrice",
    "take_profit": "takeProfit", "stop_loss": "stopLoss", "updated_time_ms": "updatedTime",
}  # fmt: skip
NO_ZERO = ("liquidation_price", "take_profit", "stop_loss")


def position_of(row: dict[str, Any]) -> dict[str, Any]:
    return {**renamed(row, POSITION_NAMES, no_zero=NO_ZERO), "side": row["side"], "position_idx": row["positionIdx"]}


@pytest.mark.parametrize(("category", "symbol"), [("linear", "BTCUSDT"), ("linear", "ETHPERP"), ("inverse", "BTCUSD")])
async def test_ticker(exchange: Exchange, connect: Connect, category: str, symbol: str) -> None:
    """A ticker is what the exchange says, and its reading says when."""
    await exchange.freeze(NOW_MS)
    rows = (await exchange.ask("/v5/market/tickers", category=category, symbol=symbol))["list"]
    start = time.monotonic()
    reading = await read(connect(exchange.url, **SIMULATED), Topic(Kind.TICKER, symbol, category=category))
    assert msgspec.to_builtins(reading.value) == renamed(rows[0], TICKER_NAMES)
    assert reading.exchange_time_ms == NOW_MS
    assert start <= reading.asked_at <= reading.arrived_at <= time.monotonic()


@pytest.mark.parametrize("symbol", ["BTCUSDT", "XRPUSDT", "ETHUSDT"])
async def test_position(exchange: Exchange, connect: Connect, symbol: str) -> None:
    """The rows of a symbol are what the exchange says as positions open, change and close, hedged ones too."""
    client, seen = connect(exchange.url, **SIMULATED), set()
    for minutes in range(0, 60, 10):
        await exchange.freeze(NOW_MS + minutes * 60_000)
        rows = await asked(exchange, "/v5/position/list", f"category=linear&symbol={symbol}")
        value = (await read(client, Topic(Kind.POSITION, symbol))).value
        assert [msgspec.to_builtins(row.position) for row in value] == [
            position_of(row) for row in sorted(rows, key=lambda row: row["positionIdx"])
        ]
        assert {row.sequence for row in value} == {row["seq"] for row in rows}
        seen |= {row.is_open for row in value}
    assert len(value) == (2 if symbol == "XRPUSDT" else 1)
    assert True in seen


async def test_positions(exchange: Exchange, connect: Connect) -> None:
    """The listing is every open position of every settle coin, by symbol."""
    await exchange.freeze(NOW_MS)
    rows = [
        row
        for coin in ("USDT", "USDC")
        for row in await asked(exchange, "/v5/position/list", f"category=linear&limit=200&settleCoin={coin}")
    ]
    reading = await read(connect(exchange.url, **SIMULATED), Topic(Kind.POSITIONS))
    expected = sorted(map(position_of, rows), key=lambda row: (row["symbol"], row["position_idx"]))
    assert [msgspec.to_builtins(row.position) for row in reading.value] == expected != []
    inverse = await read(connect(exchange.url, **SIMULATED), Topic(Kind.POSITIONS, category="inverse"))
    assert inverse.value == ()


@pytest.mark.parametrize("margin", ["cross", "isolated"])
async def test_wallet(exchange: Exchange, connect: Connect, margin: str) -> None:
    """The wallet is what the exchange says; in isolated margin each coin has its own available balance."""
    await exchange.freeze(NOW_MS)
    await exchange.account(margin=margin)
    (row,) = await asked(exchange, "/v5/account/wallet-balance", "accountType=UNIFIED")
    wallet = (await read(connect(exchange.url, **SIMULATED), WALLET)).value
    totals = {
        "equity": "totalEquity",
        "wallet_balance": "totalWalletBalance",
        "available_balance": "totalAvailableBalance",
        "unrealised_pnl": "totalPerpUPL",
    }
    assert {name: getattr(wallet, name) for name in totals} == renamed(row, totals)
    coins = {"coin": "coin", "equity": "equity", "wallet_balance": "walletBalance", "unrealised_pnl": "unrealisedPnl"}
    assert [{name: getattr(coin, name) for name in coins} for coin in wallet.coins] == [
        renamed(coin, coins) for coin in row["coin"]
    ]
    assert (wallet.available_balance is None) == (margin == "isolated")
    assert all((coin.available_balance is not None) == (margin == "isolated") for coin in wallet.coins)


@pytest.mark.parametrize(("interval", "limit"), [("1", 1), ("240", 1000), ("D", 200), ("M", 12)])
async def test_klines(exchange: Exchange, connect: Connect, interval: str, limit: int) -> None:
    """As many candles as asked for, oldest first, to the digit."""
    await exchange.freeze(NOW_MS)
    query = {"category": "linear", "symbol": "BTCUSDT", "interval": interval, "limit": limit}
    rows = (await exchange.ask("/v5/market/kline", **query))["list"]
    reading = await connect(exchange.url, **SIMULATED).klines(Topic(Kind.KLINE, "BTCUSDT", interval), limit)
    assert [list(row) for row in reading.value] == rows[::-1]
    assert (len(reading.value), reading.exchange_time_ms) == (limit, NOW_MS)


@pytest.mark.parametrize("interval", ["1", "M"])
async def test_older_klines(exchange: Exchange, connect: Connect, interval: str) -> None:
    """The last of the candles that had opened by a moment, that very moment included."""
    await exchange.freeze(NOW_MS)
    client, topic = connect(exchange.url, **SIMULATED), Topic(Kind.KLINE, "BTCUSDT", interval)
    newest = (await client.klines(topic, 20)).value
    older = (await client.klines(topic, 5, end_ms=int(newest[-8][0]))).value
    assert older == newest[-12:-7]


@pytest.mark.parametrize("category", ["linear", "inverse"])
async def test_instruments(exchange: Exchange, connect: Connect, category: str) -> None:
    """Every instrument of a category, to the digit."""
    rows = (await exchange.ask("/v5/market/instruments-info", category=category, limit=1000))["list"]
    value = (await read(connect(exchange.url, **SIMULATED), Topic(Kind.INSTRUMENTS, category=category))).value
    assert [tuple(msgspec.to_builtins(instrument).values()) for instrument in value.values()] == [
        (
            *(row[name] for name in ("symbol", "status", "baseCoin", "quoteCoin", "settleCoin")),
            row["priceFilter"]["tickSize"],
            row["lotSizeFilter"]["qtyStep"],
            row["lotSizeFilter"]["minOrderQty"],
            row["leverageFilter"]["maxLeverage"],
        )
        for row in rows
    ]
    assert list(value) == [row["symbol"] for row in rows]


async def test_server_time(exchange: Exchange, connect: Connect) -> None:
    """The exchange's clock, to the millisecond."""
    await exchange.freeze(NOW_MS)
    assert await connect(exchange.url, **SIMULATED).server_time_ms() == NOW_MS


async def test_clock_offset(exchange: Exchange, connect: Connect) -> None:
    """Every answer tells how far the clocks differ; a difference that is too large is named as such."""
    client = connect(exchange.url, ExchangeClock(), **SIMULATED)

    def offset() -> int | None:
        return client.clock_offset_ms

    assert offset() is None
    await read(client, WALLET)
    assert offset() == pytest.approx(0, abs=1000)
    await exchange.shift(30_000)
    with pytest.raises(ClockSkew, match="10002"):
        await read(client, WALLET)
    await read(client, BTC)
    assert offset() == pytest.approx(30_000, abs=1000)


def clock_result(clock_ms: int) -> dict[str, str]:
    """What the exchange answers about its time."""
    return {"timeSecond": str(clock_ms // 1000), "timeNano": f"{clock_ms}000000"}


def answering(clock_ms: int | None, answer_ms: int) -> Answer:
    """A server whose clock shows `clock_ms` (None: it does not say), and whose tickers are of `answer_ms`."""

    async def answer(request: Request, _: Write) -> bytes:
        if request.path != "/v5/market/time":
            return envelope({"list": [TICKER]}, time=answer_ms)
        return envelope({} if clock_ms is None else clock_result(clock_ms), time=clock_ms or 0)

    return answer


async def test_an_answer_of_another_time(serve: Serve, connect: Connect) -> None:
    """What a cache kept for an hour is no answer, and says nothing about the clocks."""
    server = await serve(answering(NOW_MS, NOW_MS - HOUR_MS))
    client = connect(server.url)
    for _ in range(2):
        with pytest.raises(BadAnswer, match=r"of another time: -3\d{3} s"):
            await read(client, BTC)
    assert client.clock_offset_ms == pytest.approx(NOW_MS - time.time() * 1000, abs=5000)
    server.answer = answering(NOW_MS, NOW_MS)
    await read(client, BTC)


async def test_the_first_answer_is_of_another_time(serve: Serve, connect: Connect) -> None:
    """Not even the first answer is believed without the exchange's clock, if that can be asked."""
    client = connect((await serve(answering(NOW_MS, NOW_MS - HOUR_MS))).url, ExchangeClock())
    with pytest.raises(BadAnswer, match="of another time"):
        await read(client, BTC)


async def test_a_clock_that_jumped(serve: Serve, connect: Connect) -> None:
    """Where the exchange's clock and its answers agree, it is ours that was set anew: nothing fails."""
    server = await serve(answering(NOW_MS + HOUR_MS, NOW_MS + HOUR_MS))
    client = connect(server.url)
    await asyncio.gather(*(read(client, BTC) for _ in range(4)))
    assert [request.path for request in server.requests].count("/v5/market/time") == 1
    assert client.clock_offset_ms == pytest.approx(NOW_MS + HOUR_MS - time.time() * 1000, abs=5000)


@pytest.mark.parametrize("knows_clock", [True, False])
async def test_a_clock_that_cannot_be_asked(serve: Serve, connect: Connect, *, knows_clock: bool) -> None:
    """A known clock is believed against an answer that is far from it; without any, the first answer is."""
    client = connect((await serve(answering(None, NOW_MS + HOUR_MS))).url, None if knows_clock else ExchangeClock())
    if knows_clock:
        with pytest.raises(BadAnswer, match="of another time"):
            await read(client, BTC)
    else:
        assert (await read(client, BTC)).value.last_price == TICKER["lastPrice"]


async def test_an_answer_without_a_time(serve: Serve, connect: Connect) -> None:
    """An answer that names no time is taken without waiting for a clock."""
    server = await serve(answering(None, 0))
    client = connect(server.url, ExchangeClock())
    await read(client, BTC)
    assert client.clock_offset_ms is None


async def test_many_topics(exchange: Exchange, connect: Connect) -> None:
    """Readings of several topics come together, and one that cannot be had fails all."""
    client = connect(exchange.url, **SIMULATED)
    topics = frozenset({BTC, WALLET, Topic(Kind.POSITION, "ETHUSDT"), Topic(Kind.INSTRUMENTS)})
    assert (await client.fetch(topics)).keys() == topics
    with pytest.raises(CallRefused, match="10001"):
        await client.fetch(topics | {Topic(Kind.TICKER, "NOSUCH")})
    assert await client.fetch(frozenset()) == {}


async def test_keys_that_the_exchange_refuses(exchange: Exchange, connect: Connect) -> None:
    """An unknown key and a wrong secret are named; the key that the exchange repeats is not."""
    with pytest.raises(CredentialsRefused, match="10003"):
        await read(connect(exchange.url), WALLET)
    wrong = connect(exchange.url, api_key=Secret(API_KEY))
    with capture_logs() as logs, pytest.raises(CredentialsRefused, match="10004") as caught:
        await read(wrong, WALLET)
    assert API_KEY in str(caught.value.__cause__), "the exchange does repeat it"
    assert "error sign! origin_string[" in logs[0]["said"]
    assert API_KEY not in repr(logs) + caught.value.detail


async def until_answered(client: BybitClient) -> None:
    """Ask until the breaker lets a call through, and it is answered."""
    async with asyncio.timeout(LAST_PAUSE_S + 1):
        while isinstance((await asyncio.gather(read(client, BTC), return_exceptions=True))[0], ExchangeError):
            await asyncio.sleep(0.02)


async def test_an_exchange_that_hangs_and_heals(exchange: Exchange, connect: Connect) -> None:
    """While the exchange hangs, drips or resets, calls end in time; when it heals, so does the client."""
    client = connect(exchange.url, **SIMULATED, call_timeout_s=0.3)
    for fault, error in (("hang", ExchangeTimeout), ("drip", ExchangeTimeout), ("reset", ExchangeUnreachable)):
        await exchange.fault("tickers", **{fault: True})
        start = time.monotonic()
        outcomes = await asyncio.gather(*(read(client, BTC) for _ in range(8)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {error}
        assert time.monotonic() - start < 1.0
        await until(lambda: client.guards.pools["tickers"].in_flight == 0)
        await exchange.heal()
        await until_answered(client)


async def test_one_endpoint_that_hangs_starves_no_other(exchange: Exchange, connect: Connect) -> None:
    """While every thread of one endpoint hangs, the others answer."""
    client = connect(exchange.url, **SIMULATED)
    await exchange.fault("wallet", hang=True)
    hung = [asyncio.ensure_future(read(client, WALLET)) for _ in range(10)]
    await until(lambda: client.guards.pools["wallet"].in_flight == THREADS["wallet"])
    for topic in (BTC, Topic(Kind.POSITION, "BTCUSDT"), Topic(Kind.INSTRUMENTS)):
        await asyncio.wait_for(read(client, topic), 2.0)
    for call in hung:
        call.cancel()
    await asyncio.wait(hung)
    await until(lambda: client.guards.pools["wallet"].in_flight == 0)


Say = Callable[[Request], bytes | None]

CODES: dict[int, type[ExchangeError]] = {
    10000: ExchangeBusy,
    10002: ClockSkew,
    10003: CredentialsRefused,
    10004: CredentialsRefused,
    10005: CredentialsRefused,
    10006: RateExceeded,
    10007: CredentialsRefused,
    10009: AddressBanned,
    10024: AddressBanned,
    -2015: CredentialsRefused,
    10010: CredentialsRefused,
    10016: ExchangeBusy,
    10018: RateExceeded,
    33004: CredentialsRefused,
    10001: CallRefused,
    99999: CallRefused,
    -1: CallRefused,
}
PYBIT_RETRIES = (10002, 10006, 30034, 30035, 130035, 130150)


def refusing(code: Any) -> Say:
    """Refuses with a code, and repeats everything that was sent, at the length where a log would cut it."""
    return lambda request: envelope({}, code, f"no! {'x' * 190}{request.headers['x-bapi-api-key']} {request.headers}")


def failing(status: str, *headers: str) -> Say:
    """An error page that repeats everything that was sent."""
    return lambda request: answer_of(f"<html>{request.headers}", *headers, status=status)


def saying(body: bytes | str, *headers: str, length: int | None = None) -> Say:
    return lambda _: answer_of(body, *headers, length=length)


FAILURES: dict[str, tuple[Say, type[ExchangeError]]] = {
    **{f"code {code}": (refusing(code), kind) for code, kind in CODES.items()},
    "code as text": (refusing("10006"), BadAnswer),
    "zero as text": (refusing("0"), BadAnswer),
    "code without result": (saying('{"retCode":10006,"retMsg":"Too many visits!"}'), RateExceeded),
    "code without message": (saying('{"retCode":10006,"result":{}}'), BadAnswer),
    "no code": (saying('{"retMsg":"OK","result":{}}'), BadAnswer),
    "no message": (saying('{"retCode":0,"result":{"list":[]}}'), BadAnswer),
    "no result": (saying('{"retCode":0,"retMsg":"OK"}'), BadAnswer),
    "result null": (lambda _: envelope(None), BadAnswer),
    "result list": (lambda _: envelope([]), BadAnswer),
    "result text": (lambda _: envelope("{}"), BadAnswer),
    "result empty": (lambda _: envelope({}), BadAnswer),
    "time beyond": (lambda _: envelope({"list": []}, time=10**400), BadAnswer),
    "time negative": (lambda _: envelope({"list": []}, time=-1), BadAnswer),
    "null": (saying("null"), BadAnswer),
    "list": (saying("[]"), BadAnswer),
    "number": (saying("7"), BadAnswer),
    "nothing": (saying(""), BadAnswer),
    "half": (saying('{"retCode":0,'), BadAnswer),
    "page": (saying("<html>Bybit is being maintained"), BadAnswer),
    "binary": (saying(bytes(range(256)) * 99), BadAnswer),
    "depth": (saying('{"retCode":0,"retMsg":"OK","result":' + "[" * 99_999), BadAnswer),
    "not gzip": (saying("{}", "Content-Encoding: gzip"), BadAnswer),
    "bad gzip": (saying(gzip.compress(b"0" * 99)[:-9] + b"\xff" * 9, "Content-Encoding: gzip"), BadAnswer),
    "204": (failing("204 No Content"), CallRefused),
    "302": (failing("302 Found", "Location: http://127.0.0.1:1/v5/account/wallet-balance"), CallRefused),
    "400": (failing("400 Bad Request"), CallRefused),
    "401": (failing("401 Unauthorized"), CredentialsRefused),
    "403": (failing("403 Forbidden"), AddressBanned),
    "404": (failing("404 Not Found"), CallRefused),
    "429": (failing("429 Too Many Requests"), ExchangeBusy),
    "500": (failing("500 Internal Server Error"), ExchangeBusy),
    "502": (failing("502 Bad Gateway"), ExchangeBusy),
    "502 packed": (failing("502 Bad Gateway", "Content-Encoding: gzip"), ExchangeBusy),
    "503": (failing("503 Service Unavailable"), ExchangeBusy),
    "closed": (lambda _: None, ExchangeUnreachable),
    "no HTTP": (lambda _: b"220 ftp ready\r\n\r\n", ExchangeUnreachable),
}


def texts_of(error: ExchangeError, *more: object) -> str:
    """Everything that an error and others may show of themselves."""
    shown = (error.detail, str(error), repr(error), repr(error.args), repr(vars(error)), *map(repr, more))
    return "\n".join(shown)


@pytest.mark.parametrize(("say", "kind"), FAILURES.values(), ids=FAILURES)
async def test_failures(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, say: Say, kind: type[ExchangeError]
) -> None:
    """Each failure has its name, comes at once after one request, is logged once, and shows no key."""
    for name, level in QUIET.items():
        caplog.set_level(level, logger=name)
    caplog.set_level(logging.DEBUG)

    async def answer(request: Request, _: Write) -> bytes | None:
        return say(request)

    server = await serve(answer)
    client = connect(server.url)
    start = time.monotonic()
    with capture_logs() as logs, pytest.raises(ExchangeError) as caught:
        await read(client, WALLET)
    assert time.monotonic() - start < 1.0
    assert type(caught.value) is kind
    assert len(server.requests) == 1
    assert server.requests[0].headers["x-bapi-api-key"] == KEY
    assert [(line["event"], line["outcome"], line["log_level"]) for line in logs] == [
        ("upstream_called", kind.reason, "warning")
    ]
    shown = texts_of(caught.value, logs, caplog.text, client, vars(client), client._http.get_kline)
    for canary in (KEY, KEY[:6], SECRET):
        assert canary not in shown
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    await until(lambda: client.guards.pools["wallet"].in_flight == 0)
    for breaker in client.guards.breakers.scopes.values():
        breaker.close(math.inf)
    server.answer = envelope({"timeSecond": "1", "timeNano": str(NOW_MS * 1_000_000)})
    assert await client.server_time_ms() == NOW_MS, "the client is as good as before"


def test_every_code_that_means_something_is_tested() -> None:
    """The table of refusals and the one here are the same."""
    assert {code: kind for code, kind in CODES.items() if kind is not CallRefused} == REFUSALS


@pytest.mark.parametrize("code", PYBIT_RETRIES)
async def test_pybit_neither_retries_nor_sleeps(serve: Serve, connect: Connect, code: int) -> None:
    """What pybit would repeat after seconds of sleep in the thread comes back at once, asked once, with its code."""
    body = envelope({}, code, "no").partition(b"\r\n\r\n")[2]
    server = await serve(answer_of(body, f"X-Bapi-Limit-Reset-Timestamp: {int(time.time() * 1000) + 5000}"))
    start = time.monotonic()
    with pytest.raises(ExchangeError, match=f"code {code}$"):
        await read(connect(server.url), BTC)
    assert time.monotonic() - start < 1.0
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequestError("GET", "no", "soon", "", None), CallRefused),
        (requests.exceptions.ReadTimeout(), ExchangeTimeout),
        (urllib3.exceptions.ReadTimeoutError(None, "", ""), ExchangeTimeout),  # type: ignore[arg-type]
        (TimeoutError(), ExchangeTimeout),
        (ConnectionResetError(), ExchangeUnreachable),
        (requests.exceptions.SSLError(), ExchangeUnreachable),
        (urllib3.exceptions.ProtocolError(), ExchangeUnreachable),
        (KeyError("retMsg"), BadAnswer),
        (AttributeError("'list' object has no attribute 'get'"), BadAnswer),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_translated(error: Exception, kind: type[ExchangeError]) -> None:
    """Whatever pybit and those below it raise is one of ours, without their words."""
    ours = translated(error)
    assert type(ours) is kind
    assert "retMsg" not in ours.detail
    assert "object" not in ours.detail


async def test_a_refused_connection(connect: Connect) -> None:
    """Nobody listens: the exchange is unreachable, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ExchangeUnreachable, match="could not be reached"):
        await read(connect(url), BTC)


@pytest.mark.parametrize("name", ["exchange.invalid", "x" * 70 + ".invalid"])
async def test_a_name_that_does_not_resolve(connect: Connect, name: str) -> None:
    """A name that nobody knows, or that is none: the exchange is unreachable."""
    with pytest.raises(ExchangeUnreachable, match="could not be reached"):
        await read(connect(f"http://{name}"), BTC)


async def test_tls_to_somebody_else(connect: Connect) -> None:
    """A server that does not speak TLS where it should is unreachable."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        client = connect(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ExchangeUnreachable, match="SSLError"):
            await read(client, WALLET)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"


@pytest.mark.parametrize(
    "answer", [silent, dripping(HEAD, b"{" * 999, 0.01), dripping(b"", HEAD * 9, 0.01)], ids=["silence", "body", "head"]
)
async def test_a_hung_call_ends_in_time(serve: Serve, connect: Connect, answer: Answer) -> None:
    """Silence and drips end with the call's time, for the waiter and for the thread, and say so."""
    server = await serve(answer)
    client = connect(server.url, call_timeout_s=0.2)
    start = time.monotonic()
    with capture_logs() as logs, pytest.raises(ExchangeTimeout, match=r"no whole answer in 0\.2 s"):
        await read(client, WALLET)
    await until(lambda: client.guards.pools["wallet"].in_flight == 0)
    assert 0.2 <= time.monotonic() - start < 0.5
    assert [line["outcome"] for line in logs] == ["timeout"]


async def test_a_cancelled_call(serve: Serve, connect: Connect) -> None:
    """Cancelling ends the call and its thread, and is logged."""
    server = await serve(silent)
    client = connect(server.url)
    with capture_logs() as logs:
        call = asyncio.ensure_future(read(client, WALLET))
        await server.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await until(lambda: client.guards.pools["wallet"].in_flight == 0)
    assert [line["outcome"] for line in logs] == ["cancelled"]


async def test_a_good_call_is_logged(serve: Serve, connect: Connect) -> None:
    """One line for each call, at debug level, with what it was and how long it took."""
    client = connect((await serve(envelope({"list": [TICKER]}))).url)
    with capture_logs() as logs:
        await read(client, BTC)
        await read(client, BTC)
    assert [line.pop("call") for line in logs] == [1, 2]
    assert all(0 <= line.pop("duration_ms") < 5000 for line in logs)
    line = {"event": "upstream_called", "log_level": "debug", "endpoint": "tickers", "symbol": "BTCUSDT"}
    assert logs == [{**line, "outcome": "ok", "said": None}] * 2


async def test_a_bug_of_ours_is_not_logged_as_good(serve: Serve, connect: Connect) -> None:
    """A parser that crashes is no success."""
    client = connect((await serve(envelope({}))).url)
    with capture_logs() as logs, pytest.raises(ZeroDivisionError):
        await client._call("time", client._http.get_server_time, lambda _: 1 // 0)
    assert [(line["outcome"], line["log_level"]) for line in logs] == [("crashed", "warning")]


@pytest.mark.parametrize("answer", [envelope({"list": [WORDS]}), envelope({}, 10001, WORDS), answer_of(WORDS)])
async def test_an_error_holds_no_answer(serve: Serve, connect: Connect, answer: bytes) -> None:
    """Errors are kept for as long as a trouble lasts: they hold neither the answer nor the request with the key."""
    client = connect((await serve(answer)).url)
    with pytest.raises(ExchangeError) as caught:
        await read(client, WALLET)
    error: BaseException | None = caught.value
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name in ("_ask", "asked", "_submit_request", "send", "_whole", "json", "decode"):
                assert not frame.f_locals, frame
        error = error.__cause__


async def test_what_is_said_stays_on_its_line(serve: Serve, connect: Connect) -> None:
    """What the exchange writes is cut, and forges no line of the log."""
    client = connect((await serve(envelope({}, 10001, "no\r\n\x1b[31m\u2028yes" + "x" * 999))).url)
    with capture_logs() as logs, pytest.raises(CallRefused):
        await read(client, BTC)
    assert logs[0]["said"].isprintable()
    assert len(logs[0]["said"]) == 200


@pytest.mark.parametrize("keys", [{"api_key": None}, {"api_secret": None}, {"api_key": None, "api_secret": None}])
async def test_without_keys(serve: Serve, connect: Connect, keys: dict[str, None]) -> None:
    """Without a key or its secret the market is there, and account data is refused without a call."""
    server = await serve(envelope({"list": [TICKER]}))
    client = connect(server.url, **keys)
    assert not client.has_credentials
    assert (await read(client, BTC)).value.last_price == TICKER["lastPrice"]
    assert not any(name.startswith("x-bapi") for name in server.requests[0].headers)
    for topic in (WALLET, Topic(Kind.POSITION, "BTCUSDT"), Topic(Kind.POSITIONS)):
        with pytest.raises(CredentialsMissing) as caught:
            await read(client, topic)
        assert not caught.value.temporary
    assert len(server.requests) == 1


async def test_a_failure_without_keys(serve: Serve, connect: Connect) -> None:
    """What the exchange says is logged where there is no key to hide."""
    client = connect((await serve(envelope({}, 10001, "no such symbol"))).url, api_key=None, api_secret=None)
    with capture_logs() as logs, pytest.raises(CallRefused):
        await read(client, BTC)
    assert logs[0]["said"] == "no such symbol"


async def test_account_calls_are_signed(serve: Serve, connect: Connect) -> None:
    """Account calls carry the key, the time they are good for, and the signature of what is sent."""
    server = await serve(envelope({"list": [LONG]}))
    await read(connect(server.url, recv_window_ms=1234), Topic(Kind.POSITION, "LTCUSDT"))
    (request,) = server.requests
    sent = {name: text for name, text in request.headers.items() if name.startswith("x-bapi")}
    stamp, query = sent["x-bapi-timestamp"], request.target.partition("?")[2]
    assert query == "category=linear&symbol=LTCUSDT"
    assert abs(int(stamp) - time.time() * 1000) < 5000
    assert (sent["x-bapi-api-key"], sent["x-bapi-recv-window"]) == (KEY, "1234")
    assert sent["x-bapi-sign"] == signature(SECRET, f"{stamp}{KEY}1234{query}")


async def test_market_data_needs_no_key(serve: Serve, connect: Connect) -> None:
    """The key goes with account calls, and with no others."""
    server = await serve(envelope({"symbol": "BTCUSDT", "list": KLINE}))
    client = connect(server.url)
    await client.klines(Topic(Kind.KLINE, "BTCUSDT", "1"), 3)
    assert not any(name.startswith("x-bapi") for name in server.requests[0].headers)
    assert server.requests[0].query == {"category": "linear", "symbol": "BTCUSDT", "interval": "1", "limit": "3"}


def pages_of(rows: list[dict[str, Any]], last_names: str = "nothing") -> Answer:
    """A listing in pages: as many rows as asked for, and a cursor that is a number in odd clothes.

    The last page's cursor names nothing, a page behind it, or that page itself.
    """

    async def answer(request: Request, _: Write) -> bytes:
        query = request.query
        start = int(query.get("cursor", "0%2C").removesuffix("%2C"))
        end = start + int(query["limit"])
        page = rows[start:end]
        cursor = f"{end}%2C"
        if end >= len(rows) and last_names != "another":
            cursor = query.get("cursor", "") if last_names == "itself" else ""
        return envelope({"list": page, "nextPageCursor": cursor})

    return answer


@pytest.mark.parametrize(("last_names", "calls"), [("nothing", 3), ("another", 4), ("itself", 3)])
async def test_more_positions_than_a_page(serve: Serve, connect: Connect, last_names: str, calls: int) -> None:
    """Every page is read, with the cursor as the exchange encoded it, whatever the last one names."""
    rows = [{**LONG, "symbol": f"C{number:03}USDT"} for number in range(450)]
    server = await serve(pages_of(rows, last_names))
    client = connect(server.url, settle_coins=("USDT",))
    value = (await read(client, Topic(Kind.POSITIONS))).value
    assert [row.position.symbol for row in value] == [row["symbol"] for row in rows]
    assert [request.query.get("cursor") for request in server.requests[:3]] == [None, "200%2C", "400%2C"]
    assert len(server.requests) == calls
    assert all(request.query["settleCoin"] == "USDT" for request in server.requests)


async def test_a_position_that_moves_between_pages(serve: Serve, connect: Connect) -> None:
    """One that no page shows any more is asked for itself: it may have moved to a page that was read already."""
    rows = [{**LONG, "symbol": f"C{number:03}USDT"} for number in range(250)]
    singles = {"C210USDT": [rows[210]], "C220USDT": [{**FLAT, "symbol": "C220USDT"}]}
    shown = rows

    async def answer(request: Request, write: Write) -> bytes | None:
        if (symbol := request.query.get("symbol")) is not None:
            return envelope({"list": singles[symbol]})
        return await pages_of(shown)(request, write)

    server = await serve(answer)
    client = connect(server.url, settle_coins=("USDT",))
    await read(client, Topic(Kind.POSITIONS))
    shown = [row for row in rows if row["symbol"] not in singles]
    for _ in range(2):
        value = (await read(client, Topic(Kind.POSITIONS))).value
        assert [row.position.symbol for row in value] == [row["symbol"] for row in rows if row["symbol"] != "C220USDT"]
    asked = [request.query["symbol"] for request in server.requests if "symbol" in request.query]
    assert asked == ["C210USDT", "C220USDT", "C210USDT"]


async def test_one_page_is_believed(serve: Serve, connect: Connect) -> None:
    """Where all fits in one page nothing can move, and who is not in it is flat."""
    rows = [{**LONG, "symbol": f"C{number:03}USDT"} for number in range(3)]
    shown = rows

    async def answer(request: Request, write: Write) -> bytes | None:
        return await pages_of(shown)(request, write)

    server = await serve(answer)
    client = connect(server.url, settle_coins=("USDT",))
    await read(client, Topic(Kind.POSITIONS))
    shown = rows[:1]
    assert len((await read(client, Topic(Kind.POSITIONS))).value) == 1
    assert len(server.requests) == 2


async def test_positions_of_every_settle_coin(serve: Serve, connect: Connect) -> None:
    """Each settle coin is asked for its own, flat rows are left out, and the older of the times counts."""

    async def answer(request: Request, _: Write) -> bytes:
        coin = request.query["settleCoin"]
        rows = [{**LONG, "symbol": f"X{coin}"}, {**FLAT, "symbol": f"Y{coin}"}]
        return envelope({"list": rows}, time=NOW_MS + (coin == "USDT"))

    server = await serve(answer)
    reading = await read(connect(server.url), Topic(Kind.POSITIONS))
    assert [row.position.symbol for row in reading.value] == ["XUSDC", "XUSDT"]
    assert reading.exchange_time_ms == NOW_MS


async def test_inverse_positions_have_no_settle_coin(serve: Serve, connect: Connect) -> None:
    """Inverse contracts are listed at once."""
    server = await serve(envelope({"list": []}))
    assert (await read(connect(server.url), Topic(Kind.POSITIONS, category="inverse"))).value == ()
    assert [request.query for request in server.requests] == [{"category": "inverse", "limit": "200"}]


@pytest.mark.parametrize("cursors", [["a", "b"], [str(number) for number in range(999)]], ids=["circle", "endless"])
async def test_a_listing_without_end(serve: Serve, connect: Connect, cursors: list[str]) -> None:
    """Cursors that go in a circle, or on and on, are given up."""

    async def answer(_: Request, __: Write) -> bytes:
        return envelope({"list": [LINEAR], "nextPageCursor": cursors[len(server.requests) % len(cursors)]})

    server = await serve(answer)
    with pytest.raises(BadAnswer, match="does not end"):
        await read(connect(server.url), Topic(Kind.INSTRUMENTS))
    assert len(server.requests) == MAX_PAGES


@pytest.mark.parametrize("last_names", ["nothing", "another", "itself"])
async def test_more_instruments_than_a_page(serve: Serve, connect: Connect, last_names: str) -> None:
    """Every page of the instrument list is read."""
    rows = [{**LINEAR, "symbol": f"C{number}USDT"} for number in range(2500)]
    server = await serve(pages_of(rows, last_names))
    value = (await read(connect(server.url), Topic(Kind.INSTRUMENTS))).value
    assert list(value) == [row["symbol"] for row in rows]


async def test_no_instruments(serve: Serve, connect: Connect) -> None:
    """An exchange without instruments is not believed: every symbol would be unknown."""
    with pytest.raises(BadAnswer, match="empty"):
        await read(connect((await serve(envelope({"list": []}))).url), Topic(Kind.INSTRUMENTS))


async def test_a_page_that_fails(serve: Serve, connect: Connect) -> None:
    """A listing of which one page cannot be had is none."""
    pages = pages_of([{**LONG, "symbol": f"C{number}USDT"} for number in range(450)])

    async def answer(request: Request, write: Write) -> bytes | None:
        return envelope({}, 10006, "no") if "400" in request.target else await pages(request, write)

    with pytest.raises(RateExceeded):
        await read(connect((await serve(answer)).url), Topic(Kind.POSITIONS))


@pytest.mark.parametrize(
    ("topic", "result"),
    [
        (Topic(Kind.TICKER, "ETHUSDT"), {"list": [TICKER]}),
        (Topic(Kind.POSITION, "ETHUSDT"), {"list": [LONG]}),
        (Topic(Kind.POSITION, "ETHUSDT"), {"list": []}),
        (Topic(Kind.KLINE, "ETHUSDT", "1"), {"symbol": "BTCUSDT", "list": KLINE}),
    ],
)
async def test_foreign_answers(serve: Serve, connect: Connect, topic: Topic, result: object) -> None:
    """An answer about another symbol than the one asked for is not believed."""
    client = connect((await serve(envelope(result))).url)
    with pytest.raises(BadAnswer, match="ETHUSDT"):
        await (client.klines(topic, 3) if topic.kind is Kind.KLINE else read(client, topic))


@pytest.mark.parametrize("kind", [Kind.TICKER, Kind.POSITION, Kind.KLINE])
async def test_symbols_that_inject(exchange: Exchange, connect: Connect, kind: Kind) -> None:
    """A symbol that smuggles a parameter into the query gets no other symbol's data."""
    client, topic = connect(exchange.url, **SIMULATED), Topic(kind, "BTCUSDT&category=inverse", "1")
    with pytest.raises(ExchangeError):
        await (client.klines(topic, 3) if kind is Kind.KLINE else read(client, topic))


WRITING = {
    "place_order", "amend_order", "cancel_order", "cancel_all_orders", "place_batch_order", "set_leverage",
    "set_trading_stop", "switch_position_mode", "set_margin_mode", "withdraw", "create_internal_transfer",
    "create_universal_transfer", "borrow", "repay", "modify_master_api_key", "create_sub_api_key",
}  # fmt: skip
NOT_OF_BYBIT = {"prepare_payload", "prepare_file_payload"}
REACHING = {
    "get_server_time", "get_tickers", "get_kline", "get_instruments_info",
    "get_positions", "get_wallet_balance", "get_account_info", "get_api_key_information",
}  # fmt: skip
ARGUMENTS = {
    "category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1", "coin": "USDT",
    "request": [{"symbol": "BTCUSDT"}], "buyLeverage": "100", "sellLeverage": "100", "upload_file": __file__,
    "amount": "1", "address": "x",
}  # fmt: skip


async def test_only_reading_methods_reach_the_exchange(serve: Serve, connect: Connect) -> None:
    """Of all that pybit can do, eight calls that read leave the process; orders, settings and transfers do not."""
    server = await serve(envelope({}))
    session = connect(server.url)._http
    methods = {name for name in dir(HTTP) if not name.startswith("_") and callable(getattr(HTTP, name))} - NOT_OF_BYBIT
    assert len(methods) > 300

    def outcome(name: str) -> type[Exception] | None:
        method = getattr(session, name)
        try:
            method(**(ARGUMENTS if "kwargs" in inspect.signature(method).parameters else {}))
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            return type(error)
        return None

    outcomes = await asyncio.to_thread(lambda: {name: outcome(name) for name in sorted(methods - REACHING)})
    assert None not in outcomes.values()
    assert {outcomes[name] for name in WRITING} == {PermissionError}
    assert sum(error is not PermissionError for error in outcomes.values()) < 20, "a few fail inside of pybit already"
    assert (server.connections, server.requests) == (0, [])
    assert await asyncio.to_thread(lambda: {outcome(name) for name in REACHING}) == {None}
    assert {request.path for request in server.requests} == READABLE_PATHS
    assert {request.method for request in server.requests} == {"GET"}


async def test_an_answer_over_the_cap(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is too large is a bad one."""
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(BadAnswer, match="over 1000 bytes"):
        await read(connect((await serve(envelope({"list": [TICKER] * 9}))).url), BTC)


async def test_redirects_take_no_key_along(serve: Serve, connect: Connect) -> None:
    """A redirect to another host is a refusal, and the other host hears nothing."""
    other = await serve(envelope({}))
    server = await serve(answer_of(b"", f"Location: {other.url}/v5/account/wallet-balance", status="302 Found"))
    with pytest.raises(CallRefused, match="HTTP 302"):
        await read(connect(server.url), WALLET)
    assert other.connections == 0


async def test_few_connections(serve: Serve, connect: Connect) -> None:
    """Many calls share few connections: never more than there are threads."""
    server = await serve(envelope({"list": [TICKER]}))
    client = connect(server.url)
    for _ in range(10):
        await asyncio.gather(*(read(client, BTC) for _ in range(10)))
    assert len(server.requests) == 100
    assert server.connections <= THREADS["tickers"]


async def test_closing(serve: Serve, connect: Connect) -> None:
    """A closed client leaves no connection, and refuses further calls in the exchange's terms."""
    server = await serve(envelope({"list": [TICKER]}))
    client = connect(server.url)
    await read(client, BTC)
    await client.close()
    await until(lambda: server.open == 0)
    with capture_logs() as logs, pytest.raises(ExchangeUnreachable, match="no more calls"):
        await read(client, BTC)
    assert [line["outcome"] for line in logs] == ["unreachable"]


async def test_closing_waits_for_nobody(serve: Serve, connect: Connect) -> None:
    """Closing while a call hangs returns at once; the call ends with its own time."""
    server = await serve(silent)
    client = connect(server.url, call_timeout_s=0.3)
    call = asyncio.ensure_future(read(client, BTC))
    await server.asked.wait()
    start = time.monotonic()
    await client.close()
    assert time.monotonic() - start < 0.2
    with pytest.raises(ExchangeTimeout):
        await call


async def test_the_clock_is_an_argument(serve: Serve, connect: Connect) -> None:
    """Readings carry the times of the clock that the client was given."""
    client = connect((await serve(envelope({"list": [TICKER]}))).url)
    moments = iter((7.0, 7.0, 8.0, 9.0))
    client._clock = lambda: next(moments)
    reading = await read(client, BTC)
    assert (reading.asked_at, reading.arrived_at) == (7.0, 9.0)


async def test_large_answers_do_not_hold_the_loop(serve: Serve, connect: Connect) -> None:
    """While megabytes of instruments and thousands of candles are parsed, the loop keeps turning."""
    padding = {"riskParameters": {"note": "x" * 500}}
    instruments = envelope({"list": [{**LINEAR, **padding, "symbol": f"C{number}USDT"} for number in range(4000)]})
    candles = [[str(NOW_MS - number * 60_000), *KLINE[0][1:]] for number in range(1000)]
    kline = envelope({"symbol": "BTCUSDT", "list": candles})
    assert len(instruments) > 4 * 2**20

    async def answer(request: Request, _: Write) -> bytes:
        return instruments if "instruments" in request.path else kline

    client = connect((await serve(answer)).url)

    async def longest_gap() -> float:
        ticking = asyncio.ensure_future(gaps_until(done := asyncio.Event()))
        for _ in range(3):
            topic = Topic(Kind.KLINE, "BTCUSDT", "1")
            await asyncio.gather(read(client, Topic(Kind.INSTRUMENTS)), *(client.klines(topic, 1000) for _ in range(8)))
        done.set()
        return max(await ticking)

    assert min([await longest_gap() for _ in range(3)]) < 0.25, "each time: a busy machine may hold it once"


async def gaps_until(done: asyncio.Event) -> list[float]:
    """How long the loop took to come back, again and again."""
    moments = [time.monotonic()]
    while not done.is_set():
        await asyncio.sleep(0.001)
        moments.append(time.monotonic())
    return [later - earlier for earlier, later in pairwise(moments)]


TRADING = {"api_key": Secret(TRADING_KEY), "api_secret": Secret(TRADING_SECRET)}
POSITION = Topic(Kind.POSITION, "BTCUSDT")
ACCOUNT_TOPICS = (WALLET, POSITION, Topic(Kind.POSITIONS))
QUERY_API, POSITION_LIST, WALLET_BALANCE = "/v5/user/query-api", "/v5/position/list", "/v5/account/wallet-balance"


@pytest.mark.parametrize(("keys", "is_read_only"), [(SIMULATED, True), (TRADING, False)])
async def test_key(exchange: Exchange, connect: Connect, keys: dict[str, Secret], is_read_only: bool) -> None:
    """What the exchange says of each of its keys."""
    await exchange.freeze(NOW_MS)
    reading = await connect(exchange.url, **keys).key()
    assert (reading.value.is_read_only, reading.exchange_time_ms) == (is_read_only, NOW_MS)
    assert ("Wallet:Withdraw" in reading.value.permissions) is not is_read_only
    assert (reading.value.expires_at_ms or 0) > NOW_MS
    assert not reading.value.is_address_bound


async def test_a_key_that_can_trade_is_not_used(exchange: Exchange, connect: Connect) -> None:
    """Where it is refused, nothing is asked with it but what it may do, once; the market goes on."""
    client = connect(exchange.url, **TRADING, refuse_trading_keys=True)
    for _ in range(3):
        for topic in ACCOUNT_TOPICS:
            with pytest.raises(TradingKeyRefused, match=r"ContractTrade.*Wallet"):
                await read(client, topic)
    assert (await read(client, BTC)).value.last_price
    assert (await exchange.calls()).items() - {("/v5/market/time", 1)} == {(QUERY_API, 1), ("/v5/market/tickers", 1)}


async def test_a_key_that_can_only_read_is_asked_about_once(exchange: Exchange, connect: Connect) -> None:
    """However many ask for the account at once, they share one check."""
    client = connect(exchange.url, **SIMULATED, refuse_trading_keys=True)
    await asyncio.gather(*(read(client, topic) for topic in ACCOUNT_TOPICS * 3))
    await read(client, WALLET)
    assert (await exchange.calls())[QUERY_API] == 1


async def test_the_account_waits_for_the_check(exchange: Exchange, connect: Connect) -> None:
    """Where trading keys are refused, a check that hangs or fails keeps the account away, and only that."""
    client = connect(exchange.url, **SIMULATED, refuse_trading_keys=True, call_timeout_s=0.3)
    for fault, kind in (({"hang": True}, ExchangeTimeout), ({"status": 502}, ExchangeBusy)):
        await exchange.fault("query-api", **fault)
        outcomes = await asyncio.gather(*(read(client, topic) for topic in ACCOUNT_TOPICS), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {kind}
        assert (await read(client, BTC)).value.last_price
    calls = await exchange.calls()
    assert (POSITION_LIST in calls, WALLET_BALANCE in calls) == (False, False)
    await exchange.heal()
    for topic in ACCOUNT_TOPICS:
        await read(client, topic)


async def test_nobody_waits_where_trading_keys_are_allowed(exchange: Exchange, connect: Connect) -> None:
    """The account is read without a check, with a key that can trade as well."""
    await exchange.fault("query-api", hang=True)
    client = connect(exchange.url, **TRADING)
    for topic in ACCOUNT_TOPICS:
        await read(client, topic)
    assert QUERY_API not in await exchange.calls()


async def test_a_refused_check_silences_the_account(exchange: Exchange, connect: Connect) -> None:
    """Credentials that the exchange refuses when asked about them are not tried elsewhere for a minute."""
    client = connect(exchange.url, **SIMULATED)
    await exchange.fault("query-api", ret_code=10010)
    with pytest.raises(CredentialsRefused, match="10010"):
        await client.key()
    for call in (client.key(), read(client, WALLET), read(client, POSITION)):
        with pytest.raises(CredentialsRefused) as caught:
            await call
        assert 55 < (caught.value.retry_after_s or 0) <= 60
    assert (await read(client, BTC)).value.last_price
    assert POSITION_LIST not in await exchange.calls()


async def test_checks_have_a_budget_of_their_own(exchange: Exchange, connect: Connect) -> None:
    """Ten a second is the exchange's limit, of which a fifth stays in reserve."""
    client = connect(exchange.url, **SIMULATED)
    assert client.guards.budget.left(0.0)["key"] == 8
    await asyncio.gather(*(client.key() for _ in range(8)))
    assert client.guards.describe()["budget_left"]["key"] < 8


async def test_a_wrong_clock_is_corrected_before_the_check(exchange: Exchange, connect: Connect) -> None:
    """A check that is refused for the clock makes the next one measure it."""
    client = connect(exchange.url, **SIMULATED, refuse_trading_keys=True)
    await exchange.shift(60_000)
    with pytest.raises(ClockSkew):
        await read(client, WALLET)
    assert (await read(client, WALLET)).value.coins


async def test_closing_ends_a_check(serve: Serve, connect: Connect) -> None:
    """A client that closes while its key is checked leaves nothing under way."""
    server = await serve(silent)
    client = connect(server.url, refuse_trading_keys=True)
    call = asyncio.ensure_future(read(client, WALLET))
    await server.asked.wait()
    await client.close()
    with pytest.raises(ExchangeUnreachable, match="stops"):
        await call
    await until(lambda: client.guards.pools["key"].in_flight == 0)


async def test_nothing_tells_whose_key_it_is(serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """Of the answer about the key, no log and no error has what identifies its user, whether it parses or not."""
    caplog.set_level(logging.DEBUG)
    for name, level in QUIET.items():
        caplog.set_level(level, logger=name)
    for answer in (KEY_ANSWER, {**KEY_ANSWER, "readOnly": 0}, {**KEY_ANSWER, "permissions": {"<canary>": []}}):
        client = connect((await serve(envelope(answer))).url, refuse_trading_keys=True)
        with capture_logs() as logs:
            outcomes = await asyncio.gather(client.credentials.check(), return_exceptions=True)
        shown = f"{logs} {outcomes} {caplog.text} {client.credentials.describe()} {client.credentials.reading}"
        for canary in (KEY, SECRET, *OF_THE_USER):
            assert canary not in shown


async def test_another_key(exchange: Exchange, connect: Connect) -> None:
    """Another key is used from then on, and what was held against the one before is forgotten."""
    client = connect(exchange.url, api_key=Secret("nobodys"), api_secret=Secret("nobodys"))
    with pytest.raises(CredentialsRefused):
        await read(client, WALLET)
    await client.rekey(Secret(API_KEY), Secret(API_SECRET))
    assert (await read(client, WALLET)).value.equity
    assert client.credentials.reading is not None
    assert client.credentials.reading.value.is_read_only


@pytest.mark.parametrize("pair", [("nobodys-key", "nobodys"), (TRADING_KEY, TRADING_SECRET)])
async def test_another_key_that_is_not_taken(exchange: Exchange, connect: Connect, pair: tuple[str, str]) -> None:
    """A key that is unknown, or may not be used, changes nothing: the one before goes on."""
    client = connect(exchange.url, **SIMULATED, refuse_trading_keys=True)
    await read(client, WALLET)
    with pytest.raises(CredentialsRefused):
        await client.rekey(*map(Secret, pair))
    assert (await read(client, WALLET)).value.equity


async def test_every_key_is_masked(exchange: Exchange, connect: Connect) -> None:
    """However many keys were not taken, the one in use is not shown where the exchange repeats it; nor is the last."""
    client = connect(exchange.url, **SIMULATED)
    for name in ("first-nobodys", "second-nobodys", "third-nobodys"):
        with pytest.raises(CredentialsRefused):
            await client.rekey(Secret(name), Secret("nobodys-secret"))
    await exchange.fault("wallet", ret_code=10001, ret_msg=f"you are {API_KEY} or third-nobodys")
    with capture_logs() as logs, pytest.raises(CallRefused):
        await read(client, WALLET)
    assert [line["said"] for line in logs if line["endpoint"] == "wallet"] == ["you are *** or ***"]
