"""Snapshots: position, balance and price of one symbol, composed from three readings and encoded once for everybody."""

import time
from asyncio import Task
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import ExchangeTimeout
from ..models import Kind, Part, Reading, Ticker, Topic, open_positions
from .frames import (
    Frame,
    SnapshotMessage,
    StatusMessage,
    TickerMessage,
    encoder,
    fault_of,
    message_frame,
    text_frame,
)

PARTS = ("position", "balance", "price")
SHARED_S = 0.05
"""How long a frame may be shared: a later one is encoded anew, with its own ages and the next seq."""


class Readings(Protocol):
    """What the snapshots need of the feeds."""

    def peek(self, topic: Topic, max_age_s: float) -> Reading[Any] | None:
        """The reading in hand if it is young enough and its last refresh did not fail."""

    def part(self, topic: Topic) -> Part:
        """What is known, whatever its age."""

    def refresh(self, topics: Iterable[Topic]) -> "set[Task[None]]":
        """The flights that make `topics` younger."""


class Snapshots:
    """Composes and encodes the snapshots of every symbol; within this process's epoch a symbol's seq only grows."""

    def __init__(
        self,
        readings: Readings,
        *,
        exchange: str,
        category: str,
        epoch: str,
        stale_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.readings = readings
        self._exchange = exchange
        self._category = category
        self._epoch = epoch
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._frames: dict[str, Frame] = {}
        self._statuses: dict[str, tuple[tuple[str, ...], float, bytes]] = {}
        self._wallet = Topic(Kind.WALLET)

    def topics(self, symbol: str) -> tuple[Topic, Topic, Topic]:
        """The three topics behind a symbol's snapshot, in the order of PARTS."""
        category = self._category
        return (
            Topic(Kind.POSITION, symbol, category=category),
            self._wallet,
            Topic(Kind.TICKER, symbol, category=category),
        )

    def too_old(self, symbol: str, max_age_s: float) -> list[Topic]:
        """Those of a symbol's topics of which there is no good reading younger than `max_age_s`."""
        peek = self.readings.peek
        return [topic for topic in self.topics(symbol) if peek(topic, max_age_s) is None]

    def threshold_s(self, max_age_s: float) -> float:
        """The age over which a part is stale for one who asks for `max_age_s`."""
        return max(self._stale_after_s, 2 * max_age_s)

    def stale(self, symbol: str, max_age_s: float) -> tuple[str, ...]:
        """The names of a symbol's parts that are stale now, for one who has just asked for them."""
        return self._stale(self._parts(symbol), self.threshold_s(max_age_s))

    def stale_meanwhile(self, symbol: str, max_age_s: float, asked_at: float) -> tuple[str, ...]:
        """The same between two questions, for one who asked last at `asked_at`.

        A reading that answered that question may grow as old as it will until the next: age counts where none has
        come. What has failed is stale at once.
        """
        answered_s = self._clock() - asked_at + max_age_s
        return self._stale(self._parts(symbol), max(self.threshold_s(max_age_s), answered_s))

    def overdue_at(self, symbol: str, max_age_s: float, asked_at: float) -> float:
        """When the first part that has not answered the question of `asked_at` becomes stale by age; inf for none."""
        now, oldest, threshold_s = self._clock(), asked_at - max_age_s, self.threshold_s(max_age_s)
        parts = self._parts(symbol)
        moments = (part.as_of + threshold_s for part in parts if part.reading is not None and part.as_of < oldest)
        return min((moment for moment in moments if moment >= now), default=float("inf"))

    def _parts(self, symbol: str) -> list[Part]:
        return [self.readings.part(topic) for topic in self.topics(symbol)]

    def _stale(self, parts: list[Part], threshold_s: float) -> tuple[str, ...]:
        now = self._clock()
        return tuple(name for name, part in zip(PARTS, parts, strict=True) if part.is_stale(now, threshold_s))

    def frame(self, symbol: str, max_age_s: float) -> Frame:
        """The symbol's snapshot as of now, from what is known; shared while it is young and nothing has changed."""
        parts = self._parts(symbol)
        stale = self._stale(parts, self.threshold_s(max_age_s))
        readings = tuple(part.reading for part in parts)
        now, last = self._clock(), self._frames.get(symbol)
        if (
            last is not None
            and now - last.encoded_at < SHARED_S
            and last.stale == stale
            and all(a is b for a, b in zip(last.readings, readings, strict=True))
        ):
            return last
        sequence = last.sequence + 1 if last is not None else 1
        data = text_frame(encoder.encode(self._message(symbol, sequence, parts, stale, now)))
        frame = Frame(data=data, sequence=sequence, stale=stale, encoded_at=now, readings=readings)
        self._frames[symbol] = frame
        return frame

    def _message(
        self,
        symbol: str,
        sequence: int,
        parts: list[Part],
        stale: tuple[str, ...],
        now: float,
    ) -> SnapshotMessage:
        position, wallet, ticker = (part.reading for part in parts)
        positions = None if position is None else open_positions(position.value)
        ages = (None if part.reading is None else round(part.age_s(now) * 1000) for part in parts)
        return SnapshotMessage(
            type="snapshot",
            channel=f"positions:{symbol}",
            exchange=self._exchange,
            symbol=symbol,
            epoch=self._epoch,
            seq=sequence,
            timestamp_ms=time.time_ns() // 1_000_000,
            has_position=None if positions is None else bool(positions),
            positions=positions,
            balance=None if wallet is None else wallet.value,
            current_price=None if ticker is None else ticker.value.last_price,
            ticker=None if ticker is None else _ticker_message(ticker.value),
            age_ms=dict(zip(PARTS, ages, strict=True)),
            stale=stale,
        )

    def status(self, symbol: str, stale: tuple[str, ...]) -> bytes:
        """A status frame: which of a symbol's parts are stale, and the first reason for it that is known."""
        now, last = self._clock(), self._statuses.get(symbol)
        if last is not None and last[0] == stale and now - last[1] < SHARED_S:
            return last[2]
        parts = dict(zip(PARTS, self._parts(symbol), strict=True))
        errors = (_reason(parts[name]) for name in stale)
        message = StatusMessage(
            type="status",
            channel=f"positions:{symbol}",
            symbol=symbol,
            stale=stale,
            error=fault_of(next((error for error in errors if error is not None), None)),
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        data = message_frame(message)
        self._statuses[symbol] = (stale, now, data)
        return data

    def forget(self, symbol: str) -> None:
        """Nobody watches `symbol` any more: let go of its last frame's bytes, but not of its seq."""
        if (last := self._frames.get(symbol)) is not None:
            self._frames[symbol] = Frame(b"", last.sequence, (), float("-inf"), (None, None, None))
        self._statuses.pop(symbol, None)


def _reason(part: Part) -> Exception | None:
    """Why a part is stale: its failure, or that the answer is overdue; None where it is only old."""
    if part.error is None and part.is_waiting:
        return ExchangeTimeout("the exchange has not answered yet")
    return part.error


def _ticker_message(ticker: Ticker) -> TickerMessage:
    return TickerMessage(
        mark_price=ticker.mark_price,
        index_price=ticker.index_price,
        bid_price=ticker.bid_price,
        ask_price=ticker.ask_price,
        funding_rate=ticker.funding_rate,
    )
