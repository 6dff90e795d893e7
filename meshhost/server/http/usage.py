"""`GET /accounts/projects/{project}/usage`: what a tenant's rooms spent on models, as the gateway measured it.

One of the REST routes of a project, authenticated by its API key. It reads through the meter, so that an answer includes
what this server has counted but not yet stored. Register it before RestRoutes, whose last route answers everything else.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.gateway.meter import Meter
from meshhost.identity.tenant import TenantId, check_room_name
from meshhost.stores.usage import UsageRow

__all__ = ["UsageRoutes"]

_LIMIT = 1000


class UsageRoutes:
    """The usage of one tenant. `project_of` returns the project of a request, or raises TokenError or NotFoundError."""

    def __init__(self, meter: Meter, project_of: Callable[[web.Request], str]) -> None:
        self._meter = meter
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/accounts/projects/{project}/usage", self._usage)])

    async def _usage(self, request: web.Request) -> web.Response:
        tenant, query = TenantId(self._project_of(request)), request.query
        rows = await self._meter.read(
            tenant,
            room=check_room_name(query["room"]) if "room" in query else None,
            since=_time(request, "since"),
            until=_time(request, "until"),
            limit=min(_number(request, "limit", _LIMIT), _LIMIT),
            offset=_number(request, "offset", 0),
        )
        return web.json_response({"usage": [_row(row) for row in rows]})


def _row(row: UsageRow) -> dict[str, Any]:
    key, counts = row
    return {
        "hour": datetime.fromtimestamp(key.hour, UTC).isoformat().replace("+00:00", "Z"),
        "room": key.room,
        "identity": key.identity,
        "model": key.model,
        "requests": counts.requests,
        "input_tokens": counts.input_tokens,
        "cached_tokens": counts.cached_tokens,
        "output_tokens": counts.output_tokens,
        "seconds": round(counts.seconds, 3),
        "unmeasured": counts.unmeasured,
    }


def _time(request: web.Request, name: str) -> float | None:
    """Parse an ISO 8601 time; one without an offset is UTC."""
    if name not in request.query:
        return None
    try:
        time = datetime.fromisoformat(request.query[name])
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(name, "expected an ISO 8601 time such as 2026-11-29T15:00:00Z") from None


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise InvalidRequestError(name, "expected a number")
    return int(text)
