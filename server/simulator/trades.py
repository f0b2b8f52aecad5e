"""Trades made on demand, over those that positions.py makes by itself: a test asks, and the account trades now."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from .instruments import Instrument

LARGEST_STEPS = 10**9


class Trade(NamedTuple):
    """A change of so many steps (signed: bought or sold) at an instant, filled at its last price."""

    at_ms: int
    change: int


class Trades:
    """The trades of every leg, by (symbol, positionIdx), in order of time. Without any it costs next to nothing."""

    def __init__(self) -> None:
        self._by_leg: defaultdict[tuple[str, int], list[Trade]] = defaultdict(list)

    def add(self, symbol: str, side: int, trade: Trade) -> None:
        insort(self._by_leg[symbol, side], trade, key=lambda one: one.at_ms)

    def clear(self) -> None:
        self._by_leg.clear()

    def within(self, symbol: str, side: int, start_ms: int, end_ms: int) -> tuple[int, tuple[Trade, ...]]:
        """How many trades came before `start_ms`, and those from then on and before `end_ms`."""
        if (trades := self._by_leg.get((symbol, side))) is None:
            return 0, ()
        first, last = (bisect_left(trades, at_ms, key=lambda one: one.at_ms) for at_ms in (start_ms, end_ms))
        return first, tuple(trades[first:last])


def steps_of(instrument: Instrument, size: str) -> int:
    """A decimal quantity in steps; raises ValueError where it is none, not above zero, or between two steps."""
    try:
        steps = Decimal(size) / Decimal(instrument.step)
    except InvalidOperation:
        raise ValueError(f"size must be a decimal number, not {size!r}") from None
    if not steps.is_finite() or not 0 < steps <= LARGEST_STEPS or steps != int(steps):
        raise ValueError(f"size must be a positive multiple of {instrument.step}, not {size}")
    return int(steps)
