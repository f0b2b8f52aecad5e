"""The routes of the description of REST: an OpenAPI 3.1 document, made at the start from the routes, and its page."""

from collections.abc import Iterable
from typing import Any

from aiohttp import hdrs, web

from .. import __version__
from ..settings import Settings
from .bodies import schemas
from .exhibits import QUESTIONS, exhibits
from .exposed import EXPOSED, Exposed
from .indicators import QUERY
from .pages import page_of
from .parameters import MAX_AGE_MS, Parameters
from .payloads import PLACE
from .queries import parameters
from .reference import reference
from .refusals import by_status, name_of, response
from .scopes import OPEN_PATHS, ROUTES
from .unchanging import Unchanging, unchanging

routes = web.RouteTableDef()

DOCUMENT = web.AppKey("DOCUMENT", Unchanging)
PAGE = web.AppKey("PAGE", str)

Json = dict[str, Any]

ABOUT = """What the gateway knows of a Bybit account and market, and technical indicators over candles. It only reads.

Decimal strings are Bybit's own digits; null means that there is no value, never zero. Times in `_ms` are Unix
milliseconds, ages in `_ms` count from the moment a call to Bybit was sent; a `stale` answer is an answer. Every answer
carries `X-Request-ID`, one that the request named if it was well-formed. Errors are problem+json (RFC 9457). Ignore
fields that you do not know. A method that a route does not have is answered by 405 with `Allow`. What goes over the
sockets is in `/asyncapi.json`."""

HEADERS = {
    "X-Request-ID": "The id under which the log has this request.",
    "Cache-Control": "What a cache may do with it.",
    "ETag": "For If-None-Match.",
    "Retry-After": "Seconds, where coming back later helps.",
    "RateLimit": "What is left of the limit that was met, and in how many seconds there is more.",
    "RateLimit-Policy": "How much the limit that was met allows, in how many seconds.",
    "WWW-Authenticate": "Bearer.",
}


@routes.get("/openapi.json")
async def openapi(request: web.Request) -> web.Response:
    """This document."""
    Parameters(request.query, ())
    return request.app[DOCUMENT].answer(request)


@routes.get("/docs")
async def docs(request: web.Request) -> web.Response:
    """This document as a page for people, without scripts and with nothing from elsewhere."""
    Parameters(request.query, ())
    return page_of(request.app[PAGE])


def describe(app: web.Application, settings: Settings) -> None:
    """Give `app`, which has all its routes, their description. Raises KeyError for a route that is not in EXPOSED."""
    described = document(settings, app.router.routes())
    app[DOCUMENT], app[PAGE] = unchanging(described), reference(described)


def document(settings: Settings, every: Iterable[web.AbstractRoute]) -> Json:
    """The document of a gateway with these settings and routes; the same in each of its processes."""
    paths: Json = {}
    used: Json = {}
    shown = exhibits(settings.exchange)
    for route in every:
        assert route.resource is not None, "every route is one of a resource"
        path = route.resource.canonical
        exposed = EXPOSED["POST" if route.method == hdrs.METH_POST else "GET", path]
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, exposed, shown)
        used |= {name_of(errors): response(status, errors) for status, errors in by_status(exposed.errors).items()}
    named = parameters(settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Gateway to Bybit ({settings.exchange})",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/", "description": "The gateway that gave this document."}],
        "tags": [{"name": tag} for tag in dict.fromkeys(exposed.tag for exposed in EXPOSED.values())],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "Where tokens are set."}},
            "parameters": named,
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
            "responses": used,
            "schemas": schemas(MAX_AGE_MS, {name: named[name] for name in ("symbol", *QUERY)}),
        },
    }


def _operation(route: web.AbstractRoute, path: str, exposed: Exposed, shown: Json) -> Json:
    summary, _, more = (route.handler.__doc__ or "").strip().partition("\n")
    has_body = route.method == hdrs.METH_POST
    return {
        "operationId": f"{route.method.lower()}{path.title().translate(_UNNAMED)}",
        "tags": [exposed.tag],
        "summary": summary,
        **({"description": more.strip()} if more.strip() else {}),
        "security": _security(path, exposed),
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in exposed.parameters(path)],
        **({"requestBody": _asked()} if has_body else {}),
        "responses": _responses(exposed, shown, is_head=route.method == hdrs.METH_HEAD),
    }


def _security(path: str, exposed: Exposed) -> list[Json]:
    """What a request has to show. Pages send the token of a socket as its first message, and no header."""
    if path in OPEN_PATHS:
        return []
    return [{}, {"bearer": []}] if exposed.is_socket else [{"bearer": [scope.value for scope in ROUTES[path]]}]


_UNNAMED = str.maketrans("", "", "/{}.")


def _asked() -> Json:
    content = {"schema": {"$ref": PLACE.format(name="Bulk")}, "examples": {"two": {"value": QUESTIONS}}}
    return {"required": True, "content": {"application/json": content}}


def _responses(exposed: Exposed, shown: Json, *, is_head: bool) -> Json:
    headers = ["X-Request-ID", "Cache-Control", *(["ETag"] if exposed.is_tagged else [])]
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    if exposed.is_socket:
        answers: Json = {"101": {"description": "The socket: see /asyncapi.json."}}
    else:
        content = {} if is_head else {"content": {kind: _media(exposed, shown) for kind in exposed.media}}
        answers = {"200": {"description": "The answer.", "headers": told, **content}}
    if exposed.is_tagged:
        answers["304"] = {"description": "It is what you have.", "headers": told}
    for status, errors in by_status(exposed.errors).items():
        answers[str(status)] = {"$ref": f"#/components/responses/{name_of(errors)}"}
    return answers


def _media(exposed: Exposed, shown: Json) -> Json:
    if exposed.body is None:
        return {"schema": {"type": exposed.form}}
    examples = {name: {"value": value} for name, value in shown[exposed.body].items()}
    return {"schema": {"$ref": PLACE.format(name=exposed.body)}, "examples": examples}
