"""`traces.report`: a participant reports spans of its own work (room-protocol §12.1).

A span goes into the room of the participant under the participant's name, whatever it says itself. Who may write to the
developer log may report spans: both tell what an agent does, and both are read by the developers of the tenant.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import JsonResponse
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.service import RoomService
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.traces.span import MAX_BATCH, MAX_TEXT, Span

__all__ = ["TracesService"]


class _Report(Body):
    spans: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_BATCH)


class TracesService(RoomService):
    """Takes the spans of participants."""

    def __init__(self, recorder: TraceRecorder) -> None:
        self._recorder = recorder

    def operations(self) -> Operations:
        """See RoomService."""
        return {"traces.report": Operation(_Report, self._report, _may_report)}

    def _report(self, request: Request, body: _Report) -> Answer:
        name = request.participant.name[:MAX_TEXT]
        spans = [_span(each, number, name) for number, each in enumerate(body.spans)]
        return JsonResponse(json={"kept": self._recorder.add(request.room.key, spans)})


def _span(found: Mapping[str, Any], number: int, agent: str) -> Span:
    return replace(Span.read(found, path=f"spans[{number}]"), agent=agent)


def _may_report(scope: ApiScope, _: Body) -> bool:
    return scope.developer is not None and scope.developer.logs
