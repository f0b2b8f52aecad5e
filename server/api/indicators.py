"""REST routes for indicators: parse, ask the feeds, compute, answer."""

from aiohttp import web

from ..market.candles import DEPTH
from ..market.indicators import CHARTS, Asked, Query, depth_for, parse_names
from ..settings import IndicatorSettings
from .inquiry import FRESHNESS, Inquiry, found, respond
from .keys import SETTINGS
from .parameters import Parameters
from .rest import USUAL_INTERVAL, kline_topic

routes = web.RouteTableDef()

QUERY = ("interval", "category", "names", "results", "backtrack", "closed", "chart")
"""The parameters of a question, beside those of its freshness."""


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


def query_of(parameters: Parameters, limits: IndicatorSettings) -> Query:
    """What the parameters ask for. Raises InvalidRequest."""
    chart = parameters.choice("chart", CHARTS[0], CHARTS)
    names = parameters.text("names", None)
    questions = None if names is None else parse_names(names, max_names=limits.max_names)
    results = parameters.integer("results", 1, 1, limits.max_results)
    backtrack = parameters.integer("backtrack", 0, 0, (DEPTH if questions is None else limits.max_candles) - 1)
    depth = DEPTH
    if questions is not None:
        depth = min(depth_for(questions, results + backtrack, parameters.interval(USUAL_INTERVAL)), limits.max_candles)
    return Query(Asked(questions, depth, parameters.boolean("closed"), chart), results, backtrack)
