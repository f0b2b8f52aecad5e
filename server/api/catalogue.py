"""The route of the catalogue: what indicators there are, and how far back each looks."""

import functools

from aiohttp import web

from ..market.indicators import CHARTS, SOURCES, Description, catalogue, parse_names
from .keys import SETTINGS
from .parameters import Parameters
from .unchanging import Unchanging, unchanging

routes = web.RouteTableDef()


@routes.get("/indicators")
async def indicators(request: web.Request) -> web.Response:
    """Every indicator with its defaults; with `names`, those with the parameters as given."""
    parameters = Parameters(request.query, ("names",))
    settings = request.app[SETTINGS]
    if "names" not in request.query:
        return whole(settings.exchange).answer(request)
    names = parameters.text("names", "")
    questions = parse_names(names, max_names=settings.indicators.max_names)
    return _encoded(settings.exchange, tuple(question.describe() for question in questions)).answer(request)


@functools.cache
def whole(exchange: str) -> Unchanging:
    """The answer of the whole catalogue."""
    return _encoded(exchange, catalogue())


def _encoded(exchange: str, descriptions: tuple[Description, ...]) -> Unchanging:
    document = {"exchange": exchange, "sources": tuple(SOURCES), "charts": CHARTS, "indicators": descriptions}
    return unchanging(document)
