"""Sessions of MCP's older generation: who began each, in which version, and its requests in progress.

A session costs little and holds no room open: it is what lets a client cancel a request of its own and listen for changes. It
belongs to who began it; for anybody else it does not exist. One that was not used for IDLE_SECONDS ends, and the one used
least recently when a tenant has more than MAX_SESSIONS; its client then begins a new one, as the protocol demands.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from meshhost.clock import Clock
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.mcp.wire import INVALID_REQUEST, RpcError

__all__ = ["IDLE_SECONDS", "MAX_SESSIONS", "McpSession", "McpSessions"]

IDLE_SECONDS = 3600.0
MAX_SESSIONS = 1000

# Room, identity, and the key of it: only the same one may use a session.
Owner = tuple[RoomKey, str, str | None]


@dataclass(slots=True, eq=False)
class McpSession:
    """One session. `running` has for each of its requests in progress what gives it up; `is_over` is set when it ends."""

    id: str
    owner: Owner
    version: str
    used_at: float
    running: dict[str | int, Callable[[], None]] = field(default_factory=dict)
    is_over: bool = False

    @contextmanager
    def request(self, request_id: str | int, give_up: Callable[[], None]) -> Iterator[None]:
        """Note a request for the time of a block. Raises RpcError for an id that is in use."""
        if request_id in self.running:
            raise RpcError(INVALID_REQUEST, "id: another request of this session has it")
        self.running[request_id] = give_up
        try:
            yield
        finally:
            del self.running[request_id]

    def cancel(self, request_id: object) -> None:
        """The client no longer waits for this request. One that is over is left alone."""
        if isinstance(request_id, str | int) and (give_up := self.running.get(request_id)) is not None:
            give_up()


class McpSessions:
    """The sessions of this server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By tenant, the one used last at the end.
        self._sessions: dict[TenantId, OrderedDict[str, McpSession]] = {}

    def __len__(self) -> int:
        return sum(len(sessions) for sessions in self._sessions.values())

    def begin(self, owner: Owner, version: str) -> McpSession:
        """Begin a session."""
        now, tenant = self._clock.monotonic(), owner[0].tenant
        sessions = self._sessions.setdefault(tenant, OrderedDict())
        session = McpSession(secrets.token_urlsafe(24), owner, version, now)
        sessions[session.id] = session
        for old in list(sessions.values()):
            if len(sessions) <= MAX_SESSIONS and old.used_at > now - IDLE_SECONDS:
                break
            self.end(old)
        return session

    def find(self, session_id: str, owner: Owner) -> McpSession | None:
        """The session of this id, if it is this owner's. It counts as used."""
        sessions = self._sessions.get(owner[0].tenant, OrderedDict())
        session, now = sessions.get(session_id), self._clock.monotonic()
        if session is None or session.owner != owner:
            return None
        if session.used_at <= now - IDLE_SECONDS:
            self.end(session)
            return None
        session.used_at = now
        sessions.move_to_end(session_id)
        return session

    def end(self, session: McpSession) -> None:
        """End the session. Its requests in progress go on; its stream of changes ends."""
        session.is_over = True
        sessions = self._sessions.get(session.owner[0].tenant, OrderedDict())
        sessions.pop(session.id, None)
        if not sessions:
            self._sessions.pop(session.owner[0].tenant, None)
