"""WebSocket routes: admission, and one session per socket."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from aiohttp import WSMessage, WSMsgType, web
from aiojobs.aiohttp import spawn

from ..access.rights import Rights
from ..errors import GatewayError, GoingAway, InternalError, InvalidRequest, Unauthenticated
from ..market.symbols import check_form
from ..realtime.farewell import CLOSE_CODE, CLOSE_S, Socket, disentangle, farewell
from ..realtime.frames import message_frame, pong_frame
from ..realtime.messages import AuthMessage
from ..realtime.operations import parse_message
from ..realtime.session import Session
from ..telemetry import get_logger
from .address import client_address
from .auth import bearer
from .keys import ACCESS, ADMISSION, HUB, LOAD, OPERATIONS, RIGHTS, SETTINGS, VISITORS
from .operations import Pace
from .parameters import Parameters

routes = web.RouteTableDef()

log = get_logger(__name__)

MakeSession = Callable[[web.Request, Socket, asyncio.Transport], Session]

CLOSES_PER_S = 2000
"""How many sockets a drain closes in a second, in all processes together, as long as its time allows that."""
SLICE_S = 0.01


@routes.get("/ws/positions/{symbol}", allow_head=False)
async def positions(request: web.Request) -> web.StreamResponse:
    """Position, balance and price of one symbol, pushed at an interval or live."""
    return await _socket(request, _single_session)


@routes.get("/ws", allow_head=False)
async def multiple(request: web.Request) -> web.StreamResponse:
    """As many channels as the client subscribes to."""
    return await _socket(request, _session)


async def _socket(request: web.Request, session_of: MakeSession) -> web.StreamResponse:
    """One socket, from its upgrade to its end."""
    ws = await _upgraded(request)
    request.app[HUB].tally.opened += 1
    if (transport := request.transport) is None:
        request.app[HUB].tally.ended(None)
        return ws  # gone already
    load, visitors = request.app[LOAD], request.app[VISITORS]
    started, session = time.monotonic(), None
    try:
        load.take_socket(ws, transport)
        try:
            visit = visitors.take_socket(client_address(request))
            try:
                rights = request[RIGHTS] = await _authenticated(request, ws, transport)
                visitors.take_token(rights.digest)
                try:
                    session = session_of(request, ws, transport)
                    await _serve(request, session)
                finally:
                    visitors.give_token((rights if session is None else session.rights).digest)
            finally:
                visitors.give_socket(visit)
        finally:
            del load.sockets[ws]
    except GatewayError as error:
        await asyncio.wait({farewell(ws, transport, error)})
    except Exception:
        log.exception("connection_crashed", path=request.path)
        await asyncio.wait({farewell(ws, transport, InternalError("a bug of the gateway"))})
    finally:
        request.app[HUB].tally.ended(ws.get(CLOSE_CODE, ws.close_code))
    _log_end(request, ws, session, time.monotonic() - started)
    disentangle(ws)
    return ws


async def _upgraded(request: web.Request) -> Socket:
    settings = request.app[SETTINGS].websocket
    ws = Socket(
        timeout=CLOSE_S,
        autoping=False,  # pings and pongs are the session's: see realtime/pulse.py
        max_msg_size=settings.message_bytes + 1,  # the length that aiohttp refuses, not the longest it takes
        compress=False,  # the frames are written whole and raw
    )
    if not _is_upgrade(request, ws):
        raise InvalidRequest("upgrade", "this route speaks WebSocket only: ask for an upgrade, version 13, with a key")
    try:
        await ws.prepare(request)
    except ConnectionError as error:
        raise InvalidRequest("upgrade", "the connection was lost within the handshake") from error
    return ws


def _is_upgrade(request: web.Request, ws: Socket) -> bool:
    try:
        return ws.can_prepare(request).ok
    except ValueError:
        return False  # aiohttp takes it for granted that the handshake's fields are text


async def _authenticated(request: web.Request, ws: Socket, transport: asyncio.Transport) -> Rights:
    """What the socket's token may read, shown by header or first message.

    Raises Unauthenticated, RateLimited after too many wrong ones, TooManyConnections where too many wait to show one.
    """
    is_open, address = request.app[ACCESS].is_open, client_address(request)
    admit = partial(request.app[ADMISSION].admit, address=address)
    if is_open or (token := bearer(request)) is not None:
        return admit(None if is_open else token)
    timeout_s = request.app[SETTINGS].websocket.auth_timeout_s
    try:
        # aiohttp's own timeout begins anew with every ping.
        with request.app[LOAD].stranger():
            async with asyncio.timeout(timeout_s):
                message = await _first_message(ws, transport)
    except TimeoutError:
        raise Unauthenticated(f"no token within {timeout_s:g} s") from None
    rights, number = _admit_first(admit, message)
    if ws.closed:
        raise GoingAway("the socket was closed meanwhile")
    transport.write(message_frame(AuthMessage("ack", number, "auth")))
    return rights


async def _first_message(ws: Socket, transport: asyncio.Transport) -> WSMessage:
    """The first message that is no protocol ping or pong; the pings before it are answered."""
    while True:
        message = await ws.receive()
        if message.type is WSMsgType.PING and not ws.closed and not transport.get_write_buffer_size():
            transport.write(pong_frame(message.data))
        elif message.type not in (WSMsgType.PING, WSMsgType.PONG):
            return message


def _admit_first(admit: Callable[[str], Rights], message: WSMessage) -> tuple[Rights, int | str | None]:
    if message.type is not WSMsgType.TEXT:
        raise Unauthenticated("the first message has to be the auth operation")
    try:
        request = parse_message(message.data)
    except InvalidRequest as error:
        raise Unauthenticated("the first message has to be the auth operation") from error
    if request.op != "auth" or request.token is None:
        raise Unauthenticated("the first message has to be the auth operation with a token")
    return admit(request.token), request.id


def _session(request: web.Request, ws: Socket, transport: asyncio.Transport, *, is_single: bool = False) -> Session:
    """A session without any subscription. Raises InvalidRequest for parameters, which it has none of."""
    app = request.app
    Parameters(request.query, ("interval",) if is_single else ())
    return Session(
        ws,
        transport,
        hub=app[HUB],
        operations=app[OPERATIONS],
        settings=app[SETTINGS].websocket,
        known=app[OPERATIONS].known,
        is_single=is_single,
        rights=request[RIGHTS],
        address=client_address(request),
    )


def _single_session(request: web.Request, ws: Socket, transport: asyncio.Transport) -> Session:
    """The session of the route's symbol. Raises InvalidRequest, Forbidden or UnknownSymbol."""
    settings = request.app[SETTINGS].websocket
    session = _session(request, ws, transport, is_single=True)
    interval_s = Parameters(request.query, ("interval",)).push_interval_s(
        settings.interval_s, settings.min_interval_s, settings.max_interval_s
    )
    symbol = request.match_info["symbol"]
    check_form(symbol)
    request.app[OPERATIONS].subscribed(session, f"positions:{symbol}", Pace(interval_s))
    return session


async def _serve(request: web.Request, session: Session) -> None:
    """Run the session's job beside its listening, until the socket ends in whichever way."""
    hub = request.app[HUB]
    hub.join(session)
    job = await spawn(request, _run(session))
    try:
        await session.listen()
    finally:
        hub.leave(session)
        with contextlib.suppress(asyncio.TimeoutError):
            await job.close()
        await session.finish()


async def _run(session: Session) -> None:
    try:
        await session.run()
    except GatewayError as error:
        session.end(error)
    except Exception:
        log.exception("session_crashed", channels=[*session.subscriptions][:10])
        session.end(InternalError("a bug of the gateway"))


def _log_end(request: web.Request, ws: Socket, session: Session | None, duration_s: float) -> None:
    code = ws.get(CLOSE_CODE, ws.close_code)
    rights = session.rights if session else request.get(RIGHTS)
    log.info(
        "connection_ended",
        path=request.path,
        remote=client_address(request),
        code=None if code is None else int(code),
        duration_s=round(duration_s, 3),
        subscriptions=len(session.subscriptions) if session else 0,
        interval_s=_interval_of(session),
        frames=session.frames_sent if session else 0,
        conflated=session.outbox.frames_conflated if session else 0,
        token=rights.name if rights and rights.name else None,
    )


def _interval_of(session: Session | None) -> float | None:
    """The pace of a session of one channel."""
    if session is None or not session.is_single:
        return None
    return next((subscription.interval_s for subscription in session.subscriptions.values()), None)


async def drain(app: web.Application, *, over_s: float = 0.0) -> None:
    """Close every socket with 1001, evenly over `over_s`; after that bounded by the farewell of one."""
    app[LOAD].is_draining = True
    gone, sockets, started = GoingAway("the gateway is restarting"), app[LOAD].sockets, time.monotonic()
    farewells = []
    for number, (ws, transport) in enumerate(every := list(sockets.items())):
        wait_s = started + over_s * number / len(every) - time.monotonic()
        if wait_s >= SLICE_S:
            await asyncio.sleep(wait_s)
        if ws in sockets:
            farewells.append(farewell(ws, transport, gone))
    await asyncio.gather(*farewells)


def spread_s(sockets: int, shutdown_s: float, *, of: int) -> float:
    """Seconds to close that many sockets over, as one process `of` that many, so that they do not return as one wave.

    At most half of a drain of `shutdown_s`, and less where the last farewell would not fit.
    """
    wanted_s = sockets * of / CLOSES_PER_S
    return max(0.0, min(wanted_s, shutdown_s * 0.5, shutdown_s * 0.7 - CLOSE_S))
