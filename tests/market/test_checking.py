"""Checks: a candle corrected deeper than any overlap is found, and replaced, when its page's turn comes."""

import asyncio

from server.market.checking import CHECK_S, Checks
from server.market.counts import FetchKind, Tally

from .exchange import TOPIC, KlineExchange, Market


async def test_deep_correction_is_found() -> None:
    """Polls do not notice it; the check does, a page at a time, from the newest to the oldest and round again."""
    exchange = KlineExchange(6000)
    market = Market(exchange)
    await market.poll()
    await market.reach(2500)
    exchange.correct(-300)
    exchange.correct(-2200)
    assert (await market.poll()).rows != tuple(exchange.rows[-2500:])
    wrong = []
    for page in range(3):
        await market.checks.read_anew(TOPIC, page)
        held = market.held()
        wrong.append(sum(ours != theirs for ours, theirs in zip(held.rows, exchange.rows[-2500:], strict=True)))
    assert wrong == [1, 1, 0]
    assert market.held().high.tolist() == [float(one[2]) for one in exchange.rows[-2500:]]
    assert (market.counts().contradictions, market.counts().fetches[FetchKind.CHECK]) == (2, 3)
    exchange.asked.clear()
    await market.checks.read_anew(TOPIC, 3)
    assert exchange.asked == [(1000, int(exchange.rows[-2][0]))]


async def test_what_agrees_stays_the_same_object() -> None:
    """Where the exchange says the same as before, what was computed from the candles stays known."""
    market = Market(KlineExchange(1500))
    candles = await market.poll()
    await market.checks.read_anew(TOPIC, 0)
    assert market.held() is candles


async def test_checks_are_due_from_time_to_time() -> None:
    """A page of what is in hand is read anew once in a while, when calls are to spare, and never while they fail."""
    exchange = KlineExchange(1500)
    market = Market(exchange)
    is_at_ease = True
    checks = Checks(market.feeds, exchange.klines, Tally(), is_at_ease=lambda: is_at_ease, clock=lambda: exchange.now)
    await checks.look()
    await market.poll()
    exchange.correct(-500)
    exchange.asked.clear()
    await checks.look()
    is_at_ease = False
    exchange.now += CHECK_S
    await checks.look()
    assert not exchange.asked
    is_at_ease = True
    await checks.look()
    await checks.look()
    assert len(exchange.asked) == 1
    assert market.held().rows == tuple(exchange.rows[-1000:])
    exchange.is_away = True
    await market.poll()
    exchange.asked.clear()
    exchange.now += CHECK_S
    await checks.look()
    assert not exchange.asked


async def test_check_that_fails_changes_nothing() -> None:
    """Where the exchange is away, or its page does not fit what is held, that stays as it is."""
    exchange = KlineExchange(1500)
    market = Market(exchange)
    candles = await market.poll()
    exchange.is_away = True
    await market.checks._check(TOPIC, 0)
    exchange.is_away = False
    lost = exchange.rows.pop(-600)
    exchange.rows.insert(0, lost)
    await market.checks._check(TOPIC, 0)
    assert market.held() is candles
    assert market.counts().contradictions == 1


async def test_checks_go_on_by_themselves() -> None:
    """What is due is read anew without anybody asking for it, again and again, until the end."""
    exchange = KlineExchange(1500)
    market = Market(exchange)
    await market.poll()
    checks = Checks(market.feeds, exchange.klines, Tally(), is_at_ease=lambda: True, every_s=0.01)
    exchange.correct(-500)
    running = asyncio.create_task(checks.run())
    async with asyncio.timeout(10):
        while market.held().rows != tuple(exchange.rows[-1000:]):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
