"""Sends the events of rooms to the webhooks of their tenants, one after another for each webhook, and tries again.

`send` never waits: it puts a delivery at the end of its webhook's line, of at most `_MOST_WAITING`. Each webhook with a
line has one task, so that a slow or dead receiver holds up no other one, and receives events in their order. A delivery
that fails is tried again after growing waits, unless the receiver refused it for good (a status of 400 to 499 other than
408, 425 and 429); the last attempt of each is in the webhook's log. What waits when the server stops is not sent, and the
log says so.
"""

import json
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import CallRefusedError, MeshhostError, SecretsLockedError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.configured.reach import TenantReach
from meshhost.server.configured.secrets import Secrets
from meshhost.server.configured.webhooks import Webhook
from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.stores.triggers.contract import LogEntry
from meshhost.tasks import TaskOwner

__all__ = ["RETRY_SECONDS", "Deliveries"]

logger = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)
_MOST_WAITING = 100
_TRIED_AGAIN = frozenset({408, 425, 429})
_MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class _Delivery:
    room: str
    event: str
    data: Mapping[str, Any]


class Deliveries:
    """Sends events. `webhooks` returns those of a tenant as they are now."""

    def __init__(
        self,
        store: ConfigurationStore,
        secrets: Secrets,
        reach: TenantReach,
        *,
        webhooks: Callable[[TenantId], Sequence[Webhook]],
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._reach = reach
        self._webhooks = webhooks
        self._clock = clock or SystemClock()
        self._waiting: dict[str, deque[_Delivery]] = {}
        self._tasks = TaskOwner("webhooks")

    def send(self, room: RoomKey, event: str, data: Mapping[str, Any]) -> None:
        """Send an event of a room to each webhook of its tenant that wants it. Does not wait."""
        for webhook in self._webhooks(room.tenant):
            if event in webhook.events:
                self._put(webhook, _Delivery(room.name, event, data))

    async def stop(self) -> None:
        """End, with what is being sent. What waits is noted in the logs of the webhooks."""
        await self._tasks.stop(timeout=1.0)
        waiting, self._waiting = self._waiting, {}
        for webhook_id, line in waiting.items():
            for delivery in line:
                await self._note(webhook_id, delivery, "not_sent", error="the server stopped")

    def _put(self, webhook: Webhook, delivery: _Delivery) -> None:
        line = self._waiting.get(webhook.item.id)
        if line is None:
            line = self._waiting[webhook.item.id] = deque()
            line.append(delivery)
            self._tasks.spawn(self._work(webhook.item.tenant, webhook.item.id, line), name=f"webhook {webhook.item.id}")
        elif len(line) < _MOST_WAITING:
            line.append(delivery)
        else:
            fields = {"tenant": webhook.item.tenant, "webhook": webhook.item.name, "waiting": len(line)}
            logger.warning("an event is not sent: too many wait for the webhook", extra=fields)

    async def _work(self, tenant: TenantId, webhook_id: str, line: deque[_Delivery]) -> None:
        while line:
            try:
                await self._deliver(tenant, webhook_id, line[0])
            except Exception as error:
                # A fault of ours: the events behind it are sent all the same.
                logger.exception("a delivery failed", extra={"tenant": tenant, "webhook_id": webhook_id})
                await self._note(webhook_id, line[0], "failed", error=type(error).__name__)
            line.popleft()
        del self._waiting[webhook_id]

    async def _deliver(self, tenant: TenantId, webhook_id: str, delivery: _Delivery) -> None:
        for attempt, seconds in enumerate([*RETRY_SECONDS, None], 1):
            # It may have been changed or deleted meanwhile.
            webhook = next((each for each in self._webhooks(tenant) if each.item.id == webhook_id), None)
            if webhook is None:
                return
            try:
                secret = self._secrets.open(webhook.secret, webhook.item)
                data = webhook.data_of(delivery.data)
                await self._reach.send(webhook.url, delivery.event, data, secret=secret, tenant=tenant)
            except (CallRefusedError, SecretsLockedError) as error:
                if seconds is None or not _is_worth_another(error):
                    await self._note(webhook_id, delivery, "failed", attempt=attempt, error=error)
                    return
                await self._note(webhook_id, delivery, "retrying", attempt=attempt, error=error)
                after = getattr(error, "retry_after", None) or 0.0
                await self._clock.sleep(max(min(after, RETRY_SECONDS[-1]), seconds * random.uniform(0.8, 1.2)))  # noqa: S311
            else:
                await self._note(webhook_id, delivery, "delivered", attempt=attempt)
                return

    async def _note(
        self,
        webhook_id: str,
        delivery: _Delivery,
        outcome: str,
        *,
        attempt: int = 0,
        error: MeshhostError | str | None = None,
    ) -> None:
        content = {
            "event": delivery.event,
            "room": delivery.room,
            "outcome": outcome,
            "attempt": attempt,
            "status": getattr(error, "status", None),
            "error": None if error is None else str(error)[:_MAX_ERROR],
        }
        try:
            await self._store.add_entry(webhook_id, LogEntry(self._clock.time(), json.dumps(content)))
        except (OSError, MeshhostError) as problem:  # the log is for people: a store that fails does not end deliveries
            logger.warning("a delivery is not in the log of its webhook", extra={"reason": str(problem)})


def _is_worth_another(error: MeshhostError) -> bool:
    if not isinstance(error, CallRefusedError):
        return True  # a key may come back
    return not 400 <= error.status < 500 or error.status in _TRIED_AGAIN
