"""Tokens: how they are made, and how they are named in the settings, by their hashes."""

import enum
import hashlib
import secrets
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

TOKEN_BYTES = 32
"""256 bits: nobody guesses that, so that a plain SHA-256 is enough to keep it by."""
SHORTEST = 16
"""Characters of a token that somebody made up; shorter ones can be tried out."""
NAME_DIGITS = 8


class Scope(enum.StrEnum):
    """A kind of data that a token may read."""

    POSITIONS = "positions"
    BALANCE = "balance"
    MARKET = "market"
    INDICATORS = "indicators"
    METRICS = "metrics"
    CONNECTIONS = "connections"


TokenHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="a SHA-256 in 64 hexadecimal digits")]
TokenName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,40}\Z")]
SymbolGlob = Annotated[str, Meta(pattern=r"^[A-Z0-9*?-]{1,40}\Z")]


class TokenEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One token: its name in the logs, its hash, what it may read, and of which symbols."""

    name: TokenName
    hash: TokenHash
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = tuple(Scope)
    symbols: Annotated[tuple[SymbolGlob, ...], Meta(min_length=1, max_length=1000)] = ("*",)


ALLOWED = {
    "name": "1 to 40 letters, digits, dots, dashes and underscores",
    "hash": "sha256: and 64 hexadecimal digits",
    "scopes": f"a list of at least one of {', '.join(Scope)}",
    "symbols": "a list of at least one symbol like BTCUSDT, with * for any characters and ? for one",
}
FIELDS = {field.name: field for field in msgspec.structs.fields(TokenEntry)}


class NewToken(NamedTuple):
    """A token that was just made, and what the settings hold of it."""

    token: str
    hash: str


def make_token() -> NewToken:
    """A token of 256 random bits, as text that fits a header."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return NewToken(token, hash_of(token))


def hash_of(token: str) -> str:
    """What the settings hold of a token."""
    return digest_of(token).hex()


def digest_of(token: str) -> bytes:
    """What tokens are compared by; also of stray bytes that a header may hold."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def entry_of(given: str | TokenEntry) -> TokenEntry:
    """The entry as a table: a hash alone may read everything, and is named by its first digits."""
    return given if isinstance(given, TokenEntry) else TokenEntry(name=given[:NAME_DIGITS], hash=given)


def faults_of(table: dict[str, object]) -> list[str]:
    """What is wrong with a token's table, in words that show none of its values: one may be a token by mistake."""
    faults = [f"{name[:20]!r} is unknown; allowed: {', '.join(FIELDS)}" for name in table if name not in FIELDS]
    for name, field in FIELDS.items():
        if name not in table:
            faults += [f"{name} is missing; allowed: {ALLOWED[name]}"] if field.required else []
        elif not _fits(table[name], field.type):
            faults.append(f"{name} is not allowed as it stands; allowed: {ALLOWED[name]}")
    return faults


def clashes_of(entries: tuple[TokenEntry, ...]) -> list[str]:
    """The names that stand for two tokens or for two sets of rights, and the tokens that have two names."""
    distinct = [*dict.fromkeys(entries)]
    names, hashes = [entry.name for entry in distinct], [entry.hash for entry in distinct]
    return sorted({entry.name for entry in distinct if names.count(entry.name) > 1 or hashes.count(entry.hash) > 1})


def _fits(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
