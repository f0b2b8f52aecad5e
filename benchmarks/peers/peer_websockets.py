"""websockets: its broadcast, on asyncio, which is no slower here than uvloop. Leaves out sockets with a full buffer."""

import asyncio

from message import BUFFERED_BYTES, given_task
from websockets.asyncio.server import broadcast, serve

task = given_task()
connections = set()
all_there = asyncio.Event()


async def handler(connection) -> None:
    connections.add(connection)
    if len(connections) == task.sockets:
        all_there.set()
    try:
        await connection.wait_closed()
    finally:
        connections.discard(connection)


async def main() -> None:
    async with serve(handler, "127.0.0.1", task.port, compression=None, ping_interval=None):
        await all_there.wait()
        for message in task.messages():
            broadcast([c for c in connections if c.transport.get_write_buffer_size() <= BUFFERED_BYTES], message)
            await asyncio.sleep(0)


asyncio.run(main())
