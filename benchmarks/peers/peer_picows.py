"""picows on uvloop: its compiled send for each socket. Skips sockets whose buffer is full."""

import asyncio

import uvloop
from message import BUFFERED_BYTES, given_task
from picows import WSListener, WSMsgType, ws_create_server

task = given_task()
transports = []
all_there = asyncio.Event()


class Listener(WSListener):
    """One socket."""

    def on_ws_connected(self, transport) -> None:
        transports.append(transport)
        if len(transports) == task.sockets:
            all_there.set()

    def on_ws_disconnected(self, transport) -> None:
        transports.remove(transport)


async def main() -> None:
    await ws_create_server(lambda _: Listener(), "127.0.0.1", task.port)
    await all_there.wait()
    for message in task.messages():
        data = message.encode()
        for transport in transports:
            if transport.underlying_transport.get_write_buffer_size() <= BUFFERED_BYTES:
                transport.send(WSMsgType.TEXT, data)
        await asyncio.sleep(0)


uvloop.run(main())
