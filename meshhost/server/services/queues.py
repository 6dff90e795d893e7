"""The queues of a room (room-protocol §9), over the queue service of the server.

A client of meshhost receives with a lease and settles each message itself. A client of SDK 0.6 has no leases: the server holds
the lease for it, keeps it extended while the client is connected, and settles it by a rule (`settlement.py`). So there are two
holders: the participant, whose leases survive a lost connection until it is clear that it will not resume, and the connection,
whose leases are settled or given back when it ends. A holder is secret: a request that shows its lease may settle it.

A receive can be given up: by its caller, or because the answer was lost with the connection. A delivery that such an answer
carried has reached nobody: it goes back at once, counts as no delivery, and is not settled by the next receive.

`run` has two background tasks: one extends the leases of clients without leases, the other one keeps those of clients that live
but whose event loop is blocked (`blocked_holders.py`). Invariant: a message that was handed out is
settled or given back in the end, whatever ends first: the request, the connection, the participant or the server.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, LeaseLostError, LimitExceededError, MeshhostError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.protocol.json_values import check_finite, dump_json, load_stored_json
from meshhost.protocol.messages import EmptyResponse, Header, JsonResponse
from meshhost.queues.service import QueueService
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services import queue_bodies as bodies
from meshhost.server.services.blocked_holders import BlockedHolders
from meshhost.server.services.queue_leases import ConnectionLeases, HandedOver, ParticipantLeases
from meshhost.server.services.settlement import Settlement, on_end, on_receive
from meshhost.stores.queues import Delivery, EndReason, HolderId, Lease, NewMessage, QueueKey

__all__ = ["QueuesService"]

logger = logging.getLogger(__name__)

MAX_WAITING = 64
DISMISSED_RECEIVE_SECONDS = 1.0
_ERROR_CHARS = 32 * 1024
# Dead messages in one reply: encoding it must not hold the event loop.
_DEAD_BYTES = 1024 * 1024


class QueuesService(RoomService):
    """The queues service.

    `receive_seconds` is how long a receive waits for a message. `lease_seconds` is the lease of a client without leases, which
    the server keeps extended while the client is connected. `blocked_seconds` is how long a client with leases may be silent on
    an open connection before its message goes to another one (0: not longer than its lease).
    """

    def __init__(
        self,
        queues: QueueService,
        *,
        receive_seconds: float,
        lease_seconds: float,
        blocked_seconds: float = 600.0,
        clock: Clock | None = None,
    ) -> None:
        self._queues = queues
        self._clock = clock or SystemClock()
        self._blocked = BlockedHolders(queues, max_seconds=blocked_seconds, clock=self._clock)
        self._participants = Slot(ParticipantLeases)
        self._peers = Slot(ConnectionLeases)
        # Connections with unsettled leases: the ones that `run` extends. `settle` removes a connection that ended.
        self._unsettled: set[ConnectionLeases] = set()
        self._receive_seconds = receive_seconds
        self._lease_seconds = lease_seconds

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "queues.list": Operation(bodies.Nothing, self._list, _may_list),
            "queues.open": Operation(bodies.Named, self._open, _may_open, _name),
            "queues.send": Operation(bodies.Send, self._send, _may_send, _name),
            "queues.receive": Operation(bodies.Receive, self._receive, _may_receive, _name),
            "queues.received": Operation(bodies.Received, self._received, is_one_way=True, frees=True),
            "queues.ack": Operation(bodies.Leased, self._ack, _may_receive, _name, frees=True),
            "queues.nack": Operation(bodies.Nack, self._nack, _may_receive, _name, frees=True),
            "queues.extend": Operation(bodies.Extend, self._extend, _may_receive, _name, frees=True),
            "queues.drain": Operation(bodies.Named, self._drain, _may_receive, _name),
            "queues.close": Operation(bodies.Named, self._close, _may_receive, _name),
            "queues.dead": Operation(bodies.Dead, self._dead, _may_receive, _name),
            "queues.replay": Operation(bodies.Replay, self._replay, _may_receive, _name),
        }

    async def _list(self, request: Request, _: bodies.Nothing) -> Answer:
        stats = await self._queues.stats(request.room.key)
        return JsonResponse(
            json={
                "queues": [
                    {
                        "name": queue.name,
                        "size": queue.ready + queue.delayed,
                        "ready": queue.ready,
                        "leased": queue.leased,
                        "delayed": queue.delayed,
                        "dead": queue.dead,
                        "oldest_age": queue.oldest_age,
                    }
                    for queue in stats
                ]
            }
        )

    async def _open(self, request: Request, body: bodies.Named) -> Answer:
        await self._queues.create(_key(request, body))
        return EmptyResponse()

    async def _send(self, request: Request, body: bodies.Send) -> Answer:
        headers = {**request.message.trace, **body.headers}
        try:
            text = dump_json(body.message)
        except InvalidRequestError:
            check_finite(body.message, "message")  # names the field; only a refusal pays for the search
            raise
        message = NewMessage(body=text, headers=headers, sender_id=body.id)
        message_id = await self._queues.send(_key(request, body), message, create=body.create)
        return JsonResponse(json={"id": str(message_id)})

    async def _receive(self, request: Request, body: bodies.Receive) -> Answer:
        settlement = on_receive(wait=body.wait, leases=body.lease is not None, confirms=body.confirm)
        self._give_back(self._participants.of(request.participant).take_back_calls(body.given_up))
        if settlement is not Settlement.EXPLICIT:
            await self._settle_previous(request, body.name)
        delivery = await self._next(request, body)
        if delivery is None:
            return EmptyResponse()
        handed_over = HandedOver(request.peer, request.message.id, delivery.lease, body.call)
        if settlement is Settlement.EXPLICIT:
            self._participants.of(request.participant).hand_over(handed_over)
            self._blocked.watch(delivery.lease, body.lease or self._lease_seconds, request.participant)
            return _reply(delivery, body.lease)
        mine = self._peers.of(request.peer)
        mine.hand_over(handed_over)
        self._unsettled.add(mine)
        if settlement is Settlement.AT_ONCE:
            return await self._deliver_and_settle(request, delivery)
        return _reply(delivery)

    async def _next(self, request: Request, body: bodies.Receive) -> Delivery | None:
        mine, participant = self._peers.of(request.peer), self._participants.of(request.participant)
        if mine.waiting >= MAX_WAITING:
            raise LimitExceededError(f"over {MAX_WAITING} receives wait on this connection")
        mine.waiting += 1
        try:
            return await self._queues.receive(
                _key(request, body),
                mine.holder if body.lease is None else participant.holder,
                wait_seconds=self._wait_seconds(body, is_dismissed=participant.is_dismissed),
                lease_seconds=self._lease_seconds if body.lease is None else body.lease,
                create=body.create,
            )
        finally:
            mine.waiting -= 1

    def _wait_seconds(self, body: bodies.Receive, *, is_dismissed: bool) -> float:
        if not body.wait:
            return 0.0
        # An SDK worker that was dismissed notices it only when a receive returns; with no wait at all it would spin.
        return min(DISMISSED_RECEIVE_SECONDS, self._receive_seconds) if is_dismissed else self._receive_seconds

    async def _settle_previous(self, request: Request, queue: str) -> None:
        # Several, if several receives of this connection waited side by side.
        for delivery in self._peers.of(request.peer).unsettled.pop(queue, []):
            await self._ack_unless_late(delivery.lease)

    async def _deliver_and_settle(self, request: Request, delivery: Delivery) -> Answer:
        # Settled only when the reply is written: if the connection ends before that, the message comes back.
        mine = self._peers.of(request.peer)
        try:
            await request.reply(*_reply(delivery))
            await request.peer.flush()
        except asyncio.CancelledError:
            # Given up before it was written, or the connection is over: it has reached nobody.
            self._give_back(mine.take_back(request.message.id))
            raise
        mine.discard(delivery.lease)
        await self._ack_unless_late(delivery.lease)
        return None

    def _received(self, request: Request, body: bodies.Received) -> Answer:
        # Answers at once, so that it is done before the end of the connection is read.
        for lease in self._peers.of(request.peer).take_back_call(body.call):
            self._queues.ack_soon(lease)
        return None

    def _shown(self, request: Request, body: bodies.Leased) -> Lease:
        """The lease that the client shows; so it has received the delivery."""
        lease = _lease(request, body)
        self._participants.of(request.participant).settled(lease)
        return lease

    async def _ack(self, request: Request, body: bodies.Leased) -> Answer:
        lease = self._shown(request, body)
        await self._queues.ack(lease)
        self._blocked.forget(lease)
        return EmptyResponse()

    async def _nack(self, request: Request, body: bodies.Nack) -> Answer:
        if body.reason is EndReason.EXPIRED:
            raise InvalidRequestError("reason", "expected failed, interrupted or released")
        error = body.error[:_ERROR_CHARS]
        lease = self._shown(request, body)
        dead = await self._queues.nack(lease, reason=body.reason, error=error, delay=body.delay)
        self._blocked.forget(lease)
        return JsonResponse(json={"dead": dead})

    async def _extend(self, request: Request, body: bodies.Extend) -> Answer:
        lease = self._shown(request, body)
        await self._queues.extend(lease, seconds=body.seconds)
        self._blocked.watch(lease, body.seconds, request.participant)
        return JsonResponse(json={"lease_seconds": body.seconds})

    async def _drain(self, request: Request, body: bodies.Named) -> Answer:
        drained = await self._queues.drain(_key(request, body))
        return JsonResponse(json={"drained": drained})

    async def _close(self, request: Request, body: bodies.Named) -> Answer:
        await self._queues.delete(_key(request, body))
        return EmptyResponse()

    async def _dead(self, request: Request, body: bodies.Dead) -> Answer:
        letters = await self._queues.dead_letters(
            _key(request, body), limit=body.limit, before=body.before, max_bytes=_DEAD_BYTES
        )
        return JsonResponse(
            json={
                # Large letters come in pages: a client of ours asks for the rest until it has as many as it wants.
                "more": sum(len(letter.body) + len(letter.reason) for letter in letters) >= _DEAD_BYTES,
                "dead": [
                    {
                        "id": str(letter.message_id),
                        "message": load_stored_json(letter.body),
                        "headers": dict(letter.headers),
                        "attempts": letter.attempts,
                        "reason": letter.reason,
                        "sent_at": letter.sent_at,
                        "died_at": letter.died_at,
                    }
                    for letter in letters
                ],
            }
        )

    async def _replay(self, request: Request, body: bodies.Replay) -> Answer:
        replayed = await self._queues.replay(_key(request, body), body.ids)
        return JsonResponse(json={"replayed": replayed})

    async def run(self) -> None:
        """Keep, until cancelled, the leases of connected clients that have none themselves or cannot renew them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._blocked.run(), name="blocked holders")
            tasks.create_task(self._extend_all(), name="leases of clients without leases")

    async def _extend_all(self) -> None:
        while True:
            await self._clock.sleep(self._lease_seconds / 3)
            for mine in tuple(self._unsettled):
                await self._extend_unsettled(mine)

    def dismiss(self, participant: Participant) -> None:
        """The participant was told to leave: end its waiting receives, so that it notices."""
        leases = self._participants.of(participant)
        leases.is_dismissed = True
        self._queues.end_waits(leases.holder)
        if participant.peer is not None:
            self._queues.end_waits(self._peers.of(participant.peer).holder)

    def given_up(self, room: Room, participant: Participant, peer: Peer, message_id: int) -> None:
        """See RoomService: nobody takes what this answer carried, and so it goes back."""
        if (leases := self._participants.get(participant)) is not None:
            self._give_back(leases.take_back(peer, message_id))
        if (mine := self._peers.get(peer)) is not None:
            self._give_back(mine.take_back(message_id))

    def _give_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._queues.give_back(lease)

    async def settle(self, room: Room, participant: Participant, peer: Peer, *, orderly: bool) -> None:
        """See RoomService: settle or give back what a client without leases held."""
        mine = self._peers.get(peer)
        if mine is None:
            return
        self._unsettled.discard(mine)
        leases = mine.leases()
        mine.unsettled.clear()
        if not leases:
            return
        with _logged():
            if on_end(role=participant.role, orderly=orderly) is Settlement.AT_ONCE:
                for lease in leases:
                    await self._ack_unless_late(lease)
            else:
                await self._queues.release_holder(mine.holder, reason=EndReason.INTERRUPTED)

    async def left(self, room: Room, participant: Participant) -> None:
        """See RoomService: give back what the participant leased."""
        leases = self._participants.get(participant)
        if leases is not None and leases.has_leased:
            with _logged():
                await self._queues.release_holder(leases.holder, reason=EndReason.INTERRUPTED)

    async def _extend_unsettled(self, mine: ConnectionLeases) -> None:
        for lease in mine.leases():
            try:
                await self._queues.extend(lease, seconds=self._lease_seconds)
            except LeaseLostError:
                mine.discard(lease)
            except (OSError, RoomError) as error:
                logger.warning("lease not extended", extra={"queue": lease.queue.name, "reason": str(error)})
        if not mine.unsettled:
            self._unsettled.discard(mine)

    async def _ack_unless_late(self, lease: Lease) -> None:
        # Late: the store did not answer for longer than the lease, and the message is being delivered again.
        with contextlib.suppress(LeaseLostError):
            await self._queues.ack(lease)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except (OSError, MeshhostError):
        # The leases expire without us; the messages come back a little later.
        logger.exception("leases not given back")


def _may_list(scope: ApiScope, _: Body) -> bool:
    return scope.queues is not None and scope.queues.list


def _may_send(scope: ApiScope, body: bodies.Named) -> bool:
    return scope.queues is not None and scope.queues.can_send(body.name)


def _may_receive(scope: ApiScope, body: bodies.Named) -> bool:
    return scope.queues is not None and scope.queues.can_receive(body.name)


def _may_open(scope: ApiScope, body: bodies.Named) -> bool:
    return _may_send(scope, body) or _may_receive(scope, body)


def _name(body: bodies.Named) -> str:
    return body.name


def _key(request: Request, body: bodies.Named) -> QueueKey:
    return QueueKey(request.room.key, body.name)


def _reply(delivery: Delivery, lease_seconds: float | None = None) -> tuple[JsonResponse, Header]:
    response = JsonResponse(json=load_stored_json(delivery.body))
    if lease_seconds is None:
        return response, {}
    lease = delivery.lease
    return response, {
        "delivery": {
            "lease": f"{lease.message_id}.{lease.token}.{lease.holder}",
            "attempt": delivery.attempt,
            "delivery": delivery.delivery,
            "headers": dict(delivery.headers),
            "sent_at": delivery.sent_at,
            "lease_seconds": lease_seconds,
        }
    }


def _lease(request: Request, body: bodies.Leased) -> Lease:
    """The lease that a client shows. Its holder is a secret that only the receiver of the delivery knows."""
    parts = body.lease.split(".")
    if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        raise InvalidRequestError("lease", "expected the lease of a delivery")
    message_id, token, holder = int(parts[0]), int(parts[1]), HolderId(parts[2])
    return Lease(_key(request, body), message_id, token, holder, expires_at=0.0)
