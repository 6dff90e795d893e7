"""meshhost: host AI agents for many tenants.

Users import from the MeshAgent-shaped packages (`meshhost.api`, `meshhost.agents`, `meshhost.tools`, `meshhost.openai`,
`meshhost.otel`), and programs join a room with `meshhost.connect`; everything else is the inside.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshhost.app.connection import connect

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: it needs the whole client, and this module is loaded with each part of the package.
    if name != "connect":
        raise AttributeError(f"module 'meshhost' has no attribute {name!r}")
    from meshhost.app.connection import connect

    return connect
