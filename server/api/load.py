"""What this process carries at the moment, against what it may: its share, where it is one of several."""

import asyncio
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from ..errors import GoingAway, Overloaded, TooManyConnections

RETRY_AFTER_S = 1.0
RECONNECT_AFTER_S = 5.0

OTHER_DESCRIPTORS = 300
"""Kept from the sockets: for REST, for calls to the exchange, for listeners, logs and channels."""

EPOCH_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Load:
    """Requests in progress, open sockets, whether the process is on its way out: of one process's life, its epoch.

    Of the `requests` those `awaited` have their bodies still on their way.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_sockets: int,
        max_strangers: int = 1_000_000,
        worker: int = 0,
        of: int = 1,
        descriptors: int | None = None,
    ) -> None:
        """The limits are the gateway's; this process, number `worker` of that many, has its share of them.

        `descriptors` is how many the system lets it have, None for any number: sockets leave some for everything else.
        """
        self.max_requests = math.ceil(max_requests / of)
        self.max_sockets = share = math.ceil(max_sockets / of)
        if descriptors is not None:
            self.max_sockets = max(1, min(share, descriptors - min(OTHER_DESCRIPTORS, descriptors // 2)))
        self.is_short_of_descriptors = self.max_sockets < share
        self.worker, self.of = worker, of
        self.max_strangers = math.ceil(max_strangers / of)
        self.strangers = 0
        self.requests = self.awaited = 0
        self.sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self.is_draining = False
        self.epoch = "".join(secrets.choice(EPOCH_ALPHABET) for _ in range(6))
        self.started_at = time.monotonic()

    def take_request(self) -> None:
        """Count one more request in progress. Raises Overloaded at the limit."""
        if self.requests - self.awaited >= self.max_requests:
            raise self._overloaded()
        self.requests += 1

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """Meanwhile a request in progress awaits its body, and takes no place: who dawdles keeps nobody out.

        Raises Overloaded where as many are awaited as may be in progress, and where no place is left afterwards.
        """
        if self.awaited >= self.max_requests:
            raise Overloaded(
                f"{self.awaited} bodies are on their way, and {self._limit} allows no more",
                retry_after_s=RETRY_AFTER_S,
            )
        self.awaited += 1
        try:
            yield
        finally:
            self.awaited -= 1
        if self.requests - self.awaited > self.max_requests:
            raise self._overloaded()

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self.max_requests} requests are in progress, and {self._limit} allows no more",
            retry_after_s=RETRY_AFTER_S,
        )

    @property
    def _limit(self) -> str:
        return "server.max_requests" if self.of == 1 else "this process's share of server.max_requests"

    def take_socket(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        """Count one more socket. Raises TooManyConnections at the limit, GoingAway when the process is leaving."""
        if self.is_draining:
            raise GoingAway("the gateway is restarting")
        if len(self.sockets) >= self.max_sockets:
            raise TooManyConnections(f"all {self.max_sockets} sockets are in use", retry_after_s=RECONNECT_AFTER_S)
        self.sockets[ws] = transport

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """Count one more socket inside that has not shown its token. Raises TooManyConnections at the limit."""
        if self.strangers >= self.max_strangers:
            detail = f"{self.strangers} sockets have yet to show a token, and may be no more (websocket.max_strangers)"
            raise TooManyConnections(detail, retry_after_s=RECONNECT_AFTER_S)
        self.strangers += 1
        try:
            yield
        finally:
            self.strangers -= 1
