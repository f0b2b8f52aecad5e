"""REST routes for indicators: parse, ask the feeds, compute, answer."""

from typing import Any, NamedTuple

from aiohttp import web

from ..errors import InvalidRequest
from ..market.candles import DEPTH
from ..market.indicators import CHARTS, Asked, depth_for, parse_names
from ..models import Candles, Topic
from ..settings import IndicatorSettings
from .inquiry import FRESHNESS, Inquiry, found, respond
from .keys import SETTINGS
from .parameters import Parameters
from .rest import kline_topic

routes = web.RouteTableDef()

QUERY = ("interval", "category", "names", "results", "backtrack", "closed", "chart")
"""The parameters of a question, beside those of its freshness."""
LONG_MS = 2.0
VALUE_MS = 0.0005
"""About what one number costs until it is JSON."""


@routes.get("/indicators/{symbol}")
async def indicators(request: web.Request) -> web.StreamResponse:
    """The classic set over the last 1,000 candles, or the indicators asked for by name, over more if they need them."""
    return await respond(request, found(request, _indicators))


def _indicators(request: web.Request) -> Inquiry:
    parameters = Parameters(request.query, (*QUERY, *FRESHNESS))
    query = query_of(parameters, request.app[SETTINGS].indicators)
    topic = kline_topic(request, parameters)
    return Inquiry(
        request,
        topic,
        parameters,
        lambda candles: query.body(topic, candles),
        depth=query.asked.depth,
        is_long=query.is_long,
    )


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
            raise InvalidRequest("results", detail)
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


def query_of(parameters: Parameters, limits: IndicatorSettings) -> Query:
    """What the parameters ask for. Raises InvalidRequest."""
    chart = parameters.choice("chart", CHARTS[0], CHARTS)
    names = parameters.text("names", None)
    questions = None if names is None else parse_names(names, max_names=limits.max_names)
    results = parameters.integer("results", 1, 1, limits.max_results)
    backtrack = parameters.integer("backtrack", 0, 0, (DEPTH if questions is None else limits.max_candles) - 1)
    depth = DEPTH
    if questions is not None:
        depth = min(depth_for(questions, results + backtrack, parameters.interval("240")), limits.max_candles)
    return Query(Asked(questions, depth, parameters.boolean("closed"), chart), results, backtrack)


def _candle(candles: Candles, index: int) -> dict[str, Any]:
    return {
        "open_time_ms": int(candles.open_times_ms[index]),
        "open_price": float(candles.open[index]),
        "high_price": float(candles.high[index]),
        "low_price": float(candles.low[index]),
        "close_price": float(candles.close[index]),
        "volume": float(candles.volume[index]),
    }
