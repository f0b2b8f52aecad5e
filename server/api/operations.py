"""Operations: what clients ask of their sockets, done and answered."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from ..errors import GatewayError, InvalidRequest, TooManySubscriptions, UnknownSymbol, outcome_of
from ..realtime.channel import Channel
from ..realtime.channels import FORMS, Channels, is_asked
from ..realtime.hub import Hub
from ..realtime.messages import (
    AuthMessage,
    Listed,
    ListMessage,
    PongMessage,
    Refusal,
    SubscribedMessage,
    UnsubscribedMessage,
)
from ..realtime.operations import Operation
from ..realtime.session import Session
from ..realtime.subscription import Subscription
from ..settings import FreshnessSettings, WebSocketSettings
from .admission import Admission
from .scopes import check_channel, confine
from .visitors import Visitors

SINGLE = ("ping", "auth")
"""What a socket of one channel may ask."""
MULTIPLE = ("subscribe", "unsubscribe", "list", *SINGLE)


class Pace(NamedTuple):
    """When snapshots are to come: at an interval, 0 for each change; of indicators, `on` comes before that."""

    interval_s: float
    on: Literal["tick", "close"] | None = None

    def of(self, name: str) -> tuple[float, bool]:
        """The interval of the channel of that name, and whether only candles that close count."""
        return (0.0, self.on == "close") if self.on is not None and is_asked(name) else (self.interval_s, False)


class SocketOperations:
    """Answers the messages of every session."""

    def __init__(
        self,
        admission: Admission,
        visitors: Visitors,
        channels: Channels,
        hub: Hub,
        *,
        category: str,
        known: Callable[[str], bool | None],
        websocket: WebSocketSettings,
        freshness: FreshnessSettings,
    ) -> None:
        """`known` tells whether there is a symbol, None while that is not known."""
        self._admission = admission
        self._visitors = visitors
        self._channels = channels
        self._hub = hub
        self._category, self.known = category, known
        self._websocket = websocket
        self._freshness = freshness

    async def answer(self, session: Session, operation: Operation) -> None:
        """Do what the client asks for, and say so. Raises InvalidRequest."""
        allowed = SINGLE if session.is_single else MULTIPLE
        if operation.op not in allowed:
            raise InvalidRequest("op", f"unknown operation {operation.op[:40]!r}; allowed: {', '.join(allowed)}")
        match operation.op:
            case "ping":
                session.say(PongMessage("pong", operation.id, time.time_ns() // 1_000_000))
            case "auth":
                self._authenticate(session, operation)
            case "list":
                session.say(ListMessage("list", operation.id, _listed(session)))
            case "subscribe":
                await self._subscribe(session, operation)
            case "unsubscribe":
                self._unsubscribe(session, operation)

    def _authenticate(self, session: Session, operation: Operation) -> None:
        try:
            rights = self._admission.admit(operation.token, session.address)
            self._visitors.take_token(rights.digest)
        except GatewayError as error:
            session.end(error)
        else:
            self._visitors.give_token(session.rights.digest)
            session.say(AuthMessage("ack", operation.id, "auth"))
            confine(session, rights)

    async def _subscribe(self, session: Session, operation: Operation) -> None:
        asked, pace = _names_of(operation), self._pace(operation)
        begun: list[Subscription] = []
        refusals: list[Refusal] = []
        for name in asked:
            try:
                begun.append(self.subscribed(session, name, pace))
            except GatewayError as error:
                refusals.append(Refusal(name[:100], outcome_of(error).code, error.detail))
        names = tuple([one.channel.name for one in begun])
        session.say(SubscribedMessage("ack", operation.id, "subscribe", names, tuple(refusals)))
        if begun:
            await self._hub.begin(session, begun)

    def subscribed(self, session: Session, name: str, pace: Pace) -> Subscription:
        """A subscription that is yet to begin.

        Raises InvalidRequest, Forbidden, UnknownSymbol, TooManySubscriptions, or Overloaded for one symbol too many. It
        takes the place of one that the session has of that name.
        """
        interval_s, on_close = pace.of(name)
        channel = self._channels.find(name, on_close=on_close)
        try:
            self._check(session, channel)
        except GatewayError:
            self._hub.tidy(channel)
            raise
        if (former := session.unsubscribe(name)) is not None:
            self._hub.unsubscribe(former)
            channel = self._channels.find(name, on_close=on_close)
        return session.subscribe(channel, interval_s=interval_s, max_age_s=self.max_age_s(interval_s))

    def _check(self, session: Session, channel: Channel) -> None:
        check_channel(channel, session.rights)
        most = self._websocket.max_subscriptions
        if channel.name not in session.subscriptions and len(session.subscriptions) >= most:
            raise TooManySubscriptions(f"a socket may have {most} subscriptions (websocket.max_subscriptions)")
        if channel.symbol and self.known(channel.symbol) is False:
            raise UnknownSymbol(f"the exchange has no {self._category} symbol {channel.symbol}")
        channel.claim()

    def _unsubscribe(self, session: Session, operation: Operation) -> None:
        ended: list[str] = []
        refusals: list[Refusal] = []
        for name in _names_of(operation):
            if (subscription := session.unsubscribe(name)) is None:
                refusals.append(Refusal(name[:100], "not_subscribed", "this socket has no such subscription"))
            else:
                self._hub.unsubscribe(subscription)
                ended.append(name)
        session.say(UnsubscribedMessage("ack", operation.id, "unsubscribe", tuple(ended), tuple(refusals)))

    def _pace(self, operation: Operation) -> Pace:
        """Raises InvalidRequest."""
        if operation.on is not None and not any(map(is_asked, operation.channels or ())):
            raise InvalidRequest("on", "on is for channels of indicators, and none is asked for")
        return Pace(self.interval_s(operation.interval), operation.on)

    def interval_s(self, asked: float | None) -> float:
        """The interval asked for: 0 for live, or within bounds; the default where none was. Raises InvalidRequest."""
        limits = self._websocket
        value = limits.interval_s if asked is None else asked
        if value != 0 and not limits.min_interval_s <= value <= limits.max_interval_s:
            allowed = f"0 for live, or {limits.min_interval_s:g} to {limits.max_interval_s:g} seconds"
            raise InvalidRequest("interval", f"interval is {value:g}; allowed: {allowed}")
        return value

    def max_age_s(self, interval_s: float) -> float:
        """How old a reading may be for one who is shown it at that pace."""
        return min(interval_s / 2, self._freshness.max_age_s) if interval_s else self._freshness.live_poll_s / 2


def _names_of(operation: Operation) -> list[str]:
    """The channels of a request, each once. Raises InvalidRequest where there is none."""
    if not operation.channels:
        raise InvalidRequest("channels", f"channels is a list of names, at least one of: {', '.join(FORMS)}")
    return [*dict.fromkeys(operation.channels)]


def _listed(session: Session) -> tuple[Listed, ...]:
    return tuple([_listing_of(name, one) for name, one in session.subscriptions.items()])


def _listing_of(name: str, subscription: Subscription) -> Listed:
    if not (is_asked(name) and subscription.is_live):
        return Listed(name, subscription.interval_s)
    return Listed(name, subscription.interval_s, "tick" if subscription.channel.repeats else "close")
