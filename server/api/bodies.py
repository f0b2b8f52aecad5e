"""Bodies: the shapes of all REST answers, and their JSON Schemas. What has a type in models is taken from there."""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..market.counts import CandleCounts, FetchKind
from ..market.indicators import Description
from ..models import Instrument, Position, Ticker, Wallet
from ..realtime.messages import Candle, Fault
from .bulk import MAX_QUESTIONS, Bulk
from .payloads import PLACE, Schema

Number = float | None
Numbers = list[Number]


class Exchange(Struct):
    """Which exchange the numbers are of: those of `simulator` are invented."""

    exchange: str


class Moment(Struct):
    """When the answer was made, how old its reading was then, and whether that is stale."""

    timestamp_ms: int
    age_ms: int
    stale: bool


class Market(Struct):
    """Which market an answer is of."""

    symbol: str
    category: str


class Positions(Struct):
    """The open positions: none when flat, two in hedge mode."""

    positions: list[Position]
    has_position: bool


class OfSymbol(Struct):
    """Of one symbol."""

    symbol: str


class Klines(Struct):
    """Candles, oldest first; `closed` says whether the last one is closed or still forming."""

    interval: str
    candles: list[Candle]
    closed: bool


class Symbols(Struct):
    """The instruments of a category that the token may read."""

    category: str
    symbols: list[Instrument]


class Indicators(Struct, kw_only=True):
    """The last candle asked for and its indicators by name; `series` of several candles, oldest first."""

    symbol: str
    category: str
    interval: str
    candle_count: int
    candle_closed: bool
    chart: str | UnsetType = UNSET
    data: dict[str, Number | dict[str, Number]]
    series: dict[str, Numbers | dict[str, Numbers]] | UnsetType = UNSET


class Catalogue(Struct):
    """Indicators with their parameters, outputs, and how far back they look."""

    exchange: str
    sources: list[str]
    charts: list[str]
    indicators: list[Description]


class QuestionError(Struct):
    """Why a question has no answer, as a problem would say it."""

    code: str
    status: int
    detail: str


class Failed(Struct):
    """A question without an answer; `question` is its place in the request."""

    error: QuestionError
    question: int


class Alive(Struct):
    """The loop turns, or the gateway is ready."""

    status: str


class Worker(Struct):
    """Which of how many processes answered."""

    index: int
    of: int


class FeedSummary(Struct):
    """All feeds of one kind."""

    topics: int
    failing: int
    youngest_age_ms: int | None
    oldest_age_ms: int | None
    error: Fault | None


class Key(Struct):
    """What the API key may do, and until when."""

    read_only: bool
    permissions: list[str]
    address_bound: bool
    expires_at_ms: int | None
    days_left: int | None
    checked_s: float
    problem: str | None


class Health(Struct):
    """The process that answered, and what it knows of the exchange. Null is what is not known yet."""

    status: str
    exchange: str
    account: str
    profile: str
    version: str
    epoch: str
    worker: Worker
    uptime_s: float
    sockets: int
    sessions: int
    requests: int
    clock_offset_ms: int | None
    key: Key | None
    breakers: dict[str, dict[str, Any]]
    budget_left: dict[str, float]
    calls_in_flight: dict[str, int]
    streams: dict[str, dict[str, Any]] | None
    feeds: dict[str, FeedSummary]
    candles: CandleCounts
    timestamp_ms: int


class ConnectedChannel(Struct):
    """One subscription; `stale` is what the client was told last."""

    channel: str
    interval: float
    frames: int
    stale: list[str]


class Connection(Struct):
    """One socket."""

    worker: int
    address: str | None
    token: str | None
    route: str
    age_s: float
    subscriptions: int
    channels: list[ConnectedChannel]
    frames: int
    conflated: int
    buffered_bytes: int
    last_pong_s: float | None


class Connections(Struct):
    """Who is connected, over all workers but the silent ones."""

    exchange: str
    sockets: int
    sessions: int
    silent_workers: list[int]
    connections: list[Connection]
    timestamp_ms: int


class Problem(Struct):
    """RFC 9457: `code` is for machines, `detail` says what is allowed, `request_id` finds the log line."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    reason: str | UnsetType = UNSET


def _joined(name: str, *kinds: type[Struct]) -> type[Struct]:
    """A type with the fields of all of these."""
    fields = [field for kind in kinds for field in msgspec.structs.fields(kind)]
    needed = [(field.name, field.type) for field in fields if field.required]
    optional = [(field.name, field.type, field.default) for field in fields if not field.required]
    joined = msgspec.defstruct(name, [*needed, *optional], kw_only=True)
    joined.__doc__ = kinds[-1].__doc__
    return joined


PRICE = _joined("Price", Exchange, Moment, Market, Ticker)
POSITIONS = _joined("PositionsOfAll", Exchange, Moment, Positions)
POSITION = _joined("PositionsOfSymbol", Exchange, Moment, OfSymbol, Positions)
BALANCE = _joined("Balance", Exchange, Moment, Wallet)
KLINES = _joined("KlinesOfSymbol", Exchange, Moment, Market, Klines)
SYMBOLS = _joined("SymbolsOfCategory", Exchange, Moment, Symbols)
INDICATORS = _joined("IndicatorsOfSymbol", Exchange, Moment, Indicators)


class Undated(Struct):
    """What an answer within an answer says of its age."""

    age_ms: int
    stale: bool


ANSWERED = _joined("Answered", Undated, Indicators)


class Answers(Struct):
    """One answer or failure for each question, in their order."""

    exchange: str
    answers: list[Any]
    timestamp_ms: int


KINDS: tuple[type[Struct], ...] = (
    *(PRICE, POSITIONS, POSITION, BALANCE, KLINES, SYMBOLS, INDICATORS, ANSWERED),
    *(Catalogue, Failed, Alive, Health, Connections, Answers, Problem, Bulk),
)


def schemas(max_age_ms: int, fields: dict[str, Schema]) -> dict[str, Schema]:
    """The schemas of all bodies and of all that is within, by name; `fields` are those that a question may have."""
    _, found = msgspec.json.schema_components(KINDS, ref_template=PLACE)
    del found[FetchKind.__name__]  # only of keys, of which a schema says nothing
    found["Answers"]["properties"]["answers"]["items"] = {
        "anyOf": [{"$ref": PLACE.format(name=name)} for name in ("Answered", "Failed")]
    }
    questions = found["Bulk"]["properties"]["questions"]
    questions |= {"minItems": 1, "maxItems": MAX_QUESTIONS, "items": {"$ref": PLACE.format(name="Question")}}
    found["Bulk"]["properties"]["max_age_ms"] = {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": max_age_ms}, {"type": "null"}],
        "default": None,
    }
    return {**found, "Question": _question(fields)}


def _question(fields: dict[str, Schema]) -> Schema:
    """A question: what is wrong with its values is answered in its own place, so any of a query's types is taken."""
    value = {"type": ["string", "integer", "boolean"]}
    return {
        "title": "Question",
        "description": "The symbol, and the query of `GET /indicators/{symbol}` but for its freshness.",
        "type": "object",
        "properties": {name: {**value, "description": fields[name]["description"]} for name in fields},
        "additionalProperties": value,
    }
