"""Parameters of indicators: what each is called, what it may be, and how its text is read."""

import math
import re
from collections.abc import Mapping

from msgspec import Struct

from ...errors import InvalidRequest

LONGEST = 500
"""The longest period: half of the candles held, so that a value is left beside its warm-up, and no name costs more than
about half a millisecond."""

is_whole = re.compile(r"[0-9]{1,6}").fullmatch
is_decimal = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,9})?").fullmatch


class Parameter(Struct, frozen=True, eq=False):
    """One parameter of an indicator: its default, and its range. `words`, where there are any, are all it may be."""

    name: str
    title: str
    default: float
    lowest: float
    highest: float
    is_integer: bool = True
    words: Mapping[str, int] = {}

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        return ", ".join(self.words) if self.words else f"{self.lowest:.12g} to {self.highest:.12g}"

    def written(self, value: float) -> str:
        """`value` as a person writes it."""
        return next((word for word, number in self.words.items() if number == value), f"{value:.12g}")

    def shown(self, value: float) -> float | str:
        """`value` for clients: a word, a whole number or a decimal one."""
        return self.written(value) if self.words else int(value) if self.is_integer else value

    def read(self, text: str, indicator: str) -> float:
        """The value that `text` stands for. Raises InvalidRequest, which says what is allowed."""
        value = self._value(text)
        if value is None or not self.lowest <= value <= self.highest:
            what = f"{self.name} of {indicator} is {text[:20]!r}"
            kind = "" if self.words or not self.is_integer else "whole numbers "
            raise InvalidRequest("names", f"{what}; allowed: {kind}{self.allowed}")
        return value

    def _value(self, text: str) -> float | None:
        if text in self.words:
            return self.words[text]
        value = float(text) if (is_whole if self.is_integer else is_decimal)(text) else math.nan
        return None if self.words and value not in self.words.values() else value


def period(
    default: int, *, name: str = "period", title: str = "Candles that are looked back", lowest: int = 2
) -> Parameter:
    """A number of candles."""
    return Parameter(name, title, default, lowest, LONGEST)


def word(name: str, title: str, words: Mapping[str, int], default: str) -> Parameter:
    """One of `words`, or its number."""
    return Parameter(name, title, words[default], min(words.values()), max(words.values()), words=words)
