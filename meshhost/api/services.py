"""The names of `meshagent.api.services`: the service host and what its paths are configured with."""

from meshhost.hosting.service_host import ServiceHost
from meshhost.room.call import CallContext
from meshhost.supervision.policy import RestartPolicy

__all__ = ["CallContext", "RestartPolicy", "ServiceHost"]
