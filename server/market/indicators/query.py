"""Query: what one question about candles wants to see of its answers, and the body that shows it."""

from typing import Any, NamedTuple

from ...errors import InvalidRequest
from ...models import Candles, Topic
from ..candles import DEPTH
from .asked import Asked, depth_for
from .prices import CHARTS
from .questions import Question

LONG_MS = 2.0
VALUE_MS = 0.0005
"""About what one number costs until it is JSON."""


class Query(NamedTuple):
    """What one question wants to see: of its answers those of `results` candles, `backtrack` before the last one."""

    asked: Asked
    results: int
    backtrack: int

    @property
    def values(self) -> int:
        """How many answers that are, each of one name or the classic set."""
        return len(self.asked.questions or (None,)) * self.results

    @property
    def is_long(self) -> bool:
        """Whether computing and writing down may take more of a loop's turn than a thread costs."""
        return self.asked.cost_ms + self.values * VALUE_MS > LONG_MS

    def body(self, topic: Topic, held: Candles) -> dict[str, Any]:
        """The own fields of an answer over the candles that are held. Raises InvalidRequest, InsufficientCandles."""
        candles, computed = self.asked.of(held)
        reach = self.results + self.backtrack
        if reach > len(candles):
            detail = f"results and backtrack reach over {reach} candles; there are {len(candles)}"
            raise InvalidRequest("results" if self.results > 1 else "backtrack", detail)
        last = len(candles) - 1 - self.backtrack
        body = {
            "symbol": topic.symbol,
            "category": topic.category,
            "interval": topic.interval,
            "candle_count": len(candles),
            "candle_closed": self.backtrack > 0 or candles.last_closed,
            **({} if self.asked.chart == CHARTS[0] else {"chart": self.asked.chart}),
            "data": {**_candle(candles, last), **computed.at(last)},
        }
        if self.results > 1:
            window = slice(last + 1 - self.results, last + 1)
            body["series"] = {"open_time_ms": candles.open_times_ms[window].tolist(), **computed.span(window)}
        return body


def newest(questions: tuple[Question, ...] | None, interval: str, *, max_candles: int, is_closed: bool) -> Query:
    """The answers at the last candle, or at the last closed one; None for the classic set."""
    depth = DEPTH if questions is None else min(depth_for(questions, 1, interval), max_candles)
    return Query(Asked(questions, depth, is_closed), results=1, backtrack=0)


def _candle(candles: Candles, index: int) -> dict[str, Any]:
    return {
        "open_time_ms": int(candles.open_times_ms[index]),
        "open_price": float(candles.open[index]),
        "high_price": float(candles.high[index]),
        "low_price": float(candles.low[index]),
        "close_price": float(candles.close[index]),
        "volume": float(candles.volume[index]),
    }
