"""Exposed: what each route may be asked and answers, for its description. A route without a row fails the start."""

from typing import NamedTuple

from ..metrics.page import Format
from .indicators import QUERY
from .inquiry import FRESHNESS
from .refusals import EVERY, GUARDED, OF_BODY, OF_CANDLES, OF_SYMBOL, READINESS, SOCKET, UPSTREAM, Errors

JSON = ("application/json",)
HTML = ("text/html",)


class Exposed(NamedTuple):
    """One route: its group, its query by the names in queries.py, its body's schema (None for text), its problems."""

    tag: str
    query: tuple[str, ...]
    body: str | None
    errors: Errors
    is_tagged: bool = False
    media: tuple[str, ...] = JSON
    form: str = "string"
    is_socket: bool = False

    def parameters(self, path: str) -> tuple[str, ...]:
        """All parameters, the path's and the header's too."""
        of_path = ("symbol",) if "{symbol}" in path else ()
        return *of_path, *self.query, *(("known",) if self.is_tagged else ())


EXPOSED: dict[tuple[str, str], Exposed] = {
    ("GET", "/price/{symbol}"): Exposed("market", ("category", *FRESHNESS), "Price", OF_SYMBOL, is_tagged=True),
    ("GET", "/klines/{symbol}"): Exposed(
        "market", ("interval", "limit", "category", *FRESHNESS), "KlinesOfSymbol", OF_SYMBOL, is_tagged=True
    ),
    ("GET", "/symbols"): Exposed("market", ("category",), "SymbolsOfCategory", UPSTREAM, is_tagged=True),
    ("GET", "/indicators"): Exposed("indicators", ("listed",), "Catalogue", GUARDED, is_tagged=True),
    ("POST", "/indicators"): Exposed("indicators", (), "Answers", OF_BODY),
    ("GET", "/indicators/{symbol}"): Exposed(
        "indicators", (*QUERY, *FRESHNESS), "IndicatorsOfSymbol", OF_CANDLES, is_tagged=True
    ),
    ("GET", "/positions"): Exposed("account", FRESHNESS, "PositionsOfAll", UPSTREAM),
    ("GET", "/positions/{symbol}"): Exposed("account", FRESHNESS, "PositionsOfSymbol", OF_SYMBOL),
    ("GET", "/balance"): Exposed("account", FRESHNESS, "Balance", UPSTREAM),
    ("GET", "/ws"): Exposed("sockets", (), None, SOCKET, is_socket=True),
    ("GET", "/ws/positions/{symbol}"): Exposed("sockets", ("pace",), None, SOCKET, is_socket=True),
    ("GET", "/livez"): Exposed("gateway", (), "Alive", EVERY),
    ("GET", "/readyz"): Exposed("gateway", (), "Alive", READINESS),
    ("GET", "/health"): Exposed("gateway", (), "Health", GUARDED),
    ("GET", "/connections"): Exposed("gateway", ("shown",), "Connections", GUARDED),
    ("GET", "/metrics"): Exposed(
        "gateway", (), None, GUARDED, media=tuple(one.value.partition(";")[0] for one in Format)
    ),
    ("GET", "/"): Exposed("gateway", (), None, EVERY, media=HTML),
    ("GET", "/asyncapi.json"): Exposed("descriptions", (), None, GUARDED, is_tagged=True, form="object"),
    ("GET", "/openapi.json"): Exposed("descriptions", (), None, GUARDED, is_tagged=True, form="object"),
    ("GET", "/docs"): Exposed("descriptions", (), None, GUARDED, media=HTML),
}
