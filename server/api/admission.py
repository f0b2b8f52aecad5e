"""Admission: tokens looked at for an address, which is refused for a while where too many of them were wrong."""

from ..access.rights import Rights
from ..errors import Unauthenticated
from .auth import Access
from .visitors import Visitors


class Admission:
    """Where routes, sockets and operations have their tokens looked at."""

    def __init__(self, access: Access, visitors: Visitors) -> None:
        self._access = access
        self._visitors = visitors

    def admit(self, token: str | None, address: str) -> Rights:
        """What `token` may read; everything where none is needed.

        Raises Unauthenticated, or RateLimited after too many wrong ones: then a right one is not looked at either.
        """
        if token is not None and not self._access.is_open:
            self._visitors.check_failures(address)
        try:
            return self._access.admit(token)
        except Unauthenticated:
            if token is not None:
                self._visitors.count_failure(address)
            raise
