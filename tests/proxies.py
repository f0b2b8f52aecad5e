"""Proxies before a gateway: one that ends TLS and names its clients, and nginx with the lines of docs/access.md."""

import asyncio
import contextlib
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.certificates import Files
from tests.processes import ROOT

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin") or shutil.which("nginx")
AROUND = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {lines}
}}
"""


class TlsProxy:
    """One request a connection: its head goes on with who asked and how, then bytes go both ways."""

    def __init__(self, port: int, files: Files) -> None:
        self._to = port
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(*files)
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """The port it listens on, while it does."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            peer = writer.get_extra_info("peername")[0]
            named = f"X-Forwarded-For: {peer}\r\nX-Forwarded-Proto: https\r\n".encode()
            inner_writer.write(head[:-2] + named + b"\r\n")
            back = asyncio.create_task(pump(inner_reader, writer))
            await pump(reader, inner_writer)
            await back


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def nginx_lines(outer: int, inner: int, files: Files) -> str:
    """The lines of docs/access.md, with this machine's ports and files."""
    lines: str
    (lines,) = re.findall(r"```nginx\n(.+?)```", (ROOT / "docs/access.md").read_text("utf-8"), re.DOTALL)
    for stands, here in (
        ("127.0.0.1:8000", f"127.0.0.1:{inner}"),
        ("listen 443 ", f"listen 127.0.0.1:{outer} "),
        ("/etc/ssl/gateway.pem", str(files.certificate)),
        ("/etc/ssl/gateway.key", str(files.key)),
    ):
        assert lines.count(stands) == 1, stands
        lines = lines.replace(stands, here)
    return lines


@contextlib.asynccontextmanager
async def nginx(outer: int, inner: int, files: Files, folder: Path) -> AsyncIterator[int]:
    """nginx as the docs have it, on port `outer` before `inner`, once it listens."""
    assert NGINX is not None
    config = folder / "nginx.conf"
    config.write_text(AROUND.format(folder=folder, lines=nginx_lines(outer, inner, files)))
    process = await asyncio.create_subprocess_exec(
        NGINX, "-c", str(config), "-p", str(folder), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(10):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", outer)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        assert process.returncode is None, (await process.communicate())[1]
        yield outer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
