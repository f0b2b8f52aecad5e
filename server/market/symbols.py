"""Which symbols there are: the exchange's instrument list, read now and then and asked for every request."""

import asyncio
import re
import time
from collections.abc import Callable

from ..errors import InvalidRequest, UnknownSymbol
from ..models import Kind, Part, Topic
from .feeds import Feeds

LIST_AGE_S = 300.0
DOUBT_AGE_S = 30.0
PATIENCE_S = 3.0

FORM = r"[A-Z0-9][A-Z0-9-]{1,39}"
"""What a symbol looks like."""

is_well_formed = re.compile(FORM).fullmatch


class Symbols:
    """Answers from the list in hand, without a call for any one symbol; the list itself is refreshed behind."""

    def __init__(self, feeds: Feeds, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._feeds = feeds
        self._clock = clock

    def known(self, symbol: str, category: str) -> bool | None:
        """Whether the list has `symbol`; None while no list was ever read. Never waits."""
        feed = self._feeds.feed(Topic(Kind.INSTRUMENTS, category=category))
        reading = feed.reading
        is_listed = reading is not None and symbol in reading.value
        # One that is not there may be new, or have been missed: then the list is looked at again, but not for each.
        if feed.peek(LIST_AGE_S if is_listed else DOUBT_AGE_S) is None:
            feed.refresh()
        return None if reading is None else is_listed

    async def require(self, symbol: str, category: str) -> None:
        """Return if `symbol` exists. Raises InvalidRequest, UnknownSymbol, or ExchangeError while there is no list.

        Waits only for the very first list, until its call is three seconds old.
        """
        check_form(symbol)
        if (known := self.known(symbol, category)) is None:
            part = await self.listing(category)
            known = part.reading is not None and symbol in part.reading.value
        if not known:
            raise UnknownSymbol(f"the exchange has no {category} symbol {symbol}")

    async def listing(self, category: str) -> Part:
        """The instrument list as a part. Raises ExchangeError while there is none."""
        topic = Topic(Kind.INSTRUMENTS, category=category)
        feed = self._feeds.feed(topic)
        flight = feed.refresh() if feed.peek(LIST_AGE_S) is None else None
        if feed.reading is None and flight is not None:
            await asyncio.wait({flight}, timeout=max(0.0, feed.waiting_since + PATIENCE_S - self._clock()))
        if feed.reading is None:
            raise feed.failure("the exchange's list of symbols is not here yet")
        return feed.part


def check_form(symbol: str) -> None:
    """Return if `symbol` looks like one. Raises InvalidRequest: what does not never reaches pybit."""
    if is_well_formed(symbol) is None:
        raise InvalidRequest("symbol", "a symbol is 2 to 40 capital letters, digits and dashes, such as BTCUSDT")
