"""Messages between participants, presence and attributes (room-protocol §8)."""

from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, Field

from meshhost.errors import AccessDeniedError, InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse
from meshhost.server.core.dispatch import Body, Operation, Operations
from meshhost.server.core.participants import Participant
from meshhost.server.wire.connection import Answer, Request

__all__ = ["operations"]

# Made by the server; a participant that could send them could forge presence (room-protocol §23.9).
_RESERVED = ("messaging.", "participant.")
_MAX_ATTRIBUTE_BYTES = 64 * 1024


class _Attributes(Body):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Nothing(Body):
    pass


class _Send(Body):
    to_participant_id: str
    type: str = Field(max_length=256)
    message: dict[str, Any]


class _Broadcast(Body):
    type: str = Field(max_length=256)
    message: dict[str, Any]


def operations(*, dismiss: Callable[[Participant], None]) -> Operations:
    """The requests of this service. `dismiss` is told of participants that were sent away."""

    def send(request: Request, body: _Send) -> Answer:
        return _send(request, body, dismiss)

    return {
        "set_attributes": Operation(_Attributes, _set_attributes, is_one_way=True),
        "messaging.enable": Operation(_Nothing, _enable, _may_list),
        "messaging.disable": Operation(_Nothing, _disable),
        "messaging.send": Operation(_Send, send, _may_send),
        "messaging.broadcast": Operation(_Broadcast, _broadcast, _may_broadcast),
    }


def _may_list(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.list


def _may_send(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.send


def _may_broadcast(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.broadcast


def _set_attributes(request: Request, body: _Attributes) -> Answer:
    changed = body.model_dump()
    # The name is what the token proved.
    changed.pop("name", None)
    mine = request.participant
    attributes = {**mine.attributes, **changed}
    if len(repr(attributes)) > _MAX_ATTRIBUTE_BYTES:
        request.connection.tell(
            "room.status", {"status": "refused", "message": f"attributes over {_MAX_ATTRIBUTE_BYTES} bytes"}
        )
        return None
    mine.attributes = attributes
    if mine.is_visible:
        request.room.tell_presence(mine, "participant.attributes", {"attributes": changed})
    return None


def _enable(request: Request, _: _Nothing) -> Answer:
    mine, room = request.participant, request.room
    others = [other.card() for other in room.visible(but=mine)]
    # Before the reply: the client reads its list as soon as the request returns.
    header = {"from_participant_id": mine.id, "type": "messaging.enabled", "message": {"participants": others}}
    request.connection.tell("messaging.send", header)
    if not mine.is_visible:
        mine.is_visible = True
        room.tell_presence(mine, "participant.enabled", mine.card())
    return EmptyResponse()


def _disable(request: Request, _: _Nothing) -> Answer:
    request.room.hide(request.participant)
    return EmptyResponse()


def _send(request: Request, body: _Send, dismiss: Callable[[Participant], None]) -> Answer:
    _check_type(request, body.type)
    target = request.room.member(body.to_participant_id)
    header = {"from_participant_id": request.participant.id, "type": body.type, "message": body.message}
    request.room.tell([target], "messaging.send", header, request.message.payload)
    if body.type == "dismiss":
        dismiss(target)
    return EmptyResponse()


def _broadcast(request: Request, body: _Broadcast) -> Answer:
    _check_type(request, body.type)
    header = {"from_participant_id": request.participant.id, "type": body.type, "message": body.message}
    room = request.room
    room.tell(room.visible(but=request.participant), "messaging.send", header, request.message.payload)
    return EmptyResponse()


def _check_type(request: Request, type: str) -> None:
    if type.startswith(_RESERVED):
        raise InvalidRequestError("type", "this message type is the room server's own")
    # Agents are sent away by people and by whoever called them, not by one another.
    if type == "dismiss" and request.participant.role != "user" and request.participant.scope.admin is None:
        raise AccessDeniedError("messaging.send", "dismiss")
