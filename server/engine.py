"""The engine: aiohttp, new enough, and with its parts that are in C; looked at once, before anything is served."""

import importlib
import importlib.machinery
import re
import sys
from collections.abc import Iterator

import aiohttp

OLDEST = (3, 14, 5)
"""Older ones have known faults."""
PARTS = {
    "HTTP parser": ("aiohttp.http_parser", "HttpRequestParser"),
    "HTTP writer": ("aiohttp.http_writer", "_serialize_headers"),
    "WebSocket reader": ("aiohttp._websocket.reader", "WebSocketReader"),
    "WebSocket mask": ("aiohttp._websocket.helpers", "websocket_mask"),
}
COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)


class UnfitEngine(Exception):
    """What is installed must not serve. Its text says what it is, and what is needed."""


def check_engine(version: str = aiohttp.__version__, implementation: str = sys.implementation.name) -> list[str]:
    """Give the parts that are not in C on an interpreter that has no such ones: slower, and as safe as Python's are.

    Raises UnfitEngine for a version too old, and for parts that CPython would have: then the installation is not the
    pinned one, and its parser is another one than was tested.
    """
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST:
        raise UnfitEngine(f"aiohttp {version} is installed; allowed: {'.'.join(map(str, OLDEST))} or newer, as pinned")
    if (slow := [*_not_compiled()]) and implementation == "cpython":
        raise UnfitEngine(
            f"aiohttp runs without its C parts ({', '.join(slow)}); allowed: its wheel as pinned in requirements.txt,"
            " and no AIOHTTP_NO_EXTENSIONS in the environment"
        )
    return slow


def _not_compiled() -> Iterator[str]:
    for part, (module, name) in PARTS.items():
        home = getattr(importlib.import_module(module), name).__module__
        if not str(getattr(sys.modules.get(home), "__file__", "")).endswith(COMPILED):
            yield part
