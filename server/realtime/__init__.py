"""From readings to sockets: snapshots, frames, sessions, and the hub between them."""
