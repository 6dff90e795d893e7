"""The names of `meshagent.api.webhooks`: a server for the webhooks of a room server, and their events.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.hosting.webhook_server import CallEvent, RoomEndedEvent, RoomStartedEvent, WebhookServer

__all__ = ["CallEvent", "RoomEndedEvent", "RoomStartedEvent", "WebhookServer"]
