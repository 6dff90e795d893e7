"""The room server: rooms, their participants, and the services they use.

`RoomServer` (server.py) owns the listening socket and the `RoomDirectory` (rooms.py). A `Room` (room.py) is the meeting place:
members, toolkit and agent registrations, calls under way. A `Connection` (connection.py) is one participant's socket: it reads
requests, hands each to `dispatch.py`, and replies exactly once. `dispatch.py` is the one table of requests: body, grant,
handler; `handlers/` has one file per service, the server's twin of `meshhost/room/*.py`.

The queue engine, object store, identity store and LLM gateway are passed in. Every key that reaches them carries the tenant
(`RoomKey`), which comes from the verified token and from nowhere else.
"""
