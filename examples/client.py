"""A client of the gateway, to be copied into a bot: many channels on one socket that heals itself. Needs only aiohttp.

GATEWAY_TOKEN=... python examples/client.py --url ws://127.0.0.1:8000 positions:BTCUSDT price:ETHUSDT
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

HEARTBEAT_S = 15.0
"""The gateway is never silent for longer."""
PATIENCE = 2.5
"""Heartbeats without any message, after which the line is dead."""
CONNECT_S = 10.0
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
GOING_AWAY, ABNORMAL = 1001, 1006
FINAL = {1008, 1009, 4400, 4401, 4403, 4404}
"""Close codes after which the next try would end the same way."""
PASSING = {408, 429}
"""HTTP statuses of that kind that pass."""
SUBSCRIPTION_ID = 1


class Refused(Exception):
    """The gateway will not serve this client as it is. `code` is a close code, an HTTP status or an error's code."""

    def __init__(self, code: int | str, reason: str) -> None:
        super().__init__(f"refused by the gateway ({code}): {reason}")
        self.code, self.reason = code, reason


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a channel stands, whole. `body` is the message itself; its money is in decimal strings."""

    channel: str
    epoch: str
    seq: int
    timestamp_ms: int
    age_ms: int | None  # of the oldest part when it was sent; None where one was never read
    is_stale: bool  # wholly or in parts: body["stale"] says in which
    is_new_epoch: bool  # another process answers than before: seq has begun anew
    missed: int  # seqs left out since the last one of this epoch; normal where the pace is not live
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """What is stale of a channel has changed; `error` says why, None where there is nothing to say."""

    channel: str
    stale: tuple[str, ...]
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A channel that cannot be had, or not any more; others go on. It is asked for again with the next connection."""

    channel: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The line is lost: all that came before gets old now. The next try is in `pause_s`."""

    code: int
    reason: str
    pause_s: float


Message = Snapshot | Status | Ended | Lost
Socket = aiohttp.ClientWebSocketResponse


class Client:
    """Iterates what its channels say, for ever: over reconnects, which it tells of by `Lost`.

    Waiting for a message may be cancelled and begun again without loss, but connecting begins anew. A consumer must not
    stop for seconds between messages: the gateway closes a socket that is not read.
    """

    def __init__(self, url: str, *, token: str | None = None, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._url = f"{url.rstrip('/')}/ws"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._heartbeat_s = heartbeat_s
        self._paces: dict[str, tuple[float, bool]] = {}
        self._seen: dict[str, tuple[str, int]] = {}
        self._waiting: deque[Message] = deque()
        self._ws: Socket | None = None
        self._failures, self._retry_at = 0, 0.0
        self._heard_at, self._pinged_at = 0.0, 0.0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        await self._http.close()

    async def subscribe(self, *channels: str, interval_s: float = 0.0, on_close: bool = False) -> None:
        """Have `channels` from now on, over reconnects too; 0 is live: each change as it happens.

        Channels of indicators may come whenever a candle closes instead.
        """
        self._paces |= dict.fromkeys(channels, (interval_s, on_close))
        if self._ws is not None:
            with contextlib.suppress(ConnectionError):  # the next connection asks for all of them
                await self._ws.send_json(_subscription([*channels], interval_s, on_close))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message. Raises Refused where another try would end the same way."""
        while not self._waiting:
            try:
                await self._heed(await self._receive(self._ws or await self._connect()))
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
                raise
            except aiohttp.WSServerHandshakeError as error:
                await self._lose(error.status, _reason_of(error))
            except (aiohttp.ClientError, OSError) as error:
                await self._lose(ABNORMAL, str(error) or "no sign of life")
        return self._waiting.popleft()

    async def _connect(self) -> Socket:
        """Connect when the pause is over, and subscribe to everything."""
        await asyncio.sleep(self._retry_at - asyncio.get_running_loop().time())
        async with asyncio.timeout(CONNECT_S):
            closing = aiohttp.ClientWSTimeout(ws_close=1.0)
            ws = self._ws = await self._http.ws_connect(self._url, headers=self._headers, timeout=closing)
            self._heard_at = asyncio.get_running_loop().time()
        for pace in sorted({*self._paces.values()}):
            channels = [name for name, of_name in self._paces.items() if of_name == pace]
            await ws.send_json(_subscription(channels, *pace))
        return ws

    async def _receive(self, ws: Socket) -> aiohttp.WSMessage:
        """The next message. One heartbeat's silence makes a ping; raises TimeoutError where nothing answers that.

        Silence is counted from message to message, not from call to call: waits may have been cancelled between.
        """
        if is_ping_due := self._pinged_at <= self._heard_at:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._heard_at + self._heartbeat_s):
                    return self._heard(await ws.receive())
            self._pinged_at = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(self._pinged_at + self._heartbeat_s * (PATIENCE - 1)):
            if is_ping_due:
                await ws.send_json({"op": "ping"})
            return self._heard(await ws.receive())

    def _heard(self, received: aiohttp.WSMessage) -> aiohttp.WSMessage:
        self._heard_at = asyncio.get_running_loop().time()
        return received

    async def _heed(self, received: aiohttp.WSMessage) -> None:
        if received.type is not aiohttp.WSMsgType.TEXT:
            code = received.data if received.type is aiohttp.WSMsgType.CLOSE else None
            await self._lose(code or ABNORMAL, received.extra or "")
            return
        match json.loads(received.data):
            case {"type": "snapshot"} as body:
                self._failures = 0
                self._take(body)
            case {"type": "status", "channel": channel, "stale": stale, "error": error}:
                self._waiting.append(Status(channel, tuple(stale), error))
            case {"type": "ack", "errors": faults}:
                self._waiting += (Ended(fault["channel"], fault["code"], fault["detail"]) for fault in faults)
            case {"type": "error", "channel": channel, "code": code, "detail": detail}:
                self._waiting.append(Ended(channel, code, detail))
            case {"type": "error", "id": id_, "code": code, "detail": detail} if id_ == SUBSCRIPTION_ID:
                raise Refused(code, detail)

    def _take(self, body: dict[str, Any]) -> None:
        """Pass a snapshot on, unless it or a later one of its epoch was there already."""
        channel, epoch, seq, age_ms = body["channel"], body["epoch"], body["seq"], body["age_ms"]
        seen_epoch, seen_seq = self._seen.get(channel, (epoch, seq - 1))
        is_new_epoch = epoch != seen_epoch
        if seq <= seen_seq and not is_new_epoch:
            return
        self._seen[channel] = epoch, seq
        ages_ms = age_ms.values() if isinstance(age_ms, dict) else [age_ms]
        snapshot = Snapshot(
            channel,
            epoch,
            seq,
            timestamp_ms=body["timestamp_ms"],
            age_ms=None if None in ages_ms else max(ages_ms),
            is_stale=bool(body["stale"]),
            is_new_epoch=is_new_epoch,
            missed=0 if is_new_epoch else seq - seen_seq - 1,
            body=body,
        )
        self._waiting.append(snapshot)

    async def _lose(self, code: int, reason: str) -> None:
        """The line is lost. Raises Refused where the next one would be, too."""
        if code not in FINAL and not (400 <= code < 500 and code not in PASSING):
            pause_s = _pause_s(code, reason, self._failures)
            self._failures += 1
            self._retry_at = asyncio.get_running_loop().time() + pause_s
            self._waiting.append(Lost(code, reason, pause_s))
            await self._close()
        else:
            await self._close()
            raise Refused(code, reason)

    async def _close(self) -> None:
        ws, self._ws = self._ws, None
        if ws is not None:
            await ws.close()


def _subscription(channels: list[str], interval_s: float, on_close: bool) -> dict[str, Any]:
    asked = {"op": "subscribe", "id": SUBSCRIPTION_ID, "channels": channels, "interval": interval_s}
    return asked | {"on": "close"} if on_close else asked


def _reason_of(error: aiohttp.WSServerHandshakeError) -> str:
    """Why there was no upgrade; an overloaded gateway names its time in a header."""
    named_s = error.headers.get("Retry-After") if error.headers else None
    return "not upgraded" if named_s is None else f"not upgraded; retry after {named_s} s"


def _pause_s(code: int, reason: str, failures: int) -> float:
    """How long to wait before the next try, so that not all clients come back in the same moment."""
    if code == GOING_AWAY:
        return random.uniform(0, PAUSE_S)
    if named := re.search(r"retry after ([0-9]+[.]?[0-9]*) s", reason):
        return float(named[1]) * random.uniform(1, 1.5)
    return min(LONGEST_PAUSE_S, PAUSE_S * (1 << min(failures, 10))) * random.uniform(0.5, 1)


async def _show(url: str, channels: list[str], interval_s: float) -> None:
    async with Client(url, token=os.environ.get("GATEWAY_TOKEN")) as gateway:
        await gateway.subscribe(*channels, interval_s=interval_s)
        async for message in gateway:
            print(message, flush=True)


def main() -> None:
    """Print one line per message."""
    parser = argparse.ArgumentParser(description=main.__doc__, epilog="A token is taken from GATEWAY_TOKEN.")
    parser.add_argument("--url", default="ws://127.0.0.1:8000")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between snapshots; 0: each change")
    parser.add_argument("channels", nargs="+", metavar="CHANNEL")
    arguments = parser.parse_args()
    try:
        asyncio.run(_show(arguments.url, arguments.channels, arguments.interval))
    except KeyboardInterrupt:
        pass
    except Refused as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
