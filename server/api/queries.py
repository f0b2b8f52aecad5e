"""Queries: each parameter that a route may be asked with, with the bounds and defaults that the handlers go by."""

from typing import Any

from ..market.indicators import CHARTS
from ..market.symbols import FORM
from ..models import INTERVALS_MS
from ..settings import Settings
from .metrics import MOST, USUAL
from .parameters import BOOLEANS, CATEGORIES, MAX_AGE_MS
from .rest import MOST_CANDLES, USUAL_CANDLES, USUAL_INTERVAL

Json = dict[str, Any]

SYMBOL = {"type": "string", "pattern": f"^{FORM}$"}


def parameters(settings: Settings) -> dict[str, Json]:
    """All of them by the names that components have; a query's own name is in each."""
    category = settings.bybit.category.value
    limits, pace = settings.indicators, settings.websocket
    return {
        "symbol": {**_one("symbol", "A symbol that Bybit lists.", SYMBOL, "BTCUSDT"), "in": "path", "required": True},
        "category": _one("category", "The market of the symbol.", _choice(CATEGORIES, category)),
        "interval": _one("interval", "The candles' length, by Bybit's name.", _choice(INTERVALS_MS, USUAL_INTERVAL)),
        "limit": _one("limit", "How many candles.", _whole(USUAL_CANDLES, 1, MOST_CANDLES)),
        "shown": _one("limit", "How many sockets are listed.", _whole(USUAL, 1, MOST)),
        "names": _one(
            "names",
            f"Up to {limits.max_names} indicators with their parameters, by commas; the classic set without it.",
            {"type": "string"},
            "rsi:14@hl2,macd:12:26:9,bbands:ma=ema",
        ),
        "listed": _one("names", "Only these indicators, with the parameters as given.", {"type": "string"}, "rsi:21"),
        "results": _one("results", "Of how many candles.", _whole(1, 1, limits.max_results)),
        "backtrack": _one(
            "backtrack",
            "How many candles before the last one to begin with; up to 999 without `names`.",
            _whole(0, 0, limits.max_candles - 1),
        ),
        "closed": _one("closed", "Leave out the candle that is still forming.", _boolean()),
        "chart": _one("chart", "Which candles to compute from.", _choice(CHARTS, CHARTS[0])),
        "max_age_ms": _one(
            "max_age_ms",
            "Ask Bybit again if what is in hand is older.",
            _whole(round(settings.freshness.max_age_s * 1000), 0, MAX_AGE_MS),
        ),
        "require_fresh": _one("require_fresh", "Prefer 503 to a stale answer.", _boolean()),
        "pace": _one(
            "interval",
            f"Seconds between snapshots: 0 for each change, or {pace.min_interval_s:g} to {pace.max_interval_s:g}.",
            {
                "type": "number",
                "default": pace.interval_s,
                "anyOf": [{"const": 0}, {"minimum": pace.min_interval_s, "maximum": pace.max_interval_s}],
            },
        ),
        "known": {
            **_one("If-None-Match", "The ETag of what you have: 304 if it is still that.", {"type": "string"}),
            "in": "header",
        },
    }


def _one(name: str, description: str, schema: Json, example: str | None = None) -> Json:
    shown = {} if example is None else {"example": example}
    return {"name": name, "in": "query", "description": description, "schema": schema, **shown}


def _choice(allowed: Any, default: str) -> Json:
    return {"type": "string", "enum": [*allowed], "default": default}


def _whole(default: int, lowest: int, highest: int) -> Json:
    return {"type": "integer", "minimum": lowest, "maximum": highest, "default": default}


def _boolean() -> Json:
    return {"type": "string", "enum": [*BOOLEANS], "default": "false"}
