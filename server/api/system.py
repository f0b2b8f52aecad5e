"""Routes about the gateway itself: alive, ready, healthy, and the status page."""

import html
import time
from typing import Any

from aiohttp import web

from .. import __version__
from ..errors import GatewayError, GoingAway
from ..market.feed import Feed
from ..models import Kind
from ..realtime.frames import fault_of
from .answers import NOT_STORED, json_response
from .keys import CLIENT, FEEDS, HISTORY, HUB, LOAD, SETTINGS, STREAMS
from .pages import page_of
from .parameters import Parameters
from .whole import answered

routes = web.RouteTableDef()

ALIVE = b'{"status":"alive"}'
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gateway: {exchange}</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color: #1c2733 }}
 h1 {{ font-size: 1.4rem }} dt {{ color: #5b6b7b }} dd {{ margin: 0 0 .6rem; font-weight: 600 }}
 code {{ background: #eef2f5; padding: .1em .3em; border-radius: .2em }}
 @media (prefers-color-scheme: dark) {{ body {{ background: #11181f; color: #dbe4ec }} code {{ background: #22303c }} }}
</style>
<h1>Gateway to Bybit: {status}</h1>
<dl>
 <dt>Exchange</dt><dd>{exchange}</dd>
 <dt>Version</dt><dd>{version}</dd>
 <dt>Running for</dt><dd>{uptime}</dd>
 <dt>Open sockets</dt><dd>{sockets}</dd>
</dl>
<p>Positions, balance and price: <code>/ws/positions/BTCUSDT?interval=5</code>.
Indicators: <code>/indicators/BTCUSDT</code>. Details: <code>/health</code>.</p>
</html>
"""


@routes.get("/livez")
async def livez(request: web.Request) -> web.StreamResponse:
    """The loop turns."""
    Parameters(request.query, ())
    return answered(request, ALIVE, NOT_STORED)


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """It can serve and is not draining. The exchange being away does not count: stale service is service."""
    Parameters(request.query, ())
    if request.app[LOAD].is_draining:
        raise GoingAway("the gateway is restarting")
    return json_response({"status": "ready"}, headers={"Cache-Control": "no-store"})


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Both in words, with what is known of the exchange and how old it is."""
    Parameters(request.query, ())
    app, now = request.app, time.monotonic()
    settings, client, load = app[SETTINGS], app[CLIENT], app[LOAD]
    feeds = [*app[FEEDS]]
    document = {
        "status": status_of(app),
        "exchange": settings.exchange,
        "account": "keys" if client.has_credentials else "market data only",
        "profile": settings.profile.value,
        "version": __version__,
        "epoch": load.epoch,
        "worker": {"index": load.worker, "of": load.of},
        "uptime_s": round(now - load.started_at, 1),
        "sockets": len(load.sockets),
        "sessions": len(app[HUB]),
        "requests": load.requests,
        "clock_offset_ms": client.clock_offset_ms,
        "key": client.credentials.describe(),
        **client.guards.describe(),
        "streams": None if (streams := app[STREAMS]) is None else streams.describe(),
        "feeds": {kind.value: _summary(of, now) for kind in Kind if (of := [f for f in feeds if f.topic.kind is kind])},
        "candles": app[HISTORY].counts(),
        "timestamp_ms": time.time_ns() // 1_000_000,
    }
    return json_response(document, headers={"Cache-Control": "no-store"})


def status_of(app: web.Application) -> str:
    """`draining`, `degraded` where the key is refused or a refresh that somebody wanted failed last, or `ok`."""
    if app[LOAD].is_draining:
        return "draining"
    is_refused = app[CLIENT].credentials.refusal is not None
    return "degraded" if is_refused or any(feed.error is not None for feed in app[FEEDS]) else "ok"


def _summary(feeds: list[Feed], now: float) -> dict[str, Any]:
    ages = [feed.part.age_s(now) for feed in feeds if feed.reading is not None]
    errors = [feed.error for feed in feeds if isinstance(feed.error, GatewayError)]
    return {
        "topics": len(feeds),
        "failing": len(errors),
        "youngest_age_ms": round(min(ages) * 1000) if ages else None,
        "oldest_age_ms": round(max(ages) * 1000) if ages else None,
        "error": fault_of(errors[0]) if errors else None,
    }


@routes.get("/")
async def page(request: web.Request) -> web.Response:
    """A plain status page, without account data."""
    Parameters(request.query, ())
    load, settings = request.app[LOAD], request.app[SETTINGS]
    seconds = int(time.monotonic() - load.started_at)
    text = PAGE.format(
        exchange=html.escape(settings.exchange),
        status=status_of(request.app),
        version=__version__,
        uptime=f"{seconds // 3600} h {seconds % 3600 // 60} min {seconds % 60} s",
        sockets=len(load.sockets),
    )
    return page_of(text)
