"""`GET /rooms/{room}/traces` and `/rooms/{room}/traces/{trace}`: the traces of a room, and one with its spans.

Of a room that was deleted, with another of its name since, only those of the new one are shown; also where another server
deleted it, whose deletion does not reach the store of this one.
"""

import re
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import query_number
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.stores.traces.contract import TraceKey, TraceQuery, TraceSummary

__all__ = ["TraceRoutes"]

_MOST = 200
_MOST_CHARS = 256
_TRACE = re.compile("[0-9a-f]{32}")


class TraceRoutes:
    """Serves the traces of rooms."""

    def __init__(self, access: Access, recorder: TraceRecorder) -> None:
        self._access = access
        self._recorder = recorder

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [web.get("/rooms/{room}/traces", self._list), web.get("/rooms/{room}/traces/{trace}", self._show)]
        )

    async def _list(self, request: web.Request) -> web.Response:
        room, since = self._room(request)
        query = TraceQuery(
            queue=_name(request, "queue"),
            message=_name(request, "message"),
            agent=_name(request, "agent"),
            failed=_flag(request, "failed"),
            longer=_seconds(request, "longer"),
            since=since,
            before=request.query.get("before") or None,
            limit=max(1, min(query_number(request, "limit", 50), _MOST)),
        )
        page = await self._recorder.find(room, query)
        return web.json_response(
            {
                "traces": [_shown(each) for each in page.traces],
                "next": page.next,
                "recording": self._recorder.is_recording,
            }
        )

    async def _show(self, request: web.Request) -> web.Response:
        room, since = self._room(request)
        trace = request.match_info["trace"]
        found = await self._recorder.get(TraceKey(room, trace), since=since) if _TRACE.fullmatch(trace) else None
        if found is None:
            raise NotFoundError("no such trace: it was not recorded, or it is too old")
        summary, spans = found
        return web.json_response({**_shown(summary), "spans": [span.as_json() for span in spans]})

    def _room(self, request: web.Request) -> tuple[RoomKey, float]:
        """The room, and since when it is this one."""
        room = RoomKey(TenantId(self._access.project(request)), check_room_name(request.match_info["room"]))
        deleted = self._access.identity.deleted_rooms
        if deleted.is_known(room):
            raise NotFoundError("the room is being deleted or imported")
        return room, deleted.deleted_at(room)


def _shown(summary: TraceSummary) -> dict[str, Any]:
    return {
        "trace": summary.trace,
        "name": summary.name,
        "began_at": summary.began,
        "seconds": max(summary.ended - summary.began, 0.0),
        "failed": summary.is_failed,
        "queues": list(summary.queues),
        "messages": list(summary.messages),
        "agents": list(summary.agents),
        "span_count": summary.spans,
        "dropped": summary.dropped,
    }


def _name(request: web.Request, parameter: str) -> str:
    text = request.query.get(parameter, "")
    if len(text) > _MOST_CHARS:
        raise InvalidRequestError(parameter, f"expected at most {_MOST_CHARS} characters")
    return text


def _flag(request: web.Request, parameter: str) -> bool:
    text = request.query.get(parameter, "false").lower()
    if text not in {"true", "false", "1", "0", ""}:
        raise InvalidRequestError(parameter, "expected true or false")
    return text in {"true", "1"}


def _seconds(request: web.Request, parameter: str) -> float:
    text = request.query.get(parameter, "") or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidRequestError(parameter, "expected a number of seconds")
    return seconds
