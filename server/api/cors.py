"""CORS: which pages of other origins may read answers. None, unless `auth.cors_origins` names them, each exactly."""

from aiohttp import hdrs, web

from .keys import ACCESS

METHODS = "GET, HEAD, POST"
REQUEST_HEADERS = "Authorization, Content-Type, If-None-Match, X-Request-ID"
SHOWN_HEADERS = "ETag, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
REMEMBERED_S = 600


def preflight(request: web.Request) -> web.Response | None:
    """The answer to a browser that asks whether a listed page may ask; None for every other request."""
    if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    if request.headers.get(hdrs.ORIGIN) not in request.app[ACCESS].cors_origins:
        return None
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(REMEMBERED_S),
    }
    return web.Response(status=204, headers=headers)


def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Let a listed page read the answer, whatever it is. Never `*`, never with credentials: there are no cookies."""
    origins = request.app[ACCESS].cors_origins
    response.headers[hdrs.VARY] = hdrs.ORIGIN  # also for others: a cache must not give them this answer
    if (origin := request.headers.get(hdrs.ORIGIN)) in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = SHOWN_HEADERS
