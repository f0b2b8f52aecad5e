"""REST routes for indicators: parse, ask the feeds, compute, answer."""

from typing import Any

from aiohttp import web

from ..errors import InvalidRequest
from ..market.candles import DEPTH
from ..market.indicators import CHARTS, Asked, depth_for, parse_names
from ..models import Candles, Topic
from .inquiry import FRESHNESS, Inquiry, found, respond
from .keys import SETTINGS
from .parameters import Parameters
from .rest import kline_topic

routes = web.RouteTableDef()


@routes.get("/indicators/{symbol}")
async def indicators(request: web.Request) -> web.StreamResponse:
    """The classic set over the last 1,000 candles, or the indicators asked for by name, over more if they need them."""
    return await respond(request, found(request, _indicators))


def _indicators(request: web.Request) -> Inquiry:
    allowed = ("interval", "category", "names", "results", "backtrack", "closed", "chart", *FRESHNESS)
    parameters = Parameters(request.query, allowed)
    limits = request.app[SETTINGS].indicators
    chart = parameters.choice("chart", "candles", CHARTS)
    names = parameters.text("names", "")
    questions = parse_names(names, max_names=limits.max_names) if "names" in request.query else None
    results = parameters.integer("results", 1, 1, limits.max_results)
    backtrack = parameters.integer("backtrack", 0, 0, (DEPTH if questions is None else limits.max_candles) - 1)
    depth = DEPTH if questions is None else min(depth_for(questions, results + backtrack), limits.max_candles)
    closed = parameters.boolean("closed")
    topic = kline_topic(request, parameters)
    return Inquiry(
        request,
        topic,
        parameters,
        lambda candles: _indicators_body(topic, candles, Asked(questions, depth, closed, chart), results, backtrack),
        depth=depth,
    )


def _indicators_body(topic: Topic, held: Candles, asked: Asked, results: int, backtrack: int) -> dict[str, Any]:
    candles, computed = asked.of(held)
    if results + backtrack > len(candles):
        detail = f"results and backtrack reach over {results + backtrack} candles; there are {len(candles)}"
        raise InvalidRequest("results", detail)
    last = len(candles) - 1 - backtrack
    body = {
        "symbol": topic.symbol,
        "category": topic.category,
        "interval": topic.interval,
        "candle_count": len(candles),
        "candle_closed": backtrack > 0 or candles.last_closed,
        **({} if asked.chart == CHARTS[0] else {"chart": asked.chart}),
        "data": {**_candle(candles, last), **computed.at(last)},
    }
    if results > 1:
        window = slice(last + 1 - results, last + 1)
        body["series"] = {"open_time_ms": candles.open_times_ms[window].tolist(), **computed.span(window)}
    return body


def _candle(candles: Candles, index: int) -> dict[str, Any]:
    return {
        "open_time_ms": int(candles.open_times_ms[index]),
        "open_price": float(candles.open[index]),
        "high_price": float(candles.high[index]),
        "low_price": float(candles.low[index]),
        "close_price": float(candles.close[index]),
        "volume": float(candles.volume[index]),
    }
