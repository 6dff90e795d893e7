"""The stores of a room server in one object, for work that goes through all of them: deletion, export and import.

Made once, in `meshhost.server.assembly`. Who works on one store only takes that store.
"""

from dataclasses import dataclass

from meshhost.gateway.meter import Meter
from meshhost.identity.tenant import TenantId
from meshhost.queues.service import QueueService
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.quota import Resource
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.stores.documents import DocumentStore
from meshhost.stores.files import RoomFiles
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.triggers.contract import TriggerStore
from meshhost.tables.contract import TableStore

__all__ = ["Kept"]

_COUNTED = (
    Resource.QUEUES,
    Resource.MESSAGES,
    Resource.DOCUMENTS,
    Resource.TABLES,
    Resource.FILES,
    Resource.STORED_BYTES,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a room server keeps what belongs to tenants, and what is counted of it for their quotas."""

    identity: IdentityService
    queues: QueueService
    documents: DocumentStore
    files: RoomFiles
    meter: Meter
    counts: TenantCounts
    triggers: TriggerStore
    configuration: ConfigurationStore
    traces: TraceRecorder
    tables: TableStore | None = None

    def count_again(self, tenant: TenantId) -> None:
        """What a tenant keeps has changed beside the counts: take it from the stores before it is relied on."""
        for resource in _COUNTED:
            self.counts.doubt(tenant, resource)
