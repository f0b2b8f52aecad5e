"""What a client can say on a stream: subscribe, unsubscribe, ping, auth (Bybit V5, "WebSocket Stream, Connect").

The words of refusals are Bybit's, where they are known: one topic that is refused fails its whole request.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .connection import Connection
from .frames import text_frame
from .rows import Row
from .signing import Refusal, authenticate_stream
from .streamfaults import EVERY, ActiveStream, Kind
from .streams import PRIVATE, Streams
from .topics import encode

MOST_CHARACTERS = 21_000
MOST_SPOT_ARGS = 10


class Request(msgspec.Struct, frozen=True):
    """One operation as a client sends it."""

    op: str = ""
    req_id: Any = None
    args: list[Any] = []


class Operations:
    """Carries out what clients ask of the streams."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams

    def perform(self, connection: Connection, text: str) -> bool:
        """Carries out one message and answers it; False where the connection is to be closed then."""
        try:
            request = msgspec.json.decode(text, type=Request)
        except msgspec.MsgspecError as error:
            self._answer(connection, Request(), f"Failed to decode incoming data:{error}", success=False)
            return True
        if request.op == "auth" and connection.path == PRIVATE:
            return self._auth(connection, request)
        if request.op == "ping":
            self.streams.answer(connection, self._pong(connection, request))
        elif request.op == "subscribe":
            self._subscribe(connection, request)
        elif request.op == "unsubscribe":
            self._unsubscribe(connection, request)
        else:
            self._answer(connection, request, "error:invalid op", success=False)
        return True

    def _answer(self, connection: Connection, request: Request, ret_msg: str, *, success: bool) -> None:
        self.streams.answer(connection, _document(connection, request, ret_msg, success=success))

    def _pong(self, connection: Connection, request: Request) -> Row:
        if connection.path != PRIVATE:
            return _document(connection, request, "pong", success=True)
        named = {} if request.req_id is None else {"req_id": request.req_id}
        now_ms = self.streams.exchange.clock.now_ms()
        return {**named, "op": "pong", "args": [str(now_ms)], "conn_id": connection.identity}

    def _auth(self, connection: Connection, request: Request) -> bool:
        refusal = self._auth_refusal(connection, request.args)
        self._answer(connection, request, refusal or "", success=refusal is None)
        return refusal is None

    def _auth_refusal(self, connection: Connection, args: list[Any]) -> str | None:
        """Why these are no credentials; None where they are, and the connection has its key."""
        if (fault := self.streams.faults.hit(Kind.AUTH, PRIVATE, EVERY)) is not None:
            return fault.fault.ret_msg or "API key is invalid."
        clock = self.streams.exchange.clock
        times_ms = (clock.now_ms(),) if clock.freeze_ms is None else (clock.now_ms(), clock.wall_ms())
        try:
            connection.key = authenticate_stream(args, times_ms)
        except Refusal as refusal:
            return refusal.ret_msg
        return None

    def _refusal(self, connection: Connection, names: list[Any]) -> str | None:
        """Why these topics cannot be subscribed; None where they can."""
        path = connection.path
        if path == PRIVATE and connection.key is None:
            return "Request not authorized"
        if not names or not all(isinstance(name, str) for name in names):
            return "Params Error"
        if path == "spot" and len(names) > MOST_SPOT_ARGS:
            return f"args size >{MOST_SPOT_ARGS}"
        if sum(len(name) + 3 for name in connection.topics | set(names)) > MOST_CHARACTERS:
            return f"args length >{MOST_CHARACTERS}"
        for name in names:
            if (refusal := self._topic_refusal(connection, name)) is not None:
                return refusal
        return None

    def _topic_refusal(self, connection: Connection, name: str) -> str | None:
        path = connection.path
        not_found = f"Invalid symbol :[{name}]" if path == "spot" else f"error:handler not found,topic:{name}"
        if (fault := self.streams.faults.hit(Kind.SUBSCRIBE, path, name)) is not None:
            return fault.fault.ret_msg or not_found
        if not self.streams.knows(path, name):
            return not_found
        if path != PRIVATE and name in connection.topics:
            return f"error:already subscribed,topic:{name}"
        return None

    def _subscribe(self, connection: Connection, request: Request) -> None:
        if (refusal := self._refusal(connection, request.args)) is not None:
            self._answer(connection, request, refusal, success=False)
            return
        self._acknowledge(connection, request)
        for name in dict.fromkeys(request.args):
            if (first := self.streams.follow(connection, name)) is not None:
                self.streams.sent[name] += 1
                self.streams.send(connection, text_frame(first), name)

    def _acknowledge(self, connection: Connection, request: Request) -> None:
        fault = self._unacknowledged(connection, request.args)
        if fault is None:
            said = "subscribe" if connection.path == "spot" else ""
            self._answer(connection, request, said, success=True)
        elif (delay_ms := fault.fault.delay_ms) is not None:
            document = _document(connection, request, "", success=True)
            connection.write_later(text_frame(encode(document)), delay_ms / 1_000)

    def _unacknowledged(self, connection: Connection, names: list[str]) -> ActiveStream | None:
        for name in names:
            if (fault := self.streams.faults.hit(Kind.ACK, connection.path, name)) is not None:
                return fault
        return None

    def _unsubscribe(self, connection: Connection, request: Request) -> None:
        for name in request.args:
            if isinstance(name, str):
                self.streams.unfollow(connection, name)
        self._answer(connection, request, "", success=True)


def _document(connection: Connection, request: Request, ret_msg: str, *, success: bool) -> Row:
    """The answer to an operation; on private streams `req_id` is there only if the client gave one."""
    answer: Row = {"success": success, "ret_msg": ret_msg, "op": request.op, "conn_id": connection.identity}
    if connection.path != PRIVATE or request.req_id is not None:
        answer["req_id"] = "" if request.req_id is None else request.req_id
    return answer
