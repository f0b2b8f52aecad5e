"""One connection to the gateway, by bytes: requests that no client would send, and what comes back to them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from typing import Any, NamedTuple, Self

WAIT_S = 10.0
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TEXT, CLOSE = 1, 8


class Answer(NamedTuple):
    """An HTTP response; `raw` is all of it."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


class Frame(NamedTuple):
    """A frame of the gateway's."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """The code of a close frame, 0 of any other."""
        return int.from_bytes(self.payload[:2], "big") if self.opcode == CLOSE else 0

    def document(self) -> Any:
        """The JSON of a text frame."""
        return json.loads(self.payload)


class Line:
    """A connection to `port` of 127.0.0.1. Nothing waits longer than `wait_s`; then TimeoutError is raised."""

    def __init__(self, port: int, *, wait_s: float = WAIT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=wait_s)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send as it stands; that the other end has closed meanwhile is for the answer to show."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def say(self, operation: dict[str, object] | str) -> None:
        """Send a text frame, masked."""
        payload = (operation if isinstance(operation, str) else json.dumps(operation)).encode()
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.send(struct.pack("!BBH", 0x80 | TEXT, 0x80 | 126, len(payload)) + mask + masked)

    def answer(self, *, is_head: bool = False) -> Answer | None:
        """The next response, None where the connection ends before it. Interim ones are passed over."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        status, headers = _parsed(head)
        if 100 <= status < 200 and status != 101:
            return self.answer(is_head=is_head)
        length = 0 if is_head else int(headers.get("content-length", "0"))
        body = self._exactly(length)
        return None if body is None else Answer(status, headers, body, head + b"\r\n\r\n" + body)

    def every_answer(self) -> list[Answer]:
        """All responses until the gateway closes. Raises TimeoutError where it does not."""
        answers: list[Answer] = []
        while (one := self.answer()) is not None:
            answers.append(one)
        return answers

    def finish(self) -> None:
        """Say that no more will be sent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def frame(self) -> Frame | None:
        """The next frame, None where the connection ends before it."""
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        if size >= 126:
            more = self._exactly(2 if size == 126 else 8)
            size = int.from_bytes(more or b"", "big")
        payload = self._exactly(size)
        return None if payload is None else Frame(head[0] & 0x0F, payload)

    def _exactly(self, count: int) -> bytes | None:
        while len(self._rest) < count:
            if not self._more():
                return None
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            return False
        self._rest += data
        return bool(data)


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.strip().lower(): value.strip() for name, _, value in fields}
