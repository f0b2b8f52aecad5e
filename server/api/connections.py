"""Connections: who is connected to this worker, as JSON that is made in slices: there may be ten thousand."""

import asyncio
import time
from typing import Any

import msgspec
from aiohttp import web

from ..realtime.session import Session
from ..realtime.subscription import Subscription
from .keys import HUB, LOAD

encoder = msgspec.json.Encoder()

SLICE = 100
CHANNELS = 20
"""How many of a socket's channels are listed; all are counted."""


class Listing(msgspec.Struct):
    """The connections of one worker: how many there are, and as many of them as were asked for, the oldest first."""

    worker: int
    sockets: int
    sessions: int
    connections: list[msgspec.Raw]


async def listed(app: web.Application, limit: int) -> bytes:
    """The listing of this worker, encoded."""
    load, sessions = app[LOAD], app[HUB].sessions
    rows: list[msgspec.Raw] = []
    for start in range(0, min(limit, len(sessions)), SLICE):
        now, some = time.monotonic(), sessions[start : min(start + SLICE, limit)]
        rows += (msgspec.Raw(encoder.encode(described(session, load.worker, now))) for session in some)
        await asyncio.sleep(0)
    return encoder.encode(Listing(load.worker, len(load.sockets), len(sessions), rows))


def described(session: Session, worker: int, now: float) -> dict[str, Any]:
    """One socket, without anything of the token but its name."""
    subscriptions = [*session.subscriptions.values()]
    return {
        "worker": worker,
        "address": session.address,
        "token": session.rights.name or None,
        "route": "/ws/positions/{symbol}" if session.is_single else "/ws",
        "age_s": round(now - session.opened_at, 1),
        "subscriptions": len(subscriptions),
        "channels": [_channel(one) for one in subscriptions[:CHANNELS]],
        "frames": session.frames_sent,
        "conflated": session.frames_conflated,
        "buffered_bytes": session.buffered_bytes,
        "last_pong_s": None if session.pong_at is None else round(now - session.pong_at, 1),
    }


def _channel(subscription: Subscription) -> dict[str, Any]:
    return {
        "channel": subscription.channel.name,
        "interval": subscription.interval_s,
        "frames": subscription.frames_sent,
        "stale": subscription.told,
    }
