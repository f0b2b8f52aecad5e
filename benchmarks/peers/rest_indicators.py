"""The design that the gateway replaces: each request fetches 1,000 klines and computes. PORT, REST_URL."""

import asyncio
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from frames import Answer, classic, framed, some
from pybit.unified_trading import HTTP

port, rest_url = sys.argv[1:]
client = HTTP()
client.endpoint = rest_url
app = FastAPI()


def computed(symbol: str, interval: str, length: int | None, slow: int) -> Answer:
    answer: dict[str, Any] = client.get_kline(category="linear", symbol=symbol, interval=interval, limit=1000)
    frame = framed(answer["result"]["list"][::-1])
    return classic(frame, talib=True) if length is None else some(frame, True, length, slow)


@app.get("/indicators/{symbol}")
async def indicators(symbol: str, interval: str = "240", length: int | None = None, slow: int = 26) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    values = await loop.run_in_executor(None, computed, symbol, interval, length, slow)
    return {"symbol": symbol, "interval": interval, "data": values}


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)
