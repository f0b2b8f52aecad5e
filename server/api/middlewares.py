"""What every request passes: its id and log line, its errors as problems, the limits, and the guards."""

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from ..errors import GatewayError, InternalError, TooLarge
from ..metrics.requests import UNMATCHED
from ..telemetry import REQUEST, Sampler, get_logger
from .address import client_address
from .auth import bearer
from .cors import mark, preflight
from .keys import ACCESS, ADMISSION, LOAD, REQUESTS, RIGHTS, SETTINGS, VISITORS
from .problems import of_http, problem
from .scopes import OPEN_PATHS, check_route

log = get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SLOW_S = 0.25
LINES_PER_S = 50

is_request_id = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
process, numbers = secrets.token_hex(12), itertools.count()
"""Of request ids: nobody else's, and no other request's."""


def serving(clock: Callable[[], float] = time.monotonic) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware. One for all of it: each is a coroutine more that every request waits in.

    It gives each request an id, turns what is raised into a problem, and logs its end. A line for each request would
    cost most of the throughput, and a flood of refused ones would push out the rest: both are sampled, apart, and the
    next line says how many went without one. Slow ones and failures have theirs.
    """
    samplers = Sampler(LINES_PER_S), Sampler(LINES_PER_S)

    @web.middleware
    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock()
        given = request.headers.get("X-Request-ID")
        request_id = given if given and is_request_id(given) else f"{process}{next(numbers):08x}"
        REQUEST.set(request_id)
        response = await _answered(request, handler, request_id)
        if not response.prepared:
            response.headers["X-Request-ID"] = request_id
            app = request.app
            if app[ACCESS].cors_origins:
                mark(request, response)
            if app[LOAD].is_draining:
                response.force_close()  # the connection's next request would meet its end
            duration_s = clock() - started
            app[REQUESTS].ended(route_of(request), response.status, duration_s)
            _log_end(request, response.status, duration_s, samplers[response.status >= 400])
        return response

    return serve


def route_of(request: web.Request) -> str:
    """The pattern of the route that the request went to."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


async def _answered(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    try:
        if is_socket(request):
            return _refused(request, is_socket=True) or await handler(request)
        if (response := _refused(request, is_socket=False)) is not None:
            return response
        load = request.app[LOAD]
        load.take_request()
        try:
            return await handler(request)
        finally:
            load.requests -= 1
    except GatewayError as error:
        return problem(error, request_id)
    except web.HTTPException as error:
        return problem(of_http(error), request_id)
    except Exception:
        log.exception("request_crashed", method=request.method, path=request.path)
        return problem(InternalError("a bug of the gateway; its log has it under this request id"), request_id)


def _refused(request: web.Request, *, is_socket: bool) -> web.Response | None:
    """Let a request pass: its address's share, Host and Origin, then a token with the route's scope and symbol.

    Open paths need no token, and sockets ask for theirs themselves. Gives the answer to a preflight, which is answered
    here. Raises what the request is refused for.
    """
    app = request.app
    access, address = app[ACCESS], client_address(request)
    app[VISITORS].take_request(address)
    access.check_host(request)
    access.check_origin(request, is_socket=is_socket)
    if (response := preflight(request)) is not None or is_socket:
        return response
    if request.path not in OPEN_PATHS:
        request[RIGHTS] = rights = app[ADMISSION].admit(bearer(request), address)
        check_route(request, rights)
    limit = app[SETTINGS].server.body_bytes
    if request.body_exists and (request.content_length or 0) > limit:
        raise TooLarge(f"the request's body is over {limit} bytes")
    return None


def _log_end(request: web.Request, status: int, duration_s: float, sampler: Sampler) -> None:
    is_noteworthy = status >= 500 or duration_s > SLOW_S
    unlogged = sampler.admit() if not is_noteworthy else 0
    if unlogged is None:
        return
    write = log.warning if status >= 500 else log.info
    more: dict[str, object] = {"unlogged": unlogged} if unlogged else {}
    if (rights := request.get(RIGHTS)) is not None and rights.name:
        more["token"] = rights.name
    # The path alone: a query may hold what somebody should not have put there.
    write(
        "request_ended",
        method=request.method,
        path=request.path,
        status=status,
        duration_ms=round(duration_s * 1000, 2),
        remote=client_address(request),
        **more,
    )


def is_socket(request: web.Request) -> bool:
    """Whether the request went to a WebSocket route."""
    return request.path == "/ws" or request.path.startswith("/ws/")
