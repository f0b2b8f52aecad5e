"""What there is to tell of readings and candles."""

from collections.abc import Iterator

from ..market.counts import CandleCounts
from ..market.feed import Feed
from ..market.feeds import Feeds
from ..models import Kind
from .family import Family, family, labelled, single

WANTED_S = 15.0
"""How long ago a topic may have been wanted for its age to tell: what nobody asks for grows old, and may."""


def of_feeds(feeds: Feeds, now: float, *, by_symbol: bool) -> Iterator[Family]:
    """How many topics there are of each kind, how they fare, and how old the readings are that somebody wants."""
    every = [*feeds]
    kinds = {kind: of_kind for kind in Kind if (of_kind := [feed for feed in every if feed.topic.kind is kind])}
    yield labelled("gateway_topics", "kind", {str(kind): len(of) for kind, of in kinds.items()})
    yield labelled("gateway_topics_failing", "kind", _count(kinds, "error"))
    yield labelled("gateway_topics_kept", "kind", _count(kinds, "is_kept"))
    yield single("gateway_topics_evicted_total", feeds.evicted)
    yield _ages(kinds, now)
    if by_symbol:
        yield _symbol_ages(every, now)


def _count(kinds: dict[Kind, list[Feed]], what: str) -> dict[str, int]:
    return {kind: sum(bool(getattr(feed, what)) for feed in of) for kind, of in kinds.items()}


def _ages(kinds: dict[Kind, list[Feed]], now: float) -> Family:
    made = family("gateway_reading_age_seconds")
    for kind, of_kind in kinds.items():
        wanted = (feed for feed in of_kind if feed.reading is not None and now - feed.wanted_at <= WANTED_S)
        if ages := [max(0.0, now - feed.as_of) for feed in wanted]:
            made.add(min(ages), kind=kind, which="youngest").add(max(ages), kind=kind, which="oldest")
    return made


def _symbol_ages(every: list[Feed], now: float) -> Family:
    made = family("gateway_symbol_reading_age_seconds")
    for feed in every:
        if feed.reading is not None:
            kind, symbol, interval, _ = feed.topic
            made.add(max(0.0, now - feed.as_of), kind=kind, symbol=symbol, interval=interval)
    return made


def of_candles(counts: CandleCounts) -> Iterator[Family]:
    """What is held of candles, and why it was called for."""
    yield single("gateway_candle_topics", counts.topics)
    yield single("gateway_candles", counts.candles)
    yield single("gateway_candle_bytes", counts.bytes)
    yield labelled("gateway_candle_fetches_total", "reason", {str(kind): n for kind, n in counts.fetches.items()})
    yield single("gateway_candle_contradictions_total", counts.contradictions)
