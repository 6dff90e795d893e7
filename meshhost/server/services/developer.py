"""The developer log (room-protocol §12)."""

from typing import Any

from pydantic import Field

from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse
from meshhost.server.core.dispatch import Body, Operation, Operations
from meshhost.server.wire.connection import Answer, Request

__all__ = ["operations"]


class _Log(Body):
    type: str = Field(max_length=256)
    data: dict[str, Any]


class _Nothing(Body):
    pass


def operations() -> Operations:
    """The requests of this service."""
    return {
        "developer.log": Operation(_Log, _log, _may_log),
        "developer.watch": Operation(_Nothing, _watch, _may_log),
        "developer.unwatch": Operation(_Nothing, _unwatch, _may_log),
    }


def _may_log(scope: ApiScope, _: Body) -> bool:
    return scope.developer is not None and scope.developer.logs


def _log(request: Request, body: _Log) -> Answer:
    watchers = [member for member in request.room.connected() if member.is_watching]
    request.room.tell(watchers, "developer.log", {"type": body.type, "data": body.data})
    return EmptyResponse()


def _watch(request: Request, _: _Nothing) -> Answer:
    request.participant.is_watching = True
    return EmptyResponse()


def _unwatch(request: Request, _: _Nothing) -> Answer:
    request.participant.is_watching = False
    return EmptyResponse()
