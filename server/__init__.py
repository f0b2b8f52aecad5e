"""A self-hosted gateway to a Bybit account: positions, balance, prices and indicators over WebSocket and REST."""

__version__ = "0.1.0"
