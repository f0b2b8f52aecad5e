"""Reports: what this worker tells of itself, to whoever asks it, and what all workers of the gateway tell together."""

import asyncio
import time
from collections.abc import Iterator

import msgspec
from aiohttp import web

from .. import __version__
from ..metrics.family import Family, single
from ..metrics.loop import of_watchdog
from ..metrics.market import of_candles, of_feeds
from ..metrics.page import Format, Lines, lines_of
from ..metrics.process import of_process
from ..metrics.sockets import of_hub
from ..metrics.upstream import of_client, of_streams
from .connections import listed
from .keys import CLIENT, FEEDS, HISTORY, HUB, LOAD, NEIGHBOURS, REQUESTS, SETTINGS, STREAMS, WATCHDOG

METRICS = b"metrics "
"""A question for metrics ends with the format that they are wanted in."""
CONNECTIONS = b"connections "
"""A question for connections ends with how many are wanted at most."""

LINES = msgspec.msgpack.Decoder(Lines)


async def gathered(app: web.Application, question: bytes) -> dict[int, bytes | None]:
    """What each worker answers to `question`, by its number; None for one that does not, in time."""
    places = [app[LOAD].worker] if app[NEIGHBOURS] is None else range(app[LOAD].of)
    return dict(zip(places, await asyncio.gather(*(_of(app, place, question) for place in places)), strict=True))


async def _of(app: web.Application, place: int, question: bytes) -> bytes | None:
    """The answer of one place: our own, unless we leave and a successor speaks for it."""
    load, neighbours = app[LOAD], app[NEIGHBOURS]
    is_own = place == load.worker
    if neighbours is not None and (not is_own or load.is_draining):
        told = await neighbours.ask(place, question)
        if told is not None or not is_own:
            return told
    return await answer(app, question)


async def answer(app: web.Application, question: bytes) -> bytes:
    """What this worker itself says."""
    if question.startswith(METRICS):
        return msgspec.msgpack.encode(await _lines(app, Format[question.removeprefix(METRICS).decode()]))
    assert question.startswith(CONNECTIONS), "workers ask what is answered here"
    return await listed(app, int(question.removeprefix(CONNECTIONS)))


async def _lines(app: web.Application, written: Format) -> Lines:
    """All metrics of this worker, as text; the loop has its turn after each."""
    lines: Lines = {}
    for family in await families(app):
        lines[family.name] = lines_of(family, app[LOAD].worker, written)
        await asyncio.sleep(0)
    return lines


async def families(app: web.Application) -> list[Family]:
    """All metrics of this worker."""
    of_system, of_sockets = await asyncio.gather(asyncio.to_thread(of_process), of_hub(app[HUB]))
    told = [*_of_worker(app), *app[REQUESTS].families(), *of_sockets, *of_watchdog(app[WATCHDOG]), *of_system]
    told += of_client(app[CLIENT])
    told += of_feeds(app[FEEDS], time.monotonic(), by_symbol=app[SETTINGS].metrics.symbols)
    told += of_candles(app[HISTORY].counts())
    if (streams := app[STREAMS]) is not None:
        told += of_streams(streams.describe())
    return told


def _of_worker(app: web.Application) -> Iterator[Family]:
    load, settings = app[LOAD], app[SETTINGS]
    named = {"version": __version__, "exchange": settings.exchange, "profile": settings.profile.value}
    yield single("gateway_info", 1, epoch=load.epoch, **named)
    yield single("gateway_uptime_seconds", time.monotonic() - load.started_at)
    yield single("gateway_draining", load.is_draining)
    yield single("gateway_requests_in_progress", load.requests)
    yield single("gateway_requests_limit", load.max_requests)
    yield single("gateway_sockets", len(load.sockets))
    yield single("gateway_sockets_limit", load.max_sockets)
