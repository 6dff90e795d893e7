"""Messages between participants, their presence, and their attributes (room-protocol §8).

A participant that enables messaging is visible: it learns of the other visible participants, and they learn when it comes,
changes its attributes or goes. Messages are passed on as they are. Only the server makes messages whose type begins with
`messaging.` or `participant.`, so that nobody can forge the presence of another. The message `dismiss`, which makes an agent
leave for good, needs a grant of its own.
"""

from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, Field

from meshhost.errors import AccessDeniedError, InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.messages import EmptyResponse
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Event, Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services.asking import note_asked

__all__ = ["MessagingService"]

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


class MessagingService(RoomService):
    """The messaging service. `on_dismissed` is called with a participant that was sent the message `dismiss`."""

    def __init__(self, *, on_dismissed: Callable[[Participant], None]) -> None:
        self._on_dismissed = on_dismissed
        self._visible: Slot[set[Participant]] = Slot(set)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "set_attributes": Operation(_Attributes, self._set_attributes, is_one_way=True),
            "messaging.enable": Operation(_Nothing, self._enable, _may_list),
            "messaging.disable": Operation(_Nothing, self._disable),
            "messaging.send": Operation(_Send, self._send, _may_send),
            "messaging.broadcast": Operation(_Broadcast, self._broadcast, _may_broadcast),
        }

    def dismiss(self, participant: Participant, reason: str) -> None:
        """Ask a participant, in the name of the server, to leave for good."""
        if participant.peer is not None:
            message = {"from_participant_id": "", "type": "dismiss", "message": {"reason": reason}}
            participant.peer.tell(Event("messaging.message", message))
        self._on_dismissed(participant)

    def disconnected(self, room: Room, participant: Participant, peer: Peer) -> None:
        """See RoomService: who is not connected is not visible."""
        self._hide(room, participant)

    def _set_attributes(self, request: Request, body: _Attributes) -> Answer:
        changed = body.model_dump()
        # The name is what the token proved.
        changed.pop("name", None)
        mine = request.participant
        attributes = {**mine.attributes, **changed}
        if len(repr(attributes)) > _MAX_ATTRIBUTE_BYTES:
            # The request is one-way, so the refusal is an event.
            text = f"attributes over {_MAX_ATTRIBUTE_BYTES} bytes"
            request.peer.tell(Event("attributes.refused", {"message": text}))
            return None
        mine.attributes = attributes
        if mine in self._visible.of(request.room):
            self._tell_presence(request.room, mine, "participant.attributes", {"attributes": changed})
        return None

    def _enable(self, request: Request, _: _Nothing) -> Answer:
        mine, room = request.participant, request.room
        others = [other.card() for other in self._others(room, mine)]
        # Before the reply: the client reads its list of participants as soon as the request returns.
        request.peer.tell(_message(mine, "messaging.enabled", {"participants": others}))
        visible = self._visible.of(room)
        if mine not in visible:
            visible.add(mine)
            self._tell_presence(room, mine, "participant.enabled", mine.card())
        return EmptyResponse()

    def _disable(self, request: Request, _: _Nothing) -> Answer:
        self._hide(request.room, request.participant)
        return EmptyResponse()

    def _send(self, request: Request, body: _Send) -> Answer:
        _check_type(request, body.type)
        target = request.room.member(body.to_participant_id)
        event = _message(request.participant, body.type, body.message, request.message.payload)
        request.room.tell([target], event)
        note_asked(target, request.participant.id)
        if body.type == "dismiss":
            self._on_dismissed(target)
        return EmptyResponse()

    def _broadcast(self, request: Request, body: _Broadcast) -> Answer:
        _check_type(request, body.type)
        event = _message(request.participant, body.type, body.message, request.message.payload)
        request.room.tell(self._others(request.room, request.participant), event)
        return EmptyResponse()

    def _others(self, room: Room, but: Participant) -> list[Participant]:
        """The visible participants except one, in the order in which they joined."""
        visible = self._visible.of(room)
        return [member for member in room.connected() if member in visible and member is not but]

    def _hide(self, room: Room, participant: Participant) -> None:
        visible = self._visible.of(room)
        if participant in visible:
            visible.remove(participant)
            self._tell_presence(room, participant, "participant.disabled", {"id": participant.id})

    def _tell_presence(self, room: Room, about: Participant, type: str, message: dict[str, Any]) -> None:
        room.tell(self._others(room, about), _message(about, type, message))


def _message(sender: Participant, type: str, message: dict[str, Any], payload: bytes = b"") -> Event:
    return Event("messaging.message", {"from_participant_id": sender.id, "type": type, "message": message}, payload)


def _check_type(request: Request, type: str) -> None:
    if type.startswith(_RESERVED):
        raise InvalidRequestError("type", "this message type is the room server's own")
    if type == "dismiss" and not _may_dismiss(request.participant):
        raise AccessDeniedError(request.message.type, "dismiss (the token does not grant agents.dismiss)")


def _may_dismiss(participant: Participant) -> bool:
    scope = participant.scope
    if scope.admin is not None:
        return True
    # Agents are dismissed by people, and by agents only that were granted it by name.
    return scope.agents is not None and scope.agents.can_dismiss(is_user=participant.role == "user")


def _may_list(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.list


def _may_send(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.send


def _may_broadcast(scope: ApiScope, _: Body) -> bool:
    return scope.messaging is not None and scope.messaging.broadcast
