"""The exchange as a whole, without HTTP: its market, account and modes, and the reading of a call's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import unquote

from .account import MARGINS, Account, Modes
from .clock import Clock
from .instruments import CATALOGUE, Category, Instrument, widened
from .market import Market
from .rows import Row
from .signing import Refusal

T = TypeVar("T")
PARAMETER_ERROR = 10001


class Exchange:
    """What every answer is made from. `modes` is the only state besides the clock."""

    def __init__(self, seed: int, clock: Clock, modes: Modes, symbols: int = 0) -> None:
        """At least `symbols` linear symbols are traded. Raises ValueError over 2,000."""
        self.seed, self.clock, self.modes = seed, clock, modes
        self.catalogue = widened(symbols)
        self.market = Market(seed)
        self.account = Account(self.market)

    def instrument(
        self, category: Category, symbol: str, message: str = "params error: Symbol Is Invalid"
    ) -> Instrument:
        """The symbol's instrument; raises Refusal with `message`, which differs between Bybit's endpoints."""
        instrument = self.catalogue.get(category, {}).get(symbol)
        if instrument is None:
            raise Refusal(PARAMETER_ERROR, message)
        return instrument

    def set_modes(self, margin: str | None, hedged: Iterable[str] | None) -> None:
        """Sets the account's modes; None leaves one as it is. Raises ValueError."""
        self.modes = modes_of(
            self.modes.margin if margin is None else margin, self.modes.hedged if hedged is None else hedged
        )


def modes_of(margin: str, hedged: Iterable[str]) -> Modes:
    """The account's modes; raises ValueError for an unknown margin mode or symbol."""
    symbols = frozenset(symbol for symbol in hedged if symbol)
    if margin not in MARGINS:
        raise ValueError(f"margin must be one of {', '.join(MARGINS)}, not {margin!r}")
    if unknown := sorted(symbols - CATALOGUE[Category.LINEAR].keys()):
        raise ValueError(f"unknown linear symbols: {', '.join(unknown)}")
    return Modes(margin, symbols)


Query = Mapping[str, str]


def category_of(query: Query, allowed: Sequence[Category] = tuple(Category)) -> Category:
    """The `category` parameter; raises Refusal."""
    text = query.get("category", "")
    if text not in allowed:
        raise Refusal(PARAMETER_ERROR, "params error: Category is invalid" if text else "Illegal category")
    return Category(text)


def integer_of(query: Query, name: str, default: T, low: int, high: int) -> int | T:
    """An integer parameter within bounds, `default` where it is missing or empty; raises Refusal."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and low <= int(text) <= high):
        raise Refusal(PARAMETER_ERROR, f"params error: {name} is invalid")
    return int(text)


def after_cursor(rows: Sequence[Row], cursor: str, names: Sequence[str]) -> Sequence[Row]:
    """The rows after the one that `cursor` names (by `names`, joined with commas), all for ""; raises Refusal.

    A row that has gone meanwhile is passed over by its name's order. Escaped and plain cursors are the same.
    """
    if not cursor:
        return rows
    parts = unquote(unquote(cursor)).split(",")
    if len(parts) != len(names):
        raise Refusal(PARAMETER_ERROR, "params error: cursor is invalid")
    keys = [[str(row[name]) for name in names] for row in rows]
    if parts in keys:
        return rows[keys.index(parts) + 1 :]
    return [row for row, key in zip(rows, keys, strict=True) if key > parts]
