"""REST answers from parts: the fields that every one carries, staleness, and what a cache may do with them."""

import time
from typing import Any

import msgspec
from aiohttp import web

from ..errors import StaleReading
from ..models import Kind, Part, Reading
from .keys import RIGHTS, SETTINGS

encoder = msgspec.json.Encoder()

PRIVATE_KINDS = frozenset((Kind.POSITION, Kind.POSITIONS, Kind.WALLET))


def is_stale(request: web.Request, part: Part, max_age_s: float) -> bool:
    """Whether `part` is stale for one who asked for `max_age_s`."""
    threshold_s = max(request.app[SETTINGS].freshness.stale_after_s, 2 * max_age_s)
    return part.is_stale(time.monotonic(), threshold_s)


def answer(
    request: web.Request, kind: Kind, part: Part, max_age_s: float, body: dict[str, Any], *, require_fresh: bool = False
) -> web.Response:
    """`body` between the fields that every answer carries, with an ETag over reading, question and staleness.

    Raises StaleReading where the reading is stale and `require_fresh`.
    """
    reading = part.reading
    assert reading is not None, "an answer is made of a reading"
    stale = is_stale(request, part, max_age_s)
    age_ms = round(part.age_s(time.monotonic()) * 1000)
    if stale and require_fresh:
        raise StaleReading(f"the newest reading is {age_ms} ms old and a fresh one was required")
    headers = {"Cache-Control": "no-store"}
    if kind not in PRIVATE_KINDS:
        question = hash((request.path_qs, request[RIGHTS].symbols)) & 0xFFFFFFFF
        headers = {
            "Cache-Control": "private, no-cache",
            "ETag": f'W/"{_moment(reading)}-{question:x}-{stale:d}"',
        }
        if headers["ETag"] in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
    document = {
        "exchange": request.app[SETTINGS].exchange,
        **body,
        "timestamp_ms": time.time_ns() // 1_000_000,
        "age_ms": age_ms,
        "stale": stale,
    }
    return json_response(document, headers=headers)


def _moment(reading: Reading[Any]) -> str:
    """What no other reading of the topic has: two pushes may be of one moment, but they arrive one after the other."""
    return f"{round(reading.asked_at * 1e6):x}-{round(reading.arrived_at * 1e6):x}"


def json_response(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`document` as JSON, encoded at once."""
    return web.Response(
        body=encoder.encode(document), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )
