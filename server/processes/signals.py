"""Signals, as something to wait for beside descriptors."""

import signal
import socket
import sys
from types import TracebackType
from typing import Any, Self

NUMBERS = (
    (signal.SIGTERM, signal.SIGINT)
    if sys.platform == "win32"
    else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
)


class Signals:
    """While entered, signals do nothing but make `reader` readable. For the main thread of a process without a loop."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._former: dict[int, Any] = {}
        self._former_wakeup = -1

    def __enter__(self) -> Self:
        self._former_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, lambda *_: None) for number in NUMBERS}
        return self

    def take(self) -> list[int]:
        """The signals that have come since the last time, in their order; the same one may stand for several."""
        try:
            return list(self.reader.recv(4096))
        except BlockingIOError:
            return []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._former_wakeup)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self.reader.close()
        self._writer.close()
