"""meshhost: host AI agents for many tenants.

Users import from the MeshAgent-shaped packages (`meshhost.api`, `meshhost.agents`, `meshhost.tools`, `meshhost.openai`,
`meshhost.otel`); everything else is the inside.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
