"""What the services of the queues answer, as JSON: queues, deliveries, dead letters and what is known of messages.

Called by `queues.py` and `queue_messages.py`. Ids are texts on the wire, because other languages read large numbers inexactly;
times are seconds since the epoch. Values that senders and workers gave (messages, results, progress) are stored as JSON text
and answered as the value. Replies with many messages are bounded: `fitting` says how many fit into one.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, TypeVar

from meshhost.protocol.json_values import load_stored_json
from meshhost.protocol.messages import EncodedJson, Header, JsonResponse
from meshhost.queues.activity.points import Point
from meshhost.queues.reader import fingerprint
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.queues import DeadLetter, Delivery, MessagePage, MessageRecord, QueueStats

__all__ = [
    "MANY_BYTES",
    "dead_letter",
    "delivered",
    "delivered_many",
    "fitting",
    "listed",
    "page",
    "record",
    "records",
    "series",
]

T = TypeVar("T")

# Bodies in one reply: encoding it must not hold the event loop.
MANY_BYTES = 1024 * 1024


def fitting(items: Sequence[T], sizes: Sequence[int], most: int) -> Sequence[T]:
    """Return the first of the items: those with which the sizes stay within `most`, and at least one."""
    totals = accumulate(sizes)
    return [item for number, (item, total) in enumerate(zip(items, totals, strict=True)) if not number or total <= most]


def records(found: Sequence[MessageRecord], *, with_contents: bool) -> tuple[list[dict[str, Any]], int | None]:
    """The first of these messages as JSON, as many as fit into one answer; and the id of the last one when others do not."""
    sizes = [sum(len(text or "") for text in (each.body, each.reason, each.result, each.progress)) for each in found]
    kept = fitting(found, sizes, MANY_BYTES)
    last = kept[-1].id if len(kept) < len(found) else None
    return [record(each, with_contents=with_contents) for each in kept], last


def page(found: MessagePage, *, with_contents: bool) -> dict[str, Any]:
    """A page of messages as JSON, cut where they become too many bytes; `next` is where the next page begins."""
    messages, last = records(found.messages, with_contents=with_contents)
    after = found.next if last is None else last
    return {"messages": messages, "next": None if after is None else str(after)}


def listed(queue: QueueStats) -> dict[str, Any]:
    """A queue in the answer to `queues.list`."""
    return {
        "name": queue.name,
        "size": queue.ready + queue.delayed + queue.blocked,
        "ready": queue.ready,
        "leased": queue.leased,
        "delayed": queue.delayed,
        "blocked": queue.blocked,
        "dead": queue.dead,
        "oldest_age": queue.oldest_age,
        "paused": queue.is_paused,
    }


def delivered(
    delivery: Delivery, lease_seconds: float | None = None, text: str | None = None
) -> tuple[JsonResponse, Header]:
    """The answer that hands a message over, with its lease if the client has leases. `text` is that of a large body.

    Without it, the client fetches a large body.
    """
    response = JsonResponse(json=_message(delivery.body)) if text is None else EncodedJson(text=text)
    return response, {} if lease_seconds is None else {
        "delivery": _delivery(delivery, lease_seconds, is_fetched=text is None)
    }


def delivered_many(
    deliveries: Sequence[Delivery], lease_seconds: float, text: str | None = None
) -> tuple[JsonResponse, Header]:
    """The answer that hands several messages over: a list of them, and a list of their deliveries. See `delivered`."""
    if text is not None:
        response: JsonResponse = EncodedJson(text=f"[{text}]")
    else:
        response = JsonResponse(json=[_message(delivery.body) for delivery in deliveries])
    return response, {
        "delivery": [_delivery(delivery, lease_seconds, is_fetched=text is None) for delivery in deliveries]
    }


def _delivery(delivery: Delivery, lease_seconds: float, *, is_fetched: bool) -> dict[str, Any]:
    lease = delivery.lease
    return {
        "lease": f"{lease.message_id}.{lease.token}.{lease.holder}",
        "id": str(lease.message_id),
        "attempt": delivery.attempt,
        "delivery": delivery.delivery,
        "headers": dict(delivery.headers),
        "sent_at": delivery.sent_at,
        "lease_seconds": lease_seconds,
        "priority": delivery.priority,
        "key": delivery.key,
        "deadline": delivery.deadline,
        **(_large("body", delivery.body, with_beginning=False) if is_fetched else {}),
    }


def dead_letter(letter: DeadLetter, *, with_large: bool) -> dict[str, Any]:
    """A dead message in the answer to `queues.dead`. Older clients of ours refuse what they do not know."""
    return {
        "id": str(letter.message_id),
        "message": _message(letter.body),
        **(_large("body", letter.body) if with_large else {}),
        "headers": dict(letter.headers),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "sent_at": letter.sent_at,
        "died_at": letter.died_at,
    }


def record(found: MessageRecord, *, with_contents: bool) -> dict[str, Any]:
    """What is known of a message; without its contents for one that may only send."""
    answer = {
        "id": str(found.id),
        "state": found.state.value,
        "sent_at": found.sent_at,
        "priority": found.priority,
        "key": found.key,
        "failures": found.failures,
        "deliveries": found.deliveries,
        "due_at": found.due_at,
        "expires_at": found.expires_at,
        "began_at": found.began_at,
        "by": found.by,
        "lease_until": found.lease_until,
        "progress": _value(found.progress),
        "result": _value(found.result),
        **_large("result_body", found.result),
        "ended_at": found.ended_at,
        "reason": found.reason,
        "cancelling": found.is_cancelling,
        "seen": fingerprint(found),
    }
    if with_contents:
        answer["message"] = _value(found.body)
        answer |= _large("body", found.body)
        answer["headers"] = dict(found.headers)
        answer["history"] = [asdict(attempt) for attempt in found.history]
    return answer


def _value(text: str | None) -> Any:
    return None if text is None else _message(text)


def _message(text: str) -> Any:
    """The value of a text; null for a large one, which is not here."""
    return None if is_reference(text) else load_stored_json(text)


def _large(name: str, text: str | None, *, with_beginning: bool = True) -> dict[str, Any]:
    """A member that says what is known of a large body or result; none for one of usual size."""
    if text is None or not is_reference(text):
        return {}
    reference = BodyReference.parse(text)
    beginning = {"beginning": reference.beginning} if with_beginning else {}
    return {name: {"size": reference.size, "sha256": reference.sha256, **beginning}}


def series(points: Sequence[Point], step: int) -> dict[str, Any]:
    """The points as JSON. `step` is how many seconds lie between them."""
    return {"points": [_point(point) for point in points], "step_seconds": step}


def _point(point: Point) -> dict[str, Any]:
    age = point.gauges.oldest_seconds
    return {
        "time": datetime.fromtimestamp(point.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **point.gauges._asdict(),
        "oldest_seconds": None if age is None else round(age, 3),
        **point.counts._asdict(),
    }
