"""The name that MeshAgent programs import from `meshagent.tools.hosting`; the code is in `meshhost.tools.remote`."""

from meshhost.tools.remote import RemoteToolkit

__all__ = ["RemoteToolkit"]
