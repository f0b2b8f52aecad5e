"""A few options that are always months from expiring: the rows Bybit's clients read when they load all markets.

Priced roughly, from the coin's index price: nobody trades them, clients only must be able to parse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import sqrt

from msgspec import Struct

from .instruments import DAY_MS
from .market import Market
from .rows import Row

STRIKE_STEPS = {"BTC": 5_000, "ETH": 250}
WEEKS_AHEAD = (1, 4)


class Option(Struct, frozen=True):
    """One option, settled in USDT."""

    base: str
    delivery_ms: int
    strike: int
    call: bool

    @property
    def name(self) -> str:
        """Delivery day, strike and side, as in 27MAR26-70000-P."""
        date = datetime.fromtimestamp(self.delivery_ms // 1_000, UTC)
        return f"{date.day}{date:%b%y}-{self.strike}-{'C' if self.call else 'P'}".upper()

    @property
    def symbol(self) -> str:
        return f"{self.base}-{self.name}-USDT"


def _deliveries(now_ms: int) -> Iterator[int]:
    """Coming Fridays at 08:00 UTC."""
    today = datetime.fromtimestamp(now_ms // DAY_MS * 86_400, UTC)
    friday = today + timedelta(days=(4 - today.weekday()) % 7, hours=8)
    for weeks in WEEKS_AHEAD:
        yield int((friday + timedelta(weeks=weeks)).timestamp()) * 1_000


def listed(market: Market, base: str, now_ms: int) -> list[Option]:
    """The options of a coin: calls and puts around the price that midnight had; none for most coins."""
    if base not in STRIKE_STEPS:
        return []
    step = STRIKE_STEPS[base]
    centre = round(market.index_price(base, now_ms // DAY_MS * DAY_MS) / step) * step
    strikes = (centre - step, centre, centre + step)
    return [
        Option(base, delivery, strike, call)
        for delivery in _deliveries(now_ms)
        for strike in strikes
        for call in (True, False)
    ]


def instrument_row(option: Option) -> Row:
    """The instruments-info row of an option."""
    return {
        "symbol": option.symbol,
        "status": "Trading",
        "baseCoin": option.base,
        "quoteCoin": "USDT",
        "settleCoin": "USDT",
        "optionsType": "Call" if option.call else "Put",
        "launchTime": str(option.delivery_ms - 60 * DAY_MS),
        "deliveryTime": str(option.delivery_ms),
        "deliveryFeeRate": "0.00015",
        "priceFilter": {"minPrice": "5", "maxPrice": "1110000", "tickSize": "5"},
        "lotSizeFilter": {"maxOrderQty": "500", "minOrderQty": "0.01", "qtyStep": "0.01"},
        "displayName": f"{option.base}USDT-{option.name}",
    }


def ticker_row(market: Market, option: Option, now_ms: int) -> Row:
    """The tickers row of an option: intrinsic value plus time value that falls with the distance to the strike."""
    index = market.index_price(option.base, now_ms)
    years = Decimal(option.delivery_ms - now_ms) / (365 * DAY_MS)
    ahead = index - option.strike if option.call else option.strike - index
    spread = index * Decimal("0.55") * Decimal(sqrt(years))
    likely = min(max(Decimal("0.5") + ahead / spread / 2, Decimal("0.01")), Decimal("0.99"))
    mark = max(ahead, Decimal(0)) + spread * Decimal("0.4") * min(likely, 1 - likely) * 2
    paid = max(round(mark / 5) * 5, 5)
    return {
        "symbol": option.symbol,
        "bid1Price": str(max(paid - 5, 0)),
        "bid1Size": "1.5",
        "bid1Iv": "0.54",
        "ask1Price": str(paid + 5),
        "ask1Size": "2.2",
        "ask1Iv": "0.56",
        "lastPrice": str(paid),
        "highPrice24h": str(paid + 20),
        "lowPrice24h": str(max(paid - 20, 5)),
        "markPrice": f"{mark:.8f}",
        "indexPrice": f"{index:.2f}",
        "markIv": "0.55",
        "underlyingPrice": f"{index:.2f}",
        "openInterest": "6.3",
        "turnover24h": f"{index * 12:.4f}",
        "volume24h": "12",
        "totalVolume": "99",
        "totalTurnover": f"{index * 99:.4f}",
        "delta": f"{likely if option.call else -likely:.8f}",
        "gamma": f"{Decimal('0.4') / spread:.8f}",
        "vega": f"{index * Decimal('0.001'):.8f}",
        "theta": f"{-mark / 60:.8f}",
        "predictedDeliveryPrice": "0",
        "change24h": "0",
    }
