"""The operator's routes: list and dismiss agents, freeze tenants, release quarantines, drain the host.

`meshhost host` and Studio use them. `AdminGuard` checks the admin key first on each route; without a key only programs of this
machine are let in, and no browser, which a web page could abuse. A room server calls what participants ask it to call, and may
be on this machine: what can be told to be its call is refused here, whatever key it shows. A dismissal or a drain goes on in
the background after the 202; its task belongs to `AdminRoutes` (dismissals) or to the host's drain.
"""

import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from meshhost.clock import Clock
from meshhost.edge.same_machine import is_local_program
from meshhost.edge.watched import know_sender
from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import HostedAgent
from meshhost.hosting.calls.pauses import MAX_PAUSE_SECONDS, Pauses
from meshhost.hosting.http.bodies import body_of
from meshhost.hosting.http.pages import AgentQuery, LogQuery, page_of
from meshhost.hosting.observe.recent_logs import RecentLogs
from meshhost.hosting.tenants.freezes import MAX_REASON_LENGTH, Freeze
from meshhost.hosting.tenants.quarantine import EVERY_PATH, Hold
from meshhost.hosting.tenants.tenancy import Tenancy, TenantFacts
from meshhost.identity.tenant import AgentKey
from meshhost.identity.webhooks import CALL_HEADER, EVENT_HEADERS, SIGNATURE_HEADERS
from meshhost.supervision.state import TERMINAL, State
from meshhost.supervision.supervisor import Supervisor
from meshhost.tasks import TaskOwner
from meshhost.tenant_names import known_name_of
from meshhost.validation import first_problem

__all__ = ["AdminGuard", "AdminRoutes"]

logger = logging.getLogger(__name__)

_WAITS_FOR = {
    State.STARTING: "its start",
    State.BACKING_OFF: "its next start after a crash",
    State.QUARANTINED: "the end of a quarantine",
    State.DRAINING: "its work to finish",
}


class _Release(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str = Field(min_length=1)
    path: str = EVERY_PATH


class _Dismissal(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    seconds: float | None = Field(default=None, alias="for", ge=0, le=MAX_PAUSE_SECONDS, allow_inf_nan=False)


class _Freeze(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_REASON_LENGTH)] = ""


Model = TypeVar("Model", bound=BaseModel)
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OF_A_CALL = (CALL_HEADER, *SIGNATURE_HEADERS, *EVENT_HEADERS)


class AdminGuard:
    """Admits requests with the admin key; without a key, requests of programs of this machine. Never calls of a room server."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def guarded(self, handler: Handler) -> Handler:
        """The handler of a route, behind `check`."""

        async def checked(request: web.Request) -> web.StreamResponse:
            await self.check(request)
            return await handler(request)

        return checked

    async def check(self, request: web.Request) -> None:
        """Raises CallRefusedError: 401 without the right to administer, 403 for a call of a room server, 400 for its body."""
        self._check_sender(request)
        if any(name in request.headers for name in _OF_A_CALL):
            raise _call_refused()
        know_sender(request)
        body = await body_of(request)
        # Room servers of others, and ours before it marked its calls, are known by what they send.
        if _is_event(body):
            raise _call_refused()

    def _check_sender(self, request: web.Request) -> None:
        if self._key is None:
            if not is_local_program(request):
                raise CallRefusedError(
                    "this host has no admin key and is administered from its machine only; set MESHHOST_ADMIN_KEY",
                    status=401,
                )
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # As bytes: compare_digest accepts only ASCII text.
        same = hmac.compare_digest(given.strip().encode(errors="replace"), self._key.encode())
        if scheme.lower() != "bearer" or not same:
            raise CallRefusedError("the admin key is wrong: expected Authorization: Bearer <key>", status=401)


class AdminRoutes:
    """The routes of the operator.

    `memory_of` gives an agent's memory in bytes when it has a process of its own, else None; `isolation_of` gives `task` or
    `process`; `is_kept` whether a room server calls it again when it is gone; `pauses` keeps one away. `drain` makes the host
    take no more calls and drains its agents in the background. `logs` has the last records.
    """

    def __init__(
        self,
        *,
        guard: AdminGuard,
        supervisor: Supervisor[AgentKey],
        tenancy: Tenancy,
        clock: Clock,
        drain: Callable[[], None],
        memory_of: Callable[[HostedAgent], int | None],
        isolation_of: Callable[[HostedAgent], str],
        logs: RecentLogs,
        is_kept: Callable[[HostedAgent], bool],
        pauses: Pauses,
    ) -> None:
        self._guard = guard
        self._supervisor = supervisor
        self._tenancy = tenancy
        self._clock = clock
        self._drain_host = drain
        self._memory_of = memory_of
        self._isolation_of = isolation_of
        self._logs = logs
        self._is_kept = is_kept
        self._pauses = pauses
        self._tasks = TaskOwner("admin")

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes. To be called before routes that match any path are added."""
        guarded = self._guard.guarded
        router.add_get("/agents", guarded(self._list))
        router.add_get("/agents/logs", guarded(self._show_logs))
        router.add_get("/agents/{id}", guarded(self._describe))
        router.add_delete("/agents/{id}", guarded(self._dismiss))
        router.add_get("/tenants", guarded(self._tenants))
        router.add_post("/tenants/{tenant}/freeze", guarded(self._freeze))
        router.add_post("/tenants/{tenant}/thaw", guarded(self._thaw))
        router.add_post("/quarantine/release", guarded(self._release))
        router.add_post("/drain", guarded(self._drain))

    async def close(self) -> None:
        """Stop waiting for the dismissals; the agents go on draining."""
        await self._tasks.stop(timeout=1.0)

    async def _list(self, request: web.Request) -> web.Response:
        query, now = _checked(AgentQuery, dict(request.query)), self._clock.time()
        # Others than the living are listed only for who asks for them: callers count the agents of a host, and wait for none.
        listed = self._supervisor.failed if query.state is State.FAILED else self._supervisor.live
        agents, cursor = page_of(listed, query, find=self._supervisor.find)
        page: dict[str, Any] = {"agents": [self._as_json(agent, now) for agent in agents]}
        return web.json_response(page if cursor is None else {**page, "next": cursor})

    async def _show_logs(self, request: web.Request) -> web.Response:
        query = _checked(LogQuery, dict(request.query))
        records, last = self._logs.after(query.after, limit=query.limit, fields=query.fields)
        return web.json_response({"records": records, "next": last})

    async def _describe(self, request: web.Request) -> web.Response:
        agent = self._agent(request)
        shown = self._as_json(agent, self._clock.time())
        if agent.last_error is not None:
            shown["last_error"]["traceback"] = agent.last_error.traceback
        return web.json_response(shown)

    async def _dismiss(self, request: web.Request) -> web.Response:
        agent = self._agent(request)
        abort = request.query.get("abort", "0") in ("1", "true")
        seconds = _checked(_Dismissal, dict(request.query)).seconds
        is_kept = self._is_kept(agent)
        if seconds is not None:
            self._pauses.pause(agent.key, seconds)
        if agent.state not in TERMINAL:
            fields = {"spawn_id": agent.id, "agent": agent.name, "abort": abort}
            logger.info("agent is dismissed by the operator", extra=fields)
            if abort:
                agent.abort()
            else:
                self._tasks.spawn(self._supervisor.stop(agent), name=f"drains {agent.name}")
        answer = {"ok": True, "spawn_id": agent.id, "called_again": is_kept, "paused_seconds": seconds}
        return web.json_response(answer, status=202)

    async def _tenants(self, request: web.Request) -> web.Response:
        load, queue = self._tenancy.load.load, self._tenancy.queue
        return web.json_response(
            {
                "tenants": [self._tenant_as_json(facts) for facts in self._tenancy.facts()],
                "load": {"value": round(load.value, 3), **load.as_json()},
                "starts": {"waiting": queue.waiting(), "running": queue.starting},
            }
        )

    async def _freeze(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        wanted = _checked(_Freeze, await body_of(request) or b"{}")
        freeze = await self._tenancy.frozen.freeze(tenant, reason=wanted.reason)
        logger.warning("tenant is frozen by the operator", extra={"tenant": tenant, "is_durable": freeze.is_durable})
        return web.json_response({"ok": True, "tenant": tenant, "frozen": True, "freeze": _freeze_as_json(freeze)})

    async def _thaw(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        await self._tenancy.frozen.thaw(tenant)
        logger.info("tenant is not frozen any more", extra={"tenant": tenant})
        return web.json_response({"ok": True, "tenant": tenant, "frozen": False})

    async def _release(self, request: web.Request) -> web.Response:
        wanted = _checked(_Release, await body_of(request))
        ended = self._tenancy.release(wanted.tenant, wanted.path)
        if not ended:
            text = "this path of the tenant is not in quarantine" if wanted.path else "this tenant is not in quarantine"
            raise CallRefusedError(text, status=404)
        return web.json_response({"ok": True, "released": [self._hold_as_json(hold) for hold in ended]})

    async def _drain(self, request: web.Request) -> web.Response:
        live = self._supervisor.live
        seconds = max((agent.spec.drain_seconds for agent in live), default=0.0)
        logger.warning("host is drained by the operator", extra={"agents": len(live)})
        self._drain_host()
        return web.json_response({"ok": True, "agents": len(live), "seconds": seconds}, status=202)

    def _agent(self, request: web.Request) -> HostedAgent:
        agent = self._supervisor.find(request.match_info["id"])
        if agent is None:
            raise CallRefusedError("no agent with this id", status=404)
        return agent

    def _as_json(self, agent: HostedAgent, now: float) -> dict[str, Any]:
        error, key, activity = agent.last_error, agent.key, agent.activity
        waits_for = self._tenancy.waits_for(agent) or _WAITS_FOR.get(agent.state)
        if agent.state is State.DRAINING and activity is not None:
            waits_for = f"{waits_for}: {activity}"
        return {
            "id": agent.id,
            "state": agent.state.value,
            "tenant": key.tenant,
            "tenant_name": known_name_of(key.tenant),
            "room": key.room.name,
            "identity": key.identity,
            "path": key.path,
            "isolation": self._isolation_of(agent),
            "restarts": agent.restarts,
            "age_seconds": round(now - agent.started_at, 3),
            "state_seconds": round(now - agent.state_since, 3),
            "waits_for": waits_for,
            "activity": activity,
            "leave_seconds": None if agent.seconds_left is None else round(agent.seconds_left, 3),
            "reason": agent.reason,
            "last_error": None if error is None else {"type": error.type, "text": error.text},
            "memory_bytes": self._memory_of(agent),
        }

    def _tenant_as_json(self, facts: TenantFacts) -> dict[str, Any]:
        quota, freeze = self._tenancy.quotas.of(facts.tenant), self._tenancy.frozen.get(facts.tenant)
        return {
            "tenant": facts.tenant,
            "tenant_name": known_name_of(facts.tenant),
            "agents": facts.agents,
            "waiting": facts.waiting,
            "memory_bytes": facts.memory_bytes,
            "frozen": facts.is_frozen,
            "freeze": None if freeze is None else _freeze_as_json(freeze),
            "quarantine": [self._hold_as_json(hold) for hold in facts.holds],
            "quota": {
                "max_agents": quota.max_agents,
                "starts_per_second": quota.starts_per_second,
                "max_waiting": quota.max_waiting,
                "memory_mb": quota.memory_mb,
                "weight": quota.weight,
            },
        }

    def _hold_as_json(self, hold: Hold) -> dict[str, Any]:
        return {
            "tenant": hold.tenant,
            "path": hold.path or None,
            "reason": hold.reason,
            "hold": hold.number,
            "on_probation": hold.probe is not None,
            "seconds_left": round(self._tenancy.quarantine.seconds_left(hold), 3),
        }


def _is_event(body: bytes) -> bool:
    """Whether a body is a webhook, as a room server posts it."""
    try:
        value = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "event" in value


def _call_refused() -> CallRefusedError:
    return CallRefusedError("a room server calls agents, and may not administer this host", status=403)


def _freeze_as_json(freeze: Freeze) -> dict[str, Any]:
    return {"since": round(freeze.since, 3), "reason": freeze.reason or None, "until_restart": not freeze.is_durable}


def _checked(model: type[Model], given: bytes | dict[str, str]) -> Model:
    """The parameters of a request, from its JSON body or its query. Raises CallRefusedError (400) naming the field."""
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        where, message = first_problem(error)
        raise CallRefusedError(f"{where or 'body'}: {message}", status=400) from None
