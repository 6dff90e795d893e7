"""Large bodies and results of messages: objects beside the rows, written before them and deleted after them."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import (
    InvalidRequestError,
    LeaseLostError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
    TooLargeError,
)
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.bodies import LargeBodies
from meshhost.queues.service import QueueService
from meshhost.queues.sweeper import QueueSweeper
from meshhost.quotas.counts import LocalCounts
from meshhost.quotas.quota import Resource, ServerQuota
from meshhost.stores.bodies.objects import BodyObjects
from meshhost.stores.bodies.reference import BodyReference
from meshhost.stores.files import open_object_store
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.queues import HolderId, NewMessage, QueueKey, QueueLimits, StoredIds
from meshhost.stores.shared.local_notifier import LocalNotifier

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS, ANN = QueueKey(ROOM, "jobs"), HolderId("ann")
LARGE = json.dumps(["x" * 50] * 40)  # of some 2 KB, above the limit of these tests


class Store(MemoryQueueStore):
    """Fails as it is told to."""

    error: BaseException | None = None

    async def send_many(self, queue: QueueKey, messages: Sequence[NewMessage], *, create: bool = True) -> StoredIds:
        found = await super().send_many(queue, messages, create=create)
        if self.error is not None:
            raise self.error
        return found


@pytest.fixture
async def store() -> Store:
    made = Store(limits=QueueLimits(max_attempts=1, max_depth=3))
    await made.open()
    return made


@pytest.fixture(params=["directory", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> BodyObjects:
    return BodyObjects(open_object_store(tmp_path / "objects") if request.param == "directory" else None)


@pytest.fixture
def counts(objects: BodyObjects) -> LocalCounts:
    async def count(tenant: str) -> dict[Resource, int]:
        return {Resource.STORED_BYTES: await objects.bytes_of(TenantId(tenant))}

    quota = ServerQuota(max_stored_bytes=10_000)
    return LocalCounts(lambda _: quota, sources=[(frozenset({Resource.STORED_BYTES}), count)])


@pytest.fixture
def bodies(store: Store, objects: BodyObjects, counts: LocalCounts) -> LargeBodies:
    return LargeBodies(store, objects, inline_bytes=1000, max_bytes=5000, counts=counts, look_seconds=0.0)


@pytest.fixture
async def queues(store: Store, bodies: LargeBodies, counts: LocalCounts) -> AsyncIterator[QueueService]:
    notifier = LocalNotifier()
    await notifier.open()
    sweeper = QueueSweeper(store)
    async with QueueService(store, notifier=notifier, sweeper=sweeper, counts=counts, bodies=bodies) as service:
        yield service


async def names(objects: BodyObjects) -> list[str]:
    return [found.name async for page in objects.all() for found in page]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - what is deleted in the background tells nobody
            await asyncio.sleep(0.01)


async def take(queues: QueueService) -> tuple[BodyReference, object]:
    delivery = await queues.receive(JOBS, ANN)
    assert delivery is not None
    return BodyReference.parse(delivery.body), delivery.lease


async def read(queues: QueueService, reference: BodyReference) -> bytes:
    return b"".join([chunk async for chunk in queues.bodies.stream(ROOM, reference)])


async def test_a_large_body_is_an_object_and_its_row_refers_to_it(queues: QueueService, objects: BodyObjects) -> None:
    small = json.dumps("x" * 998)
    await queues.send_many(JOBS, [NewMessage(small), NewMessage(LARGE, {"k": "v"}, priority=-1)])
    first = await queues.receive(JOBS, ANN)
    assert first is not None
    assert first.body == small
    delivery = await queues.receive(JOBS, ANN)
    assert delivery is not None
    assert dict(delivery.headers) == {"k": "v"}
    reference = BodyReference.parse(delivery.body)
    assert (reference.size, reference.beginning) == (len(LARGE), LARGE[:500])
    assert await read(queues, reference) == LARGE.encode()
    assert await queues.bodies.read(ROOM, reference, 10, 20) == LARGE[10:30].encode()
    assert await queues.bodies.read(ROOM, reference, len(LARGE) - 2, 20) == LARGE[-2:].encode()
    assert await queues.bodies.read(ROOM, reference, len(LARGE), 20) == b""
    await queues.ack(delivery.lease)

    async def is_deleted() -> bool:
        return await names(objects) == []

    await eventually(is_deleted)
    with pytest.raises(NotFoundError, match="not in the object store any more"):
        await read(queues, reference)


async def test_a_body_over_the_limit_is_refused_with_its_size(queues: QueueService, objects: BodyObjects) -> None:
    with pytest.raises(TooLargeError, match="message of 5002 bytes, a queue takes at most 5000"):
        await queues.send_many(JOBS, [NewMessage(LARGE), NewMessage(json.dumps("x" * 5000))])
    assert await names(objects) == []


async def test_what_is_refused_leaves_no_object(queues: QueueService, objects: BodyObjects) -> None:
    with pytest.raises(NotFoundError):
        await queues.send(JOBS, NewMessage(LARGE), create=False)
    with pytest.raises(LimitExceededError, match="full"):
        await queues.send_many(JOBS, [NewMessage(LARGE)] * 4)
    assert await names(objects) == []


async def test_a_message_that_was_sent_before_keeps_its_first_object(
    queues: QueueService, objects: BodyObjects
) -> None:
    first = await queues.send(JOBS, NewMessage(LARGE, sender_id="a"))
    (name,) = await names(objects)
    ids = await queues.send_many(JOBS, [NewMessage(LARGE, sender_id="a"), NewMessage(LARGE, sender_id="b")])
    assert ids[0] == first
    assert len(await names(objects)) == 2
    assert name in await names(objects)


async def test_when_nobody_knows_whether_a_row_was_stored_the_object_stays(
    queues: QueueService, store: Store, objects: BodyObjects, bodies: LargeBodies
) -> None:
    store.error = OSError("the connection was lost")
    with pytest.raises(OSError, match="lost"):
        await queues.send(JOBS, NewMessage(LARGE))
    assert await bodies.reclaim() == 0
    reference, _ = await take(queues)
    assert await read(queues, reference) == LARGE.encode()


async def test_stored_bytes_are_counted_and_refused(queues: QueueService, counts: LocalCounts) -> None:
    upload = queues.bodies.new_upload(ROOM.tenant)
    await upload.add(LARGE.encode())
    upload.close()
    await queues.send_many(JOBS, [NewMessage(LARGE)] * 2)
    assert (await counts.use("acme"))[Resource.STORED_BYTES] == 2 * len(LARGE)
    await queues.send(JOBS, NewMessage(json.dumps("x" * 4900)))
    with pytest.raises(QuotaExceededError):
        await queues.send(QueueKey(ROOM, "more"), NewMessage(json.dumps("x" * 2000)))
    assert await queues.drain(JOBS) == 3

    async def is_freed() -> bool:
        return (await counts.use("acme"))[Resource.STORED_BYTES] == 0

    await eventually(is_freed)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": NaN}', b'"\xff"', b"@" * 100, b"1 2", b"1\x00 2"])
async def test_an_upload_that_is_not_json_is_refused(
    queues: QueueService, objects: BodyObjects, content: bytes
) -> None:
    upload = queues.bodies.new_upload(ROOM.tenant)
    await upload.add(content)
    with pytest.raises(InvalidRequestError, match=r"^message: expected JSON"):
        await queues.send_many(JOBS, [NewMessage("null")], uploads={0: upload})
    assert await names(objects) == []
    with pytest.raises(OSError, match="closed"):
        await upload.add(b"1")


async def test_an_upload_is_a_body_as_it_is(queues: QueueService) -> None:
    text = json.dumps(["ü", "👋" * 400, "x" * 600], ensure_ascii=False)
    upload = queues.bodies.new_upload(ROOM.tenant)
    for start in range(0, len(text.encode()), 1000):
        await upload.add(text.encode()[start : start + 1000])
    await queues.send_many(JOBS, [NewMessage("null")], uploads={0: upload})
    reference, _ = await take(queues)
    assert await read(queues, reference) == text.encode()
    # As in a body of usual size, in which searches look.
    assert json.dumps(json.loads(text)).startswith(reference.beginning)
    assert 480 < len(reference.beginning) <= 500


async def test_a_large_result_is_an_object_until_it_is_forgotten(
    queues: QueueService, objects: BodyObjects, bodies: LargeBodies
) -> None:
    text = json.dumps("r" * 3000)
    message = await queues.send(JOBS, NewMessage("1"))
    delivery = await queues.receive(JOBS, ANN)
    assert delivery is not None
    upload = bodies.new_upload(ROOM.tenant)
    await upload.add(text.encode())
    await queues.ack(delivery.lease, result=upload)
    record = await queues.get(JOBS, message)
    assert record is not None
    assert record.result is not None
    assert await read(queues, BodyReference.parse(record.result)) == text.encode()
    upload = bodies.new_upload(ROOM.tenant)
    await upload.add(text.encode())
    with pytest.raises(LeaseLostError):
        await queues.ack(delivery.lease, result=upload)
    assert len(await names(objects)) == 1


async def test_an_orphan_is_deleted_when_it_is_old_and_a_body_never(
    store: Store, objects: BodyObjects, queues: QueueService
) -> None:
    await queues.send(JOBS, NewMessage(LARGE))
    (kept,) = await names(objects)
    upload = queues.bodies.new_upload(ROOM.tenant)
    await upload.add(LARGE.encode())
    await queues.bodies.keep_result(ROOM, upload)
    later = LargeBodies(store, objects)  # of another process, which has seen none of this
    assert await later.reclaim() == 0
    later = LargeBodies(store, objects, safe_age=-1)
    assert await later.reclaim(RoomKey(TenantId("acme"), "other")) == 0
    assert await later.reclaim(ROOM) == 1
    assert await names(objects) == [kept]


async def test_a_write_that_was_cancelled_is_counted_anew(
    queues: QueueService, objects: BodyObjects, counts: LocalCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(objects, "write", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await queues.send(JOBS, NewMessage(LARGE))
    await queues.send(JOBS, NewMessage(LARGE))
    assert (await counts.use(ROOM.tenant))[Resource.STORED_BYTES] == len(LARGE)


async def test_an_object_that_cannot_be_deleted_now_is_deleted_later(
    queues: QueueService, objects: BodyObjects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: object) -> None:
        raise OSError("the disk is away")

    await queues.send(JOBS, NewMessage(LARGE))
    delivery = await queues.receive(JOBS, ANN)
    assert delivery is not None
    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", failing)
        await queues.ack(delivery.lease)

        async def is_logged() -> bool:
            return "large body not deleted" in caplog.text

        await eventually(is_logged)
    assert len(await names(objects)) == 1
    assert await queues.bodies.reclaim(ROOM) == 1


async def test_a_sweep_that_fails_is_repeated(
    store: Store, objects: BodyObjects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = LargeBodies(store, objects, inline_bytes=1000, safe_age=-1, sweep_seconds=0.01, look_seconds=0.0)
    upload = bodies.new_upload(ROOM.tenant)
    await upload.add(LARGE.encode())
    await bodies.keep_result(ROOM, upload)
    tries = 0
    referred = store.referred

    async def failing_first(*arguments: Any, **named: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("the disk is away")
        return await referred(*arguments, **named)

    monkeypatch.setattr(store, "referred", failing_first)
    bodies.start()

    async def is_deleted() -> bool:
        return await names(objects) == []

    await eventually(is_deleted)
    await bodies.stop()
    assert "large bodies not reclaimed" in caplog.text


async def test_what_is_known_of_objects_is_bounded(store: Store, objects: BodyObjects) -> None:
    notifier = LocalNotifier()
    await notifier.open()
    bodies = LargeBodies(store, objects, inline_bytes=1000, look_seconds=0.0, most_known=1)
    sweeper = QueueSweeper(store)
    async with QueueService(store, notifier=notifier, sweeper=sweeper, bodies=bodies) as queues:
        for _ in range(3):
            await queues.send(JOBS, NewMessage(LARGE))
        deliveries = [await queues.receive(JOBS, ANN) for _ in range(3)]
        for delivery in deliveries:
            assert delivery is not None
            assert await read(queues, BodyReference.parse(delivery.body)) == LARGE.encode()
            await queues.ack(delivery.lease)

        await queues.bodies.reclaim(ROOM)
        assert len(await names(objects)) <= 2  # what it knows no more is deleted by its age


async def test_a_cancelled_message_leaves_no_object(queues: QueueService, objects: BodyObjects) -> None:
    async def is_deleted() -> bool:
        return await names(objects) == []

    for _ in range(2):  # also one that comes after a look
        message = await queues.send(JOBS, NewMessage(LARGE))
        await queues.cancel(JOBS, message)
        await eventually(is_deleted)


async def test_a_message_that_is_cancelled_during_a_look_leaves_no_object_either(
    queues: QueueService, store: Store, objects: BodyObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await queues.send_many(JOBS, [NewMessage(LARGE)] * 2)
    referred, is_looking, go_on = store.referred, asyncio.Event(), asyncio.Event()

    async def held_up(names: Collection[str]) -> Collection[str]:
        found = await referred(names)
        is_looking.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(store, "referred", held_up)
    await queues.cancel(JOBS, first)
    await is_looking.wait()
    await queues.cancel(JOBS, second)
    go_on.set()

    async def is_deleted() -> bool:
        return await names(objects) == []

    await eventually(is_deleted)


async def test_a_deleted_room_leaves_no_object(queues: QueueService, objects: BodyObjects, tmp_path: Path) -> None:
    other = QueueKey(RoomKey(TenantId("acme"), "lobby-2"), "jobs")
    await queues.send(JOBS, NewMessage(LARGE))
    await queues.send(other, NewMessage(LARGE))
    await queues.delete_all(ROOM.tenant, ROOM.name)
    assert len(await names(objects)) == 1
    await queues.delete_all(ROOM.tenant)
    assert await names(objects) == []
    assert [*(tmp_path / "objects" / ".queues").rglob("*")] == []


_KILLED = """
import asyncio, sys
from pathlib import Path
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.bodies import LargeBodies
from meshhost.stores.bodies.objects import BodyObjects
from meshhost.stores.files import open_object_store
from meshhost.stores.queues import NewMessage, QueueLimits
from meshhost.stores.sqlite.queues import SqliteQueueStore

async def main(folder: Path) -> None:
    store = SqliteQueueStore(folder / "queues.db", limits=QueueLimits())
    bodies = LargeBodies(store, BodyObjects(open_object_store(folder / "objects")), inline_bytes=1000)
    async with bodies.sending(RoomKey(TenantId("acme"), "lobby"), [NewMessage('"' + "x" * 2000 + '"')]):
        print("written", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_an_object_of_a_server_killed_before_its_row_was_committed_is_swept(tmp_path: Path, store: Store) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    objects = BodyObjects(open_object_store(tmp_path / "objects"))
    assert len(await names(objects)) == 1
    assert await LargeBodies(store, objects).reclaim() == 0  # it may be of a server that lives
    assert await LargeBodies(store, objects, safe_age=-1).reclaim() == 1
    assert await names(objects) == []
