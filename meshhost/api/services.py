"""The names of `meshagent.api.services`: the service host and what its paths are configured with.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.hosting.service_host import ServiceHost, ServicePath
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.room.call import CallContext
from meshhost.supervision.policy import RestartPolicy

__all__ = ["CallContext", "RestartPolicy", "ServiceHost", "ServicePath", "TenantQuota"]
