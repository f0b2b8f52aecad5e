"""The public endpoints: time, tickers, kline, instruments-info (Bybit V5, "Market")."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from . import options
from .candles import INTERVALS
from .exchange import PARAMETER_ERROR, Exchange, Query, after_cursor, category_of, integer_of
from .instruments import Category, Instrument
from .noise import key_of, word
from .rows import Row, contract_row, kline_rows, spot_row, ticker_row
from .signing import Refusal

CONTRACTS = (Category.LINEAR, Category.INVERSE)
WITH_CANDLES = (Category.LINEAR, Category.INVERSE, Category.SPOT)
LATEST_MS = 10**14


def server_time(exchange: Exchange, _: Query, now_ms: int) -> Row:
    """/v5/market/time"""
    nano = now_ms * 1_000_000 + word(key_of(exchange.seed, "nano"), now_ms) % 1_000_000
    return {"timeSecond": str(now_ms // 1_000), "timeNano": str(nano)}


def _option_tickers(exchange: Exchange, query: Query, now_ms: int) -> list[Row]:
    symbol, base = query.get("symbol", ""), query.get("baseCoin", "")
    if not symbol and not base:
        raise Refusal(PARAMETER_ERROR, "params error: baseCoin or symbol is required")
    found = options.listed(exchange.market, base or symbol.partition("-")[0], now_ms)
    rows = [options.ticker_row(exchange.market, one, now_ms) for one in found if symbol in ("", one.symbol)]
    if symbol and not rows:
        raise Refusal(PARAMETER_ERROR, "params error: Symbol Is Invalid")
    return rows


def tickers(exchange: Exchange, query: Query, now_ms: int) -> Row:
    """/v5/market/tickers: one symbol, or all of a category."""
    category = category_of(query)
    if category is Category.OPTION:
        return {"category": category, "list": _option_tickers(exchange, query, now_ms)}
    symbol, base = query.get("symbol", ""), query.get("baseCoin", "")
    chosen = [exchange.instrument(category, symbol)] if symbol else exchange.catalogue[category].values()
    market = exchange.market
    rows = [ticker_row(one, market.ticker(one, now_ms)) for one in chosen if symbol or base in ("", one.base)]
    return {"category": category, "list": rows}


def _kline(exchange: Exchange, query: Query, now_ms: int, kind: str) -> Row:
    category = category_of({"category": "linear", **query}, WITH_CANDLES)
    instrument = exchange.instrument(category, query.get("symbol", ""), "Not supported symbols")
    if (interval := query.get("interval", "")) not in INTERVALS:
        raise Refusal(PARAMETER_ERROR, "Invalid period!")
    candles = exchange.market.kline(
        instrument,
        interval,
        now_ms,
        kind=kind,
        limit=integer_of(query, "limit", 200, 1, 1_000),
        start_ms=integer_of(query, "start", None, 0, LATEST_MS),
        end_ms=integer_of(query, "end", None, 0, LATEST_MS),
    )
    return {"symbol": instrument.symbol, "category": category, "list": kline_rows(instrument, candles, kind)}


def kline(exchange: Exchange, query: Query, now_ms: int) -> Row:
    """/v5/market/kline: newest first, the forming one among them."""
    return _kline(exchange, query, now_ms, "")


def mark_price_kline(exchange: Exchange, query: Query, now_ms: int) -> Row:
    """/v5/market/mark-price-kline"""
    return _kline(exchange, query, now_ms, "mark")


def index_price_kline(exchange: Exchange, query: Query, now_ms: int) -> Row:
    """/v5/market/index-price-kline"""
    return _kline(exchange, query, now_ms, "index")


def _instruments(exchange: Exchange, category: Category, query: Query) -> Sequence[Instrument]:
    symbol, base = query.get("symbol", ""), query.get("baseCoin", "")
    if query.get("status", "Trading") not in ("Trading", ""):
        return []
    if symbol:
        return [exchange.instrument(category, symbol)]
    return [one for one in exchange.catalogue[category].values() if base in ("", one.base)]


def _option_rows(exchange: Exchange, query: Query, now_ms: int) -> list[Row]:
    symbol = query.get("symbol", "")
    base = symbol.partition("-")[0] or query.get("baseCoin", "") or "BTC"
    found = options.listed(exchange.market, base, now_ms)
    if query.get("status", "Trading") not in ("Trading", ""):
        return []
    rows = [options.instrument_row(one) for one in found if symbol in ("", one.symbol)]
    if symbol and not rows:
        raise Refusal(PARAMETER_ERROR, "params error: Symbol Is Invalid")
    return sorted(rows, key=lambda row: str(row["symbol"]))


def instruments_info(exchange: Exchange, query: Query, now_ms: int) -> Row:
    """/v5/market/instruments-info: pages of 500 by default; spot comes whole, as on Bybit."""
    category = category_of(query)
    if category is Category.SPOT:
        return {"category": category, "list": [spot_row(one) for one in _instruments(exchange, category, query)]}
    limit = integer_of(query, "limit", 500, 1, 1_000)
    if category is Category.OPTION:
        rows = _option_rows(exchange, query, now_ms)
    else:
        rows = [contract_row(one) for one in _instruments(exchange, category, query)]
    rest = after_cursor(rows, query.get("cursor", ""), ("symbol",))
    page = rest[:limit]
    cursor = quote(str(page[-1]["symbol"]), safe="") if len(rest) > limit else ""
    return {"category": category, "list": page, "nextPageCursor": cursor}
