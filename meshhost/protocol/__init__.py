"""The room protocol, without I/O: bytes in, messages out, no await.

`frames.py` cuts messages into packets and joins them again (room-protocol §2); `messages.py` packs header and payload into
a message and knows the response bodies (§3, §5); `connection.py` is one side of a connection: ids, requests and replies
(§4). Both client and server are built on it, and it does not know which side it is on.

Rules: nothing here imports asyncio or a transport; every malformed input raises RemoteProtocolError or
InvalidRequestError and leaves the object usable or closed, never half-changed; every size has a limit.
"""
