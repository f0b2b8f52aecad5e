"""Who may ask: tokens, compared in constant time, and which Host and Origin a request may name."""

import hmac
import ipaddress
import re

from aiohttp import web

from ..access.rights import EVERYTHING, Rights, rights_of
from ..access.tokens import digest_of
from ..errors import BadHost, Forbidden, Unauthenticated
from ..settings import AuthSettings
from .address import client_scheme

MOST_HOSTS = 256
"""Headers that were found to name us, and need not be looked at again."""

split_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?").fullmatch


class Access:
    """The rules of admission. Without tokens everybody is admitted; the start refuses that where it is dangerous."""

    def __init__(self, settings: AuthSettings, *, bound_host: str) -> None:
        self._bound_host = bound_host
        self.replace(settings)

    def replace(self, settings: AuthSettings) -> None:
        """Go by these settings from now on; who was admitted before is for the caller to look at."""
        self.settings = settings
        self._rights = tuple(map(rights_of, settings.entries))
        self._hosts = {host.lower() for host in (*settings.hosts, "localhost", self._bound_host)}
        self._admitted_hosts: set[str] = set()
        self._origins = frozenset(settings.origins)
        self.cors_origins = frozenset(settings.cors_origins)

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return not self._rights

    def admit(self, token: str | None) -> Rights:
        """What `token` may read; everything where none is needed. Raises Unauthenticated."""
        if self.is_open:
            return EVERYTHING
        if token is None:
            raise Unauthenticated("a token is needed: send the header `Authorization: Bearer TOKEN`")
        digest = digest_of(token)
        # Every hash is compared, whichever fits: the time tells nothing of the place.
        fits = [hmac.compare_digest(digest, rights.digest) for rights in self._rights]
        if True not in fits:
            raise Unauthenticated("the token is not one that this gateway knows")
        return self._rights[fits.index(True)]

    def renewed(self, former: Rights) -> Rights | None:
        """What whoever was admitted with `former` may read by now; None if that token is gone, or one is needed now."""
        if not former.digest:
            return EVERYTHING if self.is_open else None
        return next((rights for rights in self._rights if rights.digest == former.digest), None)

    def check_host(self, request: web.Request) -> None:
        """Return if the Host header names us: an IP address, localhost, the bound host, or one of auth.hosts."""
        header = request.headers.get("Host", "")
        if header in self._admitted_hosts:
            return
        if (match := split_host(header)) is None:
            raise BadHost("the Host header is missing or malformed")
        name = match[1].lower()
        if name not in self._hosts and header.lower() not in self._hosts and not _is_address(name):
            raise BadHost(f"this gateway is not {name[:80]}; auth.hosts lists the names it answers to")
        if len(self._admitted_hosts) < MOST_HOSTS:
            self._admitted_hosts.add(header)

    def check_origin(self, request: web.Request, *, is_socket: bool) -> None:
        """Return if the Origin is our own, or listed, or absent where no browser would leave it out. Raises Forbidden.

        Pages of auth.cors_origins may ask by REST, not open sockets. Browsers send an Origin with every upgrade: a
        socket without one has its token in the header, or needs none.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            if is_socket and not self.is_open and "Authorization" not in request.headers:
                raise Forbidden("a socket without an Origin needs the header `Authorization: Bearer TOKEN`")
            return
        if origin in self._origins or (origin in self.cors_origins and not is_socket):
            return
        if origin != f"{client_scheme(request)}://{request.headers.get('Host', '')}":
            raise Forbidden(
                "pages of this Origin may not ask; auth.origins lists those that may, and server.proxies"
                " the proxies that say what scheme they were asked by"
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def bearer(request: web.Request) -> str | None:
    """The token of the Authorization header, None without the header. Raises Unauthenticated for another scheme."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the Authorization header is not of the form `Bearer TOKEN`")
    return token.strip()
