"""The catalogue: what is traded, in which steps, and the rows that instruments-info gives for it.

Launch days and base prices are invented where that serves: every symbol has years of history behind any useful "now".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from msgspec import Struct

DAY_MS = 86_400_000
FIRST_LAUNCH_DAY = 18_346  # 2020-03-25, the day BTCUSDT was launched


class Category(StrEnum):
    """Bybit's product types."""

    LINEAR = "linear"
    INVERSE = "inverse"
    SPOT = "spot"
    OPTION = "option"


class Instrument(Struct, frozen=True, dict=True):
    """One traded symbol. Inside the simulator prices are integers in ticks, quantities integers in steps.

    `price_decimals` may exceed the tick's own (BTCUSDT: tick 0.10, scale 2), as Bybit writes its ticker prices.
    """

    category: Category
    symbol: str
    base: str
    quote: str
    settle: str
    tick: str
    step: str
    base_price: float
    daily_turnover_usd: float
    max_leverage: str
    launch_day: int

    def __hash__(self) -> int:
        return hash(self.symbol)  # of one field: instruments are what many caches are asked by

    @cached_property
    def price_decimals(self) -> int:
        return max(0, -int(Decimal(self.tick).as_tuple().exponent))

    @cached_property
    def tick_units(self) -> int:
        """The tick in units of the last price decimal."""
        return int(Decimal(self.tick).scaleb(self.price_decimals))

    @cached_property
    def size_decimals(self) -> int:
        return max(0, -int(Decimal(self.step).as_tuple().exponent))

    @cached_property
    def step_units(self) -> int:
        """The quantity step in units of the last quantity decimal."""
        return int(Decimal(self.step).scaleb(self.size_decimals))

    @property
    def turnover_decimals(self) -> int:
        return 4 if self.category is Category.LINEAR else 8

    @cached_property
    def interest_ratio(self) -> Fraction:
        """Open interest per step in the quote coin: times the price in ticks. Inverse: divided by it."""
        tick, step = Fraction(self.tick), Fraction(self.step)
        return step / tick if self.category is Category.INVERSE else step * tick

    @cached_property
    def turnover_ratio(self) -> Fraction:
        """Turnover units per step: times the price in ticks, or for inverse contracts divided by it."""
        tick, step = Fraction(self.tick), Fraction(self.step)
        return (step / tick if self.category is Category.INVERSE else step * tick) * Fraction(
            10
        ) ** self.turnover_decimals

    @property
    def launch_ms(self) -> int:
        return self.launch_day * DAY_MS


# coin: tick, quantity step, base price, daily turnover in millions of USD, maximum leverage
COINS: Mapping[str, tuple[str, str, float, float, str]] = {
    "BTC": ("0.10", "0.001", 64_000.0, 4_000, "100.00"),
    "ETH": ("0.01", "0.01", 3_100.0, 2_500, "100.00"),
    "SOL": ("0.010", "0.1", 150.0, 900, "100.00"),
    "XRP": ("0.0001", "0.1", 2.1, 500, "75.00"),
    "DOGE": ("0.00001", "1", 0.21, 400, "75.00"),
    "ADA": ("0.0001", "1", 0.92, 120, "75.00"),
    "BNB": ("0.10", "0.01", 620.0, 150, "75.00"),
    "LTC": ("0.01", "0.1", 88.0, 90, "50.00"),
    "AVAX": ("0.001", "0.1", 32.0, 110, "50.00"),
    "DOT": ("0.0005", "0.1", 6.4, 60, "50.00"),
    "LINK": ("0.001", "0.1", 15.0, 130, "50.00"),
    "TRX": ("0.00001", "1", 0.16, 70, "50.00"),
    "UNI": ("0.001", "0.1", 9.5, 50, "50.00"),
    "ATOM": ("0.001", "0.1", 8.2, 40, "50.00"),
    "ETC": ("0.001", "0.1", 26.0, 50, "50.00"),
    "NEAR": ("0.001", "0.1", 5.6, 60, "50.00"),
    "APT": ("0.001", "0.01", 9.1, 50, "50.00"),
    "ARB": ("0.0001", "0.1", 0.95, 70, "50.00"),
    "OP": ("0.0001", "0.1", 1.9, 60, "50.00"),
    "FIL": ("0.001", "0.1", 5.3, 40, "50.00"),
    "INJ": ("0.001", "0.1", 24.0, 40, "50.00"),
    "SUI": ("0.00010", "10", 3.1, 300, "75.00"),
    "SEI": ("0.00001", "1", 0.42, 40, "50.00"),
    "TIA": ("0.001", "0.1", 6.1, 50, "50.00"),
    "AAVE": ("0.01", "0.01", 160.0, 60, "50.00"),
    "BCH": ("0.05", "0.01", 420.0, 60, "50.00"),
    "XLM": ("0.00001", "1", 0.28, 40, "50.00"),
    "ALGO": ("0.0001", "0.1", 0.81, 30, "50.00"),
    "1000PEPE": ("0.0000001", "100", 0.0121, 250, "50.00"),
    "SHIB1000": ("0.000001", "10", 0.0232, 80, "50.00"),
    "WLD": ("0.0001", "0.1", 2.3, 90, "50.00"),
    "LDO": ("0.0001", "0.1", 1.7, 40, "25.00"),
    "RUNE": ("0.001", "0.1", 5.2, 30, "25.00"),
    "GALA": ("0.00001", "1", 0.031, 30, "25.00"),
}
SPOT_STEPS: Mapping[str, tuple[str, str]] = {
    "BTC": ("0.1", "0.000001"),
    "ETH": ("0.01", "0.00001"),
    "SOL": ("0.01", "0.001"),
    "XRP": ("0.0001", "0.01"),
    "DOGE": ("0.00001", "0.1"),
}


def _perpetual(coin: str, number: int) -> Instrument:
    tick, step, price, turnover, leverage = COINS[coin]
    launch = FIRST_LAUNCH_DAY + 6 * number
    usd = turnover * 1e6
    return Instrument(Category.LINEAR, f"{coin}USDT", coin, "USDT", "USDT", tick, step, price, usd, leverage, launch)


def _filler(number: int) -> Instrument:
    """A contract that nobody knows, for an exchange with more symbols than the catalogue has."""
    coin, price = f"FILL{number:03}", float(1 + number % 50)
    launch = FIRST_LAUNCH_DAY + 300
    return Instrument(Category.LINEAR, f"{coin}USDT", coin, "USDT", "USDT", "0.001", "0.1", price, 5e6, "25.00", launch)


def _usdc(coin: str) -> Instrument:
    tick, step, price, turnover, leverage = COINS[coin]
    usd, launch = turnover * 5e4, FIRST_LAUNCH_DAY + 200
    return Instrument(Category.LINEAR, f"{coin}PERP", coin, "USDC", "USDC", tick, step, price, usd, leverage, launch)


def _inverse(coin: str) -> Instrument:
    tick, _, price, turnover, leverage = COINS[coin]
    usd, launch = turnover * 1e5, FIRST_LAUNCH_DAY
    return Instrument(Category.INVERSE, f"{coin}USD", coin, "USD", coin, tick, "1", price, usd, leverage, launch)


def _spot(coin: str) -> Instrument:
    tick, step = SPOT_STEPS[coin]
    _, _, price, turnover, _ = COINS[coin]
    usd, launch = turnover * 4e4, FIRST_LAUNCH_DAY + 30
    return Instrument(Category.SPOT, f"{coin}USDT", coin, "USDT", "USDT", tick, step, price, usd, "10", launch)


def _by_symbol(instruments: Iterable[Instrument]) -> dict[str, Instrument]:
    return {instrument.symbol: instrument for instrument in sorted(instruments, key=lambda one: one.symbol)}


CATALOGUE: Mapping[Category, Mapping[str, Instrument]] = {
    Category.LINEAR: _by_symbol(
        [_perpetual(coin, number) for number, coin in enumerate(COINS)]
        + [_usdc(coin) for coin in ("BTC", "ETH", "SOL")]
    ),
    Category.INVERSE: _by_symbol(_inverse(coin) for coin in ("BTC", "ETH")),
    Category.SPOT: _by_symbol(_spot(coin) for coin in SPOT_STEPS),
}


def widened(symbols: int) -> Mapping[Category, Mapping[str, Instrument]]:
    """The catalogue with at least so many linear symbols, some of them nobody's. Raises ValueError over 2,000."""
    known = CATALOGUE[Category.LINEAR]
    if symbols > 2_000:
        raise ValueError("at most 2,000 symbols")
    fillers = [_filler(number) for number in range(symbols - len(known))]
    return {**CATALOGUE, Category.LINEAR: _by_symbol([*known.values(), *fillers])}
