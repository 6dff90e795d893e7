"""Webhooks that tenants configure: events of their rooms, sent to their own URLs, as MeshAgent's `webhook create` makes them.

What is sent is what the operator's webhooks get: `{"event", "data"}`, signed with the secret of the webhook, so that
MeshAgent's `WebhookServer` takes it. The members of `payload` are added to `data`, and `action` is one of them. The secret
is stored sealed and shown once, when the webhook is made. `deliveries.py` sends and tries again.
"""

import json
import logging
import secrets as random_secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, InvalidRequestError, SecretsLockedError
from meshhost.identity.tenant import TenantId
from meshhost.server.calling.webhooks import can_sign
from meshhost.server.configured.items import Items, check_name
from meshhost.server.configured.reach import TenantReach
from meshhost.server.configured.secrets import Secrets
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationStore, ItemKind
from meshhost.validation import invalid_request

__all__ = ["EVENTS", "MAX_WEBHOOKS", "Webhook", "Webhooks", "webhook_of"]

logger = logging.getLogger(__name__)

EVENTS = ("room.started", "room.ended")
MAX_WEBHOOKS = 50
_MAX_PAYLOAD = 16 * 1024


class _WebhookSpec(BaseModel):
    """The body of MeshAgent's request; `secret` is ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: str
    events: list[str] = Field(min_length=1, max_length=16)
    description: str | None = Field("", max_length=1024)
    action: str | None = Field(None, max_length=256)
    payload: Annotated[dict[str, JsonValue] | str | None, Field()] = None
    secret: str | None = Field(None, min_length=16, max_length=256)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is stored: what is sent where, for which events. `secret` is sealed."""

    item: ConfigurationItem
    url: str
    events: frozenset[str]
    description: str
    action: str | None
    payload: Mapping[str, Any]
    secret: str

    def data_of(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data that is sent for an event: its own members go before those of the payload."""
        action = {} if self.action is None else {"action": self.action}
        return {**self.payload, **action, **data}


class Webhooks:
    """The webhooks of all tenants. `on_change` is awaited after each change. Operations raise OSError, SecretsLockedError."""

    def __init__(
        self,
        store: ConfigurationStore,
        secrets: Secrets,
        reach: TenantReach,
        *,
        on_change: Callable[[], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self._items = Items(store, ItemKind.WEBHOOK, most=MAX_WEBHOOKS, clock=clock or SystemClock())
        self._secrets = secrets
        self._reach = reach
        self._on_change = on_change

    async def create(
        self, tenant: TenantId, document: Mapping[str, Any], *, by: str | None
    ) -> tuple[ConfigurationItem, str]:
        """Store a webhook; return it with its secret. Raises InvalidRequestError, AlreadyExistsError, LimitExceededError."""
        spec = self._checked(document)
        secret = spec.secret or f"whsec_{random_secrets.token_hex(32)}"
        item = self._items.new(tenant, check_name(spec.name))
        item = replace(item, content=_content(spec, self._secrets.seal(secret, item)))
        await self._items.add(item)
        _audit("webhook created", item, by)
        await self._on_change()
        return item, secret

    async def update(
        self, tenant: TenantId, webhook_id: str, document: Mapping[str, Any], *, by: str | None
    ) -> ConfigurationItem:
        """Replace a webhook; without a new `secret` it keeps its own. Raises NotFoundError and as `create` does."""
        spec = self._checked(document)
        item = await self.get(tenant, webhook_id)
        sealed = webhook_of(item).secret if spec.secret is None else self._secrets.seal(spec.secret, item)
        changed = await self._items.change(item, name=check_name(spec.name), content=_content(spec, sealed))
        _audit("webhook changed", changed, by)
        await self._on_change()
        return changed

    async def get(self, tenant: TenantId, webhook_id: str) -> ConfigurationItem:
        """Return a webhook by id or name. Raises NotFoundError."""
        named = [each for each in await self.list(tenant) if each.name == webhook_id]
        return named[0] if named else await self._items.get(tenant, webhook_id)

    async def list(self, tenant: TenantId) -> list[ConfigurationItem]:
        """Return the tenant's webhooks, by name."""
        return await self._items.list(tenant)

    async def delete(self, tenant: TenantId, webhook_id: str, *, by: str | None) -> None:
        """Delete a webhook. Raises NotFoundError."""
        item = await self.get(tenant, webhook_id)
        await self._items.delete(item)
        _audit("webhook deleted", item, by)
        await self._on_change()

    async def deliveries(self, item: ConfigurationItem) -> Sequence[dict[str, Any]]:
        """Return the last deliveries, the newest first."""
        return [{"at": entry.at, **json.loads(entry.content)} for entry in await self._items.store.entries(item.id)]

    async def renew(self) -> None:
        """Seal the secret of every webhook with the present key that is sealed with an older one; see `Secrets.renew`."""
        snapshot = await self._items.store.read(ItemKind.WEBHOOK)
        for item in () if snapshot is None else snapshot.items:
            try:
                sealed = self._secrets.renewed(webhook_of(item).secret, item)
                if sealed is not None:
                    content = json.dumps(json.loads(item.content) | {"secret": sealed})
                    await self._items.change(item, content=content)
                    _audit("webhook sealed with a new key", item, None)
            # AlreadyExistsError: it was changed at this moment. The last two: a newer release stored it otherwise.
            except (SecretsLockedError, AlreadyExistsError, KeyError, ValueError) as error:
                fields = {"tenant": item.tenant, "webhook": item.name, "reason": str(error)}
                logger.warning("the secret of a webhook cannot be used", extra=fields)

    @staticmethod
    def shown(item: ConfigurationItem) -> dict[str, Any]:
        """The webhook as JSON, without its secret."""
        content = json.loads(item.content)
        return {
            "id": item.id,
            "name": item.name,
            **{name: value for name, value in content.items() if name != "secret"},
        }

    def _checked(self, document: Mapping[str, Any]) -> _WebhookSpec:
        given = {name: value for name, value in document.items() if name != "id"}
        try:
            spec = _WebhookSpec.model_validate(given)
        except ValidationError as error:
            raise invalid_request(error) from None
        check_name(spec.name)
        for event in spec.events:
            if event not in EVENTS:
                raise InvalidRequestError("events", f"expected some of {', '.join(EVENTS)}")
        if isinstance(spec.payload, str) and spec.payload:
            raise InvalidRequestError("payload", "expected an object or null")
        if len(json.dumps(spec.payload)) > _MAX_PAYLOAD:
            raise InvalidRequestError("payload", f"expected at most {_MAX_PAYLOAD} bytes")
        if spec.secret is not None and not can_sign(spec.secret):
            raise InvalidRequestError("secret", "expected a random text, no public key")
        self._reach.check("url", spec.url)
        return spec


def webhook_of(item: ConfigurationItem) -> Webhook:
    """Return what is stored. Raises KeyError or ValueError for what a newer release stored otherwise."""
    content = json.loads(item.content)
    return Webhook(
        item,
        content["url"],
        frozenset(content["events"]),
        content["description"],
        content["action"],
        content["payload"] or {},
        content["secret"],
    )


def _content(spec: _WebhookSpec, sealed: str) -> str:
    # MeshAgent's client sends "" for a payload that is not there.
    content = spec.model_dump(exclude={"name", "secret"}) | {"payload": spec.payload or None, "secret": sealed}
    return json.dumps(content | {"description": spec.description or "", "action": spec.action or None})


def _audit(what: str, item: ConfigurationItem, by: str | None) -> None:
    fields = {"tenant": item.tenant, "webhook": item.name, "webhook_id": item.id, "key_id": by}
    logger.info(what, extra=fields)
