"""Moves packets between the two sides of a room connection; nothing here knows what a packet means.

`base.py` is the contract (`Transport`), pinned by one contract suite. `websocket_client.py` dials (websockets library, with
the small connection of `client_socket.py`), `websocket_server.py` answers (aiohttp), `outbox.py` holds what waits to be
sent. Each translates the errors of its library to ours. May import `protocol` and the leaves; `room` and `server` are the
callers.
"""
