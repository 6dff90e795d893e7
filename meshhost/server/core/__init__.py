"""The room server without sockets: rooms, participants, peers, requests, and the Protocols that services implement.

Belongs here: what every service and every dialect needs. Does not belong here: a wire name, a close code, HTTP, or anything
that only one service knows. May import `identity`, `protocol` and the leaves; nothing else of `server/`.
"""
