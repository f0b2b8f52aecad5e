"""The life of positions: which are held at an instant, at what average price, with what realised. Pure in (seed, time).

Each leg (a symbol, or one side of a hedged symbol) repeats cycles of so many minutes: open, grow, set stops, shrink,
flip, grow, shrink, close, each a fill at the last price of its moment. Cycles divide the UTC day and end flat, so that
nothing is carried over midnight. Trades on demand come in between. Prices and money are integers in units of 1e-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from .candles import MINUTE_MS
from .instruments import CATALOGUE, DAY_MS, Category, Instrument
from .market import Market
from .noise import key_of, unit, word
from .trades import Trade, Trades

ONE = 10**8
FEE_PER_100_000 = 20
STEPS_PERMILLE = (50, 170, 260, 360, 500, 640, 760, 880)
# By one-way step: how the held size changes, in parts of a base size; None sets the stops, 0 closes all.
ONE_WAY = (1.0, 0.7, None, -0.9, -2.1, -0.6, 0.8, 0)
HEDGED = (1.0, 0.7, None, -0.9, 0.4, None, -0.5, 0)
LAST_STEP = len(ONE_WAY) - 1  # the one that closes

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
    cycle began; `take_profit` and `stop_loss` in ticks, None where not set; `trades` on demand ever.
    """

    size: int
    average: int
    realised: int
    cycle_realised: int
    opened_ms: int
    changed_ms: int
    take_profit: int | None
    stop_loss: int | None
    trades: int = 0


class Move(NamedTuple):
    """What happens to a leg at an instant: a trade on demand of `change` steps, or else the cycle's own `step`."""

    at_ms: int
    step: int
    change: int = 0


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
        stops = (held.take_profit, held.stop_loss, held.trades)
        return Holding(size, average, realised - fee, held.cycle_realised - fee, opened_ms, at_ms, *stops)
    closed = change if abs(change) <= abs(held.size) else -held.size
    profit = value8(leg.instrument, held.average - price, closed) - fee
    cycle = held.cycle_realised + profit
    if size * held.size > 0:
        return held._replace(size=size, realised=held.realised + profit, cycle_realised=cycle, changed_ms=at_ms)
    if size:  # flipped: the whole fee is booked on the position that ends
        return Holding(size, price, 0, cycle, at_ms, at_ms, None, None, held.trades)
    return Holding(0, 0, held.realised + profit, cycle, held.opened_ms, at_ms, None, None, held.trades)


def _with_stops(leg: Leg, held: Holding, at_ms: int, away_permille: int) -> Holding:
    """The holding with a take profit and a stop loss so far from its average price."""
    reach = held.average * away_permille // 1_000 * (1 if held.size > 0 else -1)
    profit, loss = (to_ticks(leg.instrument, held.average + part) for part in (reach, -reach // 2))
    return held._replace(take_profit=profit, stop_loss=loss, changed_ms=at_ms)


class Positions:
    """All holdings of one seed at any instant. Invariant: a leg is flat at every end of its cycle, so at midnight.

    Pure in (seed, time, trades on demand).
    """

    def __init__(self, market: Market) -> None:
        self.market, self.trades = market, Trades()
        self._cycles = lru_cache(maxsize=4_096)(self._cycle)

    def cycle(self, leg: Leg, number: int) -> tuple[Holding, ...]:
        """The leg after each change in its cycle `number`, counted from 1970."""
        start_ms = number * leg.cycle_ms
        before, trades = self.trades.within(leg.instrument.symbol, leg.side, start_ms, start_ms + leg.cycle_ms)
        return self._cycles(leg, number, before, trades)

    def trade(self, leg: Leg, change: int, now_ms: int) -> None:
        """Trades `change` steps (signed) now; closed with the leg's cycle, if not before.

        Raises ValueError where a hedged leg would change its side.
        """
        if leg.side and (self.holding(leg, now_ms).size + change) * (1 if leg.side == 1 else -1) < 0:
            raise ValueError("a hedged leg can be closed, and never change its side")
        self.trades.add(leg.instrument.symbol, leg.side, Trade(now_ms, change))

    def _cycle(self, leg: Leg, number: int, before: int, trades: tuple[Trade, ...]) -> tuple[Holding, ...]:
        start_ms = number * leg.cycle_ms
        key = key_of(self.market.seed, "position", leg.instrument.symbol, str(leg.side), str(number))
        own = (
            Move(start_ms + leg.cycle_ms * (permille + word(key, 2 * step + 1) % 40) // 1_000, step)
            for step, permille in enumerate(STEPS_PERMILLE)
        )
        asked = (Move(one.at_ms, LAST_STEP, one.change) for one in trades)
        moves = sorted((*own, *asked), key=lambda move: move.at_ms)
        if trades:
            moves.append(Move(start_ms + leg.cycle_ms - 1, LAST_STEP))
        return tuple(self._moved(leg, key, moves, Holding(0, 0, 0, 0, start_ms, start_ms, None, None, before)))

    def _moved(self, leg: Leg, key: int, moves: Iterable[Move], held: Holding) -> Iterator[Holding]:
        """The leg after each of the moves that change it."""
        for move in moves:
            if not move.change and (HEDGED if leg.side else ONE_WAY)[move.step] is None:
                if held.size:
                    held = _with_stops(leg, held, move.at_ms, 15 + 5 * move.step)
                    yield held
            elif change := move.change or self._own_change(leg, key, move.step, held):
                price = price8(leg.instrument, self.market.last(leg.instrument, move.at_ms))
                held = _filled(leg, held, change, price, move.at_ms)
                held = held._replace(trades=held.trades + bool(move.change))
                yield held

    def _own_change(self, leg: Leg, key: int, step: int, held: Holding) -> int:
        """How many steps the cycle's own `step` trades; a hedged leg never more than keeps it on its side."""
        part = (HEDGED if leg.side else ONE_WAY)[step]
        if not part:
            return -held.size
        going = 1 if (leg.side or 1 + word(key, 0) % 2) == 1 else -1
        base = leg.notional_usd / leg.instrument.base_price / float(leg.instrument.step) * going
        change = round(base * part * (0.8 + 0.2 * unit(key, 2 * step + 2)))
        return -held.size if leg.side and (held.size + change) * going < 0 else change

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
