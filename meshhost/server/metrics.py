"""What the room server counts, in Prometheus form. No label names a tenant, a room or a participant."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from meshhost.server.core.room import Room
from meshhost.stores.queues import QueueStats

__all__ = ["ServerMetrics"]


class ServerMetrics:
    """The numbers of one room server, in a registry of their own."""

    def __init__(self, rooms: Callable[[], Sequence[Room]]) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "meshhost_room_requests", "Requests of participants", ["type", "outcome"], registry=registry
        )
        self._joins = Counter("meshhost_room_joins", "Attempts to join a room", ["outcome"], registry=registry)
        self._calls = Counter("meshhost_room_calls", "Calls sent to service hosts", ["outcome"], registry=registry)
        self._messages = Gauge("meshhost_queue_messages", "Messages in open rooms", ["state"], registry=registry)
        self._oldest = Gauge("meshhost_queue_oldest_age_seconds", "Age of the oldest message", registry=registry)
        open_rooms = Gauge("meshhost_rooms_open", "Open rooms", registry=registry)
        open_rooms.set_function(lambda: len(rooms()))
        connected = Gauge("meshhost_participants_connected", "Connected participants", registry=registry)
        connected.set_function(lambda: sum(len(list(room.connected())) for room in rooms()))

    def count_request(self, type: str, outcome: str) -> None:
        """A request came in; its type is one that the server knows, or `unknown`."""
        self._requests.labels(type, outcome).inc()

    def count_join(self, outcome: str) -> None:
        """Somebody tried to join."""
        self._joins.labels(outcome).inc()

    def count_call(self, outcome: str) -> None:
        """A service host was called."""
        self._calls.labels(outcome).inc()

    def render(self, queues: Sequence[QueueStats]) -> bytes:
        """All numbers as text, with those of the open rooms' queues as they are now."""
        for state in ("ready", "leased", "delayed", "dead"):
            self._messages.labels(state).set(sum(getattr(queue, state) for queue in queues))
        self._oldest.set(max((queue.oldest_age or 0.0 for queue in queues), default=0.0))
        return generate_latest(self._registry)
