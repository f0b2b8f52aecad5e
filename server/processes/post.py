"""What a supervisor and a worker tell each other: the assignment at the start, then orders and reports, line by line.

They meet over a socket pair that the worker inherits: its end is also how either notices that the other is gone.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct

from ..settings import AuthSettings, Secret, Settings
from .neighbours import Neighbours

ASSIGNMENT_BYTES = 64 * 1024 * 1024


class Assignment(Struct, frozen=True, kw_only=True):
    """What a worker is: its number among how many, its settings, and the descriptors of all listening sockets.

    `inlets` are the mailboxes of all workers, `outlet` the end of its own that it reads.
    Into the file `last_words` the interpreter writes where it was when it is killed by what a process can be told of.
    """

    index: int
    of: int
    settings: Settings
    descriptors: tuple[int, ...]
    last_words: int
    inlets: tuple[int, ...] = ()
    outlet: int | None = None

    @property
    def own(self) -> int:
        """Which of the listening sockets is this worker's; all share one where there are no more."""
        return self.index % len(self.descriptors)


class Accept(Struct, frozen=True, tag=True):
    """An order: accept on that listening socket too, for its worker is gone."""

    listener: int


class Release(Struct, frozen=True, tag=True):
    """An order: leave that listening socket to its worker again."""

    listener: int


class Rekey(Struct, frozen=True, tag=True):
    """An order: use this key from now on. Sockets and all else stay as they are."""

    number: int
    api_key: Secret
    api_secret: Secret


class Readmit(Struct, frozen=True, tag=True):
    """An order: admit by these settings from now on, and close the sockets of tokens that are gone."""

    auth: AuthSettings


class Ready(Struct, frozen=True, tag=True):
    """A report: it accepts."""


class Alive(Struct, frozen=True, tag=True):
    """A report: its loop turns."""


class Draining(Struct, frozen=True, tag=True):
    """A report: it accepts no more."""


class Rekeyed(Struct, frozen=True, tag=True):
    """A report: it uses the key of the Rekey with that number, or goes on with the one before."""

    number: int
    is_taken: bool


Order = Accept | Release | Rekey | Readmit
Report = Ready | Alive | Draining | Rekeyed

ORDERS: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order, dec_hook=lambda _, value: Secret(value))
REPORTS: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def encode_assignment(assignment: Assignment) -> bytes:
    """The assignment as a line, secrets revealed: for the worker's own channel, and for nothing else."""
    return msgspec.json.encode(assignment, enc_hook=_revealed) + b"\n"


def decode_assignment(line: bytes) -> Assignment:
    """The assignment of a line. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(line, type=Assignment, dec_hook=lambda _, value: Secret(value))


def _revealed(value: object) -> str:
    assert isinstance(value, Secret)
    return value.reveal()


def _neighbours(assignment: Assignment) -> Neighbours | None:
    if assignment.outlet is None:
        return None
    inlets = [socket.socket(fileno=descriptor) for descriptor in assignment.inlets]
    return Neighbours(inlets, socket.socket(fileno=assignment.outlet))


ENCODER = msgspec.json.Encoder(enc_hook=_revealed)


def encode(message: Order | Report) -> bytes:
    """One message as a line, a key revealed: for the channel between the two, and for nothing else."""
    return ENCODER.encode(message) + b"\n"


class Post:
    """Where a worker stands: its assignment, its listening sockets, and its channel to the supervisor."""

    def __init__(self, channel: socket.socket) -> None:
        """Take up the post at the worker's end of the channel. Blocks until the assignment has come.

        Raises msgspec.DecodeError where the supervisor is gone before.
        """
        self._channel = channel
        with channel.makefile("rb") as lines:  # nothing but the assignment comes before Ready
            self.assignment = decode_assignment(lines.readline(ASSIGNMENT_BYTES))
        self.listeners = [socket.socket(fileno=descriptor) for descriptor in self.assignment.descriptors]
        self.neighbours = _neighbours(self.assignment)
        self._writer: asyncio.StreamWriter | None = None

    async def orders(self) -> AsyncIterator[Order]:
        """Say that this worker is ready, then give each order; ends when the supervisor is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel, limit=ASSIGNMENT_BYTES)
        self._writer.write(encode(Ready()))
        try:
            while line := await reader.readline():
                yield ORDERS.decode(line)
        except ConnectionError:
            pass

    def wait_for_end(self) -> None:
        """Block until the supervisor is gone, whatever else comes over the channel. For a thread."""
        poll = select.poll()
        poll.register(self._channel, 0)  # a hang-up is always told
        poll.poll()

    def say(self, report: Report) -> None:
        """Report, once orders are taken."""
        if self._writer is not None:
            self._writer.write(encode(report))

    def close(self) -> None:
        """Hang up; the supervisor then waits for the end of the process."""
        if self._writer is not None:
            self._writer.close()
