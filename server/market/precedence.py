"""Precedence: which of two readings of a topic is the one to hold, and how a push is laid over what is in hand."""

from typing import Any

from msgspec.structs import replace

from ..models import CandlePush, Candles, PositionRow, PositionRows, Reading, Source, Topic, Wallet
from .growth import grown

DISBELIEF_S = 30.0
"""How long answers from before the one in hand are disbelieved: then the exchange has begun anew."""
LAG_MS = 1000
"""How far the clocks of the exchange's machines may differ."""


def newest(held: Reading[Any] | None, offered: Reading[Any]) -> Reading[Any] | None:
    """What to hold of the two, or None where `offered` is older than `held`.

    Positions are ordered by each row's own sequence; everything else: a poll replaces a push only if it was asked for
    after the push arrived.
    """
    if held is None:
        return offered
    if isinstance(offered.value, tuple) and offered.value and isinstance(offered.value[0], PositionRow):
        return _newest_rows(held, offered)
    if offered.source is Source.POLL and held.source is Source.PUSH:
        return offered if offered.asked_at > held.arrived_at else None
    return None if offered.asked_at < held.asked_at or _lags(held, offered) else offered


def _lags(held: Reading[Any], offered: Reading[Any]) -> bool:
    """Whether a poll was answered by a replica or a cache from before what is in hand; believed again after a while."""
    lag_ms = held.exchange_time_ms - offered.exchange_time_ms
    return lag_ms > LAG_MS and offered.asked_at - held.asked_at < DISBELIEF_S


def _newest_rows(held: Reading[PositionRows], offered: Reading[PositionRows]) -> Reading[PositionRows] | None:
    if offered.source is Source.POLL and _misses_pushed(held, offered):
        return None
    sequences = {(row.position.symbol, row.position.position_idx): row.sequence for row in held.value}
    for row in offered.value:
        known = sequences.get((row.position.symbol, row.position.position_idx), row.sequence)
        if row.sequence < known and offered.asked_at - held.asked_at < DISBELIEF_S:
            return None
        if row.sequence == known and offered.asked_at < held.asked_at:
            return None
    return offered


def _misses_pushed(held: Reading[PositionRows], offered: Reading[PositionRows]) -> bool:
    """Whether a listing lacks an open position, and something was pushed since it was asked for: that one, perhaps."""
    if held.source is not Source.PUSH or offered.asked_at > held.arrived_at:
        return False
    return not {_key(row) for row in held.value if row.is_open} <= {_key(row) for row in offered.value}


def laid_over(held: Reading[Any] | None, push: Reading[Any], topic: Topic) -> Reading[Any] | None:
    """What `push` makes of the reading in hand of `topic`, or None where it is older than that.

    Positions are laid over by symbol and index, a wallet's coins by name; what a push does not name stays, and with it
    the reading's age. A position that has been closed stays as a flat one: its sequence tells what is older. A candle
    continues candles, or raises DoesNotFollow.
    """
    if held is None:
        return push
    if isinstance(push.value, tuple):
        return _rows_laid_over(held, push)
    if push.exchange_time_ms < held.exchange_time_ms:
        return None
    if isinstance(push.value, Wallet):
        return _coins_laid_over(held, push)
    if isinstance(push.value, CandlePush):
        return _candle_laid_over(held, push, topic.interval)
    return push


def _candle_laid_over(held: Reading[Candles], push: Reading[CandlePush], interval: str) -> Reading[Candles]:
    value = grown(held.value, push.value, interval)
    return Reading(value, push.asked_at, push.arrived_at, push.exchange_time_ms, push.source)


def _rows_laid_over(held: Reading[PositionRows], push: Reading[PositionRows]) -> Reading[PositionRows] | None:
    rows = {_key(row): row for row in held.value}
    news = [row for row in push.value if _key(row) not in rows or _is_newer(row, rows[_key(row)], held, push)]
    if not news:
        return None
    rows |= {_key(row): row for row in news}
    value = tuple(rows[key] for key in sorted(rows))
    is_all_new = bool(held.value) and len(news) == len(value)
    return replace(push, value=value, asked_at=push.asked_at if is_all_new else min(held.asked_at, push.asked_at))


def _key(row: PositionRow) -> tuple[str, int]:
    return row.position.symbol, row.position.position_idx


def _is_newer(row: PositionRow, known: PositionRow, held: Reading[Any], push: Reading[Any]) -> bool:
    return row.sequence > known.sequence or (row.sequence == known.sequence and push.asked_at >= held.asked_at)


def _coins_laid_over(held: Reading[Wallet], push: Reading[Wallet]) -> Reading[Wallet]:
    named = {coin.coin: coin for coin in push.value.coins}
    coins = tuple(named.pop(coin.coin, coin) for coin in held.value.coins) + tuple(named.values())
    is_all_new = len(coins) == len(push.value.coins)
    asked_at = push.asked_at if is_all_new else min(held.asked_at, push.asked_at)
    return replace(push, value=replace(push.value, coins=coins), asked_at=asked_at)
