"""Gateways as the worker runs them, for what happens at a socket's end."""

from typing import Any

import pytest

from server.app import create_app
from tests.conftest import Exchange, Gateway, StartGateway, settings_for

from .sockets import WorkerServer


@pytest.fixture
def start_gateway(exchange: Exchange, aiohttp_client: Any) -> StartGateway:
    """Start a gateway against the exchange; keyword arguments are sections of settings."""

    async def start(**sections: dict[str, Any]) -> Gateway:
        client: Gateway = await aiohttp_client(WorkerServer(create_app(settings_for(exchange.url, **sections))))
        return client

    return start
