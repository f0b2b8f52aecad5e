"""The Python client: what it says of a gateway that goes, comes back, refuses, falls silent or repeats itself."""

import asyncio
import contextlib
import sys
from typing import TypeVar

import aiohttp
import pytest

from examples.client import LONGEST_PAUSE_S, Client, Ended, Lost, Message, Refused, Snapshot, Status, _pause_s
from tests.conftest import Exchange
from tests.examples.conftest import AUTH, TOKEN, Place, StartLine, closing_with, paces_s
from tests.processes import ROOT, clean_environment
from tests.realtime.sockets import eventually

CHANNELS = (
    "positions:BTCUSDT",
    "positions:*",
    "price:ETHUSDT",
    "balance",
    "kline:BTCUSDT:1",
    "indicators:BTCUSDT:15:rsi:14,macd",
)

M = TypeVar("M", Snapshot, Status, Ended, Lost)


async def following(client: Client, *, timeout_s: float = 20.0) -> Message:
    """The next message, whichever."""
    async with asyncio.timeout(timeout_s):
        return await anext(client)


async def first(client: Client, kind: type[M], *, timeout_s: float = 20.0) -> M:
    """The next message of that kind; others before it are passed over."""
    async with asyncio.timeout(timeout_s):
        async for message in client:
            if isinstance(message, kind):
                return message
    raise AssertionError("it never ends by itself")


async def snapshots(client: Client, *channels: str) -> dict[str, Snapshot]:
    """The next snapshot of each of these channels, and of no other."""
    found: dict[str, Snapshot] = {}
    while len(found) < len(channels):
        snapshot = await first(client, Snapshot)
        assert snapshot.channel in channels
        found.setdefault(snapshot.channel, snapshot)
    return found


# Channels


async def test_every_channel_comes_typed(place: Place) -> None:
    """A snapshot of each channel arrives with its body, age, and its place in the order."""
    async with Client(place.url) as client:
        await client.subscribe(*CHANNELS)
        found = await snapshots(client, *CHANNELS)
    assert {snapshot.epoch for snapshot in found.values()} == {found["balance"].epoch}
    for channel, snapshot in found.items():
        assert snapshot.seq > 0
        assert (snapshot.is_new_epoch, snapshot.missed, snapshot.is_stale) == (False, 0, False)
        assert snapshot.age_ms is not None
        assert snapshot.body["channel"] == channel
    assert found["positions:BTCUSDT"].age_ms == max(found["positions:BTCUSDT"].body["age_ms"].values())
    assert float(found["price:ETHUSDT"].body["last_price"]) > 0
    assert found["balance"].body["balance"]["currency"] == "USD"


async def test_channels_keep_their_paces_over_reconnects(place: Place) -> None:
    """Channels may be added at any time, and each is asked for again at its own interval."""
    async with Client(place.url) as client:
        await client.subscribe("price:BTCUSDT", interval_s=0.1)
        await first(client, Snapshot)
        await client.subscribe("balance", "positions:*", interval_s=60)
        await snapshots(client, "price:BTCUSDT", "balance", "positions:*")
        assert paces_s(place) == {"price:BTCUSDT": 0.1, "balance": 60, "positions:*": 60}
        await place.restart()
        await first(client, Lost)
        await snapshots(client, "price:BTCUSDT", "balance", "positions:*")
        assert paces_s(place) == {"price:BTCUSDT": 0.1, "balance": 60, "positions:*": 60}


async def test_indicators_come_when_a_candle_closes(place: Place) -> None:
    """The last closed candle at once, and no other while none closes; so again after a reconnect."""
    channel = "indicators:BTCUSDT:D:rsi:14"
    async with Client(place.url) as client:
        await client.subscribe(channel, on_close=True)
        snapshot = await first(client, Snapshot)
        assert (snapshot.channel, snapshot.body["candle_closed"]) == (channel, True)
        assert 0 <= snapshot.body["data"]["rsi:14"] <= 100
        await place.restart()
        await first(client, Lost)
        again = await first(client, Snapshot)
        assert again.is_new_epoch
        assert again.body["data"] == snapshot.body["data"]


async def test_a_channel_that_cannot_be_had_is_told(place: Place) -> None:
    """A channel that is not there is named with its reason, and the others go on."""
    async with Client(place.url) as client:
        await client.subscribe("nothing:BTCUSDT", "balance")
        ended = await first(client, Ended)
        assert (ended.channel, ended.code) == ("nothing:BTCUSDT", "invalid_channel")
        assert (await first(client, Snapshot)).channel == "balance"


async def test_a_request_without_sense_is_refused(place: Place) -> None:
    """An interval that is not allowed raises, instead of leaving a bot waiting for what never comes."""
    async with Client(place.url) as client:
        await client.subscribe("balance", interval_s=0.01)
        with pytest.raises(Refused, match="interval") as refused:
            await following(client)
        assert refused.value.code == "invalid_interval"


async def test_what_is_stale_is_told(place: Place, exchange: Exchange) -> None:
    """A channel that cannot be refreshed says so in a status and in its snapshots, and says when it is over."""
    await place.restart(freshness={"live_poll_s": 0.05})
    async with Client(place.url) as client:
        await client.subscribe("balance", interval_s=0.1)
        assert not (await first(client, Snapshot)).is_stale
        await exchange.fault("wallet", status=500)
        status = await first(client, Status)
        assert (status.channel, status.stale) == ("balance", ("balance",))
        assert status.error is not None
        assert status.error["code"] == "upstream_unavailable"
        assert (await first(client, Snapshot)).is_stale
        await exchange.heal()
        status = await first(client, Status)
        assert (status.stale, status.error) == ((), None)
        assert not (await first(client, Snapshot)).is_stale


# Order


async def test_repeats_are_dropped(place: Place, start_line: StartLine) -> None:
    """Where everything comes twice, each snapshot is passed on once."""
    line = await start_line(place.port)
    line.stutters = True
    async with Client(line.url) as client:
        await client.subscribe("price:BTCUSDT", interval_s=0.1)
        seqs = [(await first(client, Snapshot)).seq for _ in range(5)]
    assert seqs == sorted(set(seqs))
    assert line.echoes > 1


async def test_gaps_are_counted(place: Place) -> None:
    """The seqs that went to somebody else are told."""
    async with Client(place.url) as fast, Client(place.url) as slow:
        await slow.subscribe("price:BTCUSDT", interval_s=1)
        before = await first(slow, Snapshot)
        await fast.subscribe("price:BTCUSDT", interval_s=0.1)
        for _ in range(3):
            await first(fast, Snapshot)
        after = await first(slow, Snapshot)
        assert after.missed == after.seq - before.seq - 1 > 0
        assert not after.is_new_epoch


async def test_waiting_may_be_cancelled(place: Place) -> None:
    """A bot that waits a moment at a time gets every message all the same."""
    async with Client(place.url) as client:
        await client.subscribe("balance", interval_s=0.1)
        await first(client, Snapshot)
        found = [await in_steps(client, 0.005) for _ in range(8)]
    assert [snapshot.missed for snapshot in found if isinstance(snapshot, Snapshot)] == [0] * 8


# The line


async def test_it_follows_a_restart(place: Place) -> None:
    """A gateway that goes away and comes back is told with 1001, then by a new epoch on every channel."""
    async with Client(place.url) as client:
        await client.subscribe(*CHANNELS)
        before = await snapshots(client, *CHANNELS)
        await place.restart()
        lost = await first(client, Lost)
        assert lost.code == 1001
        assert lost.pause_s <= 0.5
        after = await snapshots(client, *CHANNELS)
    for channel in CHANNELS:
        assert after[channel].is_new_epoch
        assert after[channel].missed == 0
        assert after[channel].epoch != before[channel].epoch


async def test_it_waits_for_a_gateway_that_is_away(place: Place) -> None:
    """While nobody is there it tries again at a growing pause, and says so each time."""
    await place.close()
    async with Client(place.url) as client:
        await client.subscribe("balance")
        lost = [await first(client, Lost) for _ in range(3)]
        assert {one.code for one in lost} == {1006}
        assert 0.25 <= lost[0].pause_s <= 0.5 <= lost[1].pause_s <= 1 <= lost[2].pause_s <= 2
        await place.open()
        assert isinstance(await following(client), Snapshot)


@pytest.mark.parametrize("patience_s", [20, 0.01])
async def test_a_dead_line_is_noticed(place: Place, start_line: StartLine, patience_s: float) -> None:
    """A line on which nothing arrives any more is given up, however the bot waits, and the next one goes on."""
    line = await start_line(place.port)
    async with Client(line.url, heartbeat_s=0.4) as client:
        await client.subscribe("balance", interval_s=60)
        before = await first(client, Snapshot)
        line.die()
        lost = await in_steps(client, patience_s)
        assert isinstance(lost, Lost)
        assert (lost.code, lost.reason) == (1006, "no sign of life")
        after = await first(client, Snapshot)
        assert (after.epoch, after.is_new_epoch) == (before.epoch, False)
        assert after.seq > before.seq
    assert line.connections == 2


async def in_steps(client: Client, patience_s: float) -> Message:
    """The next message, by one that waits that long at a time."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    return await anext(client)


async def test_a_quiet_line_is_kept(place: Place, start_line: StartLine) -> None:
    """Where there is nothing to say for long, answered pings tell that the line is alive."""
    line = await start_line(place.port)
    async with Client(line.url, heartbeat_s=0.4) as client:
        await client.subscribe("balance", interval_s=60)
        await first(client, Snapshot)
        waiting = asyncio.create_task(following(client))
        before = line.writes
        await eventually(lambda: line.writes >= before + 4 or waiting.done())
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
    assert line.connections == 1


# Refusals


async def test_the_right_token_opens(place: Place) -> None:
    """The token goes with the upgrade."""
    await place.restart(auth=AUTH)
    async with Client(place.url, token=TOKEN) as client:
        await client.subscribe("balance")
        assert isinstance(await following(client), Snapshot)


@pytest.mark.parametrize("token", ["wrong", f"{TOKEN}x"])
async def test_a_wrong_token_ends_it(place: Place, start_line: StartLine, token: str) -> None:
    """Where the token is not taken, it raises, and does not try again."""
    await place.restart(auth=AUTH)
    line = await start_line(place.port)
    async with Client(line.url, token=token) as client:
        await client.subscribe("balance")
        with pytest.raises(Refused, match="4401") as refused:
            await following(client)
        assert refused.value.code == 4401
        assert token not in str(refused.value)
    assert line.connections == 1


async def test_a_full_gateway_names_the_time(place: Place) -> None:
    """With all sockets in use, the next try is not before the time that the gateway named."""
    await place.restart(websocket={"max_connections": 1})
    async with Client(place.url) as first_come, Client(place.url) as late:
        await first_come.subscribe("balance")
        await first(first_come, Snapshot)
        await late.subscribe("balance")
        lost = await following(late)
        assert isinstance(lost, Lost)
        assert lost.code == 4429
        assert 5 <= lost.pause_s <= 7.5


@pytest.mark.parametrize("code", [400, 403, 421, 1008, 1009, 4400, 4401, 4403, 4404])
async def test_final_ends_raise(code: int) -> None:
    """What would end the same way the next time is raised, with the gateway's reason where it gives one."""
    async with closing_with(code, "because") as url, Client(url) as client:
        with pytest.raises(Refused, match=str(code) if code < 1000 else "because") as refused:
            await following(client)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("code", "reason", "least_s", "most_s"),
    [
        (503, "3", 3, 4.5),
        (503, "soon", 0.25, 0.5),
        (429, "2", 2, 3),
        (1001, "going away", 0, 0.5),
        (1011, "a bug", 0.25, 0.5),
        (4408, "too slow", 0.25, 0.5),
        (4429, "full; retry after 1.5 s", 1.5, 2.25),
        (4429, "full", 0.25, 0.5),
        (4999, "unheard of", 0.25, 0.5),
    ],
)
async def test_other_ends_have_their_pauses(code: int, reason: str, least_s: float, most_s: float) -> None:
    """Every other end is told with its code, and followed by the pause that fits it."""
    async with closing_with(code, reason) as url, Client(url) as client:
        lost = await following(client)
        assert isinstance(lost, Lost)
        assert lost.code == code
        assert reason in lost.reason
        assert least_s <= lost.pause_s <= most_s


async def test_going_away_is_no_failure() -> None:
    """After 1001 the next try is soon, however often that comes."""
    async with closing_with(1001, "going away") as url, Client(url) as client:
        lost = [await first(client, Lost) for _ in range(4)]
    assert max(one.pause_s for one in lost) <= 0.5


@pytest.mark.parametrize("failures", [0, 1, 5, 6, 100, 10**6])
def test_pauses_grow_up_to_a_bound(failures: int) -> None:
    """Pauses double, never exceed their bound, and differ from client to client."""
    pauses_s = [_pause_s(1006, "", failures) for _ in range(50)]
    most_s = min(LONGEST_PAUSE_S, 0.5 * 2 ** min(failures, 20))
    assert most_s / 2 <= min(pauses_s) < max(pauses_s) <= most_s


async def test_a_url_that_is_none_is_no_outage() -> None:
    """A mistake in the address is not taken for a gateway that is away."""
    async with Client("127.0.0.1:8000") as client:
        with pytest.raises(aiohttp.NonHttpUrlClientError):
            await following(client)


# The command


async def test_the_command_prints_a_line_per_message(place: Place) -> None:
    """It takes its token from the environment, and prints what comes."""
    await place.restart(auth=AUTH)
    lines = await command(place.url, GATEWAY_TOKEN=TOKEN)
    assert {line.partition("(")[0] for line in lines} == {"Snapshot"}
    assert {channel for channel in ("balance", "price:BTCUSDT") for line in lines if channel in line} == {
        "balance",
        "price:BTCUSDT",
    }


async def test_the_command_says_why_it_ends(place: Place) -> None:
    """Without the token it ends with one line and without a traceback."""
    await place.restart(auth=AUTH)
    process = await start_command(place.url)
    async with asyncio.timeout(20):
        printed, complaint = await process.communicate()
    assert (printed, process.returncode) == (b"", 1)
    assert complaint.startswith(b"refused by the gateway (403)")
    assert complaint.count(b"\n") == 1


async def start_command(url: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/client.py",
        "--url",
        url,
        "--interval",
        "0.1",
        "balance",
        "price:BTCUSDT",
        cwd=ROOT,
        env=clean_environment(**environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def command(url: str, **environment: str) -> list[str]:
    """The first six lines that the command prints."""
    process = await start_command(url, **environment)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            return [(await process.stdout.readline()).decode() for _ in range(6)]
    finally:
        process.kill()
        await process.wait()
