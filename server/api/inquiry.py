"""Inquiries: what requests ask of one topic, parsed once for all that are spelled alike."""

import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..market.candles import DEPTH
from ..models import Candles, Part, Topic
from .answers import answer, opening_of
from .aside import aside
from .keys import FEEDS, HISTORY, SETTINGS, SYMBOLS
from .parameters import Parameters

PATIENCE_S = 0.5
"""How old a call under way may grow before those who wait for it are answered with what is in hand."""

PAGES_PATIENCE_S = 2.0
"""How old a reading of older candles may grow before those who wait for it are answered with fewer."""

FRESHNESS = ("max_age_ms", "require_fresh")
MOST = 4096
"""Spellings that are remembered; beyond, the one that was asked longest ago is forgotten."""
MEMO_BYTES = 16384
"""Answers made of candles that are no longer than this are remembered with the candles."""

Body = Callable[[Any], dict[str, Any]]


class Inquiry:
    """One topic, how young it has to be, and what an answer shows of its value."""

    __slots__ = ("_body", "depth", "is_long", "max_age_s", "require_fresh", "tag", "topic")

    def __init__(
        self,
        request: web.Request,
        topic: Topic,
        parameters: Parameters,
        body: Body,
        *,
        depth: int = DEPTH,
        is_long: bool = False,
    ) -> None:
        """`parameters` say how young; of candles, `depth` are waited for a while where they are not in hand.

        With `is_long`, the body is made in a thread.
        """
        settings = request.app[SETTINGS]
        self.topic = topic
        self.depth = depth
        self.is_long = is_long
        self.max_age_s = parameters.max_age_s(settings.freshness.max_age_s)
        self.require_fresh = parameters.boolean("require_fresh")
        self.tag = f"{zlib.crc32(request.raw_path.encode()):x}"
        self._body = body

    def opening(self, request: web.Request, value: Any) -> bytes:
        """What an answer of `value` begins with: the same bytes for as long as the candles are the same."""
        if not isinstance(value, Candles):
            return opening_of(request, self._body(value))
        found: bytes | None = value.computed.get(self)
        if found is None:
            found = opening_of(request, self._body(value))
            if len(found) <= MEMO_BYTES:
                value.computed[self] = found  # bounded by whoever computes: see market/indicators/asked.py
        return found


Parse = Callable[[web.Request], Inquiry]


class Inquiries:
    """Inquiries by the path and query of requests, as they were sent. What is refused is not remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Inquiry] = OrderedDict()

    def find(self, request: web.Request, parse: Parse) -> Inquiry:
        """What `request` asks. Raises what `parse` raises."""
        inquiry = self._known.get(request.raw_path)
        if inquiry is not None:
            self._known.move_to_end(request.raw_path)
            return inquiry
        inquiry = self._known[request.raw_path] = parse(request)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
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
    part = app[FEEDS].young(topic, inquiry.max_age_s) if inquiry.depth <= DEPTH else None
    if part is None:
        part = await read(
            app, topic, max_age_s=inquiry.max_age_s, require_fresh=inquiry.require_fresh, depth=inquiry.depth
        )
    assert part.reading is not None, "read raises where there is none"
    value = part.reading.value
    if inquiry.is_long and inquiry not in value.computed:
        opening = await aside(app, inquiry.opening, request, value)
    else:
        opening = inquiry.opening(request, value)
    return answer(
        request, topic.kind, part, inquiry.max_age_s, opening, tag=inquiry.tag, require_fresh=inquiry.require_fresh
    )


async def read(app: web.Application, topic: Topic, *, max_age_s: float, require_fresh: bool, depth: int) -> Part:
    """What is known of `topic`, as fresh as can be had without a wait that helps nobody, and of candles `depth`.

    Raises ExchangeError where there is nothing.
    """
    timeout_s = app[SETTINGS].bybit.call_timeout_s
    patience_s = timeout_s if require_fresh else PATIENCE_S
    part = await app[FEEDS].read(topic, max_age_s=max_age_s, patience_s=patience_s, timeout_s=timeout_s)
    if depth > DEPTH:
        await app[HISTORY].reach(topic, depth, patience_s=min(timeout_s, PAGES_PATIENCE_S))
        part = app[FEEDS].part(topic)
    return part
