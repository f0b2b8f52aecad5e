"""Aside: long computing, in threads of its own beside the loop. TA-Lib lets go of the GIL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from aiohttp import web

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 2
EXECUTOR = web.AppKey("EXECUTOR", ThreadPoolExecutor)


async def executor(app: web.Application) -> AsyncIterator[None]:
    """The threads, for as long as the application runs: they start when there is something to do."""
    app[EXECUTOR] = threads = ThreadPoolExecutor(THREADS, thread_name_prefix="computing")
    yield
    threads.shutdown(wait=False, cancel_futures=True)


async def aside(app: web.Application, compute: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What `compute` gives, from a thread; raises what it raises. Whatever it touches must bear that."""
    return await asyncio.get_running_loop().run_in_executor(app[EXECUTOR], compute, *arguments)
