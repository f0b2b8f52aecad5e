"""Counts: what is held of candles, what was called for, and how often it was contradicted."""

import enum
from collections.abc import Iterable

from msgspec import Struct

from ..models import Candles


class FetchKind(enum.StrEnum):
    """Why candles were asked for."""

    WHOLE = "whole"
    GAP = "gap"
    DEEPEN = "deepen"
    CHECK = "check"


class CandleCounts(Struct, frozen=True):
    """What is held now, and what has happened in this process so far."""

    topics: int
    candles: int
    bytes: int
    fetches: dict[FetchKind, int]
    contradictions: int
    """Candles told of anew, and differently, after they were closed; counted once per call that found any."""


class Tally:
    """The running numbers, for those who call to count."""

    def __init__(self) -> None:
        self.fetches = dict.fromkeys(FetchKind, 0)
        self.contradictions = 0

    def counts(self, held: Iterable[Candles]) -> CandleCounts:
        """The numbers of this moment, for what is held."""
        candles = [*held]
        return CandleCounts(
            topics=len(candles),
            candles=sum(map(len, candles)),
            bytes=sum(one.nbytes for one in candles),
            fetches=dict(self.fetches),
            contradictions=self.contradictions,
        )
