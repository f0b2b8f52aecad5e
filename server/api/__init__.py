"""The outside: REST routes, WebSocket routes, and what stands before them."""
