"""Where a request comes from: the client's address and scheme, as the proxies say that are trusted."""

from aiohttp import hdrs, web

from ..access.proxies import Proxies

PROXIES = web.AppKey("PROXIES", Proxies)

SECURE = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
"""What proxies call the scheme of a request, or of a WebSocket's; and what pages have in their origins."""


def client_address(request: web.Request) -> str:
    """The address of the client, "" for a connection that is gone: the peer's, or whom a listed proxy names."""
    peer, proxies = request.remote or "", request.app[PROXIES]
    if not proxies:
        return peer
    return proxies.client(peer, request.headers.getall(hdrs.X_FORWARDED_FOR, ()))


def client_scheme(request: web.Request) -> str:
    """http or https: what the client speaks, to us or to the listed proxy before us."""
    own = "https" if request.secure else "http"
    proxies = request.app[PROXIES]
    if not proxies or not proxies.trusts(request.remote or ""):
        return own
    said = ",".join(request.headers.getall(hdrs.X_FORWARDED_PROTO, ()))
    return SECURE.get(said.rpartition(",")[2].strip().lower(), own)
