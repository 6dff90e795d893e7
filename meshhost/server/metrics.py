"""The metrics of a room server, in Prometheus form.

Counters are incremented where things happen: requests by the dispatcher, joins by the handshake, calls by the service caller.
Gauges are set when the metrics are read. No label names a room or a participant, and none a tenant unless the operator chose so
(`tenant_metrics.py`, and the depth of its queues here): everybody may read the metrics, and their number must stay bounded.
Queues are counted by name, over all rooms: the names are the programs'. Participants may make up any number of them, so the
first names to be seen have labels of their own, those with the most messages before others, and all that follow share one.
"""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.registry import Collector

from meshhost.identity.tenant import RoomKey
from meshhost.server.core.room import Room
from meshhost.stores.queues import QueueStats
from meshhost.tenant_names import TenantLabels

__all__ = ["ServerMetrics"]


_QUEUE_LABELS = 50
_MAX_NAME = 128
_OTHER = "other"
_STATES = ("ready", "leased", "delayed", "blocked", "dead")


class ServerMetrics:
    """The metrics of one room server, in a registry of its own. At most `queue_labels` queue names have labels of their own.

    Without `tenants` no metric names a tenant.
    """

    def __init__(self, *, queue_labels: int = _QUEUE_LABELS, tenants: TenantLabels | None = None) -> None:
        self._queue_labels = queue_labels
        self._tenants = tenants
        self._labels: set[str] = set()
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "meshhost_room_requests", "Requests of participants", ["type", "outcome"], registry=registry
        )
        self._joins = Counter("meshhost_room_joins", "Attempts to join a room", ["outcome"], registry=registry)
        self._calls = Counter("meshhost_room_calls", "Calls sent to service hosts", ["outcome"], registry=registry)
        self._mcp = Counter(
            "meshhost_mcp_requests", "Requests of MCP clients", ["method", "outcome"], registry=registry
        )
        self._triggers = Counter(
            "meshhost_triggers",
            "Occurrences of schedules, deliveries to hooks and mails for mailboxes",
            ["kind", "outcome"],
            registry=registry,
        )
        self._mails = Counter(
            "meshhost_mail_received",
            "Mails that were stored or passed on, by where they went",
            ["to"],
            registry=registry,
        )
        self._refused_mails = Counter(
            "meshhost_mail_refused",
            "Mails, recipients and connections that were refused",
            ["reason"],
            registry=registry,
        )
        self._relayed_mails = Counter(
            "meshhost_mail_relayed", "Recipients at the next mail server, by its answer", ["outcome"], registry=registry
        )
        self._spans = Counter(
            "meshhost_trace_spans", "Spans of traces, by what became of them", ["outcome"], registry=registry
        )
        self._messages = Gauge(
            "meshhost_queue_messages", "Messages in all queues, also of closed rooms", ["state"], registry=registry
        )
        self._oldest = Gauge("meshhost_queue_oldest_age_seconds", "Age of the oldest message", registry=registry)
        self._by_name = Gauge(
            "meshhost_queue_name_messages",
            "Messages in all rooms, also closed ones, by the queue's name",
            ["queue", "state"],
            registry=registry,
        )
        self._oldest_by_name = Gauge(
            "meshhost_queue_name_oldest_age_seconds", "Age of the oldest message", ["queue"], registry=registry
        )
        self._paused_by_name = Gauge(
            "meshhost_queue_name_paused", "Paused queues by name", ["queue"], registry=registry
        )
        self._by_tenant = Gauge(
            "meshhost_tenant_queue_messages",
            "Messages in all rooms, also closed ones, by tenant",
            ["tenant", "state"],
            registry=None if tenants is None else registry,
        )
        self._oldest_by_tenant = Gauge(
            "meshhost_tenant_queue_oldest_age_seconds",
            "Age of the oldest message",
            ["tenant"],
            registry=None if tenants is None else registry,
        )
        self._rooms = Gauge("meshhost_rooms_open", "Open rooms", registry=registry)
        self._connected = Gauge("meshhost_participants_connected", "Connected participants", registry=registry)

    def register(self, collector: Collector) -> None:
        """Show the metrics of this collector too."""
        self._registry.register(collector)

    def show_in_flight(self, total: Callable[[], float]) -> None:
        """Show the bytes of messages in memory, which `total` returns."""
        text = "Bytes of messages that are received, handled or sent, as far as they are counted"
        Gauge("meshhost_in_flight_bytes", text, registry=self._registry).set_function(total)

    def count_trigger(self, kind: str, outcome: str) -> None:
        """Count what became of an occurrence of a schedule, of a delivery to a hook, or of a mail for a mailbox."""
        self._triggers.labels(kind, outcome).inc()

    def count_mail(self, to: str) -> None:
        """Count a mail that was accepted: `mailbox` or `relay`."""
        self._mails.labels(to).inc()

    def count_refused_mail(self, reason: str) -> None:
        """Count what the SMTP listener refused, by a reason of `meshhost.server.mail`."""
        self._refused_mails.labels(reason).inc()

    def count_relayed_mail(self, outcome: str) -> None:
        """Count what the next mail server answered: `delivered`, `deferred` or `failed`."""
        self._relayed_mails.labels(outcome).inc()

    def count_spans(self, outcome: str, spans: int) -> None:
        """Count spans that were taken to be stored, dropped, or lost."""
        self._spans.labels(outcome).inc(spans)

    def count_request(self, type: str, outcome: str) -> None:
        """Count a request. `type` is the operation's name, or `unknown`: never what a client made up."""
        self._requests.labels(type, outcome).inc()

    def count_mcp(self, method: str, outcome: str) -> None:
        """Count a request of an MCP client. `method` is one that is offered, or `unknown`."""
        self._mcp.labels(method, outcome).inc()

    def count_join(self, outcome: str) -> None:
        """Count an attempt to join."""
        self._joins.labels(outcome).inc()

    def count_call(self, outcome: str) -> None:
        """Count a call of a service host."""
        self._calls.labels(outcome).inc()

    def render(self, rooms: Sequence[Room], queues: Sequence[tuple[RoomKey, QueueStats]], totals: QueueStats) -> bytes:
        """All metrics as text.

        `rooms` are the open rooms, `queues` the state of the queues of all rooms, `totals` the sum over them.
        """
        self._rooms.set(sum(room.is_awake for room in rooms))
        self._connected.set(sum(len(room.connected()) for room in rooms))
        for state in _STATES:
            self._messages.labels(state).set(getattr(totals, state))
        self._oldest.set(totals.oldest_age or 0.0)
        self._set_by_name([queue for _, queue in queues])
        if self._tenants is not None:
            self._set_by_tenant(self._tenants, queues)
        return generate_latest(self._registry)

    def _set_by_name(self, queues: Sequence[QueueStats]) -> None:
        # What was there at the last look and is not any more must not stay.
        self._by_name.clear()
        self._oldest_by_name.clear()
        self._paused_by_name.clear()
        oldest: dict[str, float] = {}
        for queue in sorted(queues, key=lambda one: -sum(getattr(one, state) for state in _STATES)):
            label = self.queue_label(queue.name)
            for state in _STATES:
                self._by_name.labels(label, state).inc(getattr(queue, state))
            self._paused_by_name.labels(label).inc(int(queue.is_paused))
            oldest[label] = max(oldest.get(label, 0.0), queue.oldest_age or 0.0)
        for label, age in oldest.items():
            self._oldest_by_name.labels(label).set(age)

    def _set_by_tenant(self, labels: TenantLabels, queues: Sequence[tuple[RoomKey, QueueStats]]) -> None:
        self._by_tenant.clear()
        self._oldest_by_tenant.clear()
        oldest: dict[str, float] = {}
        for room, queue in queues:
            label = labels.of(room.tenant)
            for state in _STATES:
                self._by_tenant.labels(label, state).inc(getattr(queue, state))
            oldest[label] = max(oldest.get(label, 0.0), queue.oldest_age or 0.0)
        for label, age in oldest.items():
            self._oldest_by_tenant.labels(label).set(age)

    def queue_label(self, name: str) -> str:
        """The label of queues of this name: the name, or `other`. The first names that come get one of their own."""
        if name in self._labels:
            return name
        if len(self._labels) >= self._queue_labels or len(name) > _MAX_NAME or not name.isprintable():
            return _OTHER
        self._labels.add(name)
        return name
