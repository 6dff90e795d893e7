"""The metrics of a room server, in Prometheus form.

Counters are incremented where things happen: requests by the dispatcher, joins by the handshake, calls by the service caller.
Gauges are set when the metrics are read. No label names a room or a participant, and none a tenant unless the operator chose so
(`tenant_metrics.py`): everybody may read the metrics, and their number must stay bounded.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.registry import Collector

from meshhost.server.core.room import Room
from meshhost.stores.queues import QueueStats

__all__ = ["ServerMetrics"]


class ServerMetrics:
    """The metrics of one room server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "meshhost_room_requests", "Requests of participants", ["type", "outcome"], registry=registry
        )
        self._joins = Counter("meshhost_room_joins", "Attempts to join a room", ["outcome"], registry=registry)
        self._calls = Counter("meshhost_room_calls", "Calls sent to service hosts", ["outcome"], registry=registry)
        self._messages = Gauge("meshhost_queue_messages", "Messages in open rooms", ["state"], registry=registry)
        self._oldest = Gauge("meshhost_queue_oldest_age_seconds", "Age of the oldest message", registry=registry)
        self._rooms = Gauge("meshhost_rooms_open", "Open rooms", registry=registry)
        self._connected = Gauge("meshhost_participants_connected", "Connected participants", registry=registry)

    def register(self, collector: Collector) -> None:
        """Show the metrics of this collector too."""
        self._registry.register(collector)

    def count_request(self, type: str, outcome: str) -> None:
        """Count a request. `type` is the operation's name, or `unknown`: never what a client made up."""
        self._requests.labels(type, outcome).inc()

    def count_join(self, outcome: str) -> None:
        """Count an attempt to join."""
        self._joins.labels(outcome).inc()

    def count_call(self, outcome: str) -> None:
        """Count a call of a service host."""
        self._calls.labels(outcome).inc()

    def render(self, rooms: Sequence[Room], queues: Sequence[QueueStats]) -> bytes:
        """All metrics as text. `rooms` are the open rooms, `queues` the state of their queues."""
        self._rooms.set(len(rooms))
        self._connected.set(sum(len(room.connected()) for room in rooms))
        for state in ("ready", "leased", "delayed", "dead"):
            self._messages.labels(state).set(sum(getattr(queue, state) for queue in queues))
        self._oldest.set(max((queue.oldest_age or 0.0 for queue in queues), default=0.0))
        return generate_latest(self._registry)
