"""Starts a Python interpreter as a child of this process: how an agent's process is booted, and how a template is.

The new interpreter gets the numbers of its inherited descriptors (a socket to the host, a pipe for stack dumps) as arguments
and runs one line of code, which imports the module of `child/` that it is to run. Used by `process` and `template`; what is
forked from a template has its environment and user.

The code of an agent must not read the secrets of the host's operator: they are emptied in the environment before the
interpreter is started, so that they are nowhere in the process, also not in /proc. This protects from an agent that runs as
another `User`; with the user of its host a process can read the host's files and memory all the same.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from meshhost.hosting.processes.cpython import interpreter_flags

__all__ = ["SECRETS", "Begin", "Reapable", "User", "begin_interpreter", "boot", "boot_as", "hide_api_key"]

_CHILD = "from meshhost.hosting.processes.child.boot import main; main()"


SECRETS = tuple(
    f"{prefix}_{name}"
    for prefix in ("MESHHOST", "MESHAGENT")
    for name in ("WEBHOOK_SECRET", "ADMIN_KEY", "SECRET", "OPERATOR_KEY")
)
"""The variables that agents' processes find empty: what signs calls and tokens, and what operates the host.

MESHHOST_API_KEY stays: where a host has no use for it, it is the program's own, which asks for it by name. A host that dials in
with it hides it, too (`hide_api_key`).
"""
_hidden = set(SECRETS)


def hide_api_key() -> None:
    """Let agents' processes find MESHHOST_API_KEY empty from now on: the host dials in with it, maybe for all tenants."""
    _hidden.update(("MESHHOST_API_KEY", "MESHAGENT_API_KEY"))


@dataclass(frozen=True, slots=True)
class User:
    """The user and group that a process runs as; no other groups."""

    uid: int
    gid: int
    name: str = ""
    home: str = "/"

    @classmethod
    def of(cls, uid: int) -> "User":
        """The user of this number, with its own group; one without an entry in the user database gets a group of the number."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(uid, uid)
        return cls(uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


class Reapable(Protocol):
    """A child of this process, with the members of `subprocess.Popen` that are used."""

    @property
    def pid(self) -> int:
        """Its number. The system does not give it to another process before `wait` has returned."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None until `wait` has returned."""

    def wait(self) -> int:
        """Wait for its end and return the exit code."""


Begin = Callable[[int, int], Awaitable[tuple[Reapable, int]]]
"""Starts a process, given the descriptors of its socket and of its pipe for stack dumps; returns it with a pidfd.

Raises OSError.
"""


async def boot(sock: int, dump_fd: int) -> tuple[Reapable, int]:
    """A `Begin`: a new interpreter that runs the program again."""
    return begin_interpreter(_CHILD, sock, dump_fd)


def boot_as(user: User | None) -> Begin:
    """`boot`, as this user."""

    async def begin(sock: int, dump_fd: int) -> tuple[Reapable, int]:
        return begin_interpreter(_CHILD, sock, dump_fd, user=user)

    return begin


def begin_interpreter(code: str, *descriptors: int, user: User | None = None) -> tuple[subprocess.Popen[bytes], int]:
    """Start an interpreter that runs this code with these descriptors as its arguments; returns it with a pidfd.

    It runs as `user` (None: as this process does). Raises OSError.
    """
    environment = {name: "" if name in _hidden else value for name, value in os.environ.items()}  # noqa: TID251 - handed on
    identity: dict[str, Any] = {}
    if user is not None:
        environment |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
    # Popen rather than asyncio's child watcher: that would reap the process at once, but until it is reaped its number
    # stands for its process group, which has to be killed first.
    popen = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, *interpreter_flags(), "-c", code, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
        env=environment,
        **identity,
    )
    try:
        return popen, os.pidfd_open(popen.pid)
    except OSError:  # no descriptor left
        popen.kill()
        popen.wait()
        raise
