"""The JavaScript client under Node: what it says of a gateway that goes, comes back, refuses or falls silent."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.api.keys import HUB
from tests.conftest import Exchange
from tests.examples.conftest import AUTH, TOKEN, Place, StartLine, closing_with, paces_s
from tests.processes import ROOT, clean_environment
from tests.realtime.sockets import eventually

pytestmark = pytest.mark.usefixtures("node")

CHANNELS = (
    "positions:BTCUSDT",
    "positions:*",
    "price:ETHUSDT",
    "balance",
    "kline:BTCUSDT:1",
    "indicators:BTCUSDT:15:rsi:14,macd",
)
CLIENT = ROOT / "examples" / "client.mjs"

BOT = """
import { Client } from "%s";
const [url, heartbeatS, ...pairs] = process.argv.slice(1);
const gateway = new Client(url, { token: process.env.GATEWAY_TOKEN, heartbeatS: Number(heartbeatS) });
for (const [name, pace] of pairs.map((pair) => pair.split("="))) {
  gateway.subscribe([name], Number(pace) || 0, { onClose: pace === "close" });
}
try {
  for await (const message of gateway) {
    console.log(JSON.stringify(message));
    if (message.type !== process.env.END_AFTER) continue;
    if (process.env.END_BY === "break") break;
    setTimeout(() => gateway.close(), 1);
  }
} catch (error) {
  console.log(JSON.stringify({ type: error.constructor.name, code: error.code, reason: error.reason }));
}
"""


class Bot:
    """A program in Node that prints what its client says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self, *, timeout_s: float = 20.0) -> Any:
        """Its next message, whichever."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await self.process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)

    async def first(self, kind: str) -> Any:
        """Its next message of that kind; others before it are passed over."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def snapshots(self, *channels: str) -> dict[str, Any]:
        """Its next snapshot of each of these channels, and of no other."""
        found: dict[str, Any] = {}
        while len(found) < len(channels):
            snapshot = await self.first("snapshot")
            assert snapshot["channel"] in channels
            found.setdefault(snapshot["channel"], snapshot)
        return found

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[Bot]:
    """A program in Node; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        "node",
        *arguments,
        cwd=ROOT,
        env=clean_environment(**environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield Bot(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def bot(
    url: str, *channels: str, heartbeat_s: float = 15.0, token: str = "", ends: tuple[str, str] = ("", "")
) -> AsyncIterator[Bot]:
    """A bot on these channels, each with its pace: `balance=0.1`; live without one. `ends`: how, after which kind."""
    pairs = [channel if "=" in channel else f"{channel}=0" for channel in channels]
    script = BOT % CLIENT.as_uri()
    arguments = ("--input-type=module", "-e", script, url, str(heartbeat_s), *pairs)
    async with running(*arguments, GATEWAY_TOKEN=token, END_BY=ends[0], END_AFTER=ends[1]) as program:
        yield program


async def test_every_channel_comes(place: Place) -> None:
    """A snapshot of each channel arrives, with its place in the order."""
    async with bot(place.url, *CHANNELS) as program:
        found = await program.snapshots(*CHANNELS)
    for channel, snapshot in found.items():
        assert snapshot["channel"] == channel
        assert (snapshot["isNewEpoch"], snapshot["missed"], snapshot["isStale"]) == (False, 0, False)
    assert float(found["price:ETHUSDT"]["last_price"]) > 0


async def test_indicators_come_when_a_candle_closes(place: Place) -> None:
    """The last closed candle at once; so again after a reconnect."""
    channel = "indicators:BTCUSDT:D:rsi:14"
    async with bot(place.url, f"{channel}=close") as program:
        found = (await program.snapshots(channel))[channel]
        assert found["candle_closed"] is True
        await place.restart()
        again = (await program.snapshots(channel))[channel]
    assert again["isNewEpoch"] is True
    assert again["data"] == found["data"]


async def test_it_follows_a_restart(place: Place) -> None:
    """A gateway that goes away and comes back is told with 1001, then by a new epoch on every channel."""
    paced = tuple(f"{channel}={number}" for number, channel in enumerate(CHANNELS))
    async with bot(place.url, *paced) as program:
        before = await program.snapshots(*CHANNELS)
        paces = paces_s(place)
        await place.restart()
        lost = await program.first("lost")
        assert lost["code"] == 1001
        assert lost["pauseS"] <= 0.5
        after = await program.snapshots(*CHANNELS)
        assert paces_s(place) == paces == {channel: number for number, channel in enumerate(CHANNELS)}
    for channel in CHANNELS:
        assert (after[channel]["isNewEpoch"], after[channel]["missed"]) == (True, 0)
        assert after[channel]["epoch"] != before[channel]["epoch"]


async def test_it_waits_for_a_gateway_that_is_away(place: Place) -> None:
    """While nobody is there it tries again at a growing pause, and says so each time."""
    await place.close()
    async with bot(place.url, "balance") as program:
        lost = [await program.next() for _ in range(3)]
        assert {(one["type"], one["code"]) for one in lost} == {("lost", 1006)}
        assert 0.25 <= lost[0]["pauseS"] <= 0.5 <= lost[1]["pauseS"] <= 1 <= lost[2]["pauseS"] <= 2
        await place.open()
        assert (await program.first("snapshot"))["channel"] == "balance"


async def test_a_dead_line_is_noticed(place: Place, start_line: StartLine) -> None:
    """A line on which nothing arrives any more is given up, and the next one goes on in the same epoch."""
    line = await start_line(place.port)
    async with bot(line.url, "balance=60", heartbeat_s=0.4) as program:
        before = await program.next()
        line.die()
        lost = await program.next()
        assert (lost["type"], lost["code"], lost["reason"]) == ("lost", 1006, "no sign of life")
        after = await program.first("snapshot")
        assert (after["epoch"], after["isNewEpoch"]) == (before["epoch"], False)
    assert line.connections == 2


async def test_a_quiet_line_is_kept(place: Place, start_line: StartLine) -> None:
    """Where there is nothing to say for long, answered pings tell that the line is alive."""
    line = await start_line(place.port)
    async with bot(line.url, "balance=60", heartbeat_s=0.4) as program:
        await program.next()
        before = line.writes
        await eventually(lambda: line.writes >= before + 4 or line.connections > 1)
        assert line.connections == 1


async def test_repeats_are_dropped(place: Place, start_line: StartLine) -> None:
    """Where everything comes twice, each snapshot is passed on once."""
    line = await start_line(place.port)
    line.stutters = True
    async with bot(line.url, "price:BTCUSDT=0.1") as program:
        seqs = [(await program.first("snapshot"))["seq"] for _ in range(5)]
    assert seqs == sorted(set(seqs))
    assert line.echoes > 1


async def test_what_is_stale_is_told(place: Place, exchange: Exchange) -> None:
    """A channel that cannot be refreshed says so in a status and in its snapshots, and says when it is over."""
    await place.restart(freshness={"live_poll_s": 0.05})
    async with bot(place.url, "balance=0.1", "positions:BTCUSDT=0.1") as program:
        found = await program.snapshots("balance", "positions:BTCUSDT")
        assert not any(snapshot["isStale"] for snapshot in found.values())
        await exchange.fault("wallet", status=500)
        told = {(await program.first("status"))["channel"] for _ in range(2)}
        assert told == {"balance", "positions:BTCUSDT"}
        found = await program.snapshots("balance", "positions:BTCUSDT")
        assert all(snapshot["isStale"] for snapshot in found.values())
        await exchange.heal()
        assert (await program.first("status"))["stale"] == []


async def test_a_channel_that_cannot_be_had_is_told(place: Place) -> None:
    """A channel that is not there is named with its reason, and the others go on."""
    async with bot(place.url, "nothing:BTCUSDT", "balance") as program:
        ended = await program.next()
        assert (ended["type"], ended["channel"], ended["code"]) == ("ended", "nothing:BTCUSDT", "invalid_channel")
        assert (await program.next())["channel"] == "balance"


async def test_the_right_token_opens(place: Place) -> None:
    """The token goes with the upgrade."""
    await place.restart(auth=AUTH)
    async with bot(place.url, "balance", token=TOKEN) as program:
        assert (await program.next())["type"] == "snapshot"


async def test_a_wrong_token_ends_it(place: Place, start_line: StartLine) -> None:
    """Where the token is not taken it throws, does not try again, and nothing keeps Node from ending."""
    await place.restart(auth=AUTH)
    line = await start_line(place.port)
    async with bot(line.url, "balance", token="wrong") as program:
        refused = await program.next()
        assert (refused["type"], refused["code"]) == ("Refused", 4401)
        assert await program.ended() == 0
    assert line.connections == 1


@pytest.mark.parametrize("code", [403, 421, 1008, 1009, 4400, 4401, 4403, 4404])
async def test_final_ends_throw(code: int) -> None:
    """What would end the same way the next time is thrown."""
    async with closing_with(code, "because") as url, bot(url) as program:
        refused = await program.next()
        assert (refused["type"], refused["code"]) == ("Refused", code)


@pytest.mark.parametrize(
    ("code", "reason", "least_s", "most_s"),
    [
        (1001, "going away", 0, 0.5),
        (1011, "a bug", 0.25, 0.5),
        (4429, "full; retry after 1.5 s", 1.5, 2.25),
        (4429, "full", 0.25, 0.5),
        (4999, "unheard of", 0.25, 0.5),
    ],
)
async def test_other_ends_have_their_pauses(code: int, reason: str, least_s: float, most_s: float) -> None:
    """Every other end is told with its code, and followed by the pause that fits it."""
    async with closing_with(code, reason) as url, bot(url) as program:
        lost = await program.next()
        assert (lost["type"], lost["code"], lost["reason"]) == ("lost", code, reason)
        assert least_s <= lost["pauseS"] <= most_s


async def test_going_away_is_no_failure() -> None:
    """After 1001 the next try is soon, however often that comes."""
    async with closing_with(1001, "going away") as url, bot(url) as program:
        lost = [await program.next() for _ in range(4)]
    assert max(one["pauseS"] for one in lost) <= 0.5


@pytest.mark.parametrize("how", ["close", "break"])
async def test_it_may_be_ended(place: Place, how: str) -> None:
    """Closed from outside or left from inside, connected or in a pause, it lets Node end; the socket is closed."""
    async with bot(place.url, "balance=60", ends=(how, "snapshot")) as program:
        assert (await program.next())["type"] == "snapshot"
        assert await program.ended() == 0
    await eventually(lambda: not place.app[HUB].sessions)
    async with closing_with(4429, "retry after 100 s") as url, bot(url, ends=(how, "lost")) as program:
        assert (await program.next())["type"] == "lost"
        assert await program.ended() == 0


async def test_the_command_prints_a_line_per_message(place: Place) -> None:
    """It takes its token from the environment, and prints what comes."""
    await place.restart(auth=AUTH)
    arguments = ("examples/client.mjs", "--url", place.url, "--interval", "0.1", "balance", "price:BTCUSDT")
    async with running(*arguments, GATEWAY_TOKEN=TOKEN) as program:
        await program.snapshots("balance", "price:BTCUSDT")


async def test_the_command_says_how_it_is_used() -> None:
    """Asked for help it gives that, and ends well."""
    async with running("examples/client.mjs", "--help") as program:
        assert await program.ended() == 0
        assert program.process.stdout is not None
        assert (await program.process.stdout.read()).startswith(b"usage: node client.mjs")


@pytest.mark.parametrize(
    ("channels", "complaint"),
    [
        (("balance",), b"refused by the gateway (403)"),
        ((), b"name at least one channel"),
        (("--interval", "abc", "balance"), b"--interval is abc; allowed: seconds"),
    ],
)
async def test_the_command_says_why_it_ends(place: Place, channels: tuple[str, ...], complaint: bytes) -> None:
    """Without the token, or without a channel, it ends with one line."""
    await place.restart(auth=AUTH)
    async with running("examples/client.mjs", "--url", place.url, *channels) as program:
        assert await program.ended() == 1
        assert program.process.stderr is not None
        said = await program.process.stderr.read()
        assert said.startswith(complaint)
        assert said.count(b"\n") == 1
