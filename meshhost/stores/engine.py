"""An engine: the stores of one room server, opened and closed as one object.

Choosing another engine is passing another `Engine`. Each package of implementations has a function that makes one
(`meshhost.stores.memory.engine`, `meshhost.stores.sqlite.engine`); `meshhost.app.engines` maps the scheme of
MESHHOST_DATABASE_URL to such a function; `meshhost.app.embedded` opens the engine before the server starts and closes it
after the server stopped. Nothing else knows which engine runs.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.stores.documents import DocumentStore
from meshhost.stores.identity import IdentityStore
from meshhost.stores.notifier import Notifier
from meshhost.stores.queues import QueueStore
from meshhost.stores.shared.fair import TenantWeights
from meshhost.stores.triggers.contract import TriggerStore
from meshhost.stores.usage import UsageStore

__all__ = ["Engine", "Openable"]


class Openable(Protocol):
    """Something with a life: `close` is idempotent, and ends an `open` that was cancelled or failed."""

    async def open(self) -> None:
        """Make it usable."""
        ...

    async def close(self) -> None:
        """Release all resources."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """The stores and the notifier of one engine; `name` is for logs.

    `shared` is what the stores have in common, such as a connection pool: opened before them and closed after them. Tenants
    take turns in the stores by their `weights`.
    """

    name: str
    queues: QueueStore
    documents: DocumentStore
    identity: IdentityStore
    usage: UsageStore
    triggers: TriggerStore
    configuration: ConfigurationStore
    notifier: Notifier
    shared: Sequence[Openable] = ()
    weights: TenantWeights = field(default_factory=TenantWeights)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open all parts in order. When one fails, those before it are closed again and the error is raised."""
        async with AsyncExitStack() as opened:
            for part in self._parts():
                # Before the await: a cancelled `open` may leave a lock behind, which `close` gives back.
                opened.push_async_callback(part.close)
                await part.open()
            opened.pop_all()

    async def close(self) -> None:
        """Close all parts in reverse order, also when one fails; its error is raised at the end. Idempotent."""
        async with AsyncExitStack() as parts:
            for part in self._parts():
                parts.push_async_callback(part.close)

    def _parts(self) -> tuple[Openable, ...]:
        small = (self.identity, self.documents, self.usage, self.triggers, self.configuration)
        return (*self.shared, *small, self.queues, self.notifier)
