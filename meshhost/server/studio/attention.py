"""What needs somebody's attention in a room server: each finding with its place, its text, and how bad it is.

Pure rules over counts that `overview.py` has read: dead messages, queues that nobody serves or that are paused with work in
them, configured agents that are not in their rooms, quotas that are nearly used up. Errors come before warnings, more before
less. A finding names what it is about, so that a page can link to it; texts are for people.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from meshhost.identity.tenant import RoomKey
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.server.calling.records import CallRecord
from meshhost.stores.queues import QueueKey, QueueStats

__all__ = ["STUCK_SECONDS", "Attention", "near_quota", "of_queue", "of_service", "of_waiting", "worst_first"]

# A message that is ready for more seconds while nobody works on any of its queue is stuck.
STUCK_SECONDS = 300.0
_NEAR = 0.8

Kind = Literal["dead", "stuck", "paused", "service", "quota", "suspended"]


@dataclass(frozen=True, slots=True)
class Attention:
    """One finding. `value` is a count, `since` seconds since the epoch."""

    kind: Kind
    severity: Literal["error", "warning"]
    tenant: str
    room: str | None = None
    queue: str | None = None
    service: str | None = None
    text: str = ""
    value: float | None = None
    since: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Every member."""
        return asdict(self)


def of_queue(key: QueueKey, queue: QueueStats) -> Iterator[Attention]:
    """What the counts of a queue say."""
    if queue.dead:
        text = f"{queue.dead} dead {_messages(queue.dead)}: read why, then replay"
        yield _of(key, "dead", "error", text, value=queue.dead)
    if queue.is_paused and queue.ready:
        text = f"paused, with {queue.ready} {_messages(queue.ready)} ready"
        yield _of(key, "paused", "warning", text, value=queue.ready)


def of_waiting(key: QueueKey, ready: int, *, since: float, now: float) -> Iterator[Attention]:
    """What it says that the next message is ready since then, while nobody works on any."""
    if now - since > STUCK_SECONDS:
        text = f"{ready} {_messages(ready)} ready, and no worker takes any: is its agent running?"
        yield _of(key, "stuck", "error", text, value=ready, since=round(since))


def of_service(room: RoomKey, record: CallRecord) -> Attention:
    """A configured agent that is not in its room, after a call that failed."""
    last = record.attempts[-1]
    text = f"not in its room: {last.outcome.value.replace('_', ' ')}"
    text += f" ({last.status})" if last.status is not None else ""
    text += f", {last.error}" if last.error else ""
    first = record.attempts[0].at
    return Attention("service", "error", room.tenant, room.name, None, record.identity, text, record.total, first)


def near_quota(tenant: str, use: Mapping[Resource, int], quota: ServerQuota) -> Iterator[Attention]:
    """The limits of which a tenant has used most. Only what is counted already is looked at."""
    for resource, used in use.items():
        limit = quota.limit_of(resource)
        if limit and used >= limit * _NEAR:
            severity: Literal["error", "warning"] = "error" if used >= limit else "warning"
            text = f"{used} of {limit} {resource.value.replace('_', ' ')}"
            yield Attention("quota", severity, tenant, text=text, value=used)


def worst_first(findings: Iterable[Attention]) -> list[Attention]:
    """Errors first, then what is about more; the rest by name, so that a page does not jump."""
    return sorted(
        findings,
        key=lambda each: (
            each.severity != "error",
            -(each.value or 0.0),
            each.tenant,
            each.room or "",
            each.queue or each.service or "",
        ),
    )


def _of(
    key: QueueKey,
    kind: Kind,
    severity: Literal["error", "warning"],
    text: str,
    *,
    value: int,
    since: float | None = None,
) -> Attention:
    return Attention(kind, severity, key.room.tenant, key.room.name, key.name, None, text, value, since)


def _messages(count: int) -> str:
    return "message" if count == 1 else "messages"
