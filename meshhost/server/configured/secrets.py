"""Secrets of tenants: stored sealed, used by services and providers, and never shown again.

A secret has a name, a type and members: `keys` is what MeshAgent calls a set of variables, such as `{"OPENAI_API_KEY":
"sk-…"}`. Its content leaves this module in two ways only: with the call of a service that names it, and as the key of a
provider that the operator's file lets tenants bring themselves. What is shown of it is name, type and times. Each change is
an audit line of the log, with who made it; the members are in no log.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, SecretsLockedError
from meshhost.identity.tenant import TenantId
from meshhost.server.config import SecretUse
from meshhost.server.configured.items import Items, check_name
from meshhost.server.configured.sealing import Sealer
from meshhost.stores.configuration.contract import ConfigurationItem, ConfigurationStore, ItemKind

__all__ = ["MAX_SECRETS", "SECRET_TYPE", "Secrets", "check_data"]

logger = logging.getLogger(__name__)

SECRET_TYPE = "keys"  # noqa: S105 - a type
MAX_SECRETS = 200
_MAX_MEMBERS = 64
_MAX_MEMBER_NAME = 128
_MAX_BYTES = 64 * 1024


class Secrets:
    """The secrets of all tenants. Operations raise OSError, SecretsLockedError when the server has no key for them."""

    def __init__(self, store: ConfigurationStore, sealer: Sealer, *, clock: Clock | None = None) -> None:
        self._items = Items(store, ItemKind.SECRET, most=MAX_SECRETS, clock=clock or SystemClock())
        self._store = store
        self._sealer = sealer

    async def create(
        self, tenant: TenantId, name: str, data: Mapping[str, str], *, by: str | None
    ) -> ConfigurationItem:
        """Store a new secret; `by` is the id of the API key.

        Raises AlreadyExistsError, LimitExceededError, InvalidRequestError.
        """
        item = self._items.new(tenant, check_name(name))
        item = replace(item, content=self._sealed(item, data))
        await self._items.add(item)
        _audit("secret created", item, by)
        return item

    async def update(
        self, tenant: TenantId, secret_id: str, name: str, data: Mapping[str, str], *, by: str | None
    ) -> ConfigurationItem:
        """Replace name and members of a secret. Raises NotFoundError, AlreadyExistsError, InvalidRequestError."""
        item = await self._items.get(tenant, secret_id)
        changed = await self._items.change(item, name=check_name(name), content=self._sealed(item, data))
        _audit("secret changed", changed, by)
        return changed

    async def list(self, tenant: TenantId) -> list[ConfigurationItem]:
        """Return the tenant's secrets, by name."""
        return await self._items.list(tenant)

    async def delete(self, tenant: TenantId, secret_id: str, *, by: str | None) -> None:
        """Delete a secret. Raises NotFoundError."""
        item = await self._items.get(tenant, secret_id)
        await self._items.delete(item)
        _audit("secret deleted", item, by)

    @staticmethod
    def shown(item: ConfigurationItem) -> dict[str, Any]:
        """What is shown of a secret, as JSON. `data` is there for MeshAgent's client, and always empty."""
        times = {"created_at": item.created_at, "changed_at": item.changed_at}
        return {"id": item.id, "name": item.name, "type": SECRET_TYPE, "data": {}, **times}

    async def values(self, tenant: TenantId, uses: Sequence[SecretUse]) -> dict[str, str]:
        """Return the values by the names of variables. Raises NotFoundError for a secret or member that is not there."""
        items = await self._items.list(tenant)
        found: dict[str, str] = {}
        for use in uses:
            item = next((each for each in items if use.secret in (each.id, each.name)), None)
            if item is None:
                raise NotFoundError(f"the tenant has no secret {use.secret!r}")
            members = self._members(item)
            if use.variable is None:
                found |= members
            elif use.variable in members:
                found[use.variable] = members[use.variable]
            elif len(members) == 1:
                [found[use.variable]] = members.values()
            else:
                raise NotFoundError(f"the secret {item.name!r} has several members, and none is {use.variable!r}")
        return found

    async def value(self, tenant: TenantId, secret: str, member: str) -> str | None:
        """Return one member of a secret, or its only one; None when the tenant has no such secret."""
        try:
            [found] = (await self.values(tenant, [SecretUse(secret, member)])).values()
        except NotFoundError:
            return None
        return found

    def seal(self, text: str, item: ConfigurationItem) -> str:
        """Return what belongs to another kind of item sealed, such as the secret of a webhook."""
        return self._sealer.seal(text, place=_place(item))

    def open(self, sealed: str, item: ConfigurationItem) -> str:
        """Return what was sealed for this item."""
        return self._sealer.open(sealed, place=_place(item))

    def renewed(self, sealed: str, item: ConfigurationItem) -> str | None:
        """Return what was sealed with an older key sealed with the present one; None for what is. Raises SecretsLockedError."""
        return None if self._sealer.is_current(sealed) else self.seal(self.open(sealed, item), item)

    async def renew(self) -> None:
        """Seal every secret with the present key that is sealed with an older one. Says in the log which cannot be read."""
        snapshot = await self._store.read(ItemKind.SECRET)
        for item in () if snapshot is None else snapshot.items:
            try:
                content = self.renewed(item.content, item)
                if content is not None:
                    await self._items.change(item, content=content)
                    _audit("secret sealed with a new key", item, None)
            except (SecretsLockedError, AlreadyExistsError) as error:  # the second: it was changed at this moment
                fields = {"tenant": item.tenant, "secret": item.name, "reason": str(error)}
                logger.warning("a secret cannot be used", extra=fields)

    def _sealed(self, item: ConfigurationItem, data: Mapping[str, str]) -> str:
        return self.seal(json.dumps(check_data(data)), item)

    def _members(self, item: ConfigurationItem) -> dict[str, str]:
        members: dict[str, str] = json.loads(self.open(item.content, item))
        return members


def check_data(data: object) -> dict[str, str]:
    """Return the members of a secret. Raises InvalidRequestError, whose text has no value."""
    if not isinstance(data, Mapping) or not 1 <= len(data) <= _MAX_MEMBERS:
        raise InvalidRequestError("data", f"expected an object of 1 to {_MAX_MEMBERS} texts")
    for name, value in data.items():
        if not isinstance(name, str) or not name or len(name) > _MAX_MEMBER_NAME or not name.isprintable():
            raise InvalidRequestError("data", f"expected names of 1 to {_MAX_MEMBER_NAME} printable characters")
        if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidRequestError(f"data.{name}", "expected a text")
    if sum(len(value) for value in data.values()) > _MAX_BYTES:
        raise InvalidRequestError("data", f"expected at most {_MAX_BYTES} characters in all")
    return dict(data)


def _place(item: ConfigurationItem) -> str:
    return f"{item.kind}/{item.tenant}/{item.id}"


def _audit(what: str, item: ConfigurationItem, by: str | None) -> None:
    logger.info(what, extra={"tenant": item.tenant, "secret": item.name, "secret_id": item.id, "key_id": by})
