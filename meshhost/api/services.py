"""`meshagent.api.services`."""

from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.room.call import CallContext
from meshhost.supervision.policy import RestartPolicy

__all__ = ["CallContext", "RestartPolicy", "ServiceHost", "TenantQuota"]
