"""The route of many questions about indicators: candles fetched once, each question answered or failed on its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Struct

from ..errors import GatewayError, InvalidRequest, outcome_of
from ..market.indicators import Query
from ..models import Kind, Part, Topic
from .answers import check_fresh, encoder, json_response
from .aside import aside
from .indicators import QUERY, query_of
from .inquiry import read
from .keys import RIGHTS, SETTINGS, SYMBOLS
from .parameters import CATEGORIES, Parameters
from .rest import USUAL_INTERVAL, category_of
from .upload import uploaded

routes = web.RouteTableDef()

MAX_QUESTIONS = 200
SLICE = 20
"""Questions parsed in one turn of the loop: some thirty microseconds each."""
MAX_VALUES = 50_000
"""Numbers in one answer: twice as many as one GET can ask for."""

Value = str | int | bool


class Bulk(Struct, frozen=True, forbid_unknown_fields=True):
    """The body. The fields of a question are its symbol and those of the GET's query."""

    questions: list[dict[str, Value]]
    max_age_ms: int | None = None
    require_fresh: bool = False


decoder = msgspec.json.Decoder(Bulk)


class Parsed(NamedTuple):
    """One question, and the topic that it is about."""

    topic: Topic
    query: Query


@routes.post("/indicators")
async def bulk(request: web.Request) -> web.Response:
    """Up to 200 questions: their answers in the same order, each a body or an error."""
    Parameters(request.query, ())
    asked = _decoded(await uploaded(request))
    max_age_s = _max_age_s(request, asked)
    every = [parsed async for parsed in _all_parsed(request, asked)]
    parts = await _parts(request, [one for one in every if isinstance(one, Parsed)], asked, max_age_s)
    answers = [
        await _answer(request, index, one, parts, max_age_s, asked.require_fresh) for index, one in enumerate(every)
    ]
    exchange = request.app[SETTINGS].exchange
    document = {"exchange": exchange, "answers": answers, "timestamp_ms": time.time_ns() // 1_000_000}
    return json_response(document, headers={"Cache-Control": "no-store"})


def _decoded(body: bytes) -> Bulk:
    try:
        asked = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("body", f"the body is not what is asked for: {error}") from None
    if not 1 <= len(asked.questions) <= MAX_QUESTIONS:
        raise InvalidRequest("questions", f"there are {len(asked.questions)} questions; allowed: 1 to {MAX_QUESTIONS}")
    return asked


def _max_age_s(request: web.Request, asked: Bulk) -> float:
    given = {} if asked.max_age_ms is None else {"max_age_ms": _text(asked.max_age_ms)}
    return Parameters(given, ("max_age_ms",)).max_age_s(request.app[SETTINGS].freshness.max_age_s)


def _text(value: Value) -> str:
    """A value as the query would have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _all_parsed(request: web.Request, asked: Bulk) -> AsyncIterator[Parsed | GatewayError]:
    """The questions parsed, one after the other; others have their turn between."""
    for number, question in enumerate(asked.questions, 1):
        yield await _parsed(request, question)
        if number % SLICE == 0:
            await asyncio.sleep(0)


async def _parsed(request: web.Request, question: dict[str, Value]) -> Parsed | GatewayError:
    try:
        parameters = Parameters({name: _text(value) for name, value in question.items()}, ("symbol", *QUERY))
        query = query_of(parameters, request.app[SETTINGS].indicators)
        category = parameters.choice("category", category_of(request), CATEGORIES)
        topic = Topic(Kind.KLINE, parameters.text("symbol", ""), parameters.interval(USUAL_INTERVAL), category)
        request[RIGHTS].require_symbol(topic.symbol)
        await request.app[SYMBOLS].require(topic.symbol, category)
        return Parsed(topic, query)
    except GatewayError as error:
        return error


async def _parts(
    request: web.Request, every: list[Parsed], asked: Bulk, max_age_s: float
) -> dict[Topic, Part | GatewayError]:
    """The candles of each topic, as many as the question that looks back furthest needs; or why there are none.

    Raises InvalidRequest where all of it together would be too much.
    """
    if (values := sum(one.query.values for one in every)) > MAX_VALUES:
        raise InvalidRequest("questions", f"{values} numbers are asked for together; allowed: up to {MAX_VALUES}")
    depths: dict[Topic, int] = {}
    for topic, query in every:
        depths[topic] = max(depths.get(topic, 0), query.asked.depth)

    async def part(topic: Topic, depth: int) -> Part | GatewayError:
        try:
            return await read(request.app, topic, max_age_s=max_age_s, require_fresh=asked.require_fresh, depth=depth)
        except GatewayError as error:
            return error

    return dict(zip(depths, await asyncio.gather(*(part(*item) for item in depths.items())), strict=True))


async def _answer(
    request: web.Request,
    index: int,
    one: Parsed | GatewayError,
    parts: dict[Topic, Part | GatewayError],
    max_age_s: float,
    require_fresh: bool,
) -> msgspec.Raw:
    """The JSON of one answer. Others have their turn after each."""
    try:
        if isinstance(one, GatewayError):
            raise one
        if isinstance(part := parts[one.topic], GatewayError):
            raise part
        if one.query.is_long:
            return await aside(request.app, _encoded, request, one, part, max_age_s, require_fresh)
        await asyncio.sleep(0)
        return _encoded(request, one, part, max_age_s, require_fresh)
    except GatewayError as error:
        outcome = outcome_of(error)
        told = {"code": outcome.code, "status": outcome.status, "detail": error.detail}
        return msgspec.Raw(encoder.encode({"error": told, "question": index}))


def _encoded(request: web.Request, one: Parsed, part: Part, max_age_s: float, require_fresh: bool) -> msgspec.Raw:
    assert part.reading is not None, "read raises where there is none"
    age_ms, stale = check_fresh(request, part, max_age_s, require_fresh=require_fresh)
    body: dict[str, Any] = {**one.query.body(one.topic, part.reading.value), "age_ms": age_ms, "stale": stale}
    return msgspec.Raw(encoder.encode(body))
