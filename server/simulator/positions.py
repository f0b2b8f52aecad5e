"""The life of positions: which are held at an instant, at what average price, with what realised. Pure in (seed, time).

Each leg (a symbol, or one side of a hedged symbol) repeats cycles of so many minutes: open, grow, set stops, shrink,
flip, grow, shrink, close, each a fill at the last price of its moment. Cycles divide the UTC day and end flat, so that
nothing is carried over midnight. Prices and money are integers in units of 1e-8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from .candles import MINUTE_MS
from .instruments import CATALOGUE, DAY_MS, Category, Instrument
from .market import Market
from .noise import key_of, unit, word

ONE = 10**8
FEE_PER_100_000 = 20
STEPS_PERMILLE = (50, 170, 260, 360, 500, 640, 760, 880)
# By one-way step: how the held size changes, in parts of a base size; None sets the stops, 0 closes all.
ONE_WAY = (1.0, 0.7, None, -0.9, -2.1, -0.6, 0.8, 0)
HEDGED = (1.0, 0.7, None, -0.9, 0.4, None, -0.5, 0)

# symbol: minutes of a cycle (one-way, or of the two hedged legs), notional in USD, leverage
ACTIVE: Mapping[str, tuple[tuple[int, int], int, int]] = {
    "BTCUSDT": ((12, 15), 8_000, 10),
    "ETHUSDT": ((15, 16), 5_000, 10),
    "SOLUSDT": ((20, 18), 2_500, 5),
    "XRPUSDT": ((16, 18), 2_000, 8),
    "DOGEUSDT": ((24, 20), 1_500, 5),
    "BNBUSDT": ((30, 24), 1_200, 4),
    "ADAUSDT": ((36, 30), 900, 3),
    "BTCPERP": ((40, 36), 1_500, 10),
}


class Leg(NamedTuple):
    """One position that can be held: `side` is Bybit's positionIdx (0 one-way, 1 hedged long, 2 hedged short)."""

    instrument: Instrument
    side: int
    cycle_ms: int
    notional_usd: int
    leverage: int


class Holding(NamedTuple):
    """A leg after one of its changes.

    `size` is signed, in steps; `realised` since this position was opened, fees taken off; `cycle_realised` since the
    cycle began; `take_profit` and `stop_loss` in ticks, None where not set.
    """

    size: int
    average: int
    realised: int
    cycle_realised: int
    opened_ms: int
    changed_ms: int
    take_profit: int | None
    stop_loss: int | None


def rounded(numerator: int, denominator: int) -> int:
    """The quotient to the nearest integer, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def price8(instrument: Instrument, ticks: int) -> int:
    """A price in ticks in units of 1e-8."""
    return int(ticks * instrument.tick_units * 10 ** (8 - instrument.price_decimals))


def value8(instrument: Instrument, price: int, steps: int) -> int:
    """Price times quantity in units of 1e-8."""
    return rounded(price * steps * instrument.step_units, 10**instrument.size_decimals)


def to_ticks(instrument: Instrument, price: int) -> int:
    """The tick nearest to a price in units of 1e-8."""
    return rounded(price, price8(instrument, 1))


def legs_of(symbol: str, *, hedged: bool) -> tuple[Leg, ...]:
    """The legs of a linear symbol; none where nothing is ever held."""
    if symbol not in ACTIVE:
        return ()
    instrument = CATALOGUE[Category.LINEAR][symbol]
    minutes, notional, leverage = ACTIVE[symbol]
    if hedged:
        return tuple(Leg(instrument, side, minutes[side - 1] * MINUTE_MS, notional, leverage) for side in (1, 2))
    return (Leg(instrument, 0, minutes[0] * MINUTE_MS, notional, leverage),)


def _filled(leg: Leg, held: Holding, change: int, price: int, at_ms: int) -> Holding:
    """The holding after `change` steps (signed) were traded at `price`."""
    fee = -(-abs(value8(leg.instrument, price, change)) * FEE_PER_100_000 // 100_000)
    size = held.size + change
    if held.size * change >= 0:
        average = rounded(held.average * abs(held.size) + price * abs(change), abs(size))
        opened_ms, realised = (held.opened_ms, held.realised) if held.size else (at_ms, 0)
        stops = (held.take_profit, held.stop_loss)
        return Holding(size, average, realised - fee, held.cycle_realised - fee, opened_ms, at_ms, *stops)
    closed = change if abs(change) <= abs(held.size) else -held.size
    profit = value8(leg.instrument, held.average - price, closed) - fee
    cycle = held.cycle_realised + profit
    if size * held.size > 0:
        return held._replace(size=size, realised=held.realised + profit, cycle_realised=cycle, changed_ms=at_ms)
    if size:  # flipped: the whole fee is booked on the position that ends
        return Holding(size, price, 0, cycle, at_ms, at_ms, None, None)
    return Holding(0, 0, held.realised + profit, cycle, held.opened_ms, at_ms, None, None)


def _with_stops(leg: Leg, held: Holding, at_ms: int, away_permille: int) -> Holding:
    """The holding with a take profit and a stop loss so far from its average price."""
    reach = held.average * away_permille // 1_000 * (1 if held.size > 0 else -1)
    profit, loss = (to_ticks(leg.instrument, held.average + part) for part in (reach, -reach // 2))
    return held._replace(take_profit=profit, stop_loss=loss, changed_ms=at_ms)


class Positions:
    """All holdings of one seed at any instant. Invariant: a leg is flat at every end of its cycle, so at midnight."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.cycle = lru_cache(maxsize=4_096)(self._cycle)

    def _cycle(self, leg: Leg, number: int) -> tuple[Holding, ...]:
        """The leg after each step of its cycle `number`, counted from 1970."""
        return tuple(self._steps(leg, number))

    def _steps(self, leg: Leg, number: int) -> Iterator[Holding]:
        instrument, start_ms = leg.instrument, number * leg.cycle_ms
        key = key_of(self.market.seed, "position", instrument.symbol, str(leg.side), str(number))
        going = leg.side or 1 + word(key, 0) % 2
        base = leg.notional_usd / instrument.base_price / float(instrument.step) * (1 if going == 1 else -1)
        held = Holding(0, 0, 0, 0, start_ms, start_ms, None, None)
        for step, part in enumerate(HEDGED if leg.side else ONE_WAY):
            at_ms = start_ms + leg.cycle_ms * (STEPS_PERMILLE[step] + word(key, 2 * step + 1) % 40) // 1_000
            if part is None:
                held = _with_stops(leg, held, at_ms, 15 + 5 * step)
            else:
                change = round(base * part * (0.8 + 0.2 * unit(key, 2 * step + 2))) if part else -held.size
                price = price8(instrument, self.market.last(instrument, at_ms))
                held = _filled(leg, held, change, price, at_ms)
            yield held

    def holding(self, leg: Leg, now_ms: int) -> Holding:
        """The leg as its last change at or before `now_ms` left it."""
        number = now_ms // leg.cycle_ms
        past = [held for held in self.cycle(leg, number) if held.changed_ms <= now_ms]
        return past[-1] if past else self.cycle(leg, number - 1)[-1]

    def realised_today(self, leg: Leg, now_ms: int) -> int:
        """What the leg realised since UTC midnight, fees taken off, in units of 1e-8."""
        number, first = now_ms // leg.cycle_ms, now_ms // DAY_MS * DAY_MS // leg.cycle_ms
        closed = sum(self.cycle(leg, cycle)[-1].cycle_realised for cycle in range(first, number))
        past = [held for held in self.cycle(leg, number) if held.changed_ms <= now_ms]
        return closed + (past[-1].cycle_realised if past else 0)
