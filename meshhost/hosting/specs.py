"""The service description that a host shows at `/.well-known/meshhost-service.json` (room-protocol §18.6)."""

from collections.abc import Iterable
from typing import Any

from meshhost.identity.grants import ApiScope

__all__ = ["WELL_KNOWN_PATHS", "service_spec"]

WELL_KNOWN_PATHS = ("/.well-known/meshhost-service.json", "/.well-known/meshagent-service.json")


def service_spec(
    *, name: str, port: int, endpoints: Iterable[tuple[str, str | None, ApiScope | None]], image: str = ""
) -> dict[str, Any]:
    """The description of a service with these endpoints (path, identity, scope).

    MeshAgent's parser refuses unknown members, so none is added.
    """
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
        "metadata": {"name": name, "description": None, "repo": None, "icon": None, "annotations": None},
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
