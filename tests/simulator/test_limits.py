"""Rate limits: per IP with a ban, per key and second, and how they show in the answers."""

from __future__ import annotations

import asyncio

from server.simulator.limits import IP_REQUESTS, REMEMBERED, IpLimit, KeyLimit

from .conftest import Start


def test_the_601st_request_in_five_seconds_bans() -> None:
    """600 requests in 5 s pass; one more is refused and everything after it until the ban is over."""
    limit = IpLimit(ban_s=10.0)
    assert all(limit.admits("a", 100.0 + number / 1_000) for number in range(IP_REQUESTS))
    assert not limit.admits("a", 104.999)
    assert not limit.admits("a", 114.9)
    assert limit.admits("b", 104.999)
    assert limit.admits("a", 115.0)


def test_a_steady_600_in_five_seconds_passes() -> None:
    """Just below the limit's pace nothing is ever refused."""
    limit = IpLimit(ban_s=10.0)
    assert all(limit.admits("a", number * 5.001 / IP_REQUESTS) for number in range(5 * IP_REQUESTS))


def test_key_limit_counts_by_second_key_and_path() -> None:
    """Each second of the clock, key and path has its own allowance."""
    limit = KeyLimit()
    taken = [limit.take("key", "/p", 3, 5_000 + number) for number in range(4)]
    assert [one.remaining for one in taken] == [2, 1, 0, -1]
    assert taken[-1].reset_ms == 6_000
    assert limit.take("key", "/q", 3, 5_004).remaining == 2
    assert limit.take("other", "/p", 3, 5_004).remaining == 2
    assert limit.take("key", "/p", 3, 6_000).remaining == 2


def test_what_is_remembered_is_bounded() -> None:
    """Any number of addresses and keys leaves a bounded number behind."""
    by_ip, by_key = IpLimit(ban_s=1.0), KeyLimit()
    for number in range(2 * REMEMBERED):
        by_ip.admits(str(number), float(number))
        by_key.take(str(number), "/p", 1, number)
    assert len(by_ip._times_s) == len(by_key._used) == REMEMBERED


async def test_too_many_private_calls(start: Start) -> None:
    """The 51st position call of a key within a second is 10006, with the limit's headers on every answer."""
    caller = await start()
    caller.simulator.exchange.clock._source_ms = lambda: 1_732_280_123_456
    query = "category=linear&symbol=BTCUSDT"
    url, headers = f"{caller.url}/v5/position/list?{query}", caller.signed(query)
    statuses, codes = [], []
    for _ in range(51):
        async with caller.session.get(url, headers=headers) as response:
            assert response.headers["X-Bapi-Limit"] == "50"
            statuses.append(int(response.headers["X-Bapi-Limit-Status"]))
            codes.append((await response.json())["retCode"])
            reset_ms = int(response.headers["X-Bapi-Limit-Reset-Timestamp"])
    assert codes == [0] * 50 + [10006]
    assert statuses == [*range(49, -1, -1), 0]
    assert reset_ms == 1_732_280_124_000
    wallet = await caller.private("/v5/account/wallet-balance", "accountType=UNIFIED")
    assert wallet["retCode"] == 0


async def test_ip_ban(start: Start) -> None:
    """Past 600 requests every answer is HTTP 403, for as long as the setting says."""
    caller = await start(ban_s=0.05)
    url = caller.url + "/v5/market/time"

    async def status() -> int:
        async with caller.session.get(url) as response:
            return response.status

    seen = [await status() for _ in range(IP_REQUESTS)]
    assert set(seen) == {200}
    assert await status() == 403
    async with asyncio.timeout(5):
        while await status() == 403:
            pass  # each question is a round trip


async def test_without_limits(start: Start) -> None:
    """Without limits neither ban nor 10006 nor the headers appear."""
    caller = await start(limits=False)
    query = "accountType=UNIFIED"
    for _ in range(60):
        assert (await caller.private("/v5/account/wallet-balance", query))["retCode"] == 0
    for _ in range(IP_REQUESTS):
        await caller.get("/v5/market/time")
