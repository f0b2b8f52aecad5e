"""REST over real HTTP against the simulator: every route, its numbers to the digit, and its ways of saying no."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import talib

from tests.conftest import Exchange, Gateway, StartGateway

MOMENT_MS = 1_795_000_123_456


async def ask(gateway: Gateway, path: str, status: int = 200, **headers: str) -> Any:
    """The JSON of a GET."""
    async with gateway.get(path, headers=headers) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


async def refused(gateway: Gateway, path: str, status: int, code: str) -> dict[str, Any]:
    """The problem of a GET, with what every problem has."""
    async with gateway.get(path) as response:
        problem: dict[str, Any] = await response.json(content_type="application/problem+json")
        assert (response.status, problem["status"], problem["code"]) == (status, status, code), problem
        assert problem["request_id"] == response.headers["X-Request-ID"]
        assert set(problem) >= {"type", "title", "status", "detail", "code", "request_id"}
        return problem


async def test_price_is_the_exchanges_to_the_digit(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Every field of a ticker is what the exchange sent."""
    await exchange.freeze(MOMENT_MS)
    sent = (await exchange.ask("/v5/market/tickers", category="linear", symbol="BTCUSDT"))["list"][0]
    answer = await ask(await start_gateway(), "/price/BTCUSDT")
    assert list(answer) == [
        "exchange", "symbol", "category", "last_price", "mark_price", "index_price", "bid_price", "bid_size",
        "ask_price", "ask_size", "high_price_24h", "low_price_24h", "change_24h", "volume_24h", "turnover_24h",
        "open_interest", "funding_rate", "next_funding_time_ms", "timestamp_ms", "age_ms", "stale",
    ]  # fmt: skip
    assert answer["exchange"] == "simulator"
    assert answer["last_price"] == sent["lastPrice"]
    assert answer["bid_size"] == sent["bid1Size"]
    assert answer["turnover_24h"] == sent["turnover24h"]
    assert answer["next_funding_time_ms"] == int(sent["nextFundingTime"])
    assert answer["stale"] is False
    assert 0 <= answer["age_ms"] < 10_000


async def test_klines_are_oldest_first(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The exchange's candles, turned round, as strings, the forming one last."""
    await exchange.freeze(MOMENT_MS)
    sent = (await exchange.ask("/v5/market/kline", category="linear", symbol="ETHUSDT", interval="15", limit=3))["list"]
    answer = await ask(await start_gateway(), "/klines/ETHUSDT?interval=15&limit=3")
    assert answer["candles"] == [[int(row[0]), *row[1:]] for row in reversed(sent)]
    assert answer["closed"] is False
    assert (answer["symbol"], answer["interval"], answer["category"]) == ("ETHUSDT", "15", "linear")


@pytest.mark.parametrize("interval", ["1", "240", "D", "W", "M"])
async def test_classic_set_on_exactly_a_thousand(
    start_gateway: StartGateway, exchange: Exchange, interval: str
) -> None:
    """The classic set equals TA-Lib over the exchange's own last thousand candles."""
    await exchange.freeze(MOMENT_MS)
    query = {"category": "linear", "symbol": "BTCUSDT", "interval": interval, "limit": 1000}
    sent = list(reversed((await exchange.ask("/v5/market/kline", **query))["list"]))
    answer = await ask(await start_gateway(), f"/indicators/BTCUSDT?interval={interval}")
    close = np.array([float(row[4]) for row in sent])
    high, low = (np.array([float(row[column]) for row in sent]) for column in (2, 3))
    data = answer["data"]
    assert list(answer)[:6] == ["exchange", "symbol", "category", "interval", "candle_count", "candle_closed"]
    assert list(data) == [
        "open_time_ms", "open_price", "high_price", "low_price", "close_price", "volume", "sma20", "sma50", "sma200",
        "ema20", "ema200", "rsi14", "macd", "macd_signal", "macd_histogram", "bb_upper", "bb_middle", "bb_lower",
        "bb_width", "bb_percent", "atr14", "obv", "adx14", "dmp14", "dmn14",
    ]  # fmt: skip
    assert answer["candle_count"] == len(sent)
    assert answer["candle_closed"] is False
    assert data["open_time_ms"] == int(sent[-1][0])
    assert data["close_price"] == float(sent[-1][4])
    if len(sent) == 1000:
        assert data["ema200"] == pytest.approx(talib.EMA(close, 200)[-1], rel=1e-9)
    assert data["rsi14"] == pytest.approx(talib.RSI(close, 14)[-1], rel=1e-9)
    assert data["adx14"] == pytest.approx(talib.ADX(high, low, close, 14)[-1], rel=1e-9)


async def deep(exchange: Exchange, interval: str, count: int) -> list[list[str]]:
    """The exchange's own last candles, oldest first, page by page."""
    query: dict[str, Any] = {"category": "linear", "symbol": "BTCUSDT", "interval": interval, "limit": 1000}
    rows: list[list[str]] = []
    while len(rows) < count and (page := (await exchange.ask("/v5/market/kline", **query))["list"]):
        rows = [*reversed(page), *rows]
        query["end"] = int(rows[0][0]) - 1
    return rows[-count:]


async def test_names_look_as_far_back_as_they_need(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A slow indicator is computed on older candles, too; quick ones, the classic set and klines stay on a thousand."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    slow = await ask(gateway, "/indicators/BTCUSDT?interval=60&names=ema:200")
    rows = await deep(exchange, "60", 5000)
    close = np.array([float(row[4]) for row in rows])
    assert len(rows) == 5000
    assert slow["candle_count"] == 3000
    assert slow["data"]["ema:200"] == pytest.approx(talib.EMA(close[-3000:], 200)[-1], rel=1e-12)
    assert slow["data"]["ema:200"] == pytest.approx(talib.EMA(close, 200)[-1], rel=1e-9)
    quick = await ask(gateway, "/indicators/BTCUSDT?interval=60&names=ema:20")
    assert quick["candle_count"] == 1000
    assert quick["data"]["ema:20"] == pytest.approx(talib.EMA(close[-1000:], 20)[-1], rel=1e-12)
    classic = await ask(gateway, "/indicators/BTCUSDT?interval=60")
    assert classic["candle_count"] == 1000
    assert classic["data"]["ema200"] == pytest.approx(talib.EMA(close[-1000:], 200)[-1], rel=1e-12)
    assert classic["data"]["obv"] != pytest.approx(
        (await ask(gateway, "/indicators/BTCUSDT?interval=60&names=obv,ema:200"))["data"]["obv"]
    )
    candles = (await ask(gateway, "/klines/BTCUSDT?interval=60&limit=1000"))["candles"]
    assert candles == [[int(row[0]), *row[1:]] for row in rows[-1000:]]
    for backtrack in (0, 4000):
        back = await ask(gateway, f"/indicators/BTCUSDT?interval=60&names=sma:5&backtrack={backtrack}&closed=1")
        last = len(close) - 1 - backtrack
        assert back["data"]["close_price"] == close[last - 1]
        assert back["data"]["sma:5"] == pytest.approx(close[last - 5 : last].mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("names", "count"), [("pivots", 3000), ("vwap", 2000), ("vwap:week", 5000), ("vwap:start", 1000)]
)
async def test_sessions_look_back_by_the_clock(start_gateway: StartGateway, names: str, count: int) -> None:
    """What depends on days has whole ones to look at, also at one minute; as far as is allowed."""
    gateway = await start_gateway()
    answer = await ask(gateway, f"/indicators/BTCUSDT?interval=1&names={names}")
    assert answer["candle_count"] == count
    if count < 5000:
        value = answer["data"][names]
        assert (value["pivot"] if names == "pivots" else value) is not None


async def test_older_candles_that_do_not_come(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Where older candles cannot be had the answer is made of those in hand, and says how many they were."""
    gateway = await start_gateway()
    assert (await ask(gateway, "/indicators/BTCUSDT?interval=60"))["candle_count"] == 1000
    await exchange.fault("kline", ret_code=10016)
    answer = await ask(gateway, "/indicators/BTCUSDT?interval=60&names=ema:200&max_age_ms=60000")
    assert answer["candle_count"] == 1000
    assert answer["data"]["ema:200"] is not None


async def test_young_listing_is_read_whole_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """All months that there are answer a question for more, and are not asked for again."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    path = "/indicators/BTCUSDT?interval=M&names=ema:200&max_age_ms=60000"
    months = await deep(exchange, "M", 5000)
    assert (await ask(gateway, path))["candle_count"] == len(months) < 1000
    calls = (await exchange.calls())["/v5/market/kline"]
    assert (await ask(gateway, path))["candle_count"] == len(months)
    assert (await exchange.calls())["/v5/market/kline"] == calls


async def test_closed_leaves_the_forming_candle_out(start_gateway: StartGateway, exchange: Exchange) -> None:
    """999 closed candles, and values as if the last one had never begun."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    closed = await ask(gateway, "/indicators/BTCUSDT?closed=true")
    back = await ask(gateway, "/indicators/BTCUSDT?backtrack=1&names=sma:20")
    assert (closed["candle_count"], closed["candle_closed"]) == (999, True)
    assert closed["data"]["open_time_ms"] == back["data"]["open_time_ms"]
    assert closed["data"]["sma20"] == pytest.approx(back["data"]["sma:20"], rel=1e-12)
    assert back["candle_closed"] is True


async def test_series_are_oldest_first(start_gateway: StartGateway) -> None:
    """Several results come as arrays beside their times, the last one equal to the single answer."""
    gateway = await start_gateway()
    answer = await ask(gateway, "/indicators/BTCUSDT?names=rsi:14,macd&results=5&interval=D")
    series = answer["series"]
    assert list(series) == ["open_time_ms", "rsi:14", "macd"]
    assert series["open_time_ms"] == sorted(series["open_time_ms"])
    assert len(series["rsi:14"]) == len(series["macd"]["signal"]) == 5
    assert series["rsi:14"][-1] == answer["data"]["rsi:14"]


async def test_names_stand_in_a_url_as_they_are(start_gateway: StartGateway) -> None:
    """Parameters by name, averages by word and two sources need no escaping, and are keys as asked."""
    names = "bbands:period=20:up=2.5:ma=ema@hlc3,correl:30@close/volume,pivots:camarilla"
    data = (await ask(await start_gateway(), f"/indicators/BTCUSDT?interval=60&names={names}"))["data"]
    assert list(data)[6:] == names.split(",")
    assert list(data["bbands:period=20:up=2.5:ma=ema@hlc3"]) == ["upper", "middle", "lower", "width", "percent"]
    assert -1 <= data["correl:30@close/volume"] <= 1
    assert data["pivots:camarilla"]["r1"] > data["pivots:camarilla"]["s1"]


async def test_chart_and_source_change_what_is_computed_of(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Another source and Heikin-Ashi candles give other numbers, the candle itself stays the market's."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    query = "names=sma:1,sma:1@hl2,ha&interval=60"
    plain = await ask(gateway, f"/indicators/BTCUSDT?{query}")
    smooth = await ask(gateway, f"/indicators/BTCUSDT?{query}&chart=heikinashi")
    again = await ask(gateway, f"/indicators/BTCUSDT?{query}&chart=candles")
    candle, other = plain["data"], smooth["data"]
    assert candle["sma:1"] == candle["close_price"]
    assert candle["sma:1@hl2"] == pytest.approx((candle["high_price"] + candle["low_price"]) / 2)
    assert other["sma:1"] == candle["ha"]["close"] != candle["close_price"]
    assert other["close_price"] == candle["close_price"]
    assert smooth["chart"] == "heikinashi"
    assert "chart" not in plain
    assert again["data"] == candle


async def test_positions_of_all_and_of_one(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The listing has every open position; a symbol's answer has its own; a flat one has none."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    listing = await ask(gateway, "/positions")
    assert listing["has_position"] is bool(listing["positions"]) is True
    for position in listing["positions"]:
        single = await ask(gateway, f"/positions/{position['symbol']}")
        assert position in single["positions"]
    held = {position["symbol"] for position in listing["positions"]}
    flat = next(row["symbol"] for row in (await ask(gateway, "/symbols"))["symbols"] if row["symbol"] not in held)
    answer = await ask(gateway, f"/positions/{flat}")
    assert (answer["positions"], answer["has_position"], answer["symbol"]) == ([], False, flat)


async def test_balance_in_cross_and_isolated_margin(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Cross margin has an available balance of the account; isolated margin has one of each coin instead."""
    gateway = await start_gateway()
    cross = await ask(gateway, "/balance")
    assert cross["available_balance"] is not None
    assert {coin["available_balance"] for coin in cross["coins"]} == {None}
    await exchange.account(margin="isolated")
    isolated = await ask(gateway, "/balance?max_age_ms=0")
    assert isolated["available_balance"] is None
    assert isolated["coins"][0]["available_balance"] is not None
    assert isolated["currency"] == "USD"


@pytest.mark.parametrize("category", ["linear", "inverse", "spot"])
async def test_symbols_of_each_category(start_gateway: StartGateway, category: str) -> None:
    """Every instrument with its steps and status."""
    answer = await ask(await start_gateway(), f"/symbols?category={category}")
    assert answer["category"] == category
    assert all(row["tick_size"] and row["quantity_step"] and row["status"] for row in answer["symbols"])


async def test_other_categories_have_prices_and_indicators(start_gateway: StartGateway) -> None:
    """Market data is not bound to the category of the positions."""
    gateway = await start_gateway()
    spot = await ask(gateway, "/price/BTCUSDT?category=spot")
    assert spot["mark_price"] is None
    assert spot["category"] == "spot"
    inverse = await ask(gateway, "/indicators/BTCUSD?category=inverse")
    assert inverse["data"]["rsi14"] is not None


async def test_unknown_symbol_costs_no_call(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A symbol that the list does not have is 404 from the list alone."""
    gateway = await start_gateway(bybit={"api_key": None, "api_secret": None})  # nor a check of the key
    await ask(gateway, "/symbols")
    before = await exchange.calls()
    for route in ("price", "positions", "klines", "indicators"):
        await refused(gateway, f"/{route}/NOSUCHUSDT", 404, "unknown_symbol")
    assert await exchange.calls() == before


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("/price/btcusdt", "invalid_symbol", "capital letters"),
        ("/price/BTCUSDT%26category=spot", "invalid_symbol", "capital letters"),
        ("/price/%F0%9F%92%A9", "invalid_symbol", "capital letters"),
        ("/indicators/BTCUSDT?interval=2", "invalid_interval", "1, 3, 5, 15"),
        ("/indicators/BTCUSDT?category=option", "invalid_category", "linear, inverse, spot"),
        ("/indicators/BTCUSDT?names=rsii", "invalid_names", "did you mean rsi? GET /indicators lists them all"),
        ("/indicators/BTCUSDT?results=0", "invalid_results", "1 to 500"),
        ("/indicators/BTCUSDT?results=501", "invalid_results", "1 to 500"),
        ("/indicators/BTCUSDT?results=-1", "invalid_results", "1 to 500"),
        ("/indicators/BTCUSDT?results=%D9%A3", "invalid_results", "1 to 500"),
        ("/indicators/BTCUSDT?backtrack=1000", "invalid_backtrack", "0 to 999"),
        ("/indicators/BTCUSDT?backtrack=999&results=2", "invalid_results", "1001"),
        ("/indicators/BTCUSDT?closed=maybe", "invalid_closed", "true, 1, false, 0"),
        ("/indicators/BTCUSDT?chart=renko", "invalid_chart", "candles, heikinashi"),
        ("/klines/BTCUSDT?limit=1001", "invalid_limit", "1 to 1000"),
        ("/klines/BTCUSDT?limit=1e3", "invalid_limit", "1 to 1000"),
        ("/price/BTCUSDT?max_age_ms=-5", "invalid_max_age_ms", "0 to 3600000"),
        ("/price/BTCUSDT?require_fresh=yes", "invalid_require_fresh", "true, 1"),
        ("/price/BTCUSDT?max_age=100", "invalid_parameter", "max_age_ms"),
        ("/balance?token=abc", "invalid_parameter", "allowed: max_age_ms"),
        ("/livez?x=1", "invalid_parameter", "allowed: none"),
        ("/readyz?token=abc", "invalid_parameter", "allowed: none"),
        ("/health?token=abc", "invalid_parameter", "allowed: none"),
        ("/?token=abc", "invalid_parameter", "allowed: none"),
        ("/price/BTCUSDT?max_age_ms=1&require_fresh=1&max_age_ms=2", "invalid_max_age_ms", "allowed: once"),
        ("/indicators/BTCUSDT?backtrack=999&closed=1", "invalid_backtrack", "there are 999"),
        ("/indicators/BTCUSDT?names=rsi,,ema", "invalid_names", "a name is empty"),
    ],
)
async def test_bad_parameters_say_what_is_allowed(start_gateway: StartGateway, path: str, code: str, says: str) -> None:
    """Each wrong parameter is 400 under its own name, with what would be right."""
    problem = await refused(await start_gateway(), path, 400, code)
    assert says in problem["detail"]
    assert "abc" not in problem["detail"]


async def test_unknown_route_and_method(start_gateway: StartGateway) -> None:
    """404 and 405 are problems too, and 405 names the methods."""
    gateway = await start_gateway()
    await refused(gateway, "/nothing", 404, "not_found")
    async with gateway.post("/price/BTCUSDT") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
        assert (await response.json(content_type="application/problem+json"))["code"] == "method_not_allowed"


async def test_large_body_is_refused(start_gateway: StartGateway) -> None:
    """A body over the limit is 413 before it is read."""
    gateway = await start_gateway(server={"body_bytes": 1024})
    async with gateway.request("GET", "/livez", data=b"x" * 1025) as response:
        assert response.status == 413
    async with gateway.request("GET", "/livez", data=b"x" * 1024) as response:
        assert response.status == 200


async def test_request_id_is_echoed_if_well_formed(start_gateway: StartGateway) -> None:
    """A good id comes back, a bad one is replaced."""
    gateway = await start_gateway()
    for given, is_kept in (("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("a<b>", False)):
        async with gateway.get("/livez", headers={"X-Request-ID": given}) as response:
            assert (response.headers["X-Request-ID"] == given) is is_kept


async def test_unexpected_exception_shows_nothing(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is 500 with the request's id, and none of its words."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("internals")

    gateway = await start_gateway()
    monkeypatch.setattr("server.api.system.status_of", broken)
    problem = await refused(gateway, "/health", 500, "internal_error")
    assert "internals" not in str(problem)


async def test_requests_over_the_limit_are_refused_at_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """One more than server.max_requests is 503 with Retry-After, while those in progress are answered."""
    gateway = await start_gateway(server={"max_requests": 2})
    await ask(gateway, "/symbols")
    await exchange.fault("tickers", hang=True)
    waiting = [asyncio.create_task(ask(gateway, f"/price/{symbol}")) for symbol in ("BTCUSDT", "ETHUSDT")]
    while (await exchange.calls()).get("/v5/market/tickers", 0) < 2:
        await asyncio.sleep(0.01)
    async with gateway.get("/price/SOLUSDT") as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (503, "overloaded")
        assert int(response.headers["Retry-After"]) >= 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await exchange.heal()
    async with asyncio.timeout(5):
        while (await gateway.get("/price/SOLUSDT")).status != 200:
            await asyncio.sleep(0.02)


async def test_nothing_in_hand_is_503_or_504(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Without any reading a broken exchange is 503 and a silent one 504, both with the reason and Retry-After."""
    gateway = await start_gateway(bybit={"call_timeout_s": 0.3})
    await ask(gateway, "/symbols")
    await exchange.fault("tickers", status=500)
    problem = await refused(gateway, "/price/BTCUSDT", 503, "upstream_unavailable")
    assert problem["reason"] == "busy"
    await exchange.heal()
    await exchange.fault("tickers", hang=True)
    problem = await refused(gateway, "/price/ETHUSDT", 504, "upstream_timeout")
    assert problem["reason"] == "timeout"


async def test_stale_reading_is_an_answer_unless_fresh_is_required(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """What was known is served with its age and `stale`; require_fresh turns that into 503; healing ends both."""
    gateway = await start_gateway()
    known = await ask(gateway, "/price/BTCUSDT")
    await exchange.fault("tickers", status=502, body="<html>")
    stale = await ask(gateway, "/price/BTCUSDT?max_age_ms=0")
    assert stale["stale"] is True
    assert stale["last_price"] == known["last_price"]
    assert stale["age_ms"] >= known["age_ms"]
    problem = await refused(gateway, "/price/BTCUSDT?max_age_ms=0&require_fresh=1", 503, "upstream_unavailable")
    assert problem["reason"] == "stale"
    assert (await ask(gateway, "/balance"))["stale"] is False
    await exchange.heal()
    async with asyncio.timeout(5):
        while (await ask(gateway, "/price/BTCUSDT?max_age_ms=0"))["stale"]:
            await asyncio.sleep(0.02)


async def test_hanging_exchange_does_not_slow_cached_answers(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Once the patience with a hanging call is over, what is in hand is answered without waiting for it."""
    gateway = await start_gateway(bybit={"call_timeout_s": 5.0})
    await ask(gateway, "/price/BTCUSDT")
    await exchange.fault("tickers", hang=True)
    await ask(gateway, "/price/BTCUSDT?max_age_ms=0")
    started = time.monotonic()
    answers = [await ask(gateway, "/price/BTCUSDT?max_age_ms=0") for _ in range(20)]
    assert time.monotonic() - started < 2
    assert [answer["age_ms"] for answer in answers] == sorted(answer["age_ms"] for answer in answers)


async def test_starting_while_the_exchange_is_away(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The gateway serves, says that it is degraded, and heals by itself."""
    await exchange.fault("*", status=503)
    gateway = await start_gateway()
    assert (await ask(gateway, "/livez"))["status"] == "alive"
    assert (await ask(gateway, "/readyz"))["status"] == "ready"
    await refused(gateway, "/price/BTCUSDT", 503, "upstream_unavailable")
    assert (await ask(gateway, "/health"))["status"] == "degraded"
    await exchange.heal()
    async with asyncio.timeout(8):
        while (await gateway.get("/price/BTCUSDT")).status != 200:
            await asyncio.sleep(0.05)
    assert (await ask(gateway, "/health"))["status"] == "ok"


async def test_without_keys_there_is_only_market_data(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Account routes say why, market routes work, and nothing is asked of the exchange for the account."""
    gateway = await start_gateway(bybit={"api_key": None, "api_secret": None})
    for path in ("/balance", "/positions", "/positions/BTCUSDT"):
        problem = await refused(gateway, path, 503, "upstream_unavailable")
        assert problem["reason"] == "credentials_missing"
    assert (await ask(gateway, "/price/BTCUSDT"))["last_price"]
    assert (await ask(gateway, "/health"))["account"] == "market data only"
    assert "/v5/account/wallet-balance" not in await exchange.calls()


async def test_caching_headers(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Account data is never stored; market data has a weak ETag that answers 304 until there is another reading."""
    gateway = await start_gateway()
    async with gateway.get("/balance") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert "ETag" not in response.headers
    path = "/indicators/BTCUSDT?max_age_ms=60000"
    async with gateway.get(path) as response:
        tag = response.headers["ETag"]
        assert tag.startswith('W/"')
        assert response.headers["Cache-Control"] == "private, no-cache"
    async with gateway.get(path, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    for known in ("*", tag.removeprefix("W/"), f'"other", {tag}', f'W/"other",{tag}  , "third"'):
        async with gateway.get(path, headers={"If-None-Match": known}) as response:
            assert response.status == 304, known
    for unknown in ("", "other", tag[:-2] + '"', tag.replace('"', "")):
        async with gateway.get(path, headers={"If-None-Match": unknown}) as response:
            assert response.status == 200, unknown
    async with gateway.get(f"{path}&closed=1", headers={"If-None-Match": tag}) as response:
        assert response.status == 200
    async with gateway.get("/indicators/BTCUSDT?max_age_ms=0", headers={"If-None-Match": tag}) as response:
        assert response.status == 200


async def test_repeated_questions_share_a_call(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Fifty clients at once cost one call to the exchange."""
    gateway = await start_gateway()
    await ask(gateway, "/symbols")
    await asyncio.gather(*(ask(gateway, "/price/BTCUSDT") for _ in range(50)))
    assert (await exchange.calls())["/v5/market/tickers"] == 1


async def test_health_and_page(start_gateway: StartGateway) -> None:
    """Health tells ages per kind; the page is plain HTML without account data."""
    gateway = await start_gateway()
    await ask(gateway, "/price/BTCUSDT")
    health = await ask(gateway, "/health")
    assert health["feeds"]["ticker"]["topics"] == 1
    assert health["feeds"]["ticker"]["failing"] == 0
    assert health["clock_offset_ms"] is not None
    async with gateway.get("/") as response:
        text = await response.text()
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "simulator" in text
    assert "equity" not in text


async def test_draining_is_unready(start_gateway: StartGateway) -> None:
    """A gateway on its way out is alive and not ready."""
    from server.api.keys import LOAD

    gateway = await start_gateway()
    gateway.app[LOAD].is_draining = True
    await refused(gateway, "/readyz", 503, "going_away")
    assert (await ask(gateway, "/livez"))["status"] == "alive"
    assert (await ask(gateway, "/health"))["status"] == "draining"


async def test_symbols_in_use_are_bounded(start_gateway: StartGateway) -> None:
    """One symbol more than freshness.max_symbols is 503, and those in use go on."""
    gateway = await start_gateway(freshness={"max_symbols": 2})
    for symbol in ("BTCUSDT", "ETHUSDT"):
        await ask(gateway, f"/price/{symbol}")
    problem = await refused(gateway, "/price/SOLUSDT", 503, "overloaded")
    assert "max_symbols" in problem["detail"]
    await ask(gateway, "/price/BTCUSDT")
