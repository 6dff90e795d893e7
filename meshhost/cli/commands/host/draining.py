"""Waits until a draining host has no agents left, and reports meanwhile which are still there and why.

Used by `meshhost host drain`. The host may end while it is asked, and another host may start at its address: then every agent
of the first one is gone, which is told apart from a host that just does not answer.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from meshhost.cli.output import note
from meshhost.errors import ConnectionLostError, RoomRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOOKED_AT", "MARGIN_SECONDS", "Drained", "nothing_listens_at", "wait_until_empty"]

LOOKED_AT = 100
"""How many agents are read at each look; of more it is only known that there are more."""
MARGIN_SECONDS = 10.0
"""What a host may take beyond the time of its agents: then it aborts those that are late."""

LOOK_SECONDS = 1.0
REPORT_SECONDS = 5.0
_CONNECT_SECONDS = 3.0
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Drained:
    """The outcome of a wait for the end of a drain.

    `left` are the agents that are still there, as the host lists them (None: not known); `is_gone` says that the host has
    ended.
    """

    left: list[dict[str, Any]] | None
    has_more: bool
    is_gone: bool
    seconds: float

    @property
    def is_done(self) -> bool:
        """Whether no agent of that host is left."""
        return self.is_gone or self.left == []

    @property
    def sentence(self) -> str:
        """The outcome as a sentence for people."""
        number = f"{len(self.left or ())}{' or more' if self.has_more else ''}"
        if self.is_gone:
            return f"the host has ended; agents that were there at the last look: {number}"
        if self.left is None:
            return "gave up waiting: which agents are still there is not known"
        if self.left:
            return f"gave up waiting: agents that are still there: {number}"
        return f"all agents have left, after {self.seconds:.0f} s"


def wait_until_empty(
    look: Callable[[], dict[str, Any]], is_gone: Callable[[], bool], *, timeout: float, clock: Any = time
) -> Drained:
    """Return when the host has no agents or has ended, or after `timeout` seconds; report on stderr meanwhile.

    `look` asks the host for its agents. When it raises ConnectionLostError or RoomRefusedError, `is_gone` says whether the host
    has ended. `clock` has `monotonic()` and `sleep(seconds)`.
    """
    began, reported_at = clock.monotonic(), None
    left: list[dict[str, Any]] | None = None
    has_more = False
    while True:
        now, problem = clock.monotonic(), None
        try:
            answer = look()
        except (ConnectionLostError, RoomRefusedError) as error:
            problem = str(error)
            if is_gone():
                return Drained(left, has_more, is_gone=True, seconds=now - began)
        else:
            if any(agent["state"] != "draining" for agent in answer["agents"]):
                # A draining host starts no agents: another host has taken its place.
                return Drained(left, has_more, is_gone=True, seconds=now - began)
            left, has_more = answer["agents"], "next" in answer
            if not left:
                return Drained([], has_more=False, is_gone=False, seconds=now - began)
        if reported_at is None or now - reported_at >= REPORT_SECONDS:
            reported_at = now
            _report(left or [], has_more, problem)
        if now - began >= timeout:
            return Drained(left, has_more, is_gone=False, seconds=now - began)
        clock.sleep(LOOK_SECONDS)


def _report(left: list[dict[str, Any]], has_more: bool, problem: str | None) -> None:
    if problem is not None:
        note(f"which agents are still there is not known: {problem}")
        return
    number = f"more than {len(left)}" if has_more else str(len(left))
    note(f"{number} {'agent is' if number == '1' else 'agents are'} still there")
    for agent in left[:_NAMED]:
        seconds = agent["leave_seconds"]
        time_left = "" if seconds is None else f"{seconds:.0f} s left, "
        note(f"- {agent['identity']} in {agent['room']} at {agent['path']}: {time_left}waits for {agent['waits_for']}")
    if has_more or len(left) > _NAMED:
        note(f"- and {'more than ' if has_more else ''}{len(left) - _NAMED} others")


def nothing_listens_at(url: str) -> bool:
    """Return whether this address refuses connections, as it does when the process of a host has ended."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # no answer, or no route: says nothing about the process
        return False
    return False
