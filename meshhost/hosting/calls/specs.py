"""The service description of a host, at `/.well-known/meshhost-service.json` (room-protocol §18.6).

`ServiceHost.get_service_spec` makes it; `meshhost service run` and room servers read it to learn the paths, the identities and
how long a stop may take. Its shape is MeshAgent's: that parser refuses unknown members, so ours are annotations.
"""

import math
from collections.abc import Iterable
from typing import Any

from meshhost.identity.grants import ApiScope

__all__ = ["WELL_KNOWN_PATHS", "drain_seconds_of", "service_spec"]

WELL_KNOWN_PATHS = ("/.well-known/meshhost-service.json", "/.well-known/meshagent-service.json")

_DRAIN_SECONDS = "meshhost.drain_seconds"


def service_spec(
    *,
    name: str,
    port: int,
    endpoints: Iterable[tuple[str, str | None, ApiScope | None]],
    image: str = "",
    drain_seconds: float | None = None,
) -> dict[str, Any]:
    """The description of a service with these endpoints (path, identity, scope).

    `drain_seconds` is how long the service may take to stop; it becomes an annotation.
    """
    annotations = None if drain_seconds is None else {_DRAIN_SECONDS: f"{drain_seconds:g}"}
    described = [
        {
            "path": path,
            "meshagent": {"identity": identity or "agent", "api": None if scope is None else scope.model_dump()},
            "mcp": None,
        }
        for path, identity, scope in endpoints
    ]
    return {
        "version": "v1",
        "kind": "Service",
        "id": None,
        "metadata": {"name": name, "description": None, "repo": None, "icon": None, "annotations": annotations},
        "agents": None,
        "ports": [{"num": port, "type": "http", "endpoints": described, "liveness": None}],
        "container": {
            "command": None,
            "image": image,
            "environment": None,
            "secrets": [],
            "pull_secret": None,
            "storage": None,
            "api_key": None,
        },
        "external": None,
    }


def drain_seconds_of(description: Any) -> float | None:
    """How long the described service may take to stop; None when it does not say, or says something invalid."""
    try:
        seconds = float(description["metadata"]["annotations"][_DRAIN_SECONDS])
    except (KeyError, TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < math.inf else None
