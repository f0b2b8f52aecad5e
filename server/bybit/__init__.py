"""Bybit, read-only: the one place that imports pybit."""
