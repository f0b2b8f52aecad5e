"""Exhibits: one answer of each route as a gateway gave it, as examples of the description."""

from typing import Any

from msgspec import to_builtins

from .specimens import MOMENT_MS, POSITION, TICKER, WALLET

Json = dict[str, Any]

OPENED_MS = 1_760_299_200_000
CANDLE = {
    "open_time_ms": OPENED_MS,
    "open_price": 39626.0,
    "high_price": 39671.4,
    "low_price": 39367.7,
    "close_price": 39631.4,
    "volume": 5498.261,
}
CLASSIC = {
    "sma20": 40214.29499999999,
    "sma50": 41599.198,
    "sma200": 45368.72149999994,
    "ema20": 40186.19856725311,
    "ema200": 44670.982868956984,
    "rsi14": 38.70067528800789,
    "macd": -673.7289984614908,
    "macd_signal": -694.0712560709169,
    "macd_histogram": 20.342257609426042,
    "bb_upper": 41638.64723940565,
    "bb_middle": 40214.29499999999,
    "bb_lower": 38789.942760594335,
    "bb_width": 7.083810567389813,
    "bb_percent": 0.2953824258235393,
    "atr14": 592.9487657235312,
    "obv": -309288.71099999984,
    "adx14": 40.840737421132424,
    "dmp14": 11.693034160160583,
    "dmn14": 25.328741258448723,
}
SERIES = {
    "open_time_ms": [OPENED_MS - 14_400_000, OPENED_MS],
    "rsi:14": [31.00946459099581, 32.565111148852225],
    "macd": {
        "macd": [-728.8917519230308, -696.1122460348415],
        "signal": [-696.7455176695933, -696.618863342643],
        "histogram": [-32.14623425343757, 0.5066173078014344],
    },
}
NAMED = {
    "rsi:14": 32.565111148852225,
    "macd": {"macd": -696.1122460348415, "signal": -696.618863342643, "histogram": 0.5066173078014344},
}
RSI = {
    "key": "rsi",
    "name": "rsi",
    "title": "Relative Strength Index",
    "group": "Momentum Indicators",
    "usage": "rsi:period=14",
    "inputs": [],
    "sources": ["close"],
    "parameters": [
        {
            "name": "period",
            "title": "Candles that are looked back",
            "default": 14,
            "value": 14,
            "minimum": 2,
            "maximum": 500,
        }
    ],
    "outputs": ["rsi"],
    "warm_up": 14,
    "settling": 356,
    "memory": "fading",
    "note": "Wilder's smoothing of gains and losses, which begins with a simple average, as TradingView's.",
}
MARKET = {"symbol": "BTCUSDT", "category": "linear"}
INDICATED = {**MARKET, "interval": "240", "candle_count": 1000, "candle_closed": False}
QUESTIONS = {"questions": [{"symbol": "BTCUSDT", "names": "rsi"}, {"symbol": "NOUSDT"}], "require_fresh": False}
"""What `POST /indicators` may be asked."""


def exhibits(exchange: str) -> dict[str, dict[str, Json]]:
    """Examples by the name of their schema, each by a name of its own."""
    said, moment = {"exchange": exchange}, {"timestamp_ms": MOMENT_MS, "age_ms": 14, "stale": False}
    position: Json = {"positions": [to_builtins(POSITION)], "has_position": True}
    flat: Json = {"positions": [], "has_position": False}
    return {
        "Price": {"price": {**said, **MARKET, **to_builtins(TICKER), **moment}},
        "PositionsOfAll": {"one": {**said, **position, **moment}, "none": {**said, **flat, **moment}},
        "PositionsOfSymbol": {
            "open": {**said, "symbol": "BTCUSDT", **position, **moment},
            "flat": {**said, "symbol": "ETHUSDT", **flat, **moment},
        },
        "Balance": {"balance": {**said, **to_builtins(WALLET), **moment}},
        "KlinesOfSymbol": {"candles": {**said, **_klines(), **moment}},
        "SymbolsOfCategory": {"symbols": {**said, "category": "linear", "symbols": [_instrument()], **moment}},
        "IndicatorsOfSymbol": {
            "classic": {**said, **INDICATED, "data": {**CANDLE, **CLASSIC}, **moment},
            "named": {
                **said,
                **INDICATED,
                "chart": "heikinashi",
                "data": {**CANDLE, **NAMED},
                "series": SERIES,
                **moment,
            },
        },
        "Catalogue": {
            "one": {
                **said,
                "sources": ["open", "high", "low", "close", "volume", "hl2", "hlc3", "ohlc4", "hlcc4"],
                "charts": ["candles", "heikinashi"],
                "indicators": [RSI],
            }
        },
        "Answers": {"mixed": {**said, "answers": [_answered(), _failed()], "timestamp_ms": MOMENT_MS}},
        "Connections": {"one": {**said, **_connections(), "timestamp_ms": MOMENT_MS}},
        "Alive": {"alive": {"status": "alive"}, "ready": {"status": "ready"}},
        "Health": {"ok": {"status": "ok", **said, **_health(), "timestamp_ms": MOMENT_MS}},
    }


def _klines() -> Json:
    candle = [OPENED_MS, "39626", "39671.4", "39367.7", "39631.3", "5498.204", "217308267.6135"]
    return {**MARKET, "interval": "240", "candles": [candle], "closed": False}


def _instrument() -> Json:
    return {
        "symbol": "BTCUSDT",
        "status": "Trading",
        "base_coin": "BTC",
        "quote_coin": "USDT",
        "settle_coin": "USDT",
        "tick_size": "0.10",
        "quantity_step": "0.001",
        "min_quantity": "0.001",
        "max_leverage": "100.00",
    }


def _answered() -> Json:
    return {**INDICATED, "data": {**CANDLE, "rsi": 38.70356921238597}, "age_ms": 13, "stale": False}


def _failed() -> Json:
    detail = "the exchange has no linear symbol NOUSDT"
    return {"error": {"code": "unknown_symbol", "status": 404, "detail": detail}, "question": 1}


def _connections() -> Json:
    channel = {"channel": "positions:BTCUSDT", "interval": 5.0, "frames": 17, "stale": []}
    connection = {
        "worker": 0,
        "address": "127.0.0.1",
        "token": None,
        "route": "/ws/positions/{symbol}",
        "age_s": 81.2,
        "subscriptions": 1,
        "channels": [channel],
        "frames": 17,
        "conflated": 0,
        "buffered_bytes": 0,
        "last_pong_s": 1.2,
    }
    return {"sockets": 1, "sessions": 1, "silent_workers": [], "connections": [connection]}


def _health() -> Json:
    ticker = {"topics": 1, "failing": 0, "youngest_age_ms": 35, "oldest_age_ms": 35, "error": None}
    return {
        "account": "keys",
        "profile": "development",
        "version": "0.1.0",
        "epoch": "0rr2g3",
        "worker": {"index": 0, "of": 1},
        "uptime_s": 1.3,
        "sockets": 0,
        "sessions": 0,
        "requests": 1,
        "clock_offset_ms": -1,
        "key": None,
        "breakers": {"tickers": {"state": "closed"}},
        "budget_left": {"address": 469, "position": 35},
        "calls_in_flight": {"tickers": 0},
        "streams": None,
        "feeds": {"ticker": ticker},
        "candles": {"topics": 1, "candles": 1000, "bytes": 161_000, "fetches": {"whole": 1}, "contradictions": 0},
    }
