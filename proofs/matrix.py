"""Who asks for what from where, and what has to come of it: worked out from the router and the table of scopes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from server.access.tokens import Scope, hash_of
from server.api.scopes import CHANNELS, OPEN_PATHS, ROUTES, SOCKETS
from server.app import create_app
from server.settings import BybitSettings, Environment, Settings
from server.simulator.child import API_KEY, API_SECRET

SYMBOL, OTHER = "BTCUSDT", "ETH*"
HOSTS = {
    "good": "127.0.0.1:{port}",
    "foreign": "evil.example:{port}",
    "port trick": "127.0.0.1:{port}@evil.example",
    "suffix trick": "localhost.evil.example:{port}",
}
ORIGINS = {
    "none": None,
    "good": "http://127.0.0.1:{port}",
    "foreign": "https://evil.example",
    "null": "null",
    "suffix trick": "http://127.0.0.1:{port}.evil.example",
    "port trick": "http://127.0.0.1:{port}0",
}
GOOD_ORIGINS = ("none", "good")


class Case(NamedTuple):
    """One request: what it asks for, who asks, and from where it claims to come."""

    method: str
    path: str
    credential: str
    host: str
    origin: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}, token {self.credential}, Host {self.host}, Origin {self.origin}"


class Token(NamedTuple):
    """A token, its name in the settings, and what it may read."""

    name: str
    text: str
    scopes: tuple[Scope, ...]
    symbols: tuple[str, ...] = ("*",)

    def entry(self) -> str:
        """Its table in the settings."""
        held = json.dumps([scope.value for scope in self.scopes]), json.dumps(self.symbols)
        return (
            f'{{ name = "{self.name}", hash = "sha256:{hash_of(self.text)}", scopes = {held[0]}, symbols = {held[1]} }}'
        )


class Tokens:
    """All that the gateway is given: one that reads all, one that is taken back, one of a symbol, and of scopes."""

    def __init__(self) -> None:
        every = tuple(Scope)
        self.right = _token("right", every)
        self.revoked = _token("revoked", every)
        self.elsewhere = _token("elsewhere", every, (OTHER,))
        self.lacking = {
            scopes: _token(f"lacking-{number}", tuple(set(Scope) - {scopes[0]}))
            for number, scopes in enumerate(dict.fromkeys((*ROUTES.values(), *CHANNELS.values())))
        }
        """By the scopes that are needed, one without the first of them."""

    def settings(self, *, but: Token | None = None) -> str:
        """The settings' file that has them."""
        every = (self.right, self.revoked, self.elsewhere, *self.lacking.values())
        rows = ",\n".join(one.entry() for one in every if one is not but)
        return f"[auth]\ntokens = [\n{rows}\n]\n"

    def hidden(self) -> list[bytes]:
        """What nobody is ever shown, by whichever answer: tokens, their hashes, and the key and its secret."""
        every = (self.right, self.revoked, self.elsewhere, *self.lacking.values())
        return [text.encode() for one in every for text in (one.text, hash_of(one.text))] + [
            API_SECRET.encode(),
            API_KEY.encode(),
        ]

    def header(self, credential: str, needed: tuple[Scope, ...]) -> str | None:
        """The Authorization header of a kind of credential, None without one."""
        match credential:
            case "none":
                return None
            case "malformed":
                return f"Basic {self.right.text}"
            case "empty":
                return "Bearer "
            case "wrong":
                return f"Bearer {self.right.text[:-1]}"
            case "revoked":
                return f"Bearer {self.revoked.text}"
            case "out of scope":
                return f"Bearer {self.lacking[needed].text}"
            case "other symbols":
                return f"Bearer {self.elsewhere.text}"
        return f"Bearer {self.right.text}"


UNKNOWN = ("none", "malformed", "empty", "wrong", "revoked")
CREDENTIALS = (*UNKNOWN, "out of scope", "other symbols", "right")


def _token(name: str, scopes: tuple[Scope, ...], symbols: tuple[str, ...] = ("*",)) -> Token:
    return Token(name, secrets.token_urlsafe(32), scopes, symbols)


def routes() -> list[tuple[str, str]]:
    """Method and pattern of each route that the gateway has, from its router."""
    bybit = BybitSettings(environment=Environment.SIMULATOR, rest_url="http://127.0.0.1:1")
    table = create_app(Settings(bybit=bybit)).router.routes()
    return sorted({(route.method, route.resource.canonical) for route in table if route.resource is not None})


def matrix() -> Iterator[Case]:
    """Every route by everybody, from everywhere."""
    for (method, path), who, host, origin in product(routes(), CREDENTIALS, HOSTS, ORIGINS):
        is_limited = path in SOCKETS or path in ROUTES
        if who == "out of scope" and (not is_limited or path == "/ws"):
            continue  # there is no such scope: whoever has a token may open it
        yield Case(method, path, who, host, origin)


def needed(path: str) -> tuple[Scope, ...]:
    """The scopes of a route; those of its channel where it is a socket's."""
    return CHANNELS["positions"] if path in SOCKETS else ROUTES.get(path, ())


def expected(case: Case) -> tuple[int, int]:
    """The status that a case has to be answered with, and the code that its socket has to close with, 0 for none."""
    is_socket, is_limited = case.path in SOCKETS, "{symbol}" in case.path
    if case.host != "good":
        return 421, 0
    if case.origin not in GOOD_ORIGINS or (is_socket and case.credential == "none" and case.origin == "none"):
        return 403, 0
    if case.path in OPEN_PATHS:
        return 200, 0
    is_refused = case.credential == "out of scope" or (case.credential == "other symbols" and is_limited)
    if is_socket:
        return 101, 4401 if case.credential in UNKNOWN else 4403 if is_refused else 0
    return 401 if case.credential in UNKNOWN else 403 if is_refused else 200, 0


TRICKS = (
    "/positions%2FBTCUSDT",
    "//positions/BTCUSDT",
    "/positions//BTCUSDT",
    "/positions/BTC%55SDT",
    "/%70ositions/BTCUSDT",
    "/Positions/BTCUSDT",
    "/positions/BTCUSDT/",
    "/positions/BTCUSDT?",
    "/positions/BTCUSDT?max_age_ms=0",
    "/positions/BTCUSDT#/livez",
    "/positions/BTCUSDT;/livez",
    "/positions/BTCUSDT%00",
    "/positions/BTCUSDT%0A",
    "/positions/ETHUSDT%0ABTCUSDT",
    "/positions/ETHUSDT%26symbol=BTCUSDT",
    "/positions/ETHUSDT%2F..%2FBTCUSDT",
    "/positions/ETHUSDT/../BTCUSDT",
    "/positions/%2A",
    "/positions/BTCUSD\xd4",
    "/./positions/BTCUSDT",
    "/livez/../positions/BTCUSDT",
    "/livez/%2e%2e/positions/BTCUSDT",
    "/livez%2F..%2Fpositions/BTCUSDT",
    "/livez?/../positions/BTCUSDT",
    "/ws/../positions/BTCUSDT",
    "/ws/%2e%2e/positions/BTCUSDT",
    "/ws%2Fpositions/BTCUSDT",
    "/ws%2F..%2Fpositions%2FBTCUSDT",
    "\\positions\\BTCUSDT",
    "http://127.0.0.1/positions/BTCUSDT",
    "http://evil.example/positions/BTCUSDT",
    "http://127.0.0.1@evil.example/positions/BTCUSDT",
    "https:///positions/BTCUSDT",
    "/price/BTCUSDT?category=linear",
    "/price/BTC%55SDT",
    "/klines/BTCUSDT?limit=1",
    "/indicators/BTCUSDT?names=rsi",
)
"""Other ways to spell what is about BTCUSDT, or what looks as if it were."""
METHODS = ("GET", "HEAD", "OPTIONS", "get", "TRACE", "PUT", "DELETE", "CONNECT")
