"""`/rooms/{room}/mcp`: the tools and agents of a room for every program that speaks MCP.

Versions 2025-03-26 to 2025-11-25 are served with a session (`initialize` gives its id) and without, 2026-07-28 without one.
What is offered: `tools/list` and `tools/call` with progress, cancellation and streams of changes; no prompts, resources,
sampling or elicitation. With `?toolkit=NAME` only that toolkit is offered, its tools under their own names.

A request passes: `Origin`, who asks (`callers.py`), the tenant's rate, a place among its connections, its body, and then the
same dispatcher, grants and bounds as a request of a participant. Listing or calling wakes the room; a first list waits for the
agents of configured services, and a call waits for its tool, as for any caller.
"""

import functools
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of
from typing import Any

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, MeshhostError, NotFoundError, TokenError
from meshhost.quotas.counts import TenantCounts, held
from meshhost.quotas.quota import Resource
from meshhost.server.address import Address
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import BodyReader
from meshhost.server.http.errors import INTERNAL_ERROR, error_response, status_of, stopping_response
from meshhost.server.mcp import wire
from meshhost.server.mcp.answers import Answer
from meshhost.server.mcp.asked import Asked
from meshhost.server.mcp.callers import McpCaller, check_origin, mcp_caller
from meshhost.server.mcp.changes import Changes, tell_changes
from meshhost.server.mcp.oauth import resource_metadata_url
from meshhost.server.mcp.sessions import McpSession, McpSessions
from meshhost.server.mcp.tools import LIST_TTL_MS, RoomTools
from meshhost.server.mcp.wire import Message, RpcError
from meshhost.server.services.agents.service import AgentsService

__all__ = ["MAX_BODY_BYTES", "PATH", "McpRoutes"]

PATH = "/rooms/{room}/mcp"
SESSION_HEADER = "Mcp-Session-Id"
MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of one request: arguments of tools, which a model wrote. Files go to the room's storage."""

Method = Callable[["Asked", Answer], Any]


class McpRoutes:
    """Serves MCP. `is_arriving` says whether agents of configured services are on their way into a room."""

    def __init__(
        self,
        access: Access,
        directory: RoomDirectory,
        agents: AgentsService,
        bodies: BodyReader,
        counts: TenantCounts,
        address: Address,
        *,
        is_arriving: Callable[[Room, float], bool],
        count: Callable[[str, str], None],
        count_mcp: Callable[[str, str], None],
        has_login: bool,
        clock: Clock | None = None,
    ) -> None:
        self._access = access
        self._directory = directory
        self._bodies = bodies
        self._counts = counts
        self._address = address
        self._has_login = has_login
        self._count = count_mcp
        tools = RoomTools(directory, agents, is_arriving=is_arriving, count=count)
        self._sessions = McpSessions(clock or SystemClock())
        self._changes = Changes()
        agents.on_change.append(self._changes.changed)
        shared: dict[str, Method] = {"tools/list": tools.list, "tools/call": tools.call}
        self._stateless: dict[str, Method] = {"server/discover": self._discover, **shared}
        self._with_sessions: dict[str, Method] = {"initialize": self._initialize, "ping": self._ping, **shared}

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes([web.post(PATH, self._post), web.get(PATH, self._get), web.delete(PATH, self._delete)])

    # ---- HTTP -----------------------------------------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if self._directory.is_stopping:
            return stopping_response()
        caller = self._caller(request)
        if isinstance(caller, web.Response):
            return caller
        if request.content_type != "application/json":
            raise InvalidRequestError("Content-Type", "expected application/json")
        tenant = caller.room.tenant
        async with (
            held(self._counts, tenant, Resource.CONNECTIONS),
            self._bodies.readable_body_of(request, tenant) as body,
        ):
            message: Message | None = None
            is_stateless = False
            try:
                message = wire.message_in(body)
                is_stateless = wire.is_stateless(request, message)
                return await self._answer(request, caller, message, is_stateless)
            except RpcError as error:
                self._count_method(message, "refused")
                is_read = message is not None and not is_stateless and error.code != wire.INVALID_REQUEST
                message_id = None if message is None else message.id
                return web.json_response(wire.error_message(message_id, error), status=200 if is_read else error.status)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        caller = self._caller(request)
        if isinstance(caller, web.Response):
            return caller
        session = self._session_of(request, caller)
        if session is None:
            raise web.HTTPMethodNotAllowed("GET", ["POST"], text="GET is for sessions: begin one with initialize")
        participant = caller.participant()
        message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        async with held(self._counts, caller.room.tenant, Resource.CONNECTIONS):
            return await tell_changes(
                request,
                self._changes,
                caller.room,
                first=None,
                message=message,
                is_over=lambda: session.is_over or self._directory.is_stopping,
                check=lambda: self._check_still(participant, caller),
            )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        caller = self._caller(request)
        if isinstance(caller, web.Response):
            return caller
        session = self._session_of(request, caller)
        if session is None:
            raise web.HTTPMethodNotAllowed("DELETE", ["POST"], text="DELETE ends a session: there is none to end")
        self._sessions.end(session)
        return web.Response(status=204)

    def _caller(self, request: web.Request) -> McpCaller | web.Response:
        """Who asks; or the answer that tells a client without a token how to get one."""
        check_origin(request, self._address.url)
        try:
            return mcp_caller(self._access, request)
        except TokenError as error:
            response = error_response(error, status=status_of(error))
            challenge = 'Bearer realm="meshhost"'
            if self._has_login:
                challenge += f', resource_metadata="{resource_metadata_url(self._address.url, request)}"'
            response.headers["WWW-Authenticate"] = challenge
            return response

    def _session_of(self, request: web.Request, caller: McpCaller) -> McpSession | None:
        """The session that a request names; None when it names none. Raises NotFoundError for one that is over."""
        session_id = request.headers.get(SESSION_HEADER)
        if session_id is None:
            return None
        session = self._sessions.find(session_id, caller.owner)
        if session is None:
            raise NotFoundError("this session is over: begin a new one with initialize")
        return session

    def _check_still(self, participant: Participant, caller: McpCaller) -> None:
        """Raise a MeshhostError when the right to listen has ended."""
        if participant.expires_at is not None and participant.expires_at.timestamp() < time.time():
            raise TokenError("the token has expired")
        self._access.identity.check_tenant(caller.room.tenant)
        if caller.key_id is not None:
            self._access.identity.secret_for(caller.key_id, caller.room.tenant)
            self._access.identity.check_use(caller.key_id)

    # ---- one message ----------------------------------------------------------------------------------------------

    async def _answer(
        self, request: web.Request, caller: McpCaller, message: Message, is_stateless: bool
    ) -> web.StreamResponse:
        if message.id is None:
            return self._take_notification(request, caller, message, is_stateless)
        session = None
        if is_stateless:
            version = wire.stateless_version(request, message)
        else:
            session = None if message.method == "initialize" else self._session_of(request, caller)
            version = request.headers.get(wire.VERSION_HEADER) or (session.version if session else wire.SESSIONS[0])
        participant = caller.participant()
        toolkit = request.query.get("toolkit")
        asked = Asked(request, caller, participant, message, version, is_stateless, session, toolkit)
        if is_stateless and message.method == "subscriptions/listen":
            return await self._listen(asked)
        method = (self._stateless if is_stateless else self._with_sessions).get(message.method)
        if method is None:
            raise RpcError(wire.METHOD_NOT_FOUND, f"this server does not offer {message.method[:100]!r}")
        return await self._run(asked, method)

    async def _run(self, asked: Asked, method: Method) -> web.StreamResponse:
        message = asked.message
        accept = asked.http.headers.get("Accept", "application/json")
        answer = Answer(
            asked.http,
            takes_stream="text/event-stream" in accept,
            # A client with a session says that it gives up; one without can only hang up.
            ends_with_client=asked.session is None,
            headers=asked.headers,
        )
        if asked.session is None:
            return await answer.of(self._outcome(asked, method, answer), status_of=_status_in(asked))
        assert message.id is not None
        with asked.session.request(message.id, answer.give_up):
            return await answer.of(self._outcome(asked, method, answer), status_of=_status_in(asked))

    async def _outcome(self, asked: Asked, method: Method, answer: Answer) -> dict[str, Any]:
        """The message that answers a request. Raises MeshhostError for what concerns HTTP: quotas, another owner."""
        outcome = "cancelled"
        try:
            result = await method(asked, answer)
            outcome = "failed" if result.get("isError") else "done"
        except RpcError as error:
            outcome = "refused"
            return wire.error_message(asked.message.id, error)
        except MeshhostError as error:
            outcome = "failed" if status_of(error) == INTERNAL_ERROR else "refused"
            raise
        finally:
            self._count_method(asked.message, outcome)
        return wire.result_message(asked.message.id, _stamped(asked, result))

    def _take_notification(
        self, request: web.Request, caller: McpCaller, message: Message, is_stateless: bool
    ) -> web.Response:
        session = None if is_stateless else self._session_of(request, caller)
        if session is not None and message.method == "notifications/cancelled":
            session.cancel(message.params.get("requestId"))
        return web.Response(status=202)

    def _count_method(self, message: Message | None, outcome: str) -> None:
        name = "" if message is None else message.method
        known = name in self._stateless or name in self._with_sessions
        self._count(name if known else "unknown", outcome)

    # ---- methods --------------------------------------------------------------------------------------------------

    async def _initialize(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        wanted = asked.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcError(wire.INVALID_PARAMS, "protocolVersion: expected a text")
        version = wanted if wanted in wire.SESSIONS else wire.SESSIONS[-1]
        asked.headers[SESSION_HEADER] = self._sessions.begin(asked.caller.owner, version).id
        return {
            "protocolVersion": version,
            "capabilities": _CAPABILITIES,
            "serverInfo": _server_info(),
            "instructions": _instructions(asked),
        }

    async def _ping(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        return {}

    async def _discover(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        return {
            "supportedVersions": list(wire.STATELESS),
            "capabilities": _CAPABILITIES,
            "instructions": _instructions(asked),
            "ttlMs": LIST_TTL_MS,
            "cacheScope": "private",
        }

    async def _listen(self, asked: Asked) -> web.StreamResponse:
        wanted = asked.params.get("notifications")
        if not isinstance(wanted, dict):
            raise RpcError(wire.INVALID_PARAMS, "notifications: expected an object of what to listen for")
        tells = wanted.get("toolsListChanged") is True
        meta = {wire.SUBSCRIPTION_META: asked.message.id}
        honoured = {"toolsListChanged": True} if tells else {}
        first = {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": meta, "notifications": honoured},
        }
        message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}
        self._count("subscriptions/listen", "done")
        return await tell_changes(
            asked.http,
            self._changes if tells else Changes(),
            asked.caller.room,
            first=first,
            message=message,
            is_over=lambda: self._directory.is_stopping,
            check=lambda: self._check_still(asked.participant, asked.caller),
        )


_CAPABILITIES = {"tools": {"listChanged": True}}


@functools.cache
def _server_info() -> Mapping[str, str]:
    return {"name": "meshhost", "title": "meshhost", "version": version_of("meshhost")}


def _instructions(asked: Asked) -> str:
    what = "the toolkits and agents" if asked.toolkit is None else f"the toolkit {asked.toolkit}"
    return (
        f"Tools are {what} of the room {asked.caller.room.name}. Names are toolkit__tool; agents__NAME asks an agent."
    )


def _stamped(asked: Asked, result: dict[str, Any]) -> dict[str, Any]:
    """The result with what the stateless generation has in each."""
    if not asked.is_stateless:
        return result
    return {"resultType": "complete", **result, "_meta": {wire.SERVER_META: _server_info()}}


def _status_in(asked: Asked) -> Callable[[Mapping[str, Any]], int]:
    def status(message: Mapping[str, Any]) -> int:
        if not asked.is_stateless or "error" not in message:
            return 200
        return RpcError(message["error"]["code"], "").status

    return status
