"""Makes the parts of what tenants configure, and starts and stops them together.

`meshhost.server.assembly` uses it for services, secrets and webhooks that tenants store while the server runs.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from meshhost.errors import RoomError
from meshhost.identity.tenant import TenantId
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import ConfiguredService, SecretUse, ServerConfig
from meshhost.server.configured.deliveries import Deliveries
from meshhost.server.configured.followed import Followed
from meshhost.server.configured.reach import TenantReach
from meshhost.server.configured.secrets import Secrets
from meshhost.server.configured.services import Services
from meshhost.server.configured.webhooks import Webhooks
from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.tasks import TaskOwner

__all__ = ["Configured"]

logger = logging.getLogger(__name__)


class Configured:
    """Secrets, services and webhooks of tenants; used as a context manager while the server runs.

    `on_services` is called with the services of all tenants when they changed. It implements what calls of services need of
    tenants (`calling.caller.TenantCalls`). The context raises OSError when what is stored cannot be read.
    """

    def __init__(
        self,
        config: ServerConfig,
        store: ConfigurationStore,
        secrets: Secrets,
        sender: WebhookSender,
        *,
        on_services: Callable[[Sequence[ConfiguredService]], None],
    ) -> None:
        host = config.host if config.public_url is None else None
        self.reach = TenantReach(config.call_urls, host=host, sender=sender)
        self.followed = Followed(store, on_services=on_services)
        self.secrets = secrets
        self.services = Services(store, self.reach, on_change=self.followed.refresh)
        self.webhooks = Webhooks(store, secrets, self.reach, on_change=self.followed.refresh)
        self.deliveries = Deliveries(store, secrets, self.reach, webhooks=self.followed.webhooks)
        self._tasks = TaskOwner("configuration of tenants")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.reach)
            await self.followed.refresh()
            stack.push_async_callback(self.deliveries.stop)
            stack.push_async_callback(self._tasks.stop)
            self._tasks.spawn(self.followed.run(), name="configuration refresh")
            self._tasks.spawn(self._renew(), name="renewal of secrets")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _renew(self) -> None:
        """After this nothing needs an older key any more. What fails is tried at the next start."""
        try:
            await self.secrets.renew()
            await self.webhooks.renew()
        except (OSError, RoomError) as error:
            logger.warning("secrets are not sealed with the new key", extra={"reason": str(error)})

    async def values(self, tenant: TenantId, uses: Sequence[SecretUse]) -> dict[str, str]:
        """See TenantCalls."""
        return await self.secrets.values(tenant, uses)

    async def send(
        self, url: str, event: str, data: Mapping[str, Any], *, secret: str | None, tenant: TenantId
    ) -> dict[str, Any]:
        """See TenantCalls."""
        return await self.reach.send(url, event, data, secret=secret, tenant=tenant)
