"""A Bybit V5 compatible exchange, deterministic in (seed, time), run as a child process; it stands beside the house."""
