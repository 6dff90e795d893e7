"""The names of `meshagent.api.websocket_protocol`: the connection that a RoomClient is made with."""

from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["WebSocketClientProtocol"]
