"""The design that the gateway replaces: FastAPI, a task per socket, three pybit calls in threads for each message.

With PACE_S in the environment each socket has a message that often, not as many as there can be.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from message import given_task
from pybit.unified_trading import HTTP

KEY, SECRET = "simulator-key", "simulator-secret"

PACE_S = float(os.environ.get("PACE_S", "0"))

task = given_task()
client = HTTP(api_key=KEY, api_secret=SECRET)
client.endpoint = sys.argv[4]
app = FastAPI()


async def offloaded(call: Any, **arguments: Any) -> Any:
    answer = await asyncio.get_running_loop().run_in_executor(None, lambda: call(**arguments))
    return answer["result"]["list"][0]


@app.websocket("/ws/positions/{symbol}")
async def positions(socket: WebSocket, symbol: str) -> None:
    await socket.accept()
    sequence = 0
    try:
        while True:
            position, wallet, ticker = await asyncio.gather(
                offloaded(client.get_positions, category="linear", symbol=symbol),
                offloaded(client.get_wallet_balance, accountType="UNIFIED"),
                offloaded(client.get_tickers, category="linear", symbol=symbol),
            )
            sequence += 1
            message = {"seq": sequence, "timestamp_ms": time.time_ns() // 1_000_000, "symbol": symbol}
            message |= {"position": position, "ticker": ticker, "balance": wallet["totalEquity"]}
            await socket.send_text(json.dumps(message))
            if PACE_S:
                await asyncio.sleep(PACE_S)
    except WebSocketDisconnect:
        pass


@app.get("/price/{symbol}")
async def price(symbol: str) -> dict[str, Any]:
    ticker: dict[str, Any] = await offloaded(client.get_tickers, category="linear", symbol=symbol)
    return ticker


uvicorn.run(app, host="127.0.0.1", port=task.port, log_level="error", ws_per_message_deflate=False)
