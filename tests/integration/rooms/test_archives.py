"""Exporting and importing tenants and rooms of running servers: everything comes over, or nothing."""

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.archives.manifest import MANIFEST, Manifest
from meshhost.archives.tar import CHECKSUM, TarEncoder, open_entry, read_entries
from meshhost.errors import RoomRefusedError
from meshhost.gateway.provider import Caller
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.documents import DocumentKey, StoredDocument
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.stores.triggers.contract import TriggerLimits
from meshhost.testing.server import RunningServer
from meshhost.triggers.schedules import Schedules, ScheduleSpec
from tests.integration.rooms.test_tenants_rest import OPERATOR_KEY, Rest

HOLDER = HolderId("holder")
PATHS = ["notes.txt", "a b/ü/" + "x" * 150 + ".bin", "empty"]


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


@pytest.fixture
async def elsewhere(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY)))


async def export(rest: Rest, bearer: str, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with rest.http.get(f"{rest.server.url}{path}/archive", headers=headers) as response:
        data = await response.read()
        assert response.status == 200, data
        return data


async def load(rest: Rest, bearer: str, path: str, archive: bytes) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with rest.http.put(f"{rest.server.url}{path}/archive", headers=headers, data=io.BytesIO(archive)) as response:
        return response.status, await response.json()


async def fill(rest: Rest, key: RoomKey) -> None:
    """Put something of every kind and state into the stores."""
    engines = rest.server.server.engines
    jobs = QueueKey(key, "jöbs/1")
    for body in ("dead", "delayed", "leased"):
        await engines.queues.send(jobs, NewMessage(json.dumps(body), {"trace": "1"}))
    await engines.queues.send(jobs, NewMessage('"ready"', {"trace": "1"}, priority=-1, key="user-1", ttl=3600.0))
    for _ in range(5):
        (dead,) = await engines.queues.store.lease(jobs, HOLDER, seconds=30)
        await engines.queues.nack(dead.lease, reason=EndReason.FAILED, error="boom", delay=0.0)
    (delayed,) = await engines.queues.store.lease(jobs, HOLDER, seconds=30)
    await engines.queues.nack(delayed.lease, reason=EndReason.FAILED, delay=3600.0)
    await engines.queues.store.lease(jobs, HOLDER, seconds=30)
    await engines.queues.send(QueueKey(key, "large"), NewMessage(json.dumps("x" * 300_000)))
    await engines.queues.create(QueueKey(key, "empty"))
    await engines.documents.create(DocumentKey(key, "plan.page"), b"snapshot\0")
    for update in (b"one", b"two"):
        await engines.documents.append(DocumentKey(key, "plan.page"), update)
    for path in PATHS:
        await engines.files.write(key, path, io.BytesIO(path.encode() if path != "empty" else b""), overwrite=False)
    await engines.identity.create_room(key.tenant, key.name, metadata='{"color": "red"}', if_not_exists=True)
    spec = ScheduleSpec.parse({"queue": "jobs", "message": {"a": 1}, "every": 3600, "name": "hourly"})
    await Schedules(engines.triggers, engines.queues).create(key, spec)
    with engines.meter.measure(Caller(tenant=key.tenant, room=key, identity="ann"), "gpt"):
        pass


async def body_of(rest: Rest, key: RoomKey, text: str) -> str:
    """The body of a message, or that to which its row refers."""
    if not is_reference(text):
        return text
    pieces = rest.server.server.engines.queues.bodies.stream(key, BodyReference.parse(text))
    return b"".join([piece async for piece in pieces]).decode()


async def content(rest: Rest, key: RoomKey) -> dict[str, Any]:
    """What the stores have of a room, as far as archives keep it."""
    engines = rest.server.server.engines
    found: dict[str, Any] = {"queues": [stats.name for stats in await engines.queues.stats(key)]}
    for name in found["queues"]:
        found[name] = [
            (
                await body_of(rest, key, one.body),
                one.headers,
                one.attempts,
                one.deliveries,
                one.sent_at,
                one.reason,
                one.died_at,
                bool(one.due_at),
                one.priority,
                one.key,
                bool(one.expires_at),
            )
            for one in await engines.queues.store.stored(QueueKey(key, name), after=0, limit=100, max_bytes=10**6)
        ]
    schedules = await Schedules(engines.triggers, engines.queues).list(key.tenant, key.name)
    found["schedules"] = [(schedule.spec, schedule.state) for schedule in schedules]
    found["documents"] = [
        await engines.documents.load(DocumentKey(key, entry.path)) for entry in await engines.documents.list(key, "")
    ]
    found["files"] = sorted(
        [(path, await engines.files.read(key, path, max_bytes=1000)) async for path in engines.files.all_paths(key)]
    )
    record = await engines.identity.find_room(key.tenant, key.name)
    found["record"] = record and record.metadata
    return found


async def test_a_room_comes_over_with_everything_under_another_name(rest: Rest, elsewhere: Rest) -> None:
    own = RoomKey(TenantId(rest.server.key.project_id), "room")
    await fill(rest, own)
    archive = await export(rest, rest.server.api_key, f"/tenants/{own.tenant}/rooms/room")
    names = [entry.name for entry in read_entries(io.BytesIO(archive))]
    kinds = ["queues" if "/queues/" in name else "files" if "/files/" in name else "" for name in names]
    assert names[0] == MANIFEST
    assert kinds.index("files") > max(place for place, kind in enumerate(kinds) if kind == "queues")

    there = RoomKey(TenantId(elsewhere.server.key.project_id), "copy")
    path = f"/tenants/{there.tenant}/rooms/copy"
    status, answer = await load(elsewhere, elsewhere.server.api_key, path, archive)
    assert status == 200, answer
    counted = ("rooms", "queues", "messages", "dead_letters", "triggers", "documents", "files")
    assert {name: answer[name] for name in counted} == {
        "rooms": 1, "queues": 3, "messages": 4, "dead_letters": 1, "triggers": 1, "documents": 1, "files": 3,
    }  # fmt: skip
    assert await content(elsewhere, there) == await content(rest, own)
    assert (await content(elsewhere, there))["documents"] == [StoredDocument(b"snapshot\0", [b"one", b"two"])]
    async with elsewhere.server.client("copy") as room:
        assert [(queue["name"], queue["size"]) for queue in map(vars_of, await room.queues.list())] != []
        assert await room.queues.receive(name="jöbs/1", create=False, wait=False) is not None
    assert (await load(elsewhere, elsewhere.server.api_key, path, archive))[0] == 409


def vars_of(queue: Any) -> dict[str, Any]:
    return {"name": queue.name, "size": queue.size}


async def test_a_tenant_comes_over_with_its_rooms_and_usage_and_without_keys(rest: Rest, elsewhere: Rest) -> None:
    tenant = TenantId(await rest.tenant("acme"))
    key = await rest.key("acme")
    for name in ("one", "two"):
        await fill(rest, RoomKey(tenant, name))
    assert (await load(rest, key, "/tenants/acme", b""))[0] == 403
    archive = await export(rest, OPERATOR_KEY, "/tenants/acme")
    assert key.encode() not in archive
    assert parse_api_key(key).secret.encode() not in archive

    status, answer = await load(elsewhere, OPERATOR_KEY, "/tenants/acme-2", archive)
    assert (status, answer["name"], answer["rooms"], answer["usage_rows"]) == (200, "acme-2", 2, 2), answer
    copied = TenantId(answer["id"])
    assert copied != tenant
    for name in ("one", "two"):
        assert await content(elsewhere, RoomKey(copied, name)) == await content(rest, RoomKey(tenant, name))
    meters = rest.server.server.engines.meter, elsewhere.server.server.engines.meter
    before, after = await meters[0].read(tenant), await meters[1].read(copied)
    assert [(row.key.room, row.key.identity, row.counts) for row in before] == [
        (row.key.room, row.key.identity, row.counts) for row in after
    ]
    assert (await elsewhere(OPERATOR_KEY, "GET", "/tenants/acme-2/keys"))[1] == {"keys": []}
    acme = RunningServer(elsewhere.server.server, parse_api_key(await elsewhere.key("acme-2")))
    async with acme.client("one") as room:
        assert await room.storage.exists(path="notes.txt")
    assert (await load(elsewhere, OPERATOR_KEY, "/tenants/acme-2", archive))[0] == 409


def forged(*entries: tuple[str, bytes], kind: str = "room") -> bytes:
    tar = TarEncoder()
    made = [tar.entry(MANIFEST, Manifest(kind, "room", 1.0).to_json())]  # type: ignore[arg-type]
    return b"".join([*made, *(tar.entry(name, data) for name, data in entries), tar.finish()])


def newer(archive: bytes) -> bytes:
    tar, file = TarEncoder(), io.BytesIO(archive)
    manifest = json.loads(open_entry(file, next(iter(read_entries(file)))).read()) | {"version": 2}
    return tar.entry(MANIFEST, json.dumps(manifest).encode()) + tar.finish()


RECORD = ("rooms/room/room.json", b"{}")
QUEUE = ("rooms/room/queues/1/queue.json", b'{"name": "q"}')
LONG_KEY = json.dumps({"body": "1", "key": "k" * 5_000}).encode() + b"\n"


def renamed_checksum() -> bytes:
    """The name of the checksum as GNU writes long names, before an entry of another name and size."""
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, len(CHECKSUM) + 1
    name = long_name.tobuf(tarfile.GNU_FORMAT) + CHECKSUM.encode().ljust(tarfile.BLOCKSIZE, b"\0")
    large = tarfile.TarInfo("large")
    large.size = 3_000_000
    return name + large.tobuf(tarfile.GNU_FORMAT) + bytes(large.size)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda archive: archive[: len(archive) // 2], "damaged or incomplete"),
    "without its end": (lambda archive: archive[:-1024], "damaged or incomplete"),
    "with a changed byte": (lambda archive: archive.replace(b"boom", b"bomb"), "the checksum is another one"),
    "with more after the end": (lambda archive: archive + b"\0" * 512, "does not end where it should"),
    "empty": (lambda _: b"", "ends early"),
    "of another kind of file": (lambda _: b"PK\3\4" * 1000, "damaged"),
    "of a newer version": (newer, "use a newer meshhost"),
    "of a tenant": (lambda _: forged(kind="tenant"), "use `meshhost tenant import`"),
    "with a path that leads up": (lambda _: forged(RECORD, ("rooms/room/files/../../x", b"")), "leads elsewhere"),
    "with an absolute path": (lambda _: forged(RECORD, ("/etc/passwd", b"")), "leads elsewhere"),
    "with two rooms": (lambda _: forged(RECORD, ("rooms/b/room.json", b"{}")), "something else than one room"),
    "with an unknown entry": (lambda _: forged(RECORD, ("rooms/room/keys/1", b"")), "unknown name"),
    "with files of another room": (lambda _: forged(RECORD, ("rooms/b/files/x", b"")), "begins elsewhere"),
    "with a message that is none": (
        lambda _: forged(
            RECORD,
            ("rooms/room/queues/1/queue.json", b'{"name": "q"}'),
            ("rooms/room/queues/1/1.jsonl", b'{"body": "1"}\n{"body": 1}\n'),
        ),
        "expected a text",
    ),
    "with a large body that is not there": (
        lambda _: forged(
            RECORD,
            ("rooms/room/queues/1/queue.json", b'{"name": "q"}'),
            ("rooms/room/queues/1/1.jsonl", json.dumps({"body": f"@{'a' * 32} 5 {'0' * 64}\n[1"}).encode() + b"\n"),
        ),
        "a large body that is not there",
    ),
    "with a body that is neither JSON nor a reference": (
        lambda _: forged(
            RECORD,
            ("rooms/room/queues/1/queue.json", b'{"name": "q"}'),
            ("rooms/room/queues/1/1.jsonl", b'{"body": "@nothing"}\n'),
        ),
        "expected a reference",
    ),
    "with a large body that is no JSON": (
        lambda _: forged(RECORD, (f"rooms/room/queues/1/bodies/{'a' * 32}", b"{")),
        "body: expected JSON",
    ),
    "with two large bodies of one name": (
        lambda _: forged(RECORD, *[(f"rooms/room/queues/1/bodies/{'a' * 32}", b"{}")] * 2),
        "two bodies have one name",
    ),
    "with a schedule that is none": (lambda _: forged(RECORD, ("rooms/room/triggers/1.jsonl", b"{}\n")), "no schedule"),
    "with a schedule without a state": (
        lambda _: forged(RECORD, ("rooms/room/triggers/1.jsonl", b'{"kind": "schedule", "content": {"spec": {}}}\n')),
        "expected that of a schedule",
    ),
    "with a schedule that is never due": (
        lambda _: forged(
            RECORD,
            (
                "rooms/room/triggers/1.jsonl",
                b'{"kind":"schedule","content":{"spec":{"queue":"q","message":1,"cron":"x"},"state":{"created_at":1}}}\n',
            ),
        ),
        "expected five fields",
    ),
    "with a message whose body is no JSON": (
        lambda _: forged(RECORD, QUEUE, ("rooms/room/queues/1/1.jsonl", b'{"body": "ok"}\n')),
        "body: expected JSON",
    ),
    "with a message whose key is longer than any": (
        lambda _: forged(RECORD, QUEUE, ("rooms/room/queues/1/1.jsonl", LONG_KEY)),
        "key: it is too long",
    ),
    "with a line of more lists than any has": (
        lambda _: forged(RECORD, ("rooms/room/triggers/1.jsonl", b'{"content": [' + b"[]," * 2_000_000 + b"0]}\n")),
        "a line holds too much",
    ),
    "with a long name for the checksum": (
        lambda _: TarEncoder().entry(MANIFEST, Manifest("room", "room", 1.0).to_json()) + renamed_checksum(),
        "the checksum is of another size",
    ),
    "with a number that is none": (
        lambda _: forged(
            RECORD,
            ("rooms/room/queues/1/queue.json", b'{"name": "q"}'),
            ("rooms/room/queues/1/1.jsonl", b'{"body": "1", "due_at": NaN}\n'),
        ),
        "expected a number",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_of_an_archive_that_is_not_whole_nothing_is_imported(rest: Rest, what: str) -> None:
    tenant = TenantId(rest.server.key.project_id)
    await fill(rest, RoomKey(tenant, "room"))
    archive = await export(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/room")
    change, text = BROKEN[what]
    broken = change(archive)
    assert broken != archive
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", broken)
    assert (status, text in answer["error"]) == (400, True), answer
    assert not await rest.server.server.parts.archives.exists(RoomKey(tenant, "copy"))
    assert rest.server.server.engines.identity.deleted_rooms.unfinished == []


async def test_an_import_that_fails_in_the_middle_leaves_nothing(rest: Rest) -> None:
    tenant = TenantId(rest.server.key.project_id)
    queue = ("rooms/room/queues/1/queue.json", b'{"name": "q"}')
    lines = b'{"body": "1"}\n' * 100 + json.dumps({"body": json.dumps("x" * 9_000_000)}).encode() + b"\n"
    archive = forged(RECORD, queue, ("rooms/room/queues/1/1.jsonl", lines))
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", archive)
    assert (status, "message of 90000" in answer["error"]) == (400, True), answer
    await gone(rest, RoomKey(tenant, "copy"))
    async with rest.server.client("copy") as room:  # it was never there, so old tokens are as good as new
        assert await room.queues.list() == []


OVER = {
    "max_queues": forged(RECORD, QUEUE, ("rooms/room/queues/2/queue.json", b'{"name": "p"}')),
    "max_messages": forged(RECORD, QUEUE, ("rooms/room/queues/1/1.jsonl", b'{"body": "1"}\n' * 2)),
    "max_files": forged(RECORD, ("rooms/room/files/a", b"1"), ("rooms/room/files/b", b"2")),
    "max_stored_bytes": forged(RECORD, ("rooms/room/files/a", b"22")),
    "max_documents": forged(
        RECORD,
        *[(f"rooms/room/documents/{n}.jsonl", b'{"path": "%d.page"}\n{"snapshot": ""}\n' % n) for n in range(2)],
    ),
}


@pytest.mark.parametrize("quota", OVER)
async def test_a_room_that_is_over_the_quota_of_its_tenant_is_not_imported(rest: Rest, quota: str) -> None:
    tenant, identity = TenantId(rest.server.key.project_id), rest.server.server.engines.identity
    path = f"/tenants/{tenant}"
    await identity.set_quota(tenant, {quota: 1})
    status, answer = await load(rest, rest.server.api_key, f"{path}/rooms/copy", OVER[quota])
    assert (status, answer["quota"]) == (429, quota), answer
    assert not await rest.server.server.parts.archives.exists(RoomKey(tenant, "copy"))
    await identity.set_quota(tenant, {quota: 2})
    assert (await load(rest, rest.server.api_key, f"{path}/rooms/copy", OVER[quota]))[0] == 200
    assert (await load(rest, rest.server.api_key, f"{path}/rooms/more", OVER[quota]))[0] == 429  # what came is counted


async def test_a_room_is_not_imported_with_more_schedules_than_one_may_have(rest: Rest) -> None:
    tenant = TenantId(rest.server.key.project_id)
    spec = {"queue": "q", "message": 1, "every": 3600}
    line = json.dumps({"kind": "schedule", "content": {"spec": spec, "state": {"created_at": 1}}}).encode() + b"\n"
    archive = forged(RECORD, ("rooms/room/triggers/1.jsonl", line * (TriggerLimits().in_room + 1)))
    status, answer = await load(rest, rest.server.api_key, f"/tenants/{tenant}/rooms/copy", archive)
    assert (status, "nothing was imported" in answer["error"]) == (400, True), answer
    await gone(rest, RoomKey(tenant, "copy"))


async def gone(rest: Rest, room: RoomKey) -> None:
    async with asyncio.timeout(20):
        while rest.server.server.engines.identity.deleted_rooms.unfinished:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not await rest.server.server.parts.archives.exists(room)


async def test_a_room_is_not_there_while_it_is_imported_and_goes_when_that_is_interrupted(rest: Rest) -> None:
    room, engines = RoomKey(TenantId(rest.server.key.project_id), "copy"), rest.server.server.engines
    token = rest.server.token("copy")
    await engines.identity.import_until(room, 2**40)
    await fill(rest, room)
    with pytest.raises(RoomRefusedError, match="being imported"):
        await rest.server.client("copy").__aenter__()
    status, answer = await rest(rest.server.api_key, "DELETE", f"/tenants/{room.tenant}/rooms/copy")
    assert (status, "is being imported" in answer["error"]) == (409, True)
    # The server that imported was killed: its record runs out.
    await engines.identity.import_until(room, 1.0)
    await gone(rest, room)
    assert (await rest.http.get(f"{rest.server.url}/rooms/copy?token={token}")).status != 401


async def test_a_tenant_whose_import_was_interrupted_goes_unless_it_is_there(rest: Rest) -> None:
    engines = rest.server.server.engines
    half, whole = TenantId("half"), TenantId(await rest.tenant("acme"))
    for tenant in (half, whole):
        await fill(rest, RoomKey(tenant, "room"))
        await engines.identity.import_until(RoomKey(tenant, ""), 1.0)
    await gone(rest, RoomKey(half, "room"))
    assert list(await engines.meter.read(half)) == []
    assert list(await engines.identity.rooms(half, limit=10, offset=0)) == []
    assert (await content(rest, RoomKey(whole, "room")))["queues"] == ["empty", "jöbs/1", "large"]


async def test_a_room_that_was_deleted_comes_back_closed_to_what_was_signed_before(rest: Rest) -> None:
    tenant = TenantId(rest.server.key.project_id)
    await fill(rest, RoomKey(tenant, "room"))
    token, path = rest.server.token("room"), f"/tenants/{tenant}/rooms/room"
    archive = await export(rest, rest.server.api_key, path)
    assert (await rest(rest.server.api_key, "DELETE", path))[0] == 200
    assert (await load(rest, rest.server.api_key, path, archive))[0] == 200
    assert (await rest.http.get(f"{rest.server.url}/rooms/room?token={token}")).status == 403
    async with rest.server.client("room") as room:
        assert await room.storage.exists(path="notes.txt")


async def test_a_room_of_which_nothing_is_kept_cannot_be_exported(rest: Rest) -> None:
    tenant = rest.server.key.project_id
    assert (await rest(rest.server.api_key, "GET", f"/tenants/{tenant}/rooms/none/archive"))[0] == 404
