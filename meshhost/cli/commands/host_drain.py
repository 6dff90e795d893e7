"""Waiting until a host that drains is empty: who is still there and why, look by look."""

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
"""So many agents are looked at; of more it is only known that there are more."""
MARGIN_SECONDS = 10.0
"""What a host takes at most beyond the time of its agents: it aborts who is late."""

LOOK_SECONDS = 1.0
TELL_SECONDS = 5.0
_CONNECT_SECONDS = 3.0
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Drained:
    """How the wait ended: who is `left` as the host lists them (None: not known), and whether the host itself is gone."""

    left: list[dict[str, Any]] | None
    has_more: bool
    is_gone: bool
    seconds: float

    @property
    def is_done(self) -> bool:
        """Whether nobody of that host is there any more."""
        return self.is_gone or self.left == []

    @property
    def sentence(self) -> str:
        """The same for people."""
        number = f"{len(self.left or ())}{' or more' if self.has_more else ''}"
        if self.is_gone:
            return f"the host is gone; agents that were there when it was last seen: {number}"
        if self.left is None:
            return "gave up waiting: who is still there is not known"
        if self.left:
            return f"gave up waiting: agents that are still there: {number}"
        return f"all agents have left, after {self.seconds:.0f} s"


def wait_until_empty(
    look: Callable[[], dict[str, Any]], is_gone: Callable[[], bool], *, timeout: float, clock: Any = time
) -> Drained:
    """Return when the host is empty or gone, or after `timeout` seconds; meanwhile stderr is told who is there.

    `look` asks for the agents of the host; it may raise that it was not reached, `is_gone` then says whether that is for
    good. `clock` has `monotonic()` and `sleep(seconds)`.
    """
    began, told_at = clock.monotonic(), None
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
                # In a host that drains nobody starts: this is another one, which came in its place.
                return Drained(left, has_more, is_gone=True, seconds=now - began)
            left, has_more = answer["agents"], "next" in answer
            if not left:
                return Drained([], has_more=False, is_gone=False, seconds=now - began)
        if told_at is None or now - told_at >= TELL_SECONDS:
            told_at = now
            _tell(left or [], has_more, problem)
        if now - began >= timeout:
            return Drained(left, has_more, is_gone=False, seconds=now - began)
        clock.sleep(LOOK_SECONDS)


def _tell(left: list[dict[str, Any]], has_more: bool, problem: str | None) -> None:
    if problem is not None:
        note(f"who is still there is not known: {problem}")
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
    """Whether this address refuses connections, as one does whose process has ended."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # no answer, or no way there: that says nothing about the process
        return False
    return False
