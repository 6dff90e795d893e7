"""The calls of a room's configured agents and their outcomes, and the choice of the host that is called next.

`caller.py` writes the records; the REST API shows them to operators who ask why an agent is not in its room. They are kept in
memory with the room, a fixed number per agent, and contain no credentials: URLs and error texts are stripped of them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from meshhost.server.config import ConfiguredService, ServicePath

__all__ = [
    "MAX_ATTEMPTS",
    "CallAttempt",
    "CallOutcome",
    "CallRecord",
    "UrlRotation",
    "is_linked",
    "link_of",
    "linked_address",
    "shown_url",
    "without_host",
]

MAX_ATTEMPTS = 20
_MAX_ERROR = 1_000


class CallOutcome(StrEnum):
    """The outcome of a call."""

    ACCEPTED = "accepted"
    """The host accepted it; the agent has not joined yet."""
    JOINED = "joined"
    NOT_JOINED = "not_joined"
    """The host accepted it, but the agent did not join in time."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNSIGNED = "unsigned"
    """Nothing was sent: the tenant has no key to sign the agent's token with."""
    NO_SECRET = "no_secret"  # noqa: S105 - an outcome
    """Nothing was sent: a secret of the tenant that the service needs is missing, or cannot be read."""


@dataclass(frozen=True, slots=True)
class CallAttempt:
    """One call: when (seconds since the epoch), to which URL (without credentials), and its outcome.

    `status` is the HTTP status of a refusal.
    """

    at: float
    url: str
    outcome: CallOutcome
    status: int | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Every member."""
        return {
            "at": self.at,
            "url": self.url,
            "outcome": self.outcome.value,
            "status": self.status,
            "error": self.error,
        }


@dataclass(slots=True)
class CallRecord:
    """One agent of a service in one life of a room. Times are seconds since the epoch.

    `attempts` holds the last MAX_ATTEMPTS calls; `total` counts all. `next_call_at` is None while nothing is planned.
    """

    url: str
    path: str
    identity: str
    attempts: deque[CallAttempt] = field(default_factory=lambda: deque(maxlen=MAX_ATTEMPTS))
    total: int = 0
    joined_at: float | None = None
    next_call_at: float | None = None

    def called(self, url: str, at: float, outcome: CallOutcome, *, status: int | None = None, error: str = "") -> None:
        """Record a call that was made or could not be made."""
        self.url = shown_url(url)
        text = _without_credentials(error, url)[:_MAX_ERROR] or None
        self.attempts.append(CallAttempt(at, self.url, outcome, status, text))
        self.total += 1

    def ended(self, outcome: CallOutcome) -> None:
        """Set the outcome of the last call, which was accepted."""
        self.attempts[-1] = replace(self.attempts[-1], outcome=outcome)

    def as_json(self, *, is_present: bool) -> dict[str, Any]:
        """Every member, with those of the last attempt at the top."""
        last = self.attempts[-1] if self.attempts else None
        return {
            "url": self.url,
            "path": self.path,
            "identity": self.identity,
            "called_at": last.at if last else None,
            "outcome": last.outcome.value if last else None,
            "status": last.status if last else None,
            "error": last.error if last else None,
            "joined_at": self.joined_at,
            "is_present": is_present,
            "next_call_at": self.next_call_at,
            "total": self.total,
            "attempts": [attempt.as_json() for attempt in self.attempts],
        }


class UrlRotation:
    """Chooses the host of a service that is called next: one that works is kept, else the next that did not ask to wait."""

    def __init__(self, service: ConfiguredService, path: ServicePath) -> None:
        self._urls: Sequence[str] = [url.rstrip("/") + path.path for url in service.all_urls]
        self._free_at: dict[str, float] = {}
        self.current = self._urls[0]

    def failed(self, now: float, retry_after: float) -> float:
        """The current host failed and asked to wait `retry_after` seconds. Returns the seconds to wait for the next one."""
        self._free_at[self.current] = now + retry_after
        index = self._urls.index(self.current)
        waits = {url: max(self._free_at.get(url, now) - now, 0.0) for url in self._urls} | {self.current: retry_after}
        self.current = min([*self._urls[index + 1 :], *self._urls[: index + 1]], key=waits.__getitem__)
        return waits[self.current]


_LINK = "link://"


def is_linked(url: str) -> bool:
    """Whether a service's address stands for hosts that dialled in: `link://NAME/path`."""
    return url.startswith(_LINK)


def link_of(address: str) -> str | None:
    """The name under which the hosts of this address dialled in; None for an address by HTTP."""
    return address.removeprefix(_LINK).partition("/")[0].rpartition(".")[2] if is_linked(address) else None


def linked_address(host: str, url: str) -> str:
    """The address at which one of these hosts is called: `link://HOST.NAME/path`."""
    return f"{_LINK}{host}.{url.removeprefix(_LINK)}"


def without_host(address: str) -> str:
    """Undo `linked_address`; any other address as it is."""
    return _LINK + address.removeprefix(_LINK).partition(".")[2] if is_linked(address) else address


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _without_credentials(text: str, url: str) -> str:
    parts = urlsplit(url)
    text = text.replace(url, shown_url(url))
    credentials, at, _ = parts.netloc.rpartition("@")
    return text.replace(credentials + at, "") if at else text
