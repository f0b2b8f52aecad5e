"""Rights: what one token may read, asked by every route and every channel."""

import fnmatch
import re
from typing import Final

from ..errors import Forbidden
from .tokens import Scope, TokenEntry

ANY = "*"


class Rights:
    """The scopes and symbols of one token; `name` is what logs call it by. Never changes, and never shows the hash."""

    __slots__ = ("_is_symbol", "digest", "name", "scopes", "sees_all", "symbols")

    def __init__(self, name: str, digest: bytes, scopes: frozenset[Scope], symbols: tuple[str, ...]) -> None:
        """`digest` is the token's hash, empty where none was needed; `symbols` are globs."""
        self.name = name
        self.digest: Final = digest
        self.scopes = scopes
        self.symbols = symbols
        self.sees_all = ANY in symbols
        self._is_symbol = re.compile("|".join(map(fnmatch.translate, symbols))).match

    def __repr__(self) -> str:
        return f"Rights({self.name})"

    def require(self, *scopes: Scope) -> None:
        """Return if it may read all of these. Raises Forbidden, naming the first that is missing."""
        for scope in scopes:
            if scope not in self.scopes:
                raise Forbidden(f"the token lacks the scope {scope.value}")

    def sees(self, symbol: str) -> bool:
        """Whether it may read what is about `symbol`."""
        return self.sees_all or self._is_symbol(symbol) is not None

    def require_symbol(self, symbol: str) -> None:
        """Return if it sees `symbol`. Raises Forbidden."""
        if not self.sees(symbol):
            raise Forbidden(f"the token may not read the symbol {symbol[:40]}")

    def require_every_symbol(self) -> None:
        """Return if it sees all symbols. Raises Forbidden."""
        if not self.sees_all:
            raise Forbidden("the token may read some symbols only: ask for each of them by name")


def rights_of(entry: TokenEntry) -> Rights:
    """The rights of a configured token."""
    return Rights(entry.name, bytes.fromhex(entry.hash), frozenset(entry.scopes), entry.symbols)


EVERYTHING = Rights("", b"", frozenset(Scope), (ANY,))
"""Of everybody, where no token is needed."""
