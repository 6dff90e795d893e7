"""The name of `meshagent.api.http`: sessions for HTTP requests.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.rest.client import new_client_session

__all__ = ["new_client_session"]
