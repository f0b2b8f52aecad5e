"""Who may ask: tokens, compared in constant time, and which Host and Origin a request may name."""

import hashlib
import hmac
import ipaddress
import re

from aiohttp import web

from ..errors import BadHost, Forbidden, Unauthenticated
from ..settings import AuthSettings

split_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?").fullmatch


class Access:
    """The rules of admission. Without tokens everybody is admitted; the start refuses that where it is dangerous."""

    def __init__(self, settings: AuthSettings, *, bound_host: str) -> None:
        self._hashes = tuple(bytes.fromhex(digest) for digest in settings.tokens)
        self._hosts = {host.lower() for host in (*settings.hosts, "localhost", bound_host)}
        self._origins = frozenset(settings.origins)

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return not self._hashes

    def admit(self, token: str | None) -> None:
        """Return if `token` is one of ours, or none is needed. Raises Unauthenticated."""
        if self.is_open:
            return
        if token is None:
            raise Unauthenticated("a token is needed: send the header `Authorization: Bearer TOKEN`")
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        # Every hash is compared, whichever fits: the time tells nothing of the place.
        if not sum(hmac.compare_digest(digest, known) for known in self._hashes):
            raise Unauthenticated("the token is not one that this gateway knows")

    def check_host(self, request: web.Request) -> None:
        """Return if the Host header names us: an IP address, localhost, the bound host, or one of auth.hosts."""
        header = request.headers.get("Host", "")
        if (match := split_host(header)) is None:
            raise BadHost("the Host header is missing or malformed")
        name = match[1].lower()
        if name not in self._hosts and header.lower() not in self._hosts and not _is_address(name):
            raise BadHost(f"this gateway is not {name[:80]}; auth.hosts lists the names it answers to")

    def check_origin(self, request: web.Request) -> None:
        """Return if there is no Origin, or it is our own, or one of auth.origins. Raises Forbidden."""
        origin = request.headers.get("Origin")
        if origin is None or origin in self._origins:
            return
        own = request.headers.get("Host", "")
        if origin not in (f"http://{own}", f"https://{own}"):
            raise Forbidden("pages of this Origin may not ask; auth.origins lists those that may")


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
