"""REST answers from parts: the fields that every one carries, staleness, and what a cache may do with them."""

import time
from typing import Any

import msgspec
from aiohttp import web

from ..errors import StaleReading
from ..models import Kind, Part, Reading
from .keys import SETTINGS
from .whole import JSON, answered

encoder = msgspec.json.Encoder()

BOOLEANS = {False: b"false", True: b"true"}
NOT_STORED = {"Cache-Control": "no-store"}
PRIVATE_KINDS = frozenset((Kind.POSITION, Kind.POSITIONS, Kind.WALLET))


def opening_of(request: web.Request, body: dict[str, Any]) -> bytes:
    """The beginning of a JSON object, up to what each answer adds of its own moment: the exchange, and `body`."""
    return encoder.encode({"exchange": request.app[SETTINGS].exchange, **body})[:-1]


def answer(
    request: web.Request,
    kind: Kind,
    part: Part,
    max_age_s: float,
    opening: bytes,
    *,
    tag: str,
    require_fresh: bool = False,
) -> web.StreamResponse:
    """What begins with `opening`, with its age at this moment, and an ETag over reading, question and staleness.

    `tag` names the question. Raises StaleReading where the reading is stale and `require_fresh`.
    """
    reading = part.reading
    assert reading is not None, "an answer is made of a reading"
    age_ms, stale = check_fresh(request, part, max_age_s, require_fresh=require_fresh)
    headers = NOT_STORED
    if kind not in PRIVATE_KINDS:
        etag = f'W/"{_moment(reading)}-{tag}-{stale:d}"'
        headers = {"Cache-Control": "private, no-cache", "ETag": etag}
        if is_known(request, etag):
            return web.Response(status=304, headers=headers)
    moment = b',"timestamp_ms":%d,"age_ms":%d,"stale":%b}' % (time.time_ns() // 1_000_000, age_ms, BOOLEANS[stale])
    return answered(request, opening + moment, headers)


def is_known(request: web.Request, tag: str) -> bool:
    """Whether the client has what `tag` names (RFC 9110, section 13.1.2: by the weak comparison)."""
    known = request.headers.get("If-None-Match")
    if known is None:
        return False
    opaque = tag.removeprefix("W/")
    return known.strip() == "*" or any(each.strip().removeprefix("W/") == opaque for each in known.split(","))


def check_fresh(request: web.Request, part: Part, max_age_s: float, *, require_fresh: bool) -> tuple[int, bool]:
    """The age of `part` in ms, and whether that is stale. Raises StaleReading where it is and must not be."""
    now = time.monotonic()
    age_ms = round(part.age_s(now) * 1000)
    stale = part.is_stale(now, max(request.app[SETTINGS].freshness.stale_after_s, 2 * max_age_s))
    if stale and require_fresh:
        raise StaleReading(f"the newest reading is {age_ms} ms old and a fresh one was required")
    return age_ms, stale


def _moment(reading: Reading[Any]) -> str:
    """What no other reading of the topic has: two pushes may be of one moment, but they arrive one after the other."""
    return f"{round(reading.asked_at * 1e6):x}-{round(reading.arrived_at * 1e6):x}"


def json_response(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`document` as JSON, encoded at once."""
    return web.Response(body=encoder.encode(document), status=status, headers={"Content-Type": JSON, **(headers or {})})
