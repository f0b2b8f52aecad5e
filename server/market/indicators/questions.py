"""Questions: `rsi:14,bbands:period=20:up=2.5@hlc3` as indicators with the values of their parameters."""

import difflib

from msgspec import Struct

from ...errors import InvalidRequest
from ...models import INTERVALS_MS
from .catalogue import CATALOGUE, Description, described
from .indicator import Indicator, Values
from .prices import SOURCES
from .sessions import DAY_MS

WHERE = "GET /indicators lists them all"


class Question(Struct, frozen=True):
    """One asked indicator: its key in the answer, the values of its parameters, and the prices it is computed of."""

    key: str
    indicator: Indicator
    values: Values
    sources: tuple[str, ...]

    @property
    def source(self) -> str:
        """The prices by word, such as `close` or `high/low`; empty where the indicator has its own."""
        return "/".join(self.sources)

    @property
    def warm_up(self) -> int | None:
        """Candles before the first value; None where that is no number of candles."""
        return self.indicator.warm_up(self.values)

    @property
    def settling(self) -> int | None:
        """Candles before a value that does not depend on where they start; None where no number promises that."""
        return self.indicator.settling(self.values)

    def needs(self, interval: str) -> int:
        """Candles of that interval before a value that does not depend on where they start, as far as that is known."""
        whole_days = self.indicator.days(self.values) * DAY_MS // INTERVALS_MS[interval]
        return max(self.settling or self.warm_up or 0, whole_days)

    def describe(self) -> Description:
        """The indicator with these values, for clients."""
        return described(self.key, self.indicator, self.values, self.sources)


def parse_names(text: str, *, max_names: int) -> tuple[Question, ...]:
    """`rsi:14,macd:fast=10@hl2` as questions; parameters left out have their defaults. Raises InvalidRequest."""
    names = [name.strip().lower() for name in text.split(",")]
    if len(names) > max_names:
        raise InvalidRequest("names", f"{len(names)} names are asked for; at most {max_names} are allowed")
    if not all(names):
        raise InvalidRequest("names", "a name is empty; GET /indicators lists all that are allowed")
    if len(set(names)) != len(names):
        raise InvalidRequest("names", "the same name is asked for twice")
    return tuple(question(name) for name in names)


def question(name: str) -> Question:
    """One name with its parameters and source. Raises InvalidRequest."""
    asked, *source = name.split("@", 1)
    word, *given = asked.split(":")
    indicator = CATALOGUE.get(word)
    if indicator is None:
        raise InvalidRequest("names", f"no indicator {word[:40]!r}; {_suggestion(word)}{WHERE}")
    if len(given) > len(indicator.parameters):
        raise InvalidRequest("names", f"{word} takes {len(indicator.parameters)} parameters: {indicator.usage}")
    values = _values(indicator, given)
    sources = _sources(indicator, source[0]) if source else indicator.sources
    if (warm_up := indicator.warm_up(values)) is not None and warm_up < 0:
        raise InvalidRequest(
            "names", f"TA-Lib does not take these values together; allowed are such as {indicator.usage}"
        )
    return Question(name, indicator, values, sources)


def _suggestion(word: str) -> str:
    near = difflib.get_close_matches(word[:40], CATALOGUE, 3)
    titled = [name for name, indicator in CATALOGUE.items() if len(word) > 2 and word in indicator.title.lower()]
    names = list(dict.fromkeys((*titled[:3], *near)))[:3]
    return f"did you mean {' or '.join(names)}? " if names else ""


def _values(indicator: Indicator, given: list[str]) -> Values:
    """The values of all parameters: those given by position, then those given by name, then the defaults."""
    places = {parameter.name: place for place, parameter in enumerate(indicator.parameters)}
    values: dict[int, float] = {}
    for position, text in enumerate(given):
        name, equals, value = text.rpartition("=")
        place = places.get(name) if equals else position
        if place is None:
            raise InvalidRequest(
                "names", f"{indicator.name} has no parameter {name[:40]!r}; allowed: {indicator.usage}"
            )
        if place in values or (not equals and position and "=" in given[position - 1]):
            detail = f"{indicator.name} takes each parameter once, those by position first: {indicator.usage}"
            raise InvalidRequest("names", detail)
        values[place] = indicator.parameters[place].read(value, indicator.name)
    return tuple(values.get(place, default) for place, default in enumerate(indicator.defaults))


def _sources(indicator: Indicator, text: str) -> tuple[str, ...]:
    sources = tuple(text.split("/"))
    if not indicator.sources:
        has = " and ".join(indicator.inputs)
        raise InvalidRequest("names", f"{indicator.name} is computed of {has}, and takes no source after @")
    if len(sources) != len(indicator.sources) or not set(sources) <= SOURCES.keys():
        such = "two of them, as in high/low" if len(indicator.sources) > 1 else "one of them"
        detail = f"the source of {indicator.name} is {text[:40]!r}; allowed: {', '.join(SOURCES)}, {such}"
        raise InvalidRequest("names", detail)
    return sources
