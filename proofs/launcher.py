"""The gateway as run.py starts it, in a world that a proof controls: whom TLS trusts, and what names resolve to.

Nothing in the gateway knows of this. `python proofs/launcher.py CERTIFICATE NAMES [arguments of run.py]`: certificates
of CERTIFICATE are trusted in place of the public ones; NAMES is a file of lines `name address`, read at each look-up,
and a name that it does not hold does not exist.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import certifi

resolve = socket.getaddrinfo


def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
    """As getaddrinfo, for the names of the proof's own."""
    if not isinstance(host, str) or host.replace(".", "").isdigit():
        return resolve(host, *arguments, **options)
    names = dict(line.split() for line in Path(sys.argv[2]).read_text().splitlines())
    if host not in names:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return resolve(names[host], *arguments, **options)


if __name__ == "__main__":
    certifi.where = lambda: sys.argv[1]
    socket.getaddrinfo = resolved

    from server.cli import main

    raise SystemExit(main(sys.argv[3:]))
