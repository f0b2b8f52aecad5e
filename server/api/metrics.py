"""Routes about what the gateway does at the moment, in all its processes: metrics, and who is connected."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from ..metrics.page import text_of
from .answers import json_response
from .connections import Listing
from .keys import SETTINGS
from .parameters import Parameters
from .reports import CONNECTIONS, FAMILIES, METRICS, gathered

routes = web.RouteTableDef()

NO_STORE = {"Cache-Control": "no-store"}
LISTINGS = msgspec.json.Decoder(Listing)
MOST = 10_000
USUAL = 1000


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Everything that is counted, of every worker, for Prometheus."""
    Parameters(request.query, ())
    told = await gathered(request.app, METRICS)
    reports = {worker: None if said is None else FAMILIES.decode(said) for worker, said in told.items()}
    accept = request.headers.get("Accept", "")
    text, content_type = await asyncio.to_thread(text_of, reports, accept)
    return web.Response(body=text, headers={**NO_STORE, "Content-Type": content_type})


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
