"""What this process is for, when a host has started it. `ServiceHost` asks here whether it is a host at all."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, Protocol

from meshhost.hosting.processes.messages import Message

__all__ = ["Role", "current_role", "take_role"]


class Role(Protocol):
    """The purpose of a process that runs a host's program again. `has_served` is set once `serve` found its host."""

    has_served: bool

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """Called by each host of the program, with its classes by path and its prewarm hooks, in the place of serving calls."""

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and end the program by SystemExit."""


_role: Role | None = None


def current_role() -> Role | None:
    """The role of this process; None in a host."""
    return _role


def take_role(role: Role) -> None:
    """Set the role of this process."""
    global _role  # noqa: PLW0603 - a role is an attribute of the whole process
    _role = role
