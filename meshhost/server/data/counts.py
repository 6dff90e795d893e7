"""Counts what tenants keep, over the stores of a room server: which store counts which resource.

`embedded` makes the counts here and passes them to the queues and to the server. A store counts a tenant in one query; files
are looked at one by one, in the threads of the object store.
"""

from collections.abc import Mapping

from meshhost.identity.tenant import TenantId
from meshhost.quotas.counts import LocalCounts
from meshhost.quotas.quota import Resource
from meshhost.stores.bodies.objects import BodyObjects
from meshhost.stores.engine import Engine
from meshhost.stores.files import RoomFiles
from meshhost.stores.identity_service import IdentityService
from meshhost.tables.contract import TableStore

__all__ = ["tenant_counts"]


def tenant_counts(
    identity: IdentityService, engine: Engine, files: RoomFiles, bodies: BodyObjects, tables: TableStore
) -> LocalCounts:
    """Return the counts of a server over these stores, which must be open while it is used."""

    async def queues(tenant: str) -> Mapping[Resource, int]:
        found = await engine.queues.of_tenant(TenantId(tenant))
        return {Resource.QUEUES: found.queues, Resource.MESSAGES: found.messages}

    async def stored(tenant: str) -> Mapping[Resource, int]:
        found = await files.of_tenant(TenantId(tenant))
        in_queues = await bodies.bytes_of(TenantId(tenant))
        in_tables = (await tables.of_tenant(TenantId(tenant))).stored_bytes
        return {Resource.FILES: found.files, Resource.STORED_BYTES: found.stored_bytes + in_queues + in_tables}

    async def documents(tenant: str) -> Mapping[Resource, int]:
        return {Resource.DOCUMENTS: await engine.documents.count(TenantId(tenant))}

    async def tabled(tenant: str) -> Mapping[Resource, int]:
        return {Resource.TABLES: (await tables.of_tenant(TenantId(tenant))).tables}

    return LocalCounts(
        identity.quota_of,
        sources=[
            (frozenset({Resource.QUEUES, Resource.MESSAGES}), queues),
            (frozenset({Resource.FILES, Resource.STORED_BYTES}), stored),
            (frozenset({Resource.DOCUMENTS}), documents),
            (frozenset({Resource.TABLES}), tabled),
        ],
    )
