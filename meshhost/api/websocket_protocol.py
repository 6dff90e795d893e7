"""The names of `meshagent.api.websocket_protocol`: the connection that a RoomClient is made with.

MeshAgent programs import from this path after the package is renamed. It re-exports only; the code is in the package that owns
it, and nothing inside of meshhost imports it. The names may grow, but none may go or move.
"""

from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["WebSocketClientProtocol"]
