"""The peers: other servers that broadcast the same message, how they are installed, and how each is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
VENV = FOLDER / ".venv-peers"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = FOLDER / "requirements.txt"
INSTALL_S = 600.0


class Peer(NamedTuple):
    """A server of one file; its command gets PORT, COUNT, FRAME_FILE and the exchange's address behind it."""

    name: str
    command: tuple[str, ...]


def peers(floor: Path) -> list[Peer]:
    """All of them; `floor` is the program compiled from floor.c."""
    return [
        Peer("C, one write a socket", (str(floor),)),
        Peer("uWebSockets (socketify)", _python("peer_socketify.py")),
        Peer("picows", _python("peer_picows.py")),
        Peer("websockets broadcast", _python("peer_websockets.py")),
        Peer("aiohttp send_str in a loop", _python("peer_aiohttp.py")),
        Peer("Node ws", ("node", str(FOLDER / "peer_ws.mjs"))),
        Peer("the old design", _python("old_design.py")),
    ]


def _python(file: str) -> tuple[str, ...]:
    return str(PYTHON), str(FOLDER / file)


def install() -> Iterator[str]:
    """Install what the peers need beside this file, unless it is there; gives a line for whatever cannot be had."""
    wanted, stamp = REQUIREMENTS.read_text(), VENV / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing the Python peers into", VENV, flush=True)
        failed = [*_install_python(wanted)]
        yield from failed
        if not failed:
            stamp.write_text(wanted)
    if not (FOLDER / "node_modules").exists():
        yield from _run("Node's ws", "npm", "ci", "--silent", "--prefix", str(FOLDER))


def _install_python(wanted: str) -> Iterator[str]:
    """All at once, or one by one where that fails, so that one of them does not take the others with it."""
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    if failed := [*_run("a virtual environment", sys.executable, "-m", "venv", str(VENV))]:
        yield from failed
    elif [*_run("the Python peers", *pip, "-r", str(REQUIREMENTS))]:
        for line in wanted.splitlines():
            yield from _run(line, *pip, line)


def _run(what: str, program: str, *arguments: str) -> Iterator[str]:
    found = shutil.which(program)
    if found is None:
        yield f"{what} cannot be installed: there is no {program}"
        return
    try:
        subprocess.run([found, *arguments], capture_output=True, text=True, check=True, timeout=INSTALL_S)
    except subprocess.CalledProcessError as error:
        yield f"{what} cannot be installed: {error.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        yield f"{what} cannot be installed in {INSTALL_S:g} s"
