"""How Bybit writes the market: the rows of tickers, kline and instruments-info answers, every number a string.

Kept apart from the market so that its numbers stay integers everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from .candles import Candle
from .instruments import Category, Instrument
from .market import Ticker
from .noise import key_of

Row = dict[str, object]


def plain(units: int, decimals: int) -> str:
    """An integer in units of the last decimal as a decimal string with all its decimals."""
    if not decimals:
        return str(units)
    sign, (whole, part) = "-" if units < 0 else "", divmod(abs(units), 10**decimals)
    return f"{sign}{whole}.{part:0{decimals}d}"


def short(units: int, decimals: int) -> str:
    """Like `plain`, without trailing zeros."""
    text = plain(units, decimals)
    return text.rstrip("0").rstrip(".") if decimals else text


def money(units: int) -> str:
    """An amount in units of 1e-8 without trailing zeros."""
    return short(units, 8)


def price_text(instrument: Instrument, ticks: int) -> str:
    """A price with the decimals of the instrument's price scale, as tickers have it."""
    return plain(ticks * instrument.tick_units, instrument.price_decimals)


def size_text(instrument: Instrument, steps: int) -> str:
    """A quantity without trailing zeros."""
    return short(steps * instrument.step_units, instrument.size_decimals)


def change_text(last: int, previous: int, decimals: int) -> str:
    """(last - previous) / previous, rounded, without trailing zeros."""
    whole, rest = divmod((last - previous) * 10**decimals, previous)
    up = 2 * rest > previous or (2 * rest == previous and whole & 1)  # to the nearest, halves to even
    return short(whole + up, decimals)


def _column(values: Iterable[int], factor: int, decimals: int) -> list[str]:
    """`short` of many integers times a factor, by way of floats, which hold every number below 2**52 exactly enough."""
    scale, form = 10**decimals, f"%.{decimals}f"
    if not decimals:
        return [str(value * factor) for value in values]
    return [
        (form % (value * factor / scale)).rstrip("0").rstrip(".")
        if value * factor < 2**52
        else short(value * factor, decimals)
        for value in values
    ]


def kline_rows(instrument: Instrument, candles: Sequence[Candle], kind: str = "") -> list[list[str]]:
    """Candles as Bybit's kline answers have them, newest first; mark and index price have no volume."""
    if not candles:
        return []
    opens, *prices, volumes, turnovers = zip(*reversed(candles), strict=True)
    columns = [[str(open_ms) for open_ms in opens]]
    columns += (_column(column, instrument.tick_units, instrument.price_decimals) for column in prices)
    if not kind:
        columns.append(_column(volumes, instrument.step_units, instrument.size_decimals))
        columns.append(_column(turnovers, 1, instrument.turnover_decimals))
    return [list(row) for row in zip(*columns, strict=True)]


def _decimals4(units: int, decimals: int) -> str:
    return plain(units * 10**4 // 10**decimals, 4)


def _spot_row(instrument: Instrument, ticker: Ticker) -> Row:
    return {
        "symbol": instrument.symbol,
        "bid1Price": price_text(instrument, ticker.bid),
        "bid1Size": size_text(instrument, ticker.bid_size),
        "ask1Price": price_text(instrument, ticker.ask),
        "ask1Size": size_text(instrument, ticker.ask_size),
        "lastPrice": price_text(instrument, ticker.last),
        "prevPrice24h": price_text(instrument, ticker.previous_24h),
        "price24hPcnt": change_text(ticker.last, ticker.previous_24h, 4),
        "highPrice24h": price_text(instrument, ticker.high_24h),
        "lowPrice24h": price_text(instrument, ticker.low_24h),
        "turnover24h": short(ticker.turnover_24h, instrument.turnover_decimals),
        "volume24h": size_text(instrument, ticker.volume_24h),
        "usdIndexPrice": short(ticker.index * instrument.tick_units, instrument.price_decimals),
    }


def interest_cents(instrument: Instrument, ticker: Ticker) -> int:
    """Open interest at the mark price in hundredths of the quote coin, or for inverse contracts of the base coin."""
    ratio = instrument.interest_ratio
    cents, divisor = ticker.open_interest * ratio.numerator * 100, ratio.denominator
    if instrument.category is Category.INVERSE:
        return cents // (divisor * ticker.mark)
    return cents * ticker.mark // divisor


def ticker_row(instrument: Instrument, ticker: Ticker) -> Row:
    """The row of a tickers answer (Bybit V5, "Get Tickers") for a perpetual contract or a spot pair."""
    if instrument.category is Category.SPOT:
        return _spot_row(instrument, ticker)
    return {
        "symbol": instrument.symbol,
        "lastPrice": price_text(instrument, ticker.last),
        "indexPrice": price_text(instrument, ticker.index),
        "markPrice": price_text(instrument, ticker.mark),
        "prevPrice24h": price_text(instrument, ticker.previous_24h),
        "price24hPcnt": change_text(ticker.last, ticker.previous_24h, 6),
        "highPrice24h": price_text(instrument, ticker.high_24h),
        "lowPrice24h": price_text(instrument, ticker.low_24h),
        "prevPrice1h": price_text(instrument, ticker.previous_1h),
        "openInterest": size_text(instrument, ticker.open_interest),
        "openInterestValue": plain(interest_cents(instrument, ticker), 2),
        "turnover24h": _decimals4(ticker.turnover_24h, instrument.turnover_decimals),
        "volume24h": _decimals4(ticker.volume_24h * instrument.step_units, instrument.size_decimals),
        "fundingRate": short(ticker.funding_rate, 8),
        "nextFundingTime": str(ticker.next_funding_ms),
        "predictedDeliveryPrice": "",
        "basisRate": "",
        "deliveryFeeRate": "",
        "deliveryTime": "0",
        "ask1Size": size_text(instrument, ticker.ask_size),
        "bid1Price": price_text(instrument, ticker.bid),
        "ask1Price": price_text(instrument, ticker.ask),
        "bid1Size": size_text(instrument, ticker.bid_size),
        "basis": "",
        "preOpenPrice": "",
        "preQty": "",
        "curPreListingPhase": "",
        "fundingIntervalHour": "8",
        "basisRateYear": "",
        "fundingCap": "0.005",
    }


def _times(step: str, factor: int) -> str:
    return f"{Decimal(step) * factor:f}"


def symbol_id(instrument: Instrument) -> int:
    """The number that Bybit gives a symbol beside its name."""
    return key_of(0, instrument.category, instrument.symbol) % 10_000


def contract_row(instrument: Instrument) -> Row:
    """The instruments-info row of a perpetual contract (Bybit V5, "Get Instruments Info")."""
    inverse = instrument.category is Category.INVERSE
    step, tick = instrument.step, instrument.tick
    return {
        "symbol": instrument.symbol,
        "symbolId": symbol_id(instrument),
        "contractType": "InversePerpetual" if inverse else "LinearPerpetual",
        "status": "Trading",
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "launchTime": str(instrument.launch_ms),
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(instrument.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": instrument.max_leverage, "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": _times(tick, 19_999_998), "tickSize": tick},
        "lotSizeFilter": {
            "maxOrderQty": _times(step, 1_190_000),
            "minOrderQty": step,
            "qtyStep": step,
            "postOnlyMaxOrderQty": _times(step, 1_190_000),
            "maxMktOrderQty": _times(step, 500_000),
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": instrument.settle,
        "copyTrading": "none" if inverse else "both",
        "upperFundingRate": "0.00375",
        "lowerFundingRate": "-0.00375",
        "isPreListing": False,
        "preListingInfo": None,
        "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
        "symbolType": "",
    }


def spot_row(instrument: Instrument) -> Row:
    """The instruments-info row of a spot pair."""
    step = instrument.step
    return {
        "symbolId": symbol_id(instrument),
        "symbol": instrument.symbol,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "utaOnly",
        "stTag": "0",
        "lotSizeFilter": {
            "basePrecision": step,
            "quotePrecision": "0.0000001",
            "minOrderQty": _times(step, 11),
            "maxOrderQty": _times(step, 83_000_000),
            "minOrderAmt": "5",
            "maxOrderAmt": "8000000",
            "maxLimitOrderQty": _times(step, 83_000_000),
            "maxMarketOrderQty": _times(step, 41_500_000),
            "postOnlyMaxLimitOrderSize": "60000",
        },
        "priceFilter": {"tickSize": instrument.tick},
        "riskParameters": {"priceLimitRatioX": "0.005", "priceLimitRatioY": "0.01"},
        "symbolType": "",
    }
