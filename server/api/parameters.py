"""Parameters of requests: parsed once, refused with what is allowed."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..errors import InvalidRequest
from ..models import INTERVALS_MS

T = TypeVar("T")

CATEGORIES = ("linear", "inverse", "spot")
MAX_AGE_MS = 3_600_000
"""The oldest that a request may allow."""
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

is_integer = re.compile(r"[0-9]{1,9}").fullmatch
is_plain_number = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?").fullmatch


class Parameters:
    """The query of one request; every parameter is taken by name, and one that the route does not know,
    or that is given twice, is refused.
    """

    def __init__(self, query: Mapping[str, str], allowed: Iterable[str]) -> None:
        self._query = query
        names = tuple(allowed)
        if unknown := [name for name in query if name not in names]:
            listed = ", ".join(names) if names else "none"
            raise InvalidRequest("parameter", f"unknown parameter {unknown[0][:40]!r}; allowed: {listed}")
        if len(query) > 1 and len(set(query)) < len(query):
            name, _ = Counter(list(query)).most_common(1)[0]
            raise InvalidRequest(name, f"{name} is given more than once; allowed: once")

    def text(self, name: str, default: T) -> str | T:
        """The parameter as it stands."""
        return self._query.get(name, default)

    def choice(self, name: str, default: str, allowed: Iterable[str]) -> str:
        """One of `allowed`."""
        value = self._query.get(name, default)
        if value not in (options := tuple(allowed)):
            raise InvalidRequest(name, f"{name} is {value[:40]!r}; allowed: {', '.join(options)}")
        return value

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A whole number within bounds."""
        text = self._query.get(name, str(default))
        if is_integer(text) is None or not lowest <= int(text) <= highest:
            raise InvalidRequest(name, f"{name} is {text[:40]!r}; allowed: whole numbers {lowest} to {highest}")
        return int(text)

    def boolean(self, name: str) -> bool:
        """true, 1, false or 0; false if left out."""
        text = self._query.get(name, "false")
        if (value := BOOLEANS.get(text.lower())) is None:
            raise InvalidRequest(name, f"{name} is {text[:40]!r}; allowed: {', '.join(BOOLEANS)}")
        return value

    def interval(self, default: str) -> str:
        """A kline interval by Bybit's name."""
        return self.choice("interval", default, INTERVALS_MS)

    def max_age_s(self, default_s: float) -> float:
        """The parameter max_age_ms in seconds."""
        return self.integer("max_age_ms", round(default_s * 1000), 0, MAX_AGE_MS) / 1000

    def push_interval_s(self, default_s: float, lowest_s: float, highest_s: float) -> float:
        """A socket's interval in seconds: 0 for live, or within bounds."""
        text = self._query.get("interval", str(default_s))
        value = float(text) if is_plain_number(text) else math.nan
        if value != 0 and not lowest_s <= value <= highest_s:
            allowed = f"0 for live, or {lowest_s:g} to {highest_s:g} seconds"
            raise InvalidRequest("interval", f"interval is {text[:20]!r}; allowed: {allowed}")
        return value
