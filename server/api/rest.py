"""REST routes for data: parse, ask the feeds, answer."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from ..market.candles import DEPTH
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

Body = Callable[[Any], dict[str, Any]]


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
    topic = await kline_topic(request, parameters)

    def body(candles: Candles) -> dict[str, Any]:
        return {
            "symbol": topic.symbol,
            "category": topic.category,
            "interval": topic.interval,
            "candles": [(int(row[0]), *row[1:]) for row in candles.rows[-limit:]],
            "closed": candles.last_closed,
        }

    return await reading_answer(request, topic, parameters, body)


async def kline_topic(request: web.Request, parameters: Parameters) -> Topic:
    """The candles that are asked for, of a symbol that the exchange has."""
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
