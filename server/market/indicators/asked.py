"""Asked: what somebody wants to know of candles, and the answers that are remembered with them."""

import math
from typing import NamedTuple

from ...models import Candles
from ..candles import DEPTH, without_forming
from .computing import Computed, compute
from .prices import CHARTS
from .questions import Question

MEMO_ENTRIES = 64
"""Answers remembered with a topic's candles, of a thousand each: of deeper ones fewer, in the same memory."""

NAME_MS = 0.05
"""About what one name costs at most over a thousand candles."""
HEAVY_MS = 0.4
HEAVY = frozenset(("cci", "ht_dcphase", "ht_sine", "ht_trendmode", "mavp", "pivots", "vwap"))
"""Those that cost as much as that, with the longest periods or always."""
CLASSIC_MS = 0.2


class Asked(NamedTuple):
    """Questions, or None for the classic set, over the last `depth` candles: which of them, and drawn how."""

    questions: tuple[Question, ...] | None
    depth: int = DEPTH
    is_closed: bool = False
    chart: str = CHARTS[0]

    @property
    def cost_ms(self) -> float:
        """About how long computing takes, where nothing is remembered."""
        if self.questions is None:
            return CLASSIC_MS
        names = (question.indicator.name for question in self.questions)
        return sum(HEAVY_MS if name in HEAVY else NAME_MS for name in names) * self.depth / DEPTH

    def looked_at(self, held: Candles) -> Candles:
        """The candles of those held; one fewer of closed ones, so that they stay the same when the next begins."""
        if not self.is_closed:
            return held.last(self.depth)
        return without_forming(held).last(self.depth - 1)

    def of(self, held: Candles) -> tuple[Candles, Computed]:
        """The candles to look at, and the answers over them. Raises InsufficientCandles.

        The answers are remembered with the candles that are held. Not so the candles looked at: they would hold
        themselves, and wait for the garbage collector with every refresh.
        """
        candles = self.looked_at(held)
        computed: Computed | None = held.computed.get(self)
        if computed is None:
            if len(held.computed) >= MEMO_ENTRIES * DEPTH // self.depth:
                held.computed.clear()
            computed = held.computed[self] = compute(candles, self.questions, chart=self.chart)
        return candles, computed


def depth_for(questions: tuple[Question, ...], looked_at: int, interval: str) -> int:
    """Candles, in whole thousands, of which so many values at the end do not depend on where history starts."""
    needed = max(question.needs(interval) for question in questions)
    return math.ceil((needed + looked_at) / DEPTH) * DEPTH
