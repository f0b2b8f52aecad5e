"""Streams: the exchange's pushes of whatever is wanted now, over as many lines as that takes."""

import asyncio
import hashlib
import hmac
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..errors import BadAnswer, CredentialsMissing, CredentialsRefused, ExchangeTimeout
from ..models import Reading, Topic
from ..settings import Secret
from ..telemetry import get_logger
from .conversation import Conversation, Counts
from .dialling import BAN_S, Dialling
from .line import PING_S, Line
from .link import Link
from .pushes import Channel, channel_of
from .subscriptions import ACK_S
from .wire import StreamMessage, decode

log = get_logger(__name__)

PUBLIC, PRIVATE = "public", "private"

LINGER_S = 30.0
"""How long a subscription outlives the last one who wanted it: clients come back, and each change costs a request."""
BATCH = 200
SPOT_BATCH = 10
"""How many arguments one request may have: Bybit's own limit on spot, our measure elsewhere."""
LINE_CHARACTERS = 21_000
"""How many characters the arguments of one connection may have: Bybit's limit, quotes and commas counted too."""
LOGIN_S = 5.0
LOGIN_VALID_MS = 10_000
CLOSE_S = 5.0

Keys = Callable[[], tuple[Secret, Secret] | None]
Changed = Callable[[frozenset[Topic], Line | None], None]


def nobody(_: frozenset[Topic], __: Line | None) -> None:
    """Whom nobody needs to tell."""


def characters_of(arg: str) -> int:
    """What `arg` takes of LINE_CHARACTERS."""
    return len(arg) + 3


class Lot:
    """The channels of one line, and how many characters they take."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.characters = 0

    def add(self, channel: Channel) -> None:
        """Take `channel` among them."""
        self.channels.append(channel)
        self.characters += characters_of(channel.arg)


class Streams:
    """Public lines for tickers and candles, a private one for positions and wallet; the owner of all their tasks.

    `offer` gets every reading; `changed` the wanted topics that came in sync, with their line, or went out of sync,
    with None. Both are called on the loop, one after the other, and must not block. A topic that comes in sync has no
    reading by that alone: of positions and wallet the exchange pushes only changes, so how things stand must be asked.
    Nothing runs before `start`, and no private line without `keys`.
    """

    def __init__(
        self,
        public_url: str,
        private_url: str,
        *,
        category: str,
        now_ms: Callable[[], float],
        keys: Keys,
        offer: Callable[[Topic, Reading[Any]], None],
        changed: Changed = nobody,
        share: float = 1.0,
        key_retry_s: float = 60.0,
        ban_s: float = BAN_S,
        linger_s: float = LINGER_S,
        ack_s: float = ACK_S,
        ping_s: float = PING_S,
        line_characters: int = LINE_CHARACTERS,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Connect to the addresses without their paths; `share` is this process's part of the connections allowed.

        `now_ms` is the exchange's present time; `keys` the API key and secret in use, or None.
        """
        self._public_url = f"{public_url.rstrip('/')}/v5/public/{category}"
        self._category = category
        self._now_ms, self._keys, self._clock = now_ms, keys, clock
        self._offer, self._changed = offer, changed
        self._linger_s, self._line_characters = linger_s, line_characters
        self._key_retry_s, self._ack_s, self._ping_s = key_retry_s, ack_s, ping_s
        self._dialling = Dialling(share=share, ban_s=ban_s, clock=clock, jitter=jitter)
        self.counts = {PUBLIC: Counts(), PRIVATE: Counts()}
        self._wanted: dict[str, set[Topic]] = {}
        self._channels: dict[str, Channel] = {}
        self._left_at: dict[str, float] = {}
        self._public: list[Link] = []
        self._link_of: dict[str, Link] = {}
        self._private = self._link(f"{private_url.rstrip('/')}/v5/private", PRIVATE)
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_running = False

    def _link(self, url: str, kind: str) -> Link:
        conversation = Conversation(
            kind,
            batch=SPOT_BATCH if self._category == "spot" else BATCH,
            now_ms=self._now_ms,
            offer=self._offer,
            changed=self._tell,
            counts=self.counts[kind],
            ack_s=self._ack_s,
            clock=self._clock,
        )
        return Link(
            url,
            conversation,
            dialling=self._dialling,
            log_in=self._log_in if kind == PRIVATE else None,
            key_retry_s=self._key_retry_s,
            ping_s=self._ping_s,
            clock=self._clock,
        )

    async def start(self) -> None:
        """Open lines for what is wanted, from now on."""
        self._is_running = True
        for link in (self._private, *self._public):
            self._run(link)

    def _run(self, link: Link) -> None:
        if self._is_running:
            self._tasks.append(asyncio.create_task(link.run(), name=f"{link.kind} stream"))

    async def close(self) -> None:
        """End every line; in bounded time, and whoever is cancelled here leaves nothing behind that is not ending."""
        self._is_running = False
        if self._sweeping is not None:
            self._sweeping.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        self._tasks.clear()

    def want(self, topics: Iterable[Topic]) -> None:
        """Keep `topics` in sync and no others; those that no stream pushes are passed over.

        What is wanted no longer lingers for a while. `changed` is told before this returns of those among the newly
        wanted that are in sync already.
        """
        wanted: dict[str, set[Topic]] = {}
        for topic in topics:
            if (channel := channel_of(topic, self._category)) is not None:
                wanted.setdefault(channel.arg, set()).add(topic)
                self._channels.setdefault(channel.arg, channel)
        before, self._wanted = self._wanted, wanted
        self._linger()
        self._share_out()
        for arg, of_arg in wanted.items():
            if (new := of_arg - before.get(arg, set())) and (line := self._line(arg)) is not None:
                self._changed(frozenset(new), line)

    def line(self, topic: Topic) -> Line | None:
        """The line that keeps `topic` in sync now; None while none does."""
        channel = channel_of(topic, self._category)
        return None if channel is None else self._line(channel.arg)

    def _line(self, arg: str) -> Line | None:
        link = self._link_of.get(arg)
        return None if link is None else link.line(arg)

    def describe(self) -> dict[str, Any]:
        """For people to look at: how the lines of each kind stand, and what has happened on them since the start."""
        links = {PUBLIC: self._public, PRIVATE: [self._private]}
        return {
            kind: {
                "lines": sum(link.is_up for link in of_kind),
                "channels": sum(map(len, of_kind)),
                "in_sync": sum(link.in_sync for link in of_kind),
                **msgspec.structs.asdict(self.counts[kind]),
            }
            for kind, of_kind in links.items()
        }

    def rekey(self) -> None:
        """There is another key, or none any more: the private line is opened anew with what `keys` gives."""
        self._share_out()
        self._private.renew()

    def _tell(self, arg: str, line: Line | None) -> None:
        if topics := self._wanted.get(arg):
            self._changed(frozenset(topics), line)

    def _linger(self) -> None:
        """Note since when each channel is wanted by nobody, and forget those that have been so for long."""
        now = self._clock()
        for arg in self._channels:
            if arg in self._wanted:
                self._left_at.pop(arg, None)
            elif now - self._left_at.setdefault(arg, now) >= self._linger_s:
                del self._left_at[arg]
        self._channels = {
            arg: channel for arg, channel in self._channels.items() if arg in self._wanted or arg in self._left_at
        }
        if self._left_at and self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self._linger_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        self._linger()
        self._share_out()

    def _share_out(self) -> None:
        """Give each link its channels: one that has a home stays there, a new one goes where there is room."""
        former, self._link_of = self._link_of, {}
        lots = {link: Lot() for link in (self._private, *self._public)}
        for arg in sorted(self._channels, key=lambda arg: arg not in former):
            channel = self._channels[arg]
            link = former.get(arg) if channel.begins_with_push else self._private
            if link is None:
                link = self._roomy(lots, arg)
            elif link is self._private and self._keys() is None:
                continue
            lots[link].add(channel)
            self._link_of[arg] = link
        for link, lot in lots.items():
            link.want(lot.channels)

    def _roomy(self, lots: dict[Link, Lot], arg: str) -> Link:
        for link in self._public:
            if lots[link].characters + characters_of(arg) <= self._line_characters:
                return link
        link = self._link(self._public_url, PUBLIC)
        self._public.append(link)
        lots[link] = Lot()
        self._run(link)
        return link

    async def _log_in(self, line: Line) -> None:
        """Authenticate `line`. Raises CredentialsRefused, CredentialsMissing, ExchangeTimeout."""
        keys = self._keys()
        if keys is None:
            raise CredentialsMissing("the gateway has no API key: only market data is streamed")
        await line.send(login(*keys, expires_ms=int(self._now_ms()) + LOGIN_VALID_MS))
        try:
            async with asyncio.timeout(LOGIN_S):
                answer = decode(await line.receive(), StreamMessage)
        except TimeoutError:
            raise ExchangeTimeout("the exchange's stream did not answer the key in time") from None
        if answer.op != "auth" or answer.success is None:
            raise BadAnswer("the exchange's stream answered the key with something else")
        if not answer.success:
            raise CredentialsRefused("the exchange's stream refuses the key")


def login(api_key: Secret, api_secret: Secret, *, expires_ms: int) -> dict[str, Any]:
    """The request that authenticates a private stream until `expires_ms` (Bybit V5, "Authentication")."""
    signed = hmac.new(api_secret.reveal().encode(), f"GET/realtime{expires_ms}".encode(), hashlib.sha256)
    return {"req_id": "auth", "op": "auth", "args": [api_key.reveal(), expires_ms, signed.hexdigest()]}
