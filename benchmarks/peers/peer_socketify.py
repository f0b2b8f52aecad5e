"""socketify: uWebSockets' own publish, one call for all sockets. Skips sockets whose buffer is full."""

import asyncio

from message import BUFFERED_BYTES, given_task
from socketify import App, OpCode

task = given_task()
app = App()
subscribed = []
all_there = asyncio.Event()


def opened(ws) -> None:
    ws.subscribe("all")
    subscribed.append(ws)
    if len(subscribed) == task.sockets:
        all_there.set()


async def broadcast() -> None:
    await all_there.wait()
    for message in task.messages():
        app.publish("all", message, OpCode.TEXT)
        await asyncio.sleep(0)  # uWebSockets writes when its loop goes round, which asyncio's has it do


app.ws("/*", {"compression": 0, "idle_timeout": 0, "max_backpressure": BUFFERED_BYTES, "open": opened})
app.listen(task.port)
app.loop.create_background_task(broadcast)
app.run()
