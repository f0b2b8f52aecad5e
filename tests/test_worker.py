"""One process: a start that fails leaves nothing behind."""

import asyncio
import contextlib
import os
import signal

import msgspec
import pytest

from server.errors import TradingKeyRefused
from server.processes.listeners import bind
from server.settings import Profile, Secret
from server.simulator.child import TRADING_KEY, TRADING_SECRET
from server.worker import serve
from tests.conftest import Exchange, settings_for


async def test_memory_is_given_back_while_it_serves(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start to the end of a gateway, and no longer."""
    given, loop = asyncio.Event(), asyncio.get_running_loop()
    monkeypatch.setattr("server.memory.TIDY_S", 0.01)
    monkeypatch.setattr("server.memory.give_back", lambda: loop.call_soon_threadsafe(given.set))
    settings = settings_for(exchange.url, server={"port": 0, "shutdown_s": 2.0})
    before = asyncio.all_tasks()
    with contextlib.closing(bind(settings)) as listener:
        serving = asyncio.create_task(serve(settings, [listener], last_words=lambda: None))
        await asyncio.wait_for(given.wait(), 10)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(serving, 10)
    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()


async def test_a_refused_start_ends_what_had_begun(exchange: Exchange) -> None:
    """Where the key must not be used, what was started before that was known is ended."""
    trading = {"api_key": Secret(TRADING_KEY), "api_secret": Secret(TRADING_SECRET)}
    settings = settings_for(exchange.url, bybit=trading, server={"port": 0})
    settings = msgspec.structs.replace(settings, profile=Profile.PRODUCTION)
    before = asyncio.all_tasks()
    with contextlib.closing(bind(settings)) as listener, pytest.raises(TradingKeyRefused):
        await serve(settings, [listener], last_words=lambda: None)
    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()
