"""`meshagent.api.websocket_protocol`."""

from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["WebSocketClientProtocol"]
