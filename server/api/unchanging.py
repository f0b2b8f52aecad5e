"""Answers that stay the same for as long as the process lives: encoded once, and told apart by a tag."""

import hashlib
from typing import Any, NamedTuple

from aiohttp import web

from .answers import encoder, is_known


class Unchanging(NamedTuple):
    """A body and its tag (RFC 9110, section 8.8.3): every process with the same body has the same one."""

    body: bytes
    tag: str

    def answer(self, request: web.Request) -> web.Response:
        """The body as JSON; 304 for one who has it."""
        headers = {"Cache-Control": "private, no-cache", "ETag": self.tag}
        if is_known(request, self.tag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, headers=headers, content_type="application/json", charset="utf-8")


def unchanging(document: Any) -> Unchanging:
    """The answer that `document` is."""
    body = encoder.encode(document)
    return Unchanging(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')
