"""What the holder of an API key may do: three roles, each of which includes those below it.

A role belongs to a key, not to a person. Which role a REST route needs is one table, `meshhost.server.http.permissions`; a
token that is signed by a key carries its own grants, but only a key that may make tokens signs valid ones. A leaf.
"""

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """The role of an API key: a viewer reads, a developer also uses rooms and makes tokens, an admin also manages keys."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"

    def includes(self, needed: "Role") -> bool:
        """Return whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)
