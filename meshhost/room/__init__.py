"""The client side of a room.

`RoomClient` composes one file per service (`queues`, `messaging`, `storage`, `agents`, `developer`) over a `RoomSession`,
which is the life of one connection: it pumps packets, matches replies and, when the connection ends, fails every reply that
is awaited. The client keeps the room open across connections: it dials again with backoff, resumes where the server can, and
lets every service restore what the server forgot (`add_restorer`). Only a refusal, the room's end or `close()` ends it.

`consumer.py` is the loop that a Worker runs: lease, renew, settle. Nothing here imports the server or its queue engine.
"""
