"""Refusals: the problems that a route may answer with, as responses of the description, from the table of errors."""

from typing import Any

from ..errors import (
    BadHost,
    ExchangeTimeout,
    ExchangeUnreachable,
    Forbidden,
    GatewayError,
    GoingAway,
    InsufficientCandles,
    InternalError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    TooLarge,
    TooLate,
    Unauthenticated,
    UnknownSymbol,
)
from .payloads import PLACE
from .problems import body_of

Json = dict[str, Any]
Errors = tuple[GatewayError, ...]

EVERY: Errors = (
    InvalidRequest("parameter", "unknown parameter 'limt'; allowed: limit"),
    Forbidden("pages of this Origin may not ask; auth.origins lists those that may"),
    TooLarge("the request's body is over 65536 bytes"),
    BadHost("this gateway is not evil.example; auth.hosts lists the names it answers to"),
    InternalError("a bug of the gateway; its log has it under this request id"),
    RateLimited("more than 100 requests a second come from this address (server.requests_per_s)", retry_after_s=1.0),
    Overloaded("1000 requests are in progress, and server.max_requests allows no more"),
)
"""What any request may meet."""
GUARDED: Errors = (*EVERY, Unauthenticated("a token is needed: send the header `Authorization: Bearer TOKEN`"))
"""Where a token is asked for."""
OF_BODY: Errors = (*GUARDED, TooLate("the body was not whole within 5 s"))
UPSTREAM: Errors = (
    *GUARDED,
    ExchangeUnreachable("the exchange cannot be reached"),
    ExchangeTimeout("the exchange gave no answer in time"),
)
"""Where the exchange is asked, too."""
OF_SYMBOL: Errors = (*UPSTREAM, UnknownSymbol("the exchange has no linear symbol NOUSDT"))
OF_CANDLES: Errors = (*OF_SYMBOL, InsufficientCandles("there are 12 candles, and 20 are needed"))
READINESS: Errors = (*EVERY, GoingAway("the gateway is restarting"))
SOCKET: Errors = (
    InvalidRequest("upgrade", "this route speaks WebSocket only: ask for an upgrade, version 13, with a key"),
    *(error for error in EVERY if isinstance(error, Forbidden | BadHost | InternalError | RateLimited)),
)

REQUEST_ID = "ed72431558533508d988ce900000000d"
RETRIED = (429, 503, 504)


def by_status(errors: Errors) -> dict[int, Errors]:
    """The errors of each HTTP status, in the order of the statuses."""
    bodies = sorted(((body_of(error, REQUEST_ID)["status"], error) for error in errors), key=lambda pair: pair[0])
    return {status: tuple(error for other, error in bodies if other == status) for status, _ in bodies}


def name_of(errors: Errors) -> str:
    """What the components call the response of these errors, all of one status."""
    return ".".join(_code(error) for error in errors)


def response(status: int, errors: Errors) -> Json:
    """A response that says one of these errors, all of that status, with an example of each."""
    bodies = [body_of(error, REQUEST_ID) for error in errors]
    codes = {"pattern": "^invalid_[a-z_]+$"} if status == 400 else {"enum": [body["code"] for body in bodies]}
    own = {"properties": {"status": {"const": status}, "code": codes}}
    problem = {"allOf": [{"$ref": PLACE.format(name="Problem")}, own]}
    examples = {body["code"]: {"value": body} for body in bodies}
    return {
        "description": " · ".join(dict.fromkeys(body["title"] for body in bodies)),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _headers(status)},
        "content": {"application/problem+json": {"schema": problem, "examples": examples}},
    }


def _headers(status: int) -> tuple[str, ...]:
    more: dict[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), **dict.fromkeys(RETRIED, ("Retry-After",))}
    more[429] = ("Retry-After", "RateLimit", "RateLimit-Policy")
    return "X-Request-ID", "Cache-Control", *more.get(status, ())


def _code(error: GatewayError) -> str:
    return "invalid" if isinstance(error, InvalidRequest) else str(body_of(error, REQUEST_ID)["code"])
