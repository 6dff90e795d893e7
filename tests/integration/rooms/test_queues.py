"""Queues over the wire: leases, the settle rule for clients without them, dead letters, refusals."""

import asyncio
import json
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError, InvalidRequestError, LeaseLostError, NotFoundError, RoomError
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.protocol.messages import EmptyResponse, JsonResponse, Response
from meshhost.queues.service import QueueService
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.server.services import queue_replies
from meshhost.stores.queues import QueueLimits
from meshhost.tasks import uninterrupted
from meshhost.testing.server import RunningServer

NEVER = ReconnectPolicy(first_delay=1000, max_delay=1000)


async def _receive(room: RoomClient, *, wait: bool, name: str = "q", create: bool = True) -> Response:
    """As a client does that never heard of leases."""
    return (await room.request("queues.receive", {"name": name, "create": create, "wait": wait}))[0]


async def _size(room: RoomClient, name: str = "q") -> tuple[int, int]:
    (queue,) = [queue for queue in await room.queues.list() if queue.name == name]
    assert queue.ready is not None
    assert queue.leased is not None
    return queue.ready, queue.leased


async def test_a_message_goes_to_one_worker_and_is_gone_when_acked(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as b:
        message_id = await a.queues.send(name="q", message={"x": [1, "é", None]}, headers={"k": "v"})
        leased = await b.queues.lease(name="q", seconds=12)
        assert leased is not None
        assert (leased.message, leased.queue, leased.attempt, leased.delivery) == ({"x": [1, "é", None]}, "q", 1, 1)
        assert (leased.headers["k"], leased.seconds) == ("v", 12)
        assert message_id is not None
        assert await a.queues.lease(name="q", wait=False) is None
        assert await _size(a) == (0, 1)
        await leased.extend()
        await leased.extend(seconds=60)
        await leased.ack()
        assert await _size(a) == (0, 0)


async def test_messages_come_in_order(server: RunningServer) -> None:
    async with server.client() as a:
        for number in range(5):
            await a.queues.send(name="q", message=number)
        assert [await a.queues.receive(name="q", wait=False) for _ in range(6)] == [0, 1, 2, 3, 4, None]


async def test_a_nacked_message_comes_back_and_dies_after_its_last_attempt(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_attempts=2)) as server, server.client() as a:
        await a.queues.send(name="q", message="poison")
        for attempt in (1, 2):
            leased = await a.queues.lease(name="q")
            assert leased is not None
            assert leased.attempt == attempt
            assert await leased.nack(error=f"boom {attempt}") is (attempt == 2)
        (dead,) = await a.queues.dead(name="q")
        assert (dead.message, dead.attempts, dead.reason) == ("poison", 2, "boom 2")
        assert await a.queues.replay(name="q", ids=["12345"]) == 0
        assert await a.queues.replay(name="q", ids=[*map(str, range(10**6, 10**6 + 2500)), dead.id]) == 1
        assert await a.queues.receive(name="q", wait=False) == "poison"
        assert await a.queues.dead(name="q") == []
        assert await a.queues.replay(name="q") == 0
        for request in ({"ids": [2**63]}, {"ids": [0] * 1001}):
            with pytest.raises(InvalidRequestError, match="ids"):
                await a.send_request("queues.replay", {"name": "q", **request})
        with pytest.raises(InvalidRequestError, match="before"):
            await a.send_request("queues.dead", {"name": "q", "before": [1.0, 2**63]})


async def test_large_dead_messages_come_in_several_replies(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_replies, "MANY_BYTES", 1000)
    async with serve(limits=QueueLimits(max_attempts=1)) as server, server.client() as a:
        for number in range(7):
            await a.queues.send(name="q", message=f"{number}{'x' * 400}")
            leased = await a.queues.lease(name="q")
            assert leased is not None
            await leased.nack(error="boom")
        answer = await a.send_request("queues.dead", {"name": "q"})
        assert (len(answer["dead"]), answer["more"]) == (3, True)
        assert [letter.message[0] for letter in await a.queues.dead(name="q", limit=6)] == [
            "6",
            "5",
            "4",
            "3",
            "2",
            "1",
        ]


async def test_a_delayed_nack_and_a_release_are_not_failures(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send(name="q", message=1)
        leased = await a.queues.lease(name="q")
        assert leased is not None
        assert not await leased.nack(reason="released")
        leased = await a.queues.lease(name="q")
        assert leased is not None
        assert (leased.attempt, leased.delivery) == (1, 1)
        assert not await leased.nack(reason="interrupted", delay=600)
        assert await a.queues.lease(name="q", wait=False) is None
        assert (await a.queues.list())[0].delayed == 1


async def test_a_late_holder_cannot_settle(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="b") as b:
        await a.queues.send(name="q", message=1)
        late = await a.queues.lease(name="q", seconds=0.01)
        assert late is not None
        present = await b.queues.lease(name="q")
        assert present is not None
        assert present.delivery == 2
        for settle in (late.ack, late.nack, late.extend):
            with pytest.raises(LeaseLostError):
                await settle()
        await present.ack()
        with pytest.raises(LeaseLostError):
            await present.ack()


@pytest.mark.parametrize("lease", ["", "1", "1.2", "1.2.3.4", "a.1.holder", "1.-1.holder", "²x.1.h"])
async def test_a_malformed_lease_is_refused(server: RunningServer, lease: str) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError):
            await a.send_request("queues.ack", {"name": "q", "lease": lease})


async def test_a_forged_lease_is_refused(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="thief") as thief:
        await a.queues.send(name="q", message=1)
        leased = await a.queues.lease(name="q")
        assert leased is not None
        assert leased._lease is not None
        message_id, token, _ = leased._lease.split(".")
        for forged in (f"{message_id}.{token}.{thief.local_participant.id}", f"{message_id}.{token}."):
            with pytest.raises(LeaseLostError):
                await thief.send_request("queues.ack", {"name": "q", "lease": forged})
        await leased.ack()


async def test_expiry_is_not_a_reason_that_clients_may_give(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError):
            await a.send_request("queues.nack", {"name": "q", "lease": "1.1.h", "reason": "expired"})


async def test_what_was_received_without_waiting_is_settled_at_once(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as worker:
        await a.queues.send(name="q", message=7)
        assert await _receive(worker, wait=False) == JsonResponse(json=7)
        await worker.queues.list()
        assert await _size(a) == (0, 0)


async def test_many_receives_at_once_are_all_settled(server: RunningServer, until: Any) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as worker:
        for number in range(20):
            await a.queues.send(name="q", message=number)
        replies = await asyncio.gather(*(_receive(worker, wait=False) for _ in range(20)))
        assert sorted(reply.json for reply in replies if isinstance(reply, JsonResponse)) == list(range(20))
        async with asyncio.timeout(5):
            while await _size(a) != (0, 0):
                pass
        await _receive(worker, wait=False)
    async with server.client() as a:
        assert await _size(a) == (0, 0)


async def test_what_several_waiting_receives_got_is_settled_by_the_next(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as worker:
        async with asyncio.TaskGroup() as tasks:
            parked = [tasks.create_task(_receive(worker, wait=True)) for _ in range(3)]
            for number in range(3):
                await a.queues.send(name="q", message=number)
        assert sorted(task.result().json for task in parked) == [0, 1, 2]
        assert await _size(a) == (0, 3)
        assert await _receive(worker, wait=False) == EmptyResponse()
        assert await _size(a) == (0, 0)


async def test_what_was_waited_for_is_settled_by_the_next_receive(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as worker:
        await a.queues.send(name="q", message=1)
        await a.queues.send(name="q", message=2)
        assert await _receive(worker, wait=True) == JsonResponse(json=1)
        assert await _size(a) == (1, 1)
        assert await _receive(worker, wait=True) == JsonResponse(json=2)
        assert await _size(a) == (0, 1)


@pytest.mark.parametrize(
    ("role", "orderly", "comes_back"),
    [("agent", True, True), ("agent", False, True), ("user", True, False), ("user", False, True)],
)
async def test_what_becomes_of_an_unsettled_message_when_its_receiver_goes(
    server: RunningServer, until: Any, role: str, orderly: bool, comes_back: bool
) -> None:
    async with server.client(name="watcher") as a:
        await a.queues.send(name="q", message=1)
        # The room must not be joined again before it is left.
        async with server.client(name="w", role=role, reconnect=NEVER) as worker:
            assert await _receive(worker, wait=True) == JsonResponse(json=1)
            if not orderly:
                server.cut(worker)
            else:
                await worker.close()
            async with asyncio.timeout(10):
                while (await _size(a))[1]:
                    pass
            assert await _size(a) == ((1, 0) if comes_back else (0, 0))


async def test_a_send_whose_answer_is_lost_is_stored_once(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, answers = QueueService.send, 0

    async def store_and_break(service: QueueService, *args: Any, **options: Any) -> int:
        nonlocal answers
        message_id = await store(service, *args, **options)
        answers += 1
        if answers <= 3:
            server.cut(sender)
            await asyncio.Event().wait()  # until the server notices that nobody waits for the answer
        return message_id

    monkeypatch.setattr(QueueService, "send", store_and_break)
    async with server.client() as sender:
        message_id = await sender.queues.send(name="q", message="once")
        assert answers == 4
        assert message_id is not None
        assert await _size(sender) == (1, 0)
        assert await sender.queues.send(name="q", message="once") != message_id


@pytest.mark.parametrize("turns", range(0, 40, 3))
@pytest.mark.parametrize("how", ["receive", "lease"])
async def test_a_receive_that_does_not_wait_loses_nothing_when_it_is_cancelled(
    server: RunningServer, turns: int, how: str
) -> None:
    async with server.client() as a, server.client() as b:
        for number in range(5):
            await a.queues.send(name="q", message=number)
        got: list[Any] = []

        async def take() -> None:
            if how == "receive":
                got.append(await b.queues.receive(name="q", wait=False))
            elif (leased := await b.queues.lease(name="q", wait=False)) is not None:
                got.append(leased.message)
                await uninterrupted(leased.ack(), timeout=5)

        tasks = [asyncio.create_task(take()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        async with asyncio.timeout(10):
            while True:
                ready, leased = await _size(a)
                if leased == 0:
                    break
                await asyncio.sleep(0.02)
        rest = [await a.queues.receive(name="q", wait=False) for _ in range(ready)]
        assert sorted([*got, *rest]) == [0, 1, 2, 3, 4]


async def test_a_message_taken_without_waiting_is_settled_when_its_receiver_leaves(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send(name="q", message=1)
        async with server.client(name="w", role="agent") as worker:
            assert await worker.queues.receive(name="q", wait=False) == 1
        assert await a.queues.receive(name="q", wait=False) is None
        assert await _size(a) == (0, 0)


async def test_a_lease_comes_back_when_its_holder_leaves(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send(name="q", message=1)
        async with server.client(name="w", role="agent") as worker:
            assert await worker.queues.lease(name="q", seconds=600) is not None
        again = await a.queues.lease(name="q")
        assert again is not None
        assert (again.attempt, again.delivery) == (1, 2)


async def test_a_lease_comes_back_when_its_holder_does_not_come_back(serve: Any) -> None:
    async with serve(resume_seconds=0.05) as server, server.client() as a:
        await a.queues.send(name="q", message=1)
        async with server.client(name="w", role="agent", reconnect=NEVER) as worker:
            assert await worker.queues.lease(name="q", seconds=600) is not None
            server.cut(worker)
            again = await a.queues.lease(name="q")
            assert again is not None
            assert again.delivery == 2


async def test_a_lease_outlives_a_resumed_connection(serve: Any, heard: Any) -> None:
    async with serve(resume_seconds=0.3) as server, server.client() as a:
        await a.queues.send(name="q", message=1)
        async with server.client(name="w", role="agent", reconnect=ReconnectPolicy(first_delay=0.0)) as worker:
            leased = await worker.queues.lease(name="q", seconds=600)
            assert leased is not None
            reconnected = heard(worker, "reconnected")
            server.cut(worker)
            await reconnected.get()
            # Past the time within which the worker could have resumed.
            assert await server_time(a, 0.5) is None
            await leased.ack()
            assert await _size(a) == (0, 0)


async def server_time(room: RoomClient, seconds: float) -> Any:
    """Wait for a message that must not come."""
    try:
        async with asyncio.timeout(seconds):
            return await room.queues.lease(name="q")
    except TimeoutError:
        return None


async def test_a_waiting_receive_ends_empty_after_its_time(serve: Any) -> None:
    async with serve(receive_seconds=0.05) as server, server.client() as a:
        assert await _receive(a, wait=True) == EmptyResponse()
        assert await a.queues.lease(name="q") is None


async def test_a_dismissal_ends_what_the_participant_waits_for(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="w", role="agent") as worker:
        async with asyncio.timeout(4), asyncio.TaskGroup() as tasks:
            parked = tasks.create_task(_receive(worker, wait=True))
            leasing = tasks.create_task(worker.queues.lease(name="q"))
            await worker.queues.list()
            to = RemoteParticipant(id=worker.local_participant.id)
            await a.messaging.send_message(to=to, type="dismiss", message={})
        assert parked.result() == EmptyResponse()
        assert leasing.result() is None
        # Nor does it wait for long any more.
        async with asyncio.timeout(4):
            assert await _receive(worker, wait=True) == EmptyResponse()


@pytest.mark.parametrize(
    ("request_type", "more"),
    [
        ("queues.receive", {"create": False, "wait": False}),
        ("queues.receive", {"create": False, "wait": True}),
        ("queues.send", {"create": False, "message": 1}),
        ("queues.drain", {}),
        ("queues.close", {}),
        ("queues.dead", {}),
        ("queues.replay", {}),
    ],
)
async def test_a_queue_that_is_not_there_is_an_error(
    server: RunningServer, request_type: str, more: dict[str, Any]
) -> None:
    async with server.client() as a:
        with pytest.raises(NotFoundError, match="nope"):
            await a.send_request(request_type, {"name": "nope", **more})


async def test_open_drain_and_close(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.open(name="q")
        await a.queues.send(name="q", message=1, create=False)
        await a.queues.drain(name="q")
        assert await a.queues.receive(name="q", create=False, wait=False) is None
        await a.queues.close(name="q")
        assert await a.queues.list() == []


async def test_closing_a_queue_ends_the_wait_for_it(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.open(name="q")
        async with asyncio.TaskGroup() as tasks:
            parked = tasks.create_task(_swallow(a.queues.receive(name="q", create=False)))
            await a.queues.list()
            await a.queues.close(name="q")
        assert isinstance(parked.result(), NotFoundError)


async def _swallow(awaitable: Any) -> RoomError | None:
    try:
        await awaitable
    except RoomError as error:
        return error
    return None


async def test_a_message_over_the_limit_is_refused(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_message_bytes=100, max_depth=2)) as server, server.client() as a:
        with pytest.raises(RoomError, match="101 bytes"):
            await a.queues.send(name="q", message="x" * 97)
        await a.queues.send(name="q", message=1)
        await a.queues.send(name="q", message=1)
        with pytest.raises(RoomError, match="full"):
            await a.queues.send(name="q", message=1)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": 3},
        {"name": "q", "wait": "maybe"},
        {"name": "q", "lease": 0},
        {"name": "q", "lease": 3601},
        {"name": "\ud800", "wait": False},
    ],
)
async def test_a_wrong_member_is_named(server: RunningServer, header: dict[str, Any]) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError, match=r"name|wait|lease"):
            await a.send_request("queues.receive", header)


async def test_too_many_waiting_receives_are_refused(server: RunningServer) -> None:
    async with server.client() as a:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(_swallow(_receive(a, wait=True))) for _ in range(65)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await a.queues.close(name="q")
        errors = [task.result() for task in waiting]
        assert sum("receives wait" in str(error) for error in errors) == 1
        assert sum(isinstance(error, NotFoundError) for error in errors) == 64


async def test_grants_name_single_queues(server: RunningServer) -> None:
    scope = ApiScope(queues=QueuesGrant(send=["in"], receive=["out"], list=False))
    async with server.client(scope=scope) as a:
        await a.queues.send(name="in", message=1)
        await a.queues.open(name="out")
        for refused in (
            a.queues.send(name="out", message=1),
            a.queues.receive(name="in", wait=False),
            a.queues.open(name="other"),
            a.queues.list(),
        ):
            with pytest.raises(AccessDeniedError):
                await refused


async def test_a_message_is_kept_as_json(server: RunningServer) -> None:
    async with server.client() as a:
        for message in (None, "text", 1.5, [1, {"a": None}], {"nested": {"deep": [True]}}):
            await a.queues.send(name="q", message=message)
            assert json.dumps(await a.queues.receive(name="q", wait=False)) == json.dumps(message)


async def test_a_receive_that_its_caller_gives_up_loses_nothing(server: RunningServer) -> None:
    async with server.client() as reader, server.client() as writer:
        got = []
        for number in range(4):
            for receive in (reader.queues.receive, reader.queues.lease):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await receive(name="q")
            await writer.queues.send(name="q", message=number)
            got.append(await reader.queues.receive(name="q"))
        assert got == [0, 1, 2, 3]
        assert await _size(writer) == (0, 1)


async def test_a_lease_that_is_given_up_as_its_message_comes_loses_nothing(server: RunningServer) -> None:
    async with server.client() as reader, server.client() as writer:
        taken = []

        async def lease() -> None:
            taken.append(await reader.queues.lease(name="q"))

        for number in range(50):
            receiving = reader.spawn(lease(), "receive")
            await writer.queues.send(name="q", message=number)
            await asyncio.sleep(number / 50_000)
            receiving.cancel()
            await asyncio.wait([receiving])
        async with asyncio.timeout(5):
            while await _size(writer) != (50 - len(taken), len(taken)):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        leased = await writer.queues.lease(name="q")
        assert leased is not None
        assert (leased.attempt, leased.delivery) == (1, 1)


async def test_a_number_that_is_not_json_is_refused_by_client_and_server(server: RunningServer) -> None:
    async with server.client() as a:
        with pytest.raises(InvalidRequestError, match=r"message\.x: NaN and Infinity are not JSON"):
            await a.queues.send(name="q", message={"x": float("nan")})
        # No request at all can carry one.
        with pytest.raises(InvalidRequestError, match="NaN and Infinity are not JSON values"):
            await a.send_request("queues.send", {"name": "q", "message": {"x": float("inf")}})
