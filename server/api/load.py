"""What this process carries at the moment, against what it may."""

import asyncio
import secrets
import time

from aiohttp import web

from ..errors import GoingAway, Overloaded, TooManyConnections

RETRY_AFTER_S = 1.0
RECONNECT_AFTER_S = 5.0

EPOCH_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Load:
    """Requests in progress, open sockets, whether the process is on its way out: of one process's life, its epoch."""

    def __init__(self, *, max_requests: int, max_sockets: int) -> None:
        self.max_requests = max_requests
        self.max_sockets = max_sockets
        self.requests = 0
        self.sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self.is_draining = False
        self.epoch = "".join(secrets.choice(EPOCH_ALPHABET) for _ in range(6))
        self.started_at = time.monotonic()

    def take_request(self) -> None:
        """Count one more request in progress. Raises Overloaded at the limit."""
        if self.requests >= self.max_requests:
            raise Overloaded(
                f"{self.max_requests} requests are in progress, and server.max_requests allows no more",
                retry_after_s=RETRY_AFTER_S,
            )
        self.requests += 1

    def take_socket(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        """Count one more socket. Raises TooManyConnections at the limit, GoingAway when the process is leaving."""
        if self.is_draining:
            raise GoingAway("the gateway is restarting")
        if len(self.sockets) >= self.max_sockets:
            raise TooManyConnections(f"all {self.max_sockets} sockets are in use", retry_after_s=RECONNECT_AFTER_S)
        self.sockets[ws] = transport
