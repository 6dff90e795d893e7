"""What was used of models and what it cost, as the gateway measured it.

`GET /accounts/projects/{project}/usage` is one of the REST routes of a project, authenticated by its API key; `GET /usage` has
the sums of all tenants, for the operator. Both read through the meter, so that an answer includes what this server has counted
but not yet stored. Register them before RestRoutes, whose last route answers everything else.

Amounts are texts with a decimal number, since they are exact (`meshhost.gateway.prices`). Where no price was set there is no
cost: it is null, not 0.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.gateway.meter import Meter
from meshhost.gateway.prices import Price, amount_text
from meshhost.identity.tenant import TenantId, check_room_name
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import query_number
from meshhost.stores.usage import UsageCounts, UsageRow
from meshhost.tenant_names import name_of

__all__ = ["UsageRoutes"]

logger = logging.getLogger(__name__)

_LIMIT = 1000
_STEPS = {"hour": 1, "day": 24}


class UsageRoutes:
    """The usage of one tenant, and of all.

    `project_of` returns the project of a request, or raises TokenError or NotFoundError.
    """

    def __init__(self, meter: Meter, access: Access, project_of: Callable[[web.Request], str]) -> None:
        self._meter = meter
        self._access = access
        self._project_of = project_of

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get("/accounts/projects/{project}/usage", self._usage),
                web.get("/usage", self._totals),
            ]
        )

    async def _usage(self, request: web.Request) -> web.Response:
        tenant, query = TenantId(self._project_of(request)), request.query
        rows = await self._meter.read(
            tenant, room=check_room_name(query["room"]) if "room" in query else None, **_window(request)
        )
        return web.json_response({"usage": [_row(row) for row in rows]})

    async def _totals(self, request: web.Request) -> web.Response:
        self._access.check_operator(request)
        step = request.query.get("step", "hour")
        if step not in _STEPS:
            raise InvalidRequestError("step", f"expected one of {', '.join(_STEPS)}")
        rows = await self._meter.totals(hours=_STEPS[step], **_window(request))
        return web.json_response({"usage": [_total(row) for row in rows]})


def _window(request: web.Request) -> dict[str, Any]:
    return {
        "since": _time(request, "since"),
        "until": _time(request, "until"),
        "limit": min(query_number(request, "limit", _LIMIT), _LIMIT),
        "offset": query_number(request, "offset", 0),
    }


def _row(row: UsageRow) -> dict[str, Any]:
    key, counts = row
    names = {"room": key.room, "identity": key.identity, "model": key.model}
    return {"hour": _iso(key.hour), **names, **_counted(counts), **_cost(key.price, counts)}


def _total(row: UsageRow) -> dict[str, Any]:
    key, counts = row
    names = {"tenant": key.tenant, "tenant_name": name_of(key.tenant), "model": key.model}
    return {"begin": _iso(key.hour), **names, **_counted(counts), **_cost(key.price, counts)}


def _counted(counts: UsageCounts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "input_tokens": counts.input_tokens,
        "cached_tokens": counts.cached_tokens,
        "cache_write_tokens": counts.cache_write_tokens,
        "output_tokens": counts.output_tokens,
        "seconds": round(counts.seconds, 3),
        "unmeasured": counts.unmeasured,
    }


def _cost(text: str, counts: UsageCounts) -> dict[str, Any]:
    try:
        price = Price.of_text(text)
    except ValueError:  # of a later version, before the server was set back to this one
        logger.warning("a price cannot be read", extra={"price": text[:100]})
        price = None
    if price is None:
        return {"price": None, "cost": None}
    return {
        "price": price.as_json(),
        "cost": {"currency": price.currency, "amount": amount_text(price.cost(counts))},
    }


def _iso(hour: int) -> str:
    return datetime.fromtimestamp(hour, UTC).isoformat().replace("+00:00", "Z")


def _time(request: web.Request, name: str) -> float | None:
    """Parse an ISO 8601 time; one without an offset is UTC."""
    if name not in request.query:
        return None
    try:
        time = datetime.fromisoformat(request.query[name])
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(name, "expected an ISO 8601 time such as 2026-11-29T15:00:00Z") from None
