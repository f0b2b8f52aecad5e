"""A crowd of good clients: REST over new and kept connections, sockets that come back; each failure with its port.

The local port of each connection is known before anybody answers, so that a failure can be laid at a worker's door.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import aiohttp

JITTER_S = 0.5
"""A client whose socket ended comes back within this time, at random; within twice that after each failure more."""
MOST_JITTER_S = 4.0
ANSWER_S = 10.0
LOST = 1006
"""The code of a socket that ended without one."""


class Failure(NamedTuple):
    """A request or a handshake that came to nothing.

    `is_crossed`: the request was sent on a kept connection that had answered before, and met its end.
    """

    port: int
    opened_at: float
    at: float
    what: str
    is_crossed: bool = False


class End(NamedTuple):
    """The end of a socket that had been open: `epoch` names the process behind it, None where it never said one."""

    port: int
    opened_at: float
    at: float
    code: int
    epoch: str | None


class Asker:
    """Asks over REST, one request after the other; those that a kept connection's end crossed are asked once more.

    `hesitation_s`: how long it may take from a new connection to its first request, as over a slow network.
    """

    def __init__(
        self,
        port: int,
        paths: Callable[[], str],
        *,
        is_kept: bool,
        pause_s: float,
        fine: Sequence[int],
        hesitation_s: float = 0.0,
    ) -> None:
        self._port, self._paths, self._is_kept, self._pause_s, self._fine = port, paths, is_kept, pause_s, fine
        self._hesitation_s = hesitation_s
        self.statuses: Counter[int] = Counter()
        self.opened = 0
        self.slowest_s = 0.0
        self.failures: list[Failure] = []
        self.crossed: list[Failure] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        connection: Connection | None = None
        try:
            while True:
                path, began_at = self._paths(), time.monotonic()
                connection = await self._ask(path, connection)
                if connection is None and self.crossed and self.crossed[-1].at > began_at:
                    connection = await self._ask(path, None)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
                await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))
        finally:
            if connection is not None:
                connection.close()

    async def _ask(self, path: str, connection: Connection | None) -> Connection | None:
        """Ask once; gives the connection for the next request, None where there is none."""
        is_first = connection is None
        try:
            async with asyncio.timeout(ANSWER_S):
                if connection is None:
                    self.opened += 1
                    connection = await Connection.to(self._port)
                    await asyncio.sleep(random.uniform(0, self._hesitation_s))
                status, is_over = await connection.ask(path, is_kept=self._is_kept)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self._failed(connection, error, is_first=is_first)
            return None
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        self.statuses[status] += 1
        if status not in self._fine:
            self.failures.append(connection.failure(f"{path}: {status}"))
        if is_over:
            connection.close()
        return None if is_over else connection

    def _failed(self, connection: Connection | None, error: Exception, *, is_first: bool) -> None:
        what = type(error).__name__
        if connection is None:
            self.failures.append(Failure(0, time.monotonic(), time.monotonic(), f"{what} on connecting"))
            return
        has_begun = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
        is_crossed = not is_first and not has_begun and isinstance(error, (EOFError, ConnectionError))
        where = "a new connection" if is_first else "a kept connection"
        failure = connection.failure(f"{what} on {where}", is_crossed=is_crossed)
        (self.crossed if is_crossed else self.failures).append(failure)
        connection.close()


class Connection:
    """One connection to the gateway that REST is asked over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened_at: float) -> None:
        self._reader, self._writer = reader, writer
        self.opened_at = opened_at
        self.port: int = writer.get_extra_info("sockname")[1]

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Open one. Raises OSError."""
        opened_at = time.monotonic()
        return cls(*await asyncio.open_connection("127.0.0.1", port), opened_at)

    def say(self, path: str, *, is_kept: bool) -> None:
        """Send a request."""
        how = "keep-alive" if is_kept else "close"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {how}\r\n\r\n".encode())

    async def hear(self) -> tuple[int, bool]:
        """The status of its answer, and whether the connection is over. Raises EOFError, OSError or ValueError."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n", 1)[0])
        try:
            await self._reader.readexactly(length)
        except EOFError as error:
            raise ValueError("half an answer") from error
        return int(head.split()[1]), "connection: close" in head

    async def ask(self, path: str, *, is_kept: bool) -> tuple[int, bool]:
        self.say(path, is_kept=is_kept)
        return await self.hear()

    def failure(self, what: str, *, is_crossed: bool = False) -> Failure:
        return Failure(self.port, self.opened_at, time.monotonic(), what, is_crossed)

    def close(self) -> None:
        self._writer.close()


class Reader:
    """A client of one symbol over a socket, which comes back whenever the socket ends.

    `stay_s` says how long it stays before it leaves and comes back by itself; None: for ever.
    """

    def __init__(self, port: int, symbol: str, interval_s: float, *, stay_s: Callable[[], float] | None = None) -> None:
        self._address = ("127.0.0.1", port)
        self._url = f"http://127.0.0.1:{port}/ws/positions/{symbol}?interval={interval_s:g}"
        self._symbol, self._interval_s, self._stay_s = symbol, interval_s, stay_s
        self.port = 0
        self.epoch: str | None = None
        self.opened_at = self.first_at = self.snapshot_at = 0.0
        self.is_open = False
        self.ends: list[End] = []
        self.failures: list[Failure] = []
        self.wrong: list[str] = []
        self.connections = self.snapshots = self.missed = 0
        self.longest_gap_s = 0.0
        self._sequences: tuple[str, int] = ("", 0)

    async def run(self) -> None:
        """Read until cancelled."""
        failed = 0
        while True:
            failed = 0 if await self._connect() else failed + 1
            await asyncio.sleep(random.uniform(0, min(MOST_JITTER_S, JITTER_S * 2**failed)))

    def _socket(self, address: Any) -> socket.socket:
        """A socket whose port is known before it connects."""
        bound = socket.socket(address[0], address[1], address[2])
        bound.bind(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        return bound

    async def _connect(self) -> bool:
        """One socket from its handshake to its end; whether it opened."""
        self.opened_at, self.first_at, self.epoch = time.monotonic(), 0.0, None
        self.connections += 1
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=self._socket)) as http:
            try:
                async with asyncio.timeout(ANSWER_S):
                    ws = await http.ws_connect(self._url)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                what = f"{type(error).__name__} in the handshake"
                self.failures.append(Failure(self.port, self.opened_at, time.monotonic(), what))
                return False
            self.is_open = True
            try:
                await self._read(ws)
            finally:
                self.is_open = False
        return True

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async with asyncio.timeout(None if self._stay_s is None else self._stay_s()):
                async for message in ws:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    self._take(message.json())
        except TimeoutError:  # it leaves, now and then without a word
            if random.random() < 0.5:
                await ws.close()
            return
        code = ws.close_code or LOST
        self.ends.append(End(self.port, self.opened_at, time.monotonic(), code, self.epoch))

    def _take(self, document: dict[str, Any]) -> None:
        if document["type"] != "snapshot":
            return
        now, is_first = time.monotonic(), not self.first_at
        if self.snapshot_at:
            gap_s = now - self.snapshot_at
            self.longest_gap_s = max(self.longest_gap_s, gap_s)
            self.missed += max(0, int(gap_s / self._interval_s - 0.5)) if self._interval_s else 0
        self.snapshots += 1
        self.snapshot_at = now
        if is_first:
            self.first_at = now
        self.epoch = document["epoch"]
        self._hold(document["epoch"], document["seq"], is_first=is_first)

    def _hold(self, epoch: str, sequence: int, *, is_first: bool) -> None:
        """Within an epoch a number only grows; who comes back in time may be sent the frame that it has seen."""
        known_epoch, known = self._sequences
        if epoch == known_epoch and (sequence < known or (sequence == known and not is_first)):
            self.wrong.append(f"{self._symbol}: seq {sequence} after {known}")
        self._sequences = epoch, sequence


class Crowd:
    """Askers and readers, at work as long as an `async with` block of `working`."""

    def __init__(self, askers: Sequence[Asker], readers: Sequence[Reader]) -> None:
        self.askers, self.readers = askers, readers

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let them work. Raises what ended one of them: nothing that the gateway does may."""
        tasks = [asyncio.create_task(asker.run()) for asker in self.askers]
        tasks += [asyncio.create_task(reader.run()) for reader in self.readers]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def failures(self) -> list[Failure]:
        """Of all of them, without the requests that were crossed."""
        of_askers = (asker.failures for asker in self.askers)
        return [*itertools.chain.from_iterable((*of_askers, *(reader.failures for reader in self.readers)))]

    @property
    def crossed(self) -> list[Failure]:
        """Requests that met the end of a kept connection, and were asked once more."""
        return [*itertools.chain.from_iterable(asker.crossed for asker in self.askers)]

    @property
    def ends(self) -> list[End]:
        """Of sockets, by whoever but the client."""
        return [*itertools.chain.from_iterable(reader.ends for reader in self.readers)]

    @property
    def wrong(self) -> list[str]:
        """Numbers of snapshots that did not grow."""
        return [*itertools.chain.from_iterable(reader.wrong for reader in self.readers)]

    @property
    def opened(self) -> int:
        """Connections so far."""
        return sum(asker.opened for asker in self.askers) + sum(reader.connections for reader in self.readers)

    @property
    def answered(self) -> int:
        """Requests with an answer so far."""
        return sum(asker.statuses.total() for asker in self.askers)

    def all_have_snapshots(self) -> bool:
        """Whether each reader has one over the socket that it has now."""
        return all(reader.is_open and reader.first_at for reader in self.readers)


SYMBOLS = tuple(f"{coin}USDT" for coin in ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB", "LTC", "AVAX", "DOT"))
PATHS = ("/price/BTCUSDT", "/positions", "/balance?max_age_ms=5000", "/klines/ETHUSDT?interval=5&limit=5")


IDLE_S = 1.0
"""How long some askers leave their kept connection idle: longer than a worker that leaves waits for another request."""


HESITATION_S = 0.1


def steady(port: int, sockets: int, askers: int, pause_s: float) -> Crowd:
    """Sockets at an interval of a second, and so many askers of each kind.

    With kept connections, with idle ones, with new ones that ask at once, and with new ones that hesitate.
    """
    paths = itertools.cycle(PATHS)
    kinds = ((True, pause_s, 0.0), (True, IDLE_S, 0.0), (False, pause_s, 0.0), (False, pause_s, HESITATION_S))
    return Crowd(
        [
            Asker(port, lambda: next(paths), is_kept=kept, pause_s=pause, fine=(200,), hesitation_s=hesitation)
            for kept, pause, hesitation in kinds
            for _ in range(askers)
        ],
        [Reader(port, SYMBOLS[number % len(SYMBOLS)], 1.0) for number in range(sockets)],
    )


def figures(values: Sequence[float], unit: str = "s", digits: int = 2) -> str:
    """Median and worst in words."""
    if not values:
        return "none"
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.{digits}f} {unit} (median), {ordered[-1]:.{digits}f} {unit} (worst)"
