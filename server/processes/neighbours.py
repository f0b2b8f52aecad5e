"""Neighbours: how the workers of one gateway ask each other something, without an address that anybody else could ask.

The supervisor makes a mailbox for each place and hands them all to every worker, as it does with listening sockets: a
mailbox outlives the worker that reads it, has no name in any file system, and leaves nothing behind. A question comes
with the descriptor that its answer goes to.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence

from ..telemetry import get_logger

log = get_logger(__name__)

ANSWER_S = 0.5
"""How long an answer may take: a worker that hangs, or is just being replaced, must not hold up what the others say."""
QUESTION_BYTES = 256
LENGTH_BYTES = 8

Answer = Callable[[bytes], Awaitable[bytes]]


class Mailbox:
    """What is put into the inlet comes out of the outlet, for whoever holds it."""

    def __init__(self) -> None:
        self.outlet, self.inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outlet.setblocking(False)
        self.inlet.setblocking(False)

    def close(self) -> None:
        """Nobody asks here any more."""
        self.outlet.close()
        self.inlet.close()


class Neighbours:
    """Asks other workers, and answers them: the one that listens at the outlet is the one that speaks for its place."""

    def __init__(self, inlets: Sequence[socket.socket], outlet: socket.socket) -> None:
        """One inlet for each place; the outlet of this worker's own."""
        self._inlets, self._outlet = inlets, outlet
        self._replies: set[asyncio.Task[None]] = set()
        self._is_listening = False

    def listen(self, answer: Answer) -> None:
        """Have each question answered from now on."""
        self._is_listening = True
        asyncio.get_running_loop().add_reader(self._outlet.fileno(), self._take, answer)

    def hush(self) -> None:
        """Take no more questions: they are for whoever listens next. Those that were taken are answered."""
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._outlet.fileno())

    def _take(self, answer: Answer) -> None:
        while self._is_listening:
            try:
                question, descriptors, _, _ = socket.recv_fds(self._outlet, QUESTION_BYTES, 1)
            except OSError:
                return  # nothing there, or somebody else was faster
            for descriptor in descriptors:
                reply = asyncio.create_task(_reply(socket.socket(fileno=descriptor), answer, question))
                self._replies.add(reply)
                reply.add_done_callback(self._replies.discard)

    async def ask(self, place: int, question: bytes) -> bytes | None:
        """What the worker in that place answers; None where it does not in time, or there is none.

        Cancelling is safe.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._inlets[place], [question], [theirs.fileno()])
            except OSError:  # so many questions wait there that it must be gone
                ours.close()
                return None
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            async with asyncio.timeout(ANSWER_S):
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                return await reader.readexactly(length)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            writer.close()


async def _reply(asker: socket.socket, answer: Answer, question: bytes) -> None:
    """Answer, unless the asker is gone, or will be by then."""
    with asker, contextlib.suppress(TimeoutError, OSError):
        asker.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_S):
                said = await answer(question)
                whole = len(said).to_bytes(LENGTH_BYTES, "big") + said
                await asyncio.get_running_loop().sock_sendall(asker, whole)
        except (TimeoutError, OSError):
            raise
        except Exception:
            log.exception("answer_crashed")
