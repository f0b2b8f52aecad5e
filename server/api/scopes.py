"""Which scopes each route and each channel needs: a route without a row answers nobody."""

from aiohttp import web

from ..access.rights import Rights
from ..access.tokens import Scope
from ..errors import Forbidden
from ..realtime.channel import Channel
from ..realtime.session import Session

OPEN_PATHS = frozenset(("/", "/livez", "/readyz"))

ROUTES: dict[str, tuple[Scope, ...]] = {
    "/price/{symbol}": (Scope.MARKET,),
    "/klines/{symbol}": (Scope.MARKET,),
    "/symbols": (Scope.MARKET,),
    "/indicators": (Scope.INDICATORS,),
    "/indicators/{symbol}": (Scope.INDICATORS,),
    "/positions": (Scope.POSITIONS,),
    "/positions/{symbol}": (Scope.POSITIONS,),
    "/balance": (Scope.BALANCE,),
    "/health": (Scope.METRICS,),
    "/metrics": (Scope.METRICS,),
    "/connections": (Scope.CONNECTIONS,),
    "/asyncapi.json": (Scope.MARKET,),
    "/openapi.json": (Scope.MARKET,),
    "/docs": (Scope.MARKET,),
}
SOCKETS = frozenset(("/ws", "/ws/positions/{symbol}"))
"""Routes that upgrade whoever has a token, and then ask for the scopes of each channel."""

CHANNELS: dict[str, tuple[Scope, ...]] = {
    "positions": (Scope.POSITIONS, Scope.BALANCE, Scope.MARKET),  # its snapshots show all three
    "price": (Scope.MARKET,),
    "kline": (Scope.MARKET,),
    "balance": (Scope.BALANCE,),
    "indicators": (Scope.INDICATORS,),
}
LISTING = "positions:*"


def check_route(request: web.Request, rights: Rights) -> None:
    """Return if `rights` cover the request's route and its symbol. Raises Forbidden."""
    resource = request.match_info.route.resource
    if resource is None:
        return  # no such route or method, which is for the router to say
    if (scopes := ROUTES.get(resource.canonical)) is None:
        raise Forbidden("no scope opens this route")
    rights.require(*scopes)
    if (symbol := request.match_info.get("symbol")) is not None:
        rights.require_symbol(symbol)


def check_channel(channel: Channel, rights: Rights) -> None:
    """Return if `rights` cover the channel. Raises Forbidden."""
    if channel.name == LISTING:
        rights.require(Scope.POSITIONS)
        return rights.require_every_symbol()
    if (scopes := CHANNELS.get(channel.name.partition(":")[0])) is None:
        raise Forbidden("no scope opens this channel")
    rights.require(*scopes)
    if channel.symbol:
        rights.require_symbol(channel.symbol)
    return None


def confine(session: Session, rights: Rights) -> None:
    """Give `session` these rights; what it may not have by them ends, and the client is told why."""
    session.rights = rights
    for subscription in [*session.subscriptions.values()]:
        try:
            check_channel(subscription.channel, rights)
        except Forbidden as error:
            session.drop(subscription, error)
