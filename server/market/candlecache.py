"""CandleCache: the last candles of each kline topic, of which only what is missing is asked for again."""

from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from ..models import CandleRow, Candles, Reading, Topic
from .candles import DEPTH, assembled, check, contradict, extended, missing, preceded
from .counts import FetchKind, Tally

OVERLAP = 3
"""Closed candles asked for again with the missing ones: where they contradict what is held, all is read anew."""

CandleRows = tuple[CandleRow, ...]
Held = Callable[[Topic], Candles | None]


class Klines(Protocol):
    """The call for candles."""

    async def __call__(self, topic: Topic, limit: int, *, end_ms: int | None = None) -> Reading[CandleRows]:
        """The last `limit` candles (1 to 1,000), oldest first, of those that opened by `end_ms`; None is now."""


class CandleCache:
    """Makes readings of kline topics, each from what the reading before it held and the few rows missing since.

    It keeps no candles: `held` gives those in hand, which a stream, or older pages, may have made grow since the last
    call.
    """

    def __init__(self, klines: Klines, held: Held, tally: Tally) -> None:
        self._klines = klines
        self._held = held
        self._tally = tally

    async def fetch(self, topic: Topic) -> Reading[Candles]:
        """The last candles of `topic`, the forming one among them: as many as are held, 1,000 at first.

        Raises what the call raises.
        """
        held = self._held(topic)
        limit = DEPTH if held is None else min(DEPTH, missing(held, topic.interval) + OVERLAP)
        answer = await self._call(topic, limit)
        candles = None if held is None else self._continued(topic, held, answer)
        if candles is None and limit < DEPTH:
            answer = await self._call(topic, DEPTH)
        if candles is None:
            candles = self._whole(topic, answer)
        return Reading(candles, answer.asked_at, answer.arrived_at, answer.exchange_time_ms)

    async def _call(self, topic: Topic, limit: int) -> Reading[CandleRows]:
        self._tally.fetches[FetchKind.GAP if limit < DEPTH else FetchKind.WHOLE] += 1
        return await self._klines(topic, limit)

    def _continued(self, topic: Topic, held: Candles, answer: Reading[CandleRows]) -> Candles | None:
        """What is in hand with the answer: by now that may be more, or not what the question was about any longer."""
        now = self._held(topic) or held
        for candles in (now, held):
            if (joined := extended(candles, answer.value, topic.interval, answer.exchange_time_ms)) is not None:
                return joined
        self._tally.contradictions += contradict(held, answer.value)
        return None

    def _whole(self, topic: Topic, answer: Reading[CandleRows]) -> Candles:
        """The answer, with what is held from before it where the two join. Raises BadAnswer."""
        held = self._held(topic)
        candles = assembled(answer.value, topic.interval, answer.exchange_time_ms)
        check(candles, held, topic.interval)
        if held is None:
            return candles
        candles = replace(candles, depth=held.depth)
        return preceded(candles, held) or candles
