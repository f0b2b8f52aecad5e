"""The route of the catalogue: what indicators there are, and how far back each looks."""

import functools
import hashlib

from aiohttp import web

from ..market.indicators import CHARTS, SOURCES, Description, catalogue, parse_names
from .answers import encoder
from .keys import SETTINGS
from .parameters import Parameters

routes = web.RouteTableDef()


@routes.get("/indicators")
async def indicators(request: web.Request) -> web.Response:
    """Every indicator with its defaults; with `names`, those with the parameters as given."""
    parameters = Parameters(request.query, ("names",))
    settings = request.app[SETTINGS]
    if "names" not in request.query:
        return _answer(request, *whole(settings.exchange))
    names = parameters.text("names", "")
    questions = parse_names(names, max_names=settings.indicators.max_names)
    return _answer(request, *_encoded(settings.exchange, tuple(question.describe() for question in questions)))


@functools.cache
def whole(exchange: str) -> tuple[bytes, str]:
    """The body of the whole catalogue and its tag: they are the same for as long as the process lives."""
    return _encoded(exchange, catalogue())


def _encoded(exchange: str, descriptions: tuple[Description, ...]) -> tuple[bytes, str]:
    document = {"exchange": exchange, "sources": tuple(SOURCES), "charts": CHARTS, "indicators": descriptions}
    body = encoder.encode(document)
    return body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _answer(request: web.Request, body: bytes, tag: str) -> web.Response:
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")
