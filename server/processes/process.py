"""One worker as its supervisor sees it: a process, the channel to it, and how far it has come."""

import contextlib
import enum
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..configuration import SECRET_VARIABLES
from ..environment import without
from ..settings import Settings
from ..telemetry import get_logger
from .neighbours import Mailbox
from .post import REPORTS, Alive, Assignment, Order, Ready, Rekeyed, encode, encode_assignment

log = get_logger(__name__)

RUN = Path(__file__).resolve().parents[2] / "run.py"
ABORT_S = 1.0
"""What a worker that hangs gets to say where, before it is killed."""
STACK_BYTES = 16_384
READY_S = 60.0
"""The longest start, also on a machine that starts many at once."""
ASSIGN_S = 5.0
ORDER_S = 1.0


class Phase(enum.Enum):
    """How far a worker has come."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Process:
    """A worker of which this process is the supervisor.

    Invariant: it never outlives its channel by long, since it drains once that ends. `deadline` is when it will have
    taken too long for what it is at, on the monotonic clock: to start, to give a sign of life, to leave.
    `is_mute`: it reports no more.
    `key_report` is what it said last of a key that it was ordered to use.
    """

    def __init__(
        self,
        index: int,
        of: int,
        settings: Settings,
        listeners: Sequence[socket.socket],
        mailboxes: Sequence[Mailbox] = (),
        *,
        ready_s: float = READY_S,
    ) -> None:
        """Start worker `index`; the mailboxes are of all places. Raises OSError where there can be no other process."""
        descriptors = tuple(listener.fileno() for listener in listeners)
        self.index, self.settings = index, settings
        self.phase = Phase.STARTING
        self.has_been_ready = False
        self.code: int | None = None
        self.started_at = time.monotonic()
        self.deadline: float | None = self.started_at + ready_s
        self.is_mute = self.is_leaving = False
        self.key_report: Rekeyed | None = None
        self._unread = b""
        self.channel, theirs = socket.socketpair()
        self._last_words = _scratch()
        words = self._last_words.fileno()
        inlets = tuple(mailbox.inlet.fileno() for mailbox in mailboxes)
        outlet = mailboxes[index].outlet.fileno() if mailboxes else None
        passed = (*descriptors, words, *inlets, *(() if outlet is None else (outlet,)))
        with theirs:
            try:
                self._process = _started(theirs.fileno(), passed)
            except BaseException:
                self.channel.close()
                self._last_words.close()
                raise
        self._assign(
            Assignment(
                index=index,
                of=of,
                settings=settings,
                descriptors=descriptors,
                last_words=words,
                inlets=inlets,
                outlet=outlet,
            )
        )
        log.info("worker_started", worker=index, pid=self.pid)

    def _assign(self, assignment: Assignment) -> None:
        self.channel.settimeout(ASSIGN_S)
        with contextlib.suppress(OSError):  # it is gone already, or hangs: either is seen later
            self.channel.sendall(encode_assignment(assignment))
        self.channel.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY and not self.is_leaving and self.code is None

    def order(self, order: Order) -> None:
        """Tell it something. A worker that has gone is told nothing, and one that hangs learns it late or never.

        One that takes half of an order only cannot make sense of the next, and is followed by another.
        """
        with contextlib.suppress(OSError):
            self.channel.settimeout(ORDER_S)  # long lists of tokens do not fit the socket's buffer at once
            self.channel.sendall(encode(order))
        with contextlib.suppress(OSError):
            self.channel.setblocking(False)

    def look(self) -> None:
        """Take note of its reports and of its end."""
        if self.code is not None:
            return
        for line in self._lines():
            self._take(REPORTS.decode(line))
        if (code := self._process.poll()) is not None:
            self._end(code)

    def _lines(self) -> list[bytes]:
        try:
            while chunk := self.channel.recv(65536):
                self._unread += chunk
            self.is_mute = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_mute = True
        *lines, self._unread = self._unread.split(b"\n")
        return lines

    def _take(self, report: object) -> None:
        if isinstance(report, Rekeyed):
            self.key_report = report
        elif isinstance(report, Alive):
            self.bear_with()
        elif not isinstance(report, Ready):
            self.phase = Phase.DRAINING
        elif self.phase is Phase.STARTING:
            self.phase, self.has_been_ready = Phase.READY, True
            self.bear_with()
            log.info("worker_ready", worker=self.index, pid=self.pid, after_s=round(self.age_s, 2))

    def bear_with(self) -> None:
        """Give it the whole time anew in which a worker that serves has to give a sign of life."""
        if self.is_ready:
            self.deadline = time.monotonic() + self.settings.server.hang_s

    def _end(self, code: int) -> None:
        self.code = code
        self.channel.close()
        how: dict[str, object] = {"signal": -code} if code < 0 else {"code": code}
        with self._last_words as words:
            words.seek(0)
            if stack := words.read(STACK_BYTES):
                how["stack"] = stack.decode(errors="replace")
        write = log.info if code == 0 else log.warning
        write("worker_ended", worker=self.index, pid=self.pid, lived_s=round(self.age_s, 2), **how)

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_at

    def leave(self, number: int, within_s: float) -> None:
        """Ask it to drain; after that time it is killed by whoever watches the deadline."""
        self._process.send_signal(number)
        self.is_leaving, self.deadline = True, time.monotonic() + within_s

    def abort(self) -> None:
        """End one that hangs; it has a moment to write where."""
        self.leave(signal.SIGABRT, ABORT_S)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.deadline = None


def _scratch() -> IO[bytes]:
    """A file without a name, in memory where the system can: its root may be read-only."""
    if (in_memory := getattr(os, "memfd_create", None)) is None:
        return tempfile.TemporaryFile(buffering=0)
    return os.fdopen(in_memory("last words"), "w+b", buffering=0)


def _started(channel: int, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(RUN), "--post", str(channel)]
    # A group of its own: what a terminal sends to all is for the supervisor to decide.
    return subprocess.Popen(  # noqa: S603  # our own command
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(channel, *descriptors),
        process_group=0,
        env=without(SECRET_VARIABLES),
    )
