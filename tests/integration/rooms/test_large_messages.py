"""Messages and results that are too large for a row or a header: in pieces over the wire, and whole for older clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError, InvalidRequestError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.grants import ApiScope, QueuesGrant, StorageGrant
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.consuming.consumer import QueueConsumer
from meshhost.room.services.queues import NewMessage
from meshhost.server.services.bodies import transfer
from meshhost.stores.queues import QueueKey, QueueLimits
from meshhost.testing.server import RunningServer

# Above what a header takes, and with characters that are several bytes in UTF-8.
LARGE = {"text": "é" + "x" * 1_200_000, "n": [1, 2.5, None]}


async def objects(server: RunningServer) -> list[str]:
    found = server.server.engines.queues.bodies.objects
    return [each.name async for page in found.all() for each in page]


@asynccontextmanager
async def consuming(room: RoomClient, process: Any, **options: Any) -> AsyncIterator[QueueConsumer]:
    consumer = QueueConsumer(room=room, queue="jobs", process=process, **options)
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        consumer.drain()
        await task


async def test_a_message_above_the_limit_of_headers_arrives_whole(server: RunningServer) -> None:
    async with server.client() as a:
        message_id = await a.queues.send("jobs", LARGE, headers={"k": "v"})
        assert len(await objects(server)) == 1
        (peeked,) = await a.queues.peek("jobs")
        assert peeked.message is None
        assert peeked.body is not None
        assert peeked.body.size > 1_200_000
        assert peeked.body.beginning.startswith('{"text": "\\u00e9xxx')
        assert len(peeked.body.beginning) == 500
        assert [found.body async for found in a.queues.find("jobs", text="é")] == [peeked.body]
        assert await a.queues.body("jobs", message_id or "") == LARGE
        leased = await a.queues.lease(name="jobs")
        assert leased is not None
        assert leased.message == LARGE
        assert leased.headers == {"k": "v"}
        await leased.ack()
        async with asyncio.timeout(10):
            while await objects(server):  # noqa: ASYNC110 - deleted in the background
                await asyncio.sleep(0.01)


async def test_many_messages_of_any_size_are_stored_together_in_order(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send_many("jobs", [1, LARGE, NewMessage({"b": "y" * 400_000}, id="own"), 4])
        with pytest.raises(InvalidRequestError):
            await a.queues.send_many("jobs", [LARGE, NewMessage(1, priority=1000)])
        again = await a.queues.send_many("jobs", [NewMessage({"b": "y" * 400_000}, id="own")])
        assert again.before == 1
        assert len(await objects(server)) == 2
        found = await a.queues.lease_many("jobs", limit=10)
        assert [each.message for each in found] == [1, LARGE, {"b": "y" * 400_000}, 4]


async def test_a_client_that_does_not_fetch_gets_the_message_whole(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send_many("jobs", [LARGE, 2, LARGE, LARGE, LARGE])
        assert await a.queues.receive(name="jobs", wait=False) == LARGE
        assert await a.queues.receive(name="jobs") == 2
        assert await a.queues.receive(name="jobs") == LARGE
        # As an older client of ours asks: with a lease, for one or for several.
        response, extra = await a.request("queues.receive", {"name": "jobs", "lease": 30})
        assert response == JsonResponse(json=LARGE)
        assert "body" not in extra["delivery"]
        await a.queues.send("jobs", 6)
        response, extra = await a.request("queues.receive", {"name": "jobs", "lease": 30, "limit": 9})
        assert response == JsonResponse(json=[LARGE])
        response, extra = await a.request("queues.receive", {"name": "jobs", "lease": 30, "limit": 9})
        assert response == JsonResponse(json=[6])
        await a.queues.send_many("jobs", [7, LARGE, 9])
        for expected in ([7], [LARGE], [9]):
            response, extra = await a.request("queues.receive", {"name": "jobs", "lease": 30, "limit": 9})
            assert response == JsonResponse(json=expected)


async def test_a_message_that_cannot_be_delivered_ends_dead_with_the_reason(serve: Any) -> None:
    async with serve(limits=QueueLimits(max_attempts=2)) as server, server.client() as a:
        await a.queues.send("jobs", LARGE)
        bodies, room = server.server.engines.queues.bodies, RoomKey(TenantId(server.key.project_id), "room")
        await bodies.delete_all(room.tenant)
        for _ in range(2):
            response, _ = await a.request("queues.receive", {"name": "jobs", "wait": False})
            assert response == EmptyResponse()
        (letter,) = await a.queues.dead(name="jobs")
        assert "not delivered: the body of the message is not in the object store any more" in letter.reason
        assert letter.message is None
        assert letter.body is not None
        await a.queues.send("jobs", LARGE)
        await bodies.delete_all(room.tenant)
        for _ in range(2):
            with pytest.raises(NotFoundError):
                await a.queues.lease(name="jobs")
        assert await a.queues.lease(name="jobs", wait=False) is None


async def test_large_results_reach_those_who_wait(server: RunningServer) -> None:
    async def process(leased: Any) -> Any:
        assert leased.body is None
        return {"echo": leased.message}

    async with server.client() as a, server.client() as worker, consuming(worker, process, concurrency=3):
        assert await a.queues.send("jobs", LARGE, reply=True, timeout=30) == {"echo": LARGE}
        small = await a.queues.send("jobs", 1, reply=True, timeout=30)
        assert small == {"echo": 1}
        message_id = await a.queues.send("jobs", LARGE)
        record = await a.queues.wait("jobs", message_id or "")
        assert record is not None
        assert record.result == {"echo": LARGE}
        known = await a.queues.get("jobs", message_id or "")
        assert known is not None
        assert (known.result, known.result_body) == (None, record.result_body)
        assert await a.queues.body("jobs", message_id or "", part="result") == {"echo": LARGE}


async def test_a_result_over_the_limit_of_messages_is_replaced_by_the_reason(serve: Any) -> None:
    async def process(_: Any) -> Any:
        return "x" * 400_000

    limits = QueueLimits(max_message_bytes=300_000)
    async with serve(limits=limits) as server, server.client() as a, consuming(a, process):
        result = await a.queues.send("jobs", 1, reply=True, timeout=30)
        assert "message of 400002 bytes, a queue takes at most 300000" in result["meshhost_error"]


async def test_uploads_are_bounded_and_belong_to_their_participant(serve: Any) -> None:
    async with (
        serve(limits=QueueLimits(max_message_bytes=400_000)) as server,
        server.client() as a,
        server.client() as b,
    ):
        with pytest.raises(LimitExceededError, match="message of 1200039 bytes, a queue takes at most 400000"):
            await a.queues.send("jobs", LARGE)
        handle = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        await a.send_request("queues.upload_write", {"handle": handle}, b"{")
        large = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        with pytest.raises(LimitExceededError, match="message of 400001 bytes, a queue takes at most 400000"):
            await a.send_request("queues.upload_write", {"handle": large}, b"x" * 400_001)
        for other, request in (
            (b, {"name": "jobs", "message": None, "upload": handle}),
            (a, {"name": "jobs", "message": None, "upload": "unknown"}),
        ):
            with pytest.raises(NotFoundError, match="no such upload"):
                await other.send_request("queues.send", request)
        with pytest.raises(InvalidRequestError, match="message: expected JSON"):
            await a.send_request("queues.send", {"name": "jobs", "message": None, "upload": handle})
        with pytest.raises(NotFoundError, match="no such upload"):
            await a.send_request("queues.upload_write", {"handle": handle}, b"}")
        twice = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        messages = [{"message": None, "upload": twice}] * 2
        with pytest.raises(NotFoundError, match="no such upload"):
            await a.send_request("queues.send_many", {"name": "jobs", "messages": messages})
        for _ in range(64):
            await a.send_request("queues.upload", {"name": "jobs"})
        with pytest.raises(LimitExceededError, match="over 64 bodies"):
            await a.send_request("queues.upload", {"name": "jobs"})
        assert await objects(server) == []


async def test_a_send_over_a_lost_connection_uploads_again_and_stores_once(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.client() as a:
        service, cuts = server.server.engines.queues, 0
        store = service.send_many

        async def store_and_break(*args: Any, **options: Any) -> Any:
            nonlocal cuts
            ids = await store(*args, **options)
            cuts += 1
            if cuts == 1:
                server.cut(a)
                await asyncio.Event().wait()
            return ids

        monkeypatch.setattr(service, "send_many", store_and_break)
        await a.queues.send("jobs", LARGE)
        assert cuts == 2
        assert [queue.size for queue in await a.queues.list()] == [1]
        leased = await a.queues.lease(name="jobs")
        assert leased is not None
        assert leased.message == LARGE


async def test_contents_belong_to_receivers_and_no_file_leads_to_them(server: RunningServer) -> None:
    scope = ApiScope(queues=QueuesGrant(send=["jobs"], receive=[]), storage=StorageGrant())
    async with server.client() as a, server.client(scope=scope) as sender:
        message_id = await sender.queues.send("jobs", LARGE)
        with pytest.raises(AccessDeniedError):
            await sender.queues.body("jobs", message_id or "")
        with pytest.raises(NotFoundError, match="has no result"):
            await sender.queues.body("jobs", message_id or "", part="result")
        (name,) = await objects(server)
        tenant = server.key.project_id
        assert await a.storage.list(path="") == []
        for path in (f".queues/{tenant}/room/{name}", f"../../.queues/{tenant}/room/{name}", name):
            with pytest.raises((NotFoundError, InvalidRequestError)):
                await a.storage.download(path=path)
            with pytest.raises((NotFoundError, InvalidRequestError)):
                await a.storage.download_url(path=path)
        assert len(await objects(server)) == 1


async def test_no_sender_can_forge_a_reference(server: RunningServer) -> None:
    async with server.client() as a:
        await a.queues.send("jobs", LARGE)
        queues = server.server.engines.queues
        jobs = QueueKey(RoomKey(TenantId(server.key.project_id), "room"), "jobs")
        (stored,) = await queues.store.stored(jobs, after=0, limit=1, max_bytes=1)
        await a.queues.send("jobs", stored.body)
        found = await a.queues.lease_many("jobs", limit=2)
        assert [each.message for each in found] == [LARGE, stored.body]
        with pytest.raises(RoomError):
            await a.queues.body("jobs", "999")


async def test_a_message_that_its_receiver_may_never_have_in_flight_ends_dead(serve: Any) -> None:
    limits = QueueLimits(max_attempts=1)
    async with serve(limits=limits, max_in_flight_bytes=1_050_000) as server, server.client() as a:
        await a.queues.send("jobs", LARGE)
        await a.queues.send("jobs", 2)
        response, _ = await a.request("queues.receive", {"name": "jobs", "wait": False})
        assert response == EmptyResponse()
        assert await a.queues.receive(name="jobs", wait=False) == 2
        (letter,) = await a.queues.dead(name="jobs")
        assert "not delivered: message of 1200039 bytes" in letter.reason
        # A client of ours needs no more in flight than a piece.
        await a.queues.replay(name="jobs")
        leased = await a.queues.lease(name="jobs")
        assert leased is not None
        assert leased.message == LARGE


async def test_an_upload_that_its_client_gave_up_is_dropped_when_it_begins_another_one(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.client() as a:
        first = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        second = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        monkeypatch.setattr(transfer, "IDLE_SECONDS", -1.0)
        third = (await a.send_request("queues.upload", {"name": "jobs"}))["handle"]
        await a.send_request("queues.upload_write", {"handle": third}, b"3")
        for handle in (first, second):
            with pytest.raises(NotFoundError, match="no such upload"):
                await a.send_request("queues.upload_write", {"handle": handle}, b"1")


async def test_a_fetched_body_that_is_not_what_was_sent_fails_the_message(serve: Any, tmp_path: Path) -> None:
    async with serve(limits=QueueLimits(max_attempts=1)) as server, server.client() as a:
        await a.queues.send("jobs", LARGE)
        (path,) = (each for each in (tmp_path / "storage" / ".queues").rglob("*") if each.is_file())
        content = path.read_bytes()
        path.write_bytes(content.replace(b"xx", b"yy", 1))
        with pytest.raises(RoomError, match="its checksum differs"):
            await a.queues.lease(name="jobs")
        (letter,) = await a.queues.dead(name="jobs")
        assert "its checksum differs" in letter.reason
