"""Checking: closed candles are read anew from time to time, for the exchange may have corrected them since."""

import asyncio
import random
import time
from collections.abc import Callable

from ..errors import GatewayError
from ..models import Candles, Kind, Topic
from ..telemetry import get_logger
from .candlecache import Klines
from .candles import DEPTH, corrected
from .counts import FetchKind, Tally
from .feed import Feed
from .feeds import Feeds

log = get_logger(__name__)

CHECK_S = 300.0
"""How often a page of each topic in hand is read anew: the newest, then the one before it, and so on, and round."""
LOOK_S = 1.0


class Checks:
    """Reads what is held of kline topics anew, one page at a time, while `is_at_ease` says that calls are to spare."""

    def __init__(
        self,
        feeds: Feeds,
        klines: Klines,
        tally: Tally,
        *,
        is_at_ease: Callable[[], bool],
        every_s: float = CHECK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = feeds
        self._klines = klines
        self._tally = tally
        self._is_at_ease = is_at_ease
        self._every_s = every_s
        self._clock = clock
        self._due: dict[Topic, tuple[float, int]] = {}

    async def run(self) -> None:
        """Look what is due for ever; to be cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._every_s))
            await self.look()

    async def look(self) -> None:
        """Read a page of each topic that is due, one after the other."""
        topics = {feed.topic for feed in self._feeds if _has_candles(feed)}
        self._due = {topic: due for topic, due in self._due.items() if topic in topics}
        for topic in topics:
            at, page = self._due.setdefault(topic, (self._clock() + self._every_s * random.uniform(0.5, 1.0), 0))
            if at <= self._clock() and self._is_at_ease():
                self._due[topic] = (self._clock() + self._every_s, page + 1)
                await self._check(topic, page)

    async def _check(self, topic: Topic, page: int) -> None:
        try:
            await self.read_anew(topic, page)
        except GatewayError as error:
            log.debug("check_failed", topic=str(topic), detail=error.detail)
        except Exception:
            log.exception("check_crashed", topic=str(topic))

    async def read_anew(self, topic: Topic, page: int) -> None:
        """Ask for the closed candles of one page, 0 being the newest, and take them as they are told now.

        Pages are counted round: after the oldest comes the newest. Raises ExchangeError.
        """
        candles = self._candles(topic)
        closed = 0 if candles is None else len(candles) if candles.last_closed else len(candles) - 1
        if candles is None or closed < 1:
            return
        stop = closed - page % -(-closed // DEPTH) * DEPTH
        self._tally.fetches[FetchKind.CHECK] += 1
        answer = await self._klines(topic, min(stop, DEPTH), end_ms=int(candles.open_times_ms[stop - 1]))
        if (held := self._candles(topic)) is None:
            return
        told = corrected(held, answer.value, topic.interval)
        if told is held:
            return
        self._tally.contradictions += 1
        log.warning("candles_contradicted", topic=str(topic), is_corrected=told is not None)
        if told is not None:
            self._feeds.amend(topic, told)

    def _candles(self, topic: Topic) -> Candles | None:
        reading = self._feeds.in_hand(topic)
        return None if reading is None else reading.value


def _has_candles(feed: Feed) -> bool:
    """Whether there is something to check, and nothing wrong that a call more would not help."""
    return feed.topic.kind is Kind.KLINE and feed.reading is not None and feed.error is None
