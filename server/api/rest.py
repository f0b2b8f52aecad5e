"""REST routes for data: parse, ask the feeds, answer."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec.structs import asdict

from ..market.symbols import LIST_AGE_S
from ..models import Candles, Kind, Position, Reading, Topic, open_positions
from .answers import answer, opening_of
from .inquiry import FRESHNESS, Inquiry, found, respond
from .keys import RIGHTS, SETTINGS, SYMBOLS
from .parameters import CATEGORIES, Parameters

routes = web.RouteTableDef()

USUAL_CANDLES, MOST_CANDLES = 200, 1000
USUAL_INTERVAL = "240"


def category_of(request: web.Request) -> str:
    """The category of positions, the default of everything else."""
    return request.app[SETTINGS].bybit.category.value


@routes.get("/price/{symbol}")
async def price(request: web.Request) -> web.StreamResponse:
    """The ticker of one symbol."""
    return await respond(request, found(request, _price))


def _price(request: web.Request) -> Inquiry:
    parameters = Parameters(request.query, ("category", *FRESHNESS))
    category = parameters.choice("category", category_of(request), CATEGORIES)
    symbol = request.match_info["symbol"]
    return Inquiry(
        request,
        Topic(Kind.TICKER, symbol, category=category),
        parameters,
        lambda ticker: {"symbol": symbol, "category": category, **asdict(ticker)},
    )


@routes.get("/positions")
async def positions(request: web.Request) -> web.StreamResponse:
    """Every open position of the symbols that the token may read."""
    parameters = Parameters(request.query, FRESHNESS)
    topic, sees = Topic(Kind.POSITIONS, category=category_of(request)), request[RIGHTS].sees

    def body(rows: Any) -> dict[str, Any]:
        return _listed([row for row in open_positions(rows) if sees(row.symbol)])

    return await respond(request, Inquiry(request, topic, parameters, body))


@routes.get("/positions/{symbol}")
async def position(request: web.Request) -> web.StreamResponse:
    """The open positions of one symbol: none when flat, two in hedge mode."""
    return await respond(request, found(request, _position))


def _position(request: web.Request) -> Inquiry:
    symbol = request.match_info["symbol"]
    topic = Topic(Kind.POSITION, symbol, category=category_of(request))
    parameters = Parameters(request.query, FRESHNESS)
    return Inquiry(request, topic, parameters, lambda rows: {"symbol": symbol, **_listed(open_positions(rows))})


def _listed(positions: Sequence[Position]) -> dict[str, Any]:
    return {"positions": positions, "has_position": bool(positions)}


@routes.get("/balance")
async def balance(request: web.Request) -> web.StreamResponse:
    """The unified account."""
    return await respond(request, found(request, _balance))


def _balance(request: web.Request) -> Inquiry:
    return Inquiry(request, Topic(Kind.WALLET), Parameters(request.query, FRESHNESS), asdict)


@routes.get("/klines/{symbol}")
async def klines(request: web.Request) -> web.StreamResponse:
    """The last candles of one symbol, oldest first, the forming one among them."""
    return await respond(request, found(request, _klines))


def _klines(request: web.Request) -> Inquiry:
    parameters = Parameters(request.query, ("interval", "limit", "category", *FRESHNESS))
    limit = parameters.integer("limit", USUAL_CANDLES, 1, MOST_CANDLES)
    topic = kline_topic(request, parameters)

    def body(candles: Candles) -> dict[str, Any]:
        return {
            "symbol": topic.symbol,
            "category": topic.category,
            "interval": topic.interval,
            "candles": [(int(row[0]), *row[1:]) for row in candles.rows[-limit:]],
            "closed": candles.last_closed,
        }

    return Inquiry(request, topic, parameters, body)


def kline_topic(request: web.Request, parameters: Parameters) -> Topic:
    """The candles that are asked for."""
    category = parameters.choice("category", category_of(request), CATEGORIES)
    interval = parameters.interval(USUAL_INTERVAL)
    return Topic(Kind.KLINE, request.match_info["symbol"], interval, category)


@routes.get("/symbols")
async def symbols(request: web.Request) -> web.StreamResponse:
    """The exchange's instruments of one category, those that the token may read."""
    rights = request[RIGHTS]
    parameters = Parameters(request.query, ("category",))
    category = parameters.choice("category", category_of(request), CATEGORIES)
    part = await request.app[SYMBOLS].listing(category)
    reading: Reading[Any] | None = part.reading
    assert reading is not None, "listing raises where there is none"
    body = {"category": category, "symbols": [one for name, one in reading.value.items() if rights.sees(name)]}
    tag = f"{hash((category, rights.symbols)) & 0xFFFFFFFF:x}"
    return answer(request, Kind.INSTRUMENTS, part, LIST_AGE_S, opening_of(request, body), tag=tag)
