"""Routes about what the gateway does at the moment, in all its processes: metrics, and who is connected."""

import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from ..metrics.page import format_of, page_of
from .answers import json_response
from .connections import Listing
from .keys import SETTINGS
from .parameters import Parameters
from .reports import CONNECTIONS, LINES, METRICS, gathered

routes = web.RouteTableDef()

NO_STORE = {"Cache-Control": "no-store"}
LISTINGS = msgspec.json.Decoder(Listing)
MOST = 10_000
USUAL = 1000


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Everything that is counted, of every worker, for Prometheus."""
    Parameters(request.query, ())
    written = format_of(request.headers.get("Accept", ""))
    told = await gathered(request.app, METRICS + written.name.encode())
    reports = {worker: None if said is None else LINES.decode(said) for worker, said in told.items()}
    return web.Response(body=page_of(reports, written), headers={**NO_STORE, "Content-Type": written.value})


@routes.get("/connections")
async def connections(request: web.Request) -> web.Response:
    """Who is connected to which worker: the oldest sockets of each first, at most `limit` in all."""
    limit = Parameters(request.query, ("limit",)).integer("limit", USUAL, 1, MOST)
    told = await gathered(request.app, CONNECTIONS + str(limit).encode())
    listings = [LISTINGS.decode(said) for said in told.values() if said is not None]
    document = {
        "exchange": request.app[SETTINGS].exchange,
        "sockets": sum(listing.sockets for listing in listings),
        "sessions": sum(listing.sessions for listing in listings),
        "silent_workers": [worker for worker, said in told.items() if said is None],
        "connections": _shared([listing.connections for listing in listings], limit),
        "timestamp_ms": time.time_ns() // 1_000_000,
    }
    return json_response(document, headers=NO_STORE)


def _shared(every: Sequence[Sequence[msgspec.Raw]], limit: int) -> list[msgspec.Raw]:
    """At most `limit` of them all: of each worker as many as of any other, as far as it has them."""
    shown: list[msgspec.Raw] = []
    for number, rows in enumerate(sorted(every, key=len)):
        shown += rows[: (limit - len(shown)) // (len(every) - number)]
    return shown
