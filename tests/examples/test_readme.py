"""The README's bots: as they are printed there, each beside a copy of its client."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.examples.conftest import AUTH, EXAMPLES, TOKEN, Place
from tests.processes import ROOT, clean_environment

ADDRESS = "ws://127.0.0.1:8000"
SECTION = (ROOT / "README.md").read_text().partition("## A bot in ten lines")[2].partition("\n## ")[0]
SNIPPETS = dict(re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where somebody has copied the clients to, with `ws` where that is installed."""
    for name in ("client.py", "client.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(EXAMPLES / "node_modules")
    return tmp_path


async def test_the_python_bot_runs(place: Place, folder: Path) -> None:
    """The bot in Python prints the price, the position, and that it is blind while the gateway restarts."""
    await sees(place, folder, sys.executable, "-u", "bot.py", code=SNIPPETS["python"])


@pytest.mark.usefixtures("node")
async def test_the_javascript_bot_runs(place: Place, folder: Path) -> None:
    """The bot in JavaScript does the same."""
    await sees(place, folder, "node", "bot.mjs", code=SNIPPETS["js"])


async def sees(place: Place, folder: Path, *command: str, code: str) -> None:
    """Return once the bot has printed all it can, with a token, over a restart."""
    await place.restart(auth=AUTH)
    assert code.count(ADDRESS) == 1
    await asyncio.to_thread((folder / command[-1]).write_text, code.replace(ADDRESS, place.url))
    async with started(folder, *command) as bot:
        assert await words(bot, "ETH", "BTC") >= {"ETH", "BTC"}
        await place.restart(auth=AUTH)
        await words(bot, "blind:")
        await words(bot, "ETH", "BTC")


async def words(bot: asyncio.subprocess.Process, *wanted: str) -> set[str]:
    """The first words of what the bot prints, until all that are wanted were among them."""
    assert bot.stdout is not None
    found: set[str] = set()
    async with asyncio.timeout(20):
        while not found >= set(wanted):
            line = await bot.stdout.readline()
            assert line, "the bot has ended"
            found.add(line.decode().split()[0])
    return found


@asynccontextmanager
async def started(folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The bot, killed at the end."""
    bot = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=clean_environment(GATEWAY_TOKEN=TOKEN), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield bot
    finally:
        if bot.returncode is None:
            bot.kill()
        await bot.communicate()
