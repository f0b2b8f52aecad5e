"""REST routes for data: parse, ask the feeds, answer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from ..errors import InvalidRequest
from ..market.candles import DEPTH, without_forming
from ..market.indicators import CHARTS, Computed, Question, compute, parse_names
from ..market.symbols import LIST_AGE_S
from ..models import Candles, Kind, Position, Reading, Topic, open_positions
from .answers import answer
from .keys import FEEDS, HISTORY, RIGHTS, SETTINGS, SYMBOLS
from .parameters import CATEGORIES, Parameters

routes = web.RouteTableDef()

PATIENCE_S = 0.5
"""How old a call under way may grow before those who wait for it are answered with what is in hand."""

PAGES_PATIENCE_S = 2.0
"""How old a reading of older candles may grow before those who wait for it are answered with fewer."""

FRESHNESS = ("max_age_ms", "require_fresh")
MEMO_ENTRIES = 64
"""Answers remembered with a topic's candles, of a thousand each: of deeper ones fewer, in the same memory."""

Body = Callable[[Any], dict[str, Any]]


class Asked(NamedTuple):
    """What is asked of candles: the questions, or None for the classic set, over how many, of which and drawn how."""

    questions: tuple[Question, ...] | None
    is_closed: bool
    chart: str
    depth: int


async def reading_answer(
    request: web.Request, topic: Topic, parameters: Parameters, body: Body, *, depth: int = DEPTH
) -> web.Response:
    """The answer whose own fields are `body` of the topic's value, as fresh as `parameters` ask for.

    Of candles, `depth` are waited for a while where they are not in hand.
    """
    settings = request.app[SETTINGS]
    max_age_s = parameters.max_age_s(settings.freshness.max_age_s)
    require_fresh = parameters.boolean("require_fresh")
    timeout_s = settings.bybit.call_timeout_s
    patience_s = timeout_s if require_fresh else PATIENCE_S
    part = await request.app[FEEDS].read(topic, max_age_s=max_age_s, patience_s=patience_s, timeout_s=timeout_s)
    if depth > DEPTH:
        await request.app[HISTORY].reach(topic, depth, patience_s=min(timeout_s, PAGES_PATIENCE_S))
        part = request.app[FEEDS].part(topic)
    assert part.reading is not None, "read raises where there is none"
    return answer(request, topic.kind, part, max_age_s, body(part.reading.value), require_fresh=require_fresh)


async def symbol_of(request: web.Request, category: str) -> str:
    """The route's symbol, if the exchange has it."""
    symbol = request.match_info["symbol"]
    await request.app[SYMBOLS].require(symbol, category)
    return symbol


def category_of(request: web.Request) -> str:
    """The category of positions, the default of everything else."""
    return request.app[SETTINGS].bybit.category.value


@routes.get("/price/{symbol}")
async def price(request: web.Request) -> web.Response:
    """The ticker of one symbol."""
    parameters = Parameters(request.query, ("category", *FRESHNESS))
    category = parameters.choice("category", category_of(request), CATEGORIES)
    symbol = await symbol_of(request, category)
    return await reading_answer(
        request,
        Topic(Kind.TICKER, symbol, category=category),
        parameters,
        lambda ticker: {"symbol": symbol, "category": category, **msgspec.structs.asdict(ticker)},
    )


@routes.get("/positions")
async def positions(request: web.Request) -> web.Response:
    """Every open position of the symbols that the token may read."""
    parameters = Parameters(request.query, FRESHNESS)
    topic, sees = Topic(Kind.POSITIONS, category=category_of(request)), request[RIGHTS].sees

    def body(rows: Any) -> dict[str, Any]:
        return _listed([row for row in open_positions(rows) if sees(row.symbol)])

    return await reading_answer(request, topic, parameters, body)


@routes.get("/positions/{symbol}")
async def position(request: web.Request) -> web.Response:
    """The open positions of one symbol: none when flat, two in hedge mode."""
    parameters = Parameters(request.query, FRESHNESS)
    category = category_of(request)
    symbol = await symbol_of(request, category)
    topic = Topic(Kind.POSITION, symbol, category=category)
    return await reading_answer(request, topic, parameters, lambda rows: {"symbol": symbol, **_positions_body(rows)})


def _positions_body(rows: Any) -> dict[str, Any]:
    return _listed(open_positions(rows))


def _listed(positions: Sequence[Position]) -> dict[str, Any]:
    return {"positions": positions, "has_position": bool(positions)}


@routes.get("/balance")
async def balance(request: web.Request) -> web.Response:
    """The unified account."""
    parameters = Parameters(request.query, FRESHNESS)
    return await reading_answer(request, Topic(Kind.WALLET), parameters, msgspec.structs.asdict)


@routes.get("/klines/{symbol}")
async def klines(request: web.Request) -> web.Response:
    """The last candles of one symbol, oldest first, the forming one among them."""
    parameters = Parameters(request.query, ("interval", "limit", "category", *FRESHNESS))
    limit = parameters.integer("limit", 200, 1, 1000)
    topic = await _kline_topic(request, parameters)

    def body(candles: Candles) -> dict[str, Any]:
        return {
            "symbol": topic.symbol,
            "category": topic.category,
            "interval": topic.interval,
            "candles": [(int(row[0]), *row[1:]) for row in candles.rows[-limit:]],
            "closed": candles.last_closed,
        }

    return await reading_answer(request, topic, parameters, body)


async def _kline_topic(request: web.Request, parameters: Parameters) -> Topic:
    category = parameters.choice("category", category_of(request), CATEGORIES)
    interval = parameters.interval("240")
    return Topic(Kind.KLINE, await symbol_of(request, category), interval, category)


@routes.get("/symbols")
async def symbols(request: web.Request) -> web.Response:
    """The exchange's instruments of one category, those that the token may read."""
    sees = request[RIGHTS].sees
    parameters = Parameters(request.query, ("category",))
    category = parameters.choice("category", category_of(request), CATEGORIES)
    part = await request.app[SYMBOLS].listing(category)
    reading: Reading[Any] | None = part.reading
    assert reading is not None, "listing raises where there is none"
    body = {"category": category, "symbols": [one for name, one in reading.value.items() if sees(name)]}
    return answer(request, Kind.INSTRUMENTS, part, LIST_AGE_S, body)


@routes.get("/indicators/{symbol}")
async def indicators(request: web.Request) -> web.Response:
    """The classic set over the last 1,000 candles, or the indicators asked for by name, over more if they need them."""
    allowed = ("interval", "category", "names", "results", "backtrack", "closed", "chart", *FRESHNESS)
    parameters = Parameters(request.query, allowed)
    limits = request.app[SETTINGS].indicators
    chart = parameters.choice("chart", "candles", CHARTS)
    names = parameters.text("names", "")
    questions = parse_names(names, max_names=limits.max_names) if "names" in request.query else None
    results = parameters.integer("results", 1, 1, limits.max_results)
    backtrack = parameters.integer("backtrack", 0, 0, (DEPTH if questions is None else limits.max_candles) - 1)
    depth = DEPTH if questions is None else min(_depth(questions, results + backtrack), limits.max_candles)
    closed = parameters.boolean("closed")
    topic = await _kline_topic(request, parameters)
    return await reading_answer(
        request,
        topic,
        parameters,
        lambda candles: _indicators_body(topic, candles, Asked(questions, closed, chart, depth), results, backtrack),
        depth=depth,
    )


def _depth(questions: tuple[Question, ...], looked_at: int) -> int:
    """Candles, in whole thousands, of which so many values at the end do not depend on where history starts."""
    settling = max(question.settling or question.warm_up or 0 for question in questions)
    return math.ceil((settling + looked_at) / DEPTH) * DEPTH


def _indicators_body(topic: Topic, held: Candles, asked: Asked, results: int, backtrack: int) -> dict[str, Any]:
    candles, computed = _computed(held, asked)
    if results + backtrack > len(candles):
        detail = f"results and backtrack reach over {results + backtrack} candles; there are {len(candles)}"
        raise InvalidRequest("results", detail)
    last = len(candles) - 1 - backtrack
    body = {
        "symbol": topic.symbol,
        "category": topic.category,
        "interval": topic.interval,
        "candle_count": len(candles),
        "candle_closed": backtrack > 0 or candles.last_closed,
        **({} if asked.chart == CHARTS[0] else {"chart": asked.chart}),
        "data": {**_candle(candles, last), **computed.at(last)},
    }
    if results > 1:
        window = slice(last + 1 - results, last + 1)
        body["series"] = {"open_time_ms": candles.open_times_ms[window].tolist(), **computed.span(window)}
    return body


def _computed(held: Candles, asked: Asked) -> tuple[Candles, Computed]:
    """The candles to look at, and the answers over them, which are remembered with the candles that are held.

    Not so the candles: they would hold themselves, and wait for the garbage collector with every refresh.
    """
    candles = held.last(asked.depth)
    candles = without_forming(candles) if asked.is_closed else candles
    computed: Computed | None = held.computed.get(asked)
    if computed is None:
        if len(held.computed) >= MEMO_ENTRIES * DEPTH // asked.depth:
            held.computed.clear()
        computed = held.computed[asked] = compute(candles, asked.questions, chart=asked.chart)
    return candles, computed


def _candle(candles: Candles, index: int) -> dict[str, Any]:
    return {
        "open_time_ms": int(candles.open_times_ms[index]),
        "open_price": float(candles.open[index]),
        "high_price": float(candles.high[index]),
        "low_price": float(candles.low[index]),
        "close_price": float(candles.close[index]),
        "volume": float(candles.volume[index]),
    }
