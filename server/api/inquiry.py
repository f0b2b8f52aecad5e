"""Inquiries: what requests ask of one topic, parsed once for all that are spelled alike."""

import zlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..market.candles import DEPTH
from ..models import Candles, Part, Topic
from .answers import answer, opening
from .keys import FEEDS, HISTORY, SETTINGS, SYMBOLS
from .parameters import Parameters

PATIENCE_S = 0.5
"""How old a call under way may grow before those who wait for it are answered with what is in hand."""

PAGES_PATIENCE_S = 2.0
"""How old a reading of older candles may grow before those who wait for it are answered with fewer."""

FRESHNESS = ("max_age_ms", "require_fresh")
MOST = 4096
"""Spellings that are remembered; at that many all are forgotten."""
MEMO_BYTES = 16384
"""Answers made of candles that are no longer than this are remembered with the candles."""

Body = Callable[[Any], dict[str, Any]]


class Inquiry:
    """One topic, how young it has to be, and what an answer shows of its value."""

    __slots__ = ("_body", "depth", "max_age_s", "patience_s", "require_fresh", "tag", "timeout_s", "topic")

    def __init__(
        self, request: web.Request, topic: Topic, parameters: Parameters, body: Body, *, depth: int = DEPTH
    ) -> None:
        """`parameters` say how young; of candles, `depth` are waited for a while where they are not in hand."""
        settings = request.app[SETTINGS]
        self.topic = topic
        self.depth = depth
        self.max_age_s = parameters.max_age_s(settings.freshness.max_age_s)
        self.require_fresh = parameters.boolean("require_fresh")
        self.timeout_s = settings.bybit.call_timeout_s
        self.patience_s = self.timeout_s if self.require_fresh else PATIENCE_S
        self.tag = f"{zlib.crc32(request.raw_path.encode()):x}"
        self._body = body

    def opening(self, request: web.Request, value: Any) -> bytes:
        """What an answer of `value` begins with: the same bytes for as long as the candles are the same."""
        if not isinstance(value, Candles):
            return opening(request, self._body(value))
        found: bytes | None = value.computed.get(self)
        if found is None:
            found = opening(request, self._body(value))
            if len(found) <= MEMO_BYTES:
                value.computed[self] = found  # bounded by whoever computes: see market/indicators/asked.py
        return found


Parse = Callable[[web.Request], Inquiry]


class Inquiries:
    """Inquiries by the path and query of requests, as they were sent. What is refused is not remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Inquiry] = {}

    def find(self, request: web.Request, parse: Parse) -> Inquiry:
        """What `request` asks. Raises what `parse` raises."""
        inquiry = self._known.get(request.raw_path)
        if inquiry is None:
            inquiry = parse(request)
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[request.raw_path] = inquiry
        return inquiry


INQUIRIES = web.AppKey("INQUIRIES", Inquiries)


def found(request: web.Request, parse: Parse) -> Inquiry:
    """What `request` asks, parsed if none was spelled like it before. Raises what `parse` raises."""
    return request.app[INQUIRIES].find(request, parse)


async def respond(request: web.Request, inquiry: Inquiry) -> web.StreamResponse:
    """The answer to `inquiry`, if the exchange has its symbol; at once where what is in hand is young enough."""
    app, topic = request.app, inquiry.topic
    if topic.symbol and app[SYMBOLS].known(topic.symbol, topic.category) is not True:
        await app[SYMBOLS].require(topic.symbol, topic.category)
    part = app[FEEDS].young(topic, inquiry.max_age_s) or await _read(app, inquiry)
    if inquiry.depth > DEPTH:
        patience_s = min(inquiry.timeout_s, PAGES_PATIENCE_S)
        await app[HISTORY].reach(topic, inquiry.depth, patience_s=patience_s)
        part = app[FEEDS].part(topic)
    assert part.reading is not None, "read raises where there is none"
    body = inquiry.opening(request, part.reading.value)
    return answer(
        request, topic.kind, part, inquiry.max_age_s, body, tag=inquiry.tag, require_fresh=inquiry.require_fresh
    )


async def _read(app: web.Application, inquiry: Inquiry) -> Part:
    return await app[FEEDS].read(
        inquiry.topic, max_age_s=inquiry.max_age_s, patience_s=inquiry.patience_s, timeout_s=inquiry.timeout_s
    )
