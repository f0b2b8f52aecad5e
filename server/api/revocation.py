"""Revocation: other tokens, names and origins for a gateway that runs; whose token is gone is closed at once."""

from collections.abc import Mapping

from aiohttp import web

from ..access.tokens import TokenEntry
from ..errors import Unauthenticated
from ..realtime.hub import in_slices
from ..realtime.session import Session
from ..settings import AuthSettings
from ..telemetry import get_logger
from .auth import Access
from .keys import ACCESS, HUB
from .scopes import confine

log = get_logger(__name__)


async def apply(app: web.Application, auth: AuthSettings) -> None:
    """Admit by `auth` from now on. Sockets of revoked tokens are closed with 4401; of others, what they may not have.

    Requests that have been admitted are answered.
    """
    access = app[ACCESS]
    before, after = _by_hash(access.settings), _by_hash(auth)
    access.replace(auth)
    log.info(
        "tokens_reloaded",
        added=[entry.name for key, entry in after.items() if key not in before],
        revoked=[entry.name for key, entry in before.items() if key not in after],
        changed=[entry.name for key, entry in after.items() if key in before and before[key] != entry],
    )
    await in_slices(app[HUB].sessions, lambda session: _review(session, access))


def _by_hash(auth: AuthSettings) -> Mapping[str, TokenEntry]:
    return {entry.hash: entry for entry in auth.entries}


def _review(session: Session, access: Access) -> None:
    if (rights := access.renewed(session.rights)) is None:
        session.end(Unauthenticated("the token was revoked"))
    else:
        confine(session, rights)
