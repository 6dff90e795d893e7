"""Where MeshAgent programs import `RemoteToolkit` from; the code is in `meshhost.tools.remote`."""

from meshhost.tools.remote import RemoteToolkit

__all__ = ["RemoteToolkit"]
