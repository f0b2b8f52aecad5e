"""Link: keeps a line to one address up for as long as something is wanted from it, within the bounds of dialling."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from math import inf

from ..errors import AddressBanned, BadAnswer, CredentialsMissing, CredentialsRefused, ExchangeError
from ..telemetry import Sampler, get_logger
from .conversation import Conversation
from .dialling import Dialling
from .line import PING_S, Line, connected
from .pushes import Channel

log = get_logger(__name__)

STEADY_S = 30.0
"""How long a line must have lived for the next one to be opened without a growing pause."""
LINES_PER_S = 0.1
"""How many lines a second the log takes of each: connections, losses, failures to connect."""

LogIn = Callable[[Line], Awaitable[None]]


class Link:
    """One address and the conversation with it: at most one line at a time, another after each that is lost.

    The log says why a line was lost or could not be had, once while the reason stays the same.
    """

    def __init__(
        self,
        url: str,
        conversation: Conversation,
        *,
        dialling: Dialling,
        log_in: LogIn | None = None,
        key_retry_s: float = 60.0,
        ping_s: float = PING_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to `url`; `log_in` says who we are on a new line, and is refused for no less than `key_retry_s`."""
        self._url = url
        self._conversation = conversation
        self.kind, self._counts = conversation.kind, conversation.counts
        self._dialling = dialling
        self._log_in = log_in
        self._key_retry_s, self._ping_s = key_retry_s, ping_s
        self._clock = clock
        self._wake = asyncio.Event()
        self._failures = 0
        self._not_before = -inf
        self._must_renew = False
        self._last_refusal = ""
        self._connects, self._losses, self._refusals = (Sampler(LINES_PER_S, clock=clock) for _ in range(3))

    def want(self, channels: Iterable[Channel]) -> None:
        """Serve `channels` and no others; those that are served already go on as they are."""
        self._conversation.want(channels)
        self._wake.set()

    def __len__(self) -> int:
        """How many channels are wanted of it."""
        return len(self._conversation)

    @property
    def is_up(self) -> bool:
        """Whether its line is open."""
        return self._conversation.is_up

    @property
    def in_sync(self) -> int:
        """How many channels are in sync."""
        return self._conversation.in_sync

    def line(self, arg: str) -> Line | None:
        """The line that keeps `arg` in sync now, or None."""
        return self._conversation.line(arg)

    def renew(self) -> None:
        """Give up the line, and every pause that was not the address's, and open another."""
        self._must_renew = True
        self._conversation.hang_up()
        self._wake.set()

    async def run(self) -> None:
        """Keep the line up until cancelled."""
        while True:
            await self._turn()
            self._must_renew = False
            self._dialling.take()
            self._counts.connections += 1
            try:
                await self._hold()
            except ExchangeError as error:
                self._failed(error)
            except Exception:
                log.exception("stream_crashed", stream=self.kind)
                self._failed(None)

    async def _turn(self) -> None:
        """Return when something is wanted and a connection may be opened."""
        while True:
            own_s = 0.0 if self._must_renew else self._not_before - self._clock()
            wait_s = max(own_s, self._dialling.wait_s())
            if self._conversation and wait_s <= 0:
                return
            await self._woken(wait_s if self._conversation else None)

    async def _woken(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _failed(self, error: ExchangeError | None) -> None:
        """Set when to try again, by what the failure says."""
        self._failures += 1
        pause_s = self._dialling.pause_s(self._failures)
        if isinstance(error, AddressBanned):
            self._dialling.ban()
        elif isinstance(error, (CredentialsRefused, CredentialsMissing)):
            pause_s = self._key_retry_s
        elif isinstance(error, BadAnswer):
            self._counts.garbage += 1
        self._not_before = self._clock() + pause_s
        self._log_refusal(error)

    def _log_refusal(self, error: ExchangeError | None) -> None:
        """Once for each reason until a line is up: what is refused stays so for long."""
        if error is None or error.detail == self._last_refusal:
            return
        self._last_refusal = error.detail
        if (missed := self._refusals.admit()) is not None:
            reason, detail = error.reason, error.detail
            log.warning("stream_failed", stream=self.kind, reason=reason, detail=detail, lines_missed=missed)

    async def _hold(self) -> None:
        """Open a line and talk on it to its end. Raises ExchangeError, unless it ends because nothing is wanted."""
        async with connected(self._url, ping_s=self._ping_s, clock=self._clock) as line:
            if self._log_in is not None:
                await self._log_in(line)
            if self._must_renew:
                return  # it logged in with what is no longer true
            self._log_connected()
            try:
                await self._conversation.hold(line)
            except ExchangeError as error:
                self._last_refusal = error.detail
                self._log_loss(line, error.reason, error.detail)
                raise
            else:
                self._log_loss(line, "renewed" if self._must_renew else "not_wanted", None)
            finally:
                if line.heard_at - line.opened_at >= STEADY_S:
                    self._failures = 0

    def _log_connected(self) -> None:
        self._last_refusal = ""
        self._counts.reconnects += self._failures > 0
        if (missed := self._connects.admit()) is not None:
            log.info("stream_connected", stream=self.kind, args=len(self._conversation), lines_missed=missed)

    def _log_loss(self, line: Line, reason: str, detail: str | None) -> None:
        if (missed := self._losses.admit()) is not None:
            up_s = round(self._clock() - line.opened_at, 1)
            level = logging.INFO if detail is None else logging.WARNING
            log.log(
                level, "stream_lost", stream=self.kind, reason=reason, detail=detail, up_s=up_s, lines_missed=missed
            )
