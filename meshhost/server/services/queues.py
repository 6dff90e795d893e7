"""The queues of a room (room-protocol §9), over the queue service of the server.

A client of meshhost receives with a lease and settles each message itself. A client of SDK 0.6 has no leases: the server holds
the lease for it, keeps it extended while the client is connected, and settles it by a rule (`settlement.py`). So there are two
holders: the participant, whose leases survive a lost connection until it is clear that it will not resume, and the connection,
whose leases are settled or given back when it ends. A holder is secret: a request that shows its lease may settle it.

A receive can be given up: by its caller, or because the answer was lost with the connection. A delivery that such an answer
carried has reached nobody: it goes back at once, counts as no delivery, and is not settled by the next receive.

`run` has two background tasks: one extends the leases of clients without leases, the other one keeps those of clients that live
but whose event loop is blocked (`blocked_holders.py`). Invariant: a message that was handed out is settled or given back in the
end, whatever ends first: the request, the connection, the participant or the server.

Longer than 400 lines because each request that sends, hands over or settles a message has its handler here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, TypeVar

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, LeaseLostError, LimitExceededError, MeshhostError, RoomError
from meshhost.protocol.json_values import check_finite, dump_json
from meshhost.protocol.messages import EmptyResponse, Header, JsonResponse, Response
from meshhost.queues.bodies import NO_UPLOADS, BodyUpload
from meshhost.queues.reserved import check_header_names, check_sender_id
from meshhost.queues.sending import send_each
from meshhost.queues.service import QueueService
from meshhost.queues.values import check_size
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer
from meshhost.server.core.requests import Answer, Operation, Operations, Request
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.server.core.slots import Slot
from meshhost.server.services import queue_bodies as bodies
from meshhost.server.services import queue_replies as replies
from meshhost.server.services.blocked_holders import BlockedHolders
from meshhost.server.services.bodies.inline import inlined
from meshhost.server.services.bodies.transfer import BodyTransfer
from meshhost.server.services.queue_access import (
    key_of,
    lease_of,
    may_list,
    may_receive,
    may_send,
    may_use,
    name_of,
    sent_by,
)
from meshhost.server.services.queue_leases import ConnectionLeases, HandedOver, ParticipantLeases
from meshhost.server.services.queue_messages import QueueMessages
from meshhost.server.services.settlement import Settlement, on_end, on_receive
from meshhost.stores.bodies.reference import is_reference
from meshhost.stores.queues import LONGEST_DELAY, Delivery, EndReason, Lease, NewMessage, QueueKey

__all__ = ["QueuesService"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING = 64
DISMISSED_RECEIVE_SECONDS = 1.0
_ERROR_CHARS = 32 * 1024


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
        transfer: BodyTransfer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._queues = queues
        self._transfer = transfer or BodyTransfer(queues)
        self._clock = clock or SystemClock()
        self._blocked = BlockedHolders(queues, max_seconds=blocked_seconds, clock=self._clock)
        self._participants = Slot(ParticipantLeases)
        self._peers = Slot(ConnectionLeases)
        # Connections with unsettled leases: the ones that `run` extends. `settle` removes a connection that ended.
        self._unsettled: set[ConnectionLeases] = set()
        self._receive_seconds = receive_seconds
        self._lease_seconds = lease_seconds
        self._messages = QueueMessages(queues, wait_seconds=receive_seconds)

    def operations(self) -> Operations:
        """See RoomService."""
        return {
            "queues.list": Operation(bodies.Nothing, self._list, may_list),
            "queues.open": Operation(bodies.Named, self._open, may_use, name_of),
            "queues.send": Operation(bodies.Send, self._send, may_send, name_of, run_many=self._send_each),
            "queues.send_many": Operation(bodies.SendMany, self._send_many, may_send, name_of),
            "queues.receive": Operation(bodies.Receive, self._receive, may_receive, name_of),
            "queues.received": Operation(bodies.Received, self._received, is_one_way=True, frees=True),
            "queues.ack": Operation(bodies.Ack, self._ack, may_receive, name_of, frees=True),
            "queues.ack_many": Operation(bodies.AckMany, self._ack_many, may_receive, name_of, frees=True),
            "queues.nack": Operation(bodies.Nack, self._nack, may_receive, name_of, frees=True),
            "queues.extend": Operation(bodies.Extend, self._extend, may_receive, name_of, frees=True),
            "queues.drain": Operation(bodies.Named, self._drain, may_receive, name_of),
            "queues.close": Operation(bodies.Named, self._close, may_receive, name_of),
            "queues.dead": Operation(bodies.Dead, self._dead, may_receive, name_of),
            "queues.replay": Operation(bodies.Replay, self._replay, may_receive, name_of),
            **self._messages.operations(),
        }

    async def _list(self, request: Request, _: bodies.Nothing) -> Answer:
        stats = await self._queues.stats(request.room.key)
        return JsonResponse(json={"queues": [replies.listed(queue) for queue in stats]})

    async def _open(self, request: Request, body: bodies.Named) -> Answer:
        await self._queues.create(key_of(request, body))
        return EmptyResponse()

    async def _send(self, request: Request, body: bodies.Send) -> Answer:
        message = self._new_message(request, body, sender=sent_by(request, body))
        queue = key_of(request, body)
        if body.upload is None:
            message_id = await self._queues.send(queue, message, create=body.create)
        else:
            uploads = self._transfer.take(request, {0: body.upload})
            (message_id,) = await self._queues.send_many(queue, [message], create=body.create, uploads=uploads)
        return JsonResponse(json={"id": str(message_id)})

    async def _send_many(self, request: Request, body: bodies.SendMany) -> Answer:
        sender = sent_by(request, body)
        messages = [
            self._new_message(request, message, path=f"messages[{number}].", sender=sender)
            for number, message in enumerate(body.messages)
        ]
        handles = {number: each.upload for number, each in enumerate(body.messages) if each.upload is not None}
        uploads = self._transfer.take(request, handles) if handles else NO_UPLOADS
        ids = await self._queues.send_many(key_of(request, body), messages, create=body.create, uploads=uploads)
        return JsonResponse(json={"ids": [str(message_id) for message_id in ids], "before": len(ids) - ids.new})

    async def _send_each(self, sends: Sequence[tuple[Request, bodies.Send]]) -> Sequence[Answer | Exception]:
        """Do as `_send` for each. Those for one queue are stored together."""
        if len(sends) == 1:
            return [await self._send(*sends[0])]
        if any(body.upload is not None for _, body in sends):
            return await asyncio.gather(*(_outcome(self._send(*send)) for send in sends))
        answers: list[Answer | Exception] = [None] * len(sends)
        by_queue: dict[tuple[QueueKey, bool], list[tuple[int, NewMessage]]] = {}
        for number, (request, body) in enumerate(sends):
            try:
                message = self._new_message(request, body, sender=sent_by(request, body))
            except MeshhostError as error:
                answers[number] = error
            else:
                by_queue.setdefault((key_of(request, body), body.create), []).append((number, message))

        async def send(queue: QueueKey, create: bool, numbered: Sequence[tuple[int, NewMessage]]) -> None:
            sent = await _outcome(send_each(self._queues, queue, [message for _, message in numbered], create=create))
            results = [sent] * len(numbered) if isinstance(sent, Exception) else sent
            for (number, _), result in zip(numbered, results, strict=True):
                answers[number] = JsonResponse(json={"id": str(result)}) if isinstance(result, int) else result

        await asyncio.gather(*(send(*key, numbered) for key, numbered in by_queue.items()))
        return answers

    def _new_message(self, request: Request, body: bodies.Message, path: str = "", *, sender: str | None) -> NewMessage:
        """The message that a client sends; `path` is where it is in the request."""
        check_sender_id(body.id, f"{path}id")
        check_header_names(body.headers, f"{path}headers")
        delay = body.delay or 0.0
        if body.at is not None:
            if body.delay is not None:
                raise InvalidRequestError(f"{path}at", "expected `delay` or `at`, not both")
            delay = max(body.at - self._clock.time(), 0.0)
            if delay > LONGEST_DELAY:
                raise InvalidRequestError(f"{path}at", f"expected a time within {LONGEST_DELAY / 86400:.0f} days")
        return NewMessage(
            body=_json_text(body.message, f"{path}message"),
            headers={**request.message.trace, **body.headers},
            sender_id=body.id,
            remember_seconds=body.id_seconds,
            delay=delay,
            priority=body.priority,
            key=body.key,
            ttl=body.ttl,
            sent_by=sender,
        )

    async def _receive(self, request: Request, body: bodies.Receive) -> Answer:
        if body.limit is not None and body.lease is None:
            raise InvalidRequestError("limit", "expected together with `lease`")
        settlement = on_receive(wait=body.wait, leases=body.lease is not None, confirms=body.confirm)
        self._give_back(self._participants.of(request.participant).take_back_calls(body.given_up))
        if settlement is not Settlement.EXPLICIT:
            await self._settle_previous(request, body.name)
        deliveries = await self._next(request, body)
        text, reserved = None, 0
        if not body.by_reference and any(is_reference(delivery.body) for delivery in deliveries):
            deliveries, text, reserved = await inlined(self._queues, request, deliveries)
        if not deliveries:
            return EmptyResponse()
        if settlement is Settlement.EXPLICIT:
            answer = self._hand_over(request, body, deliveries, body.lease or self._lease_seconds, text)
        else:
            (delivery,) = deliveries
            mine = self._peers.of(request.peer)
            mine.hand_over(HandedOver(request.peer, request.message.id, delivery.lease, body.call))
            self._unsettled.add(mine)
            answer = replies.delivered(delivery, text=text)
            if settlement is Settlement.AT_ONCE:
                return await self._deliver_and_settle(request, delivery, answer, reserved)
        if not reserved:
            return answer
        await request.reply(*answer, reserved=reserved)
        return None

    def _hand_over(
        self,
        request: Request,
        body: bodies.Receive,
        deliveries: Sequence[Delivery],
        seconds: float,
        text: str | None,
    ) -> tuple[Response, Header]:
        """Answer with the deliveries, for a client that settles them itself. What does not fit goes back."""
        kept = replies.fitting(deliveries, [len(delivery.body) for delivery in deliveries], replies.MANY_BYTES)
        self._give_back([delivery.lease for delivery in deliveries[len(kept) :]])
        for delivery in kept:
            handed_over = HandedOver(request.peer, request.message.id, delivery.lease, body.call)
            self._participants.of(request.participant).hand_over(handed_over)
            self._blocked.watch(delivery.lease, seconds, request.participant)
        if body.limit is None:
            return replies.delivered(kept[0], seconds, text)
        return replies.delivered_many(kept, seconds, text)

    async def _next(self, request: Request, body: bodies.Receive) -> Sequence[Delivery]:
        mine, participant = self._peers.of(request.peer), self._participants.of(request.participant)
        if mine.waiting >= MAX_WAITING:
            raise LimitExceededError(f"over {MAX_WAITING} receives wait on this connection")
        mine.waiting += 1
        try:
            return await self._queues.receive_many(
                key_of(request, body),
                mine.holder if body.lease is None else participant.holder,
                limit=body.limit or 1,
                wait_seconds=self._wait_seconds(body, is_dismissed=participant.is_dismissed),
                lease_seconds=self._lease_seconds if body.lease is None else body.lease,
                create=body.create,
                by=request.participant.name,
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

    async def _deliver_and_settle(
        self, request: Request, delivery: Delivery, answer: tuple[Response, Header], reserved: int
    ) -> Answer:
        # Settled only when the reply is written: if the connection ends before that, the message comes back.
        mine = self._peers.of(request.peer)
        try:
            await request.reply(*answer, reserved=reserved)
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
        lease = lease_of(key_of(request, body), body.lease)
        self._participants.of(request.participant).settled(lease)
        return lease

    async def _ack(self, request: Request, body: bodies.Ack) -> Answer:
        lease, result = self._shown(request, body), _result_text(body.result, "result")
        taken = {} if body.upload is None else self._transfer.take(request, {0: body.upload})
        await self._settle_done(lease, taken.get(0, result))
        return EmptyResponse()

    async def _ack_many(self, request: Request, body: bodies.AckMany) -> Answer:
        # All are checked before any is done, so that a client that is refused may ack the others one by one.
        queue = key_of(request, body)
        acks = [
            (lease_of(queue, each.lease), _result_text(each.result, f"acks[{number}].result"))
            for number, each in enumerate(body.acks)
        ]
        mine = self._participants.of(request.participant)
        for lease, _ in acks:
            mine.settled(lease)
        outcomes = await self._queues.ack_many(queue, acks)
        for (lease, _), is_done in zip(acks, outcomes, strict=True):
            if is_done:
                self._blocked.forget(lease)
        return JsonResponse(json={"lost": [number for number, is_done in enumerate(outcomes) if not is_done]})

    async def _settle_done(self, lease: Lease, result: str | BodyUpload | None) -> None:
        await self._queues.ack(lease, result=result)
        self._blocked.forget(lease)

    async def _nack(self, request: Request, body: bodies.Nack) -> Answer:
        if body.reason is EndReason.EXPIRED:
            raise InvalidRequestError("reason", "expected failed, interrupted or released")
        error = body.error[-_ERROR_CHARS:]
        lease = self._shown(request, body)
        dead = await self._queues.nack(lease, reason=body.reason, error=error, delay=body.delay)
        self._blocked.forget(lease)
        return JsonResponse(json={"dead": dead})

    async def _extend(self, request: Request, body: bodies.Extend) -> Answer:
        lease = self._shown(request, body)
        progress = _result_text(body.progress, "progress")
        check_size("progress", progress)
        extended = await self._queues.extend(lease, seconds=body.seconds, progress=progress)
        self._blocked.watch(lease, body.seconds, request.participant)
        cancelled = {"cancelled": True} if extended.is_cancelled else {}
        return JsonResponse(json={"lease_seconds": body.seconds, **cancelled})

    async def _drain(self, request: Request, body: bodies.Named) -> Answer:
        drained = await self._queues.drain(key_of(request, body))
        return JsonResponse(json={"drained": drained})

    async def _close(self, request: Request, body: bodies.Named) -> Answer:
        await self._queues.delete(key_of(request, body))
        return EmptyResponse()

    async def _dead(self, request: Request, body: bodies.Dead) -> Answer:
        letters = await self._queues.dead_letters(
            key_of(request, body), limit=body.limit, before=body.before, max_bytes=replies.MANY_BYTES
        )
        # Large letters come in pages: a client of ours asks for the rest until it has as many as it wants.
        more = sum(len(letter.body) + len(letter.reason) for letter in letters) >= replies.MANY_BYTES
        return JsonResponse(
            json={"more": more, "dead": [replies.dead_letter(each, with_large=body.by_reference) for each in letters]}
        )

    async def _replay(self, request: Request, body: bodies.Replay) -> Answer:
        replayed = await self._queues.replay(key_of(request, body), body.ids)
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


def _json_text(value: Any, field: str) -> str:
    try:
        return dump_json(value)
    except InvalidRequestError:
        check_finite(value, field)  # names the field; only a refusal pays for the search
        raise


def _result_text(value: Any, field: str) -> str | None:
    """A result, or progress, as it is stored."""
    return None if value is None else _json_text(value, field)


async def _outcome(work: Awaitable[T]) -> T | Exception:
    """What the work returns, or the error that it raises: that of one of several that run side by side."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the answer to who asked for it
        return error


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except (OSError, MeshhostError):
        # The leases expire without us; the messages come back a little later.
        logger.exception("leases not given back")
