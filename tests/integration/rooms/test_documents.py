"""Documents in rooms: edits are kept, reach everybody, and nothing that is sent can break a document."""

import asyncio
import base64
import json
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from meshhost.documents.document import Element, MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConnectionLostError,
    InvalidRequestError,
    NotFoundError,
    RoomError,
)
from meshhost.identity.grants import ApiScope, StorageGrant, SyncGrant, SyncPathGrant
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.connection import MessageReceived, RoomConnection
from meshhost.protocol.frames import Limits
from meshhost.room.client import RoomClient, RoomState
from meshhost.server.services.documents import open_documents
from meshhost.server.services.documents import service as handlers
from meshhost.server.services.documents.service import DocumentsService
from meshhost.stores.documents import DocumentKey
from meshhost.testing.server import RunningServer, running_server
from meshhost.transport.websocket_client import WebSocketClientProtocol

PAGE = "a/b.page"
SCHEMA: dict[str, Any] = {
    "$root_tag_ref": "#/$defs/page",
    "$defs": {
        "page": {"properties": {"page": {"properties": {"notes": {"type": "array", "items": {"anyOf": []}}}}}},
        "note": {"properties": {"note": {"properties": {"body": {"type": "string"}}}}},
    },
}
SCHEMA["$defs"]["page"]["properties"]["page"]["properties"]["notes"]["items"]["anyOf"] = [{"$ref": "#/$defs/note"}]
READ_ONLY = ApiScope(sync=SyncGrant(paths=[SyncPathGrant(path=PAGE, read_only=True)]), storage=StorageGrant())


@pytest.fixture
async def room(server: RunningServer) -> AsyncIterator[RoomClient]:
    """A client of a room that has a schema."""
    async with server.client() as client:
        await put_schema(client)
        yield client


async def put_schema(client: RoomClient, schema: Any = SCHEMA, extension: str = "page") -> None:
    data = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    await client.storage.upload(path=f".schemas/{extension}.json", data=data, overwrite=True)


def bodies(document: MeshDocument) -> list[str]:
    return [note["body"] for note in document.root.get_children_by_tag_name("note")]


def note(document: MeshDocument, body: str) -> Element:
    return document.root.append_child("note", {"body": body})


async def shows(document: MeshDocument, *expected: str) -> None:
    """Return when the document has these notes."""
    changed = asyncio.Event()
    for name in ("inserted", "deleted", "updated"):
        document.on(name, lambda *_: changed.set())
    async with asyncio.timeout(10):
        while bodies(document) != list(expected):
            changed.clear()
            await changed.wait()


async def received(client: RoomClient, path: str = PAGE) -> "asyncio.Queue[tuple[str, bytes]]":
    """The `room.sync` messages that this client gets, instead of its documents, and that it is connected."""
    queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    client.register_handler("room.sync", lambda message: queue.put_nowait((message.header["path"], message.payload)))
    await client.send_request("room.connect", {"path": path})
    return queue


async def raw_sync(client: RoomClient, payload: bytes, path: str = PAGE) -> dict[str, Any]:
    """Send a payload; the header of the answer, which never is an error."""
    response, header = await client.request("room.sync", {"path": path}, payload)
    assert response.type == "empty"
    return header


def update_of(body: str) -> bytes:
    updates: list[bytes] = []
    document = MeshDocument(schema=MeshSchema.from_json(SCHEMA), on_update=updates.append)
    note(document, body)
    return base64.b64encode(updates[0])


# ---- editing together ---------------------------------------------------------------------------------------------


async def test_two_clients_edit_one_document(server: RunningServer, room: RoomClient) -> None:
    mine = await room.sync.open(path=PAGE)
    async with server.client(name="other") as other:
        theirs = await other.sync.open(path=PAGE)
        first = note(mine, "one")
        await shows(theirs, "one")
        note(theirs, "two")
        await shows(mine, "one", "two")
        first["body"] = "changed"
        theirs.root.get_children_by_tag_name("note")[1].delete()
        await shows(theirs, "changed")
        await shows(mine, "changed")
        await asyncio.gather(room.sync.flush(PAGE), other.sync.flush(PAGE))
        assert mine.get_state() == theirs.get_state()
        await other.sync.close(path=PAGE)
    assert room.sync.get_open_documents() == {PAGE: mine}


async def test_what_was_saved_is_there_when_nobody_had_it_open_for_a_while(room: RoomClient) -> None:
    document = await room.sync.open(path=PAGE)
    note(document, "kept")
    await room.sync.close(path=PAGE)
    again = await room.sync.open(path=PAGE, create=False)
    assert again is not document
    assert bodies(again) == ["kept"]


async def test_a_document_is_open_until_it_is_closed_as_often_as_it_was_opened(room: RoomClient) -> None:
    first, second = await asyncio.gather(room.sync.open(path=PAGE), room.sync.open(path=PAGE))
    assert first is second
    await room.sync.close(path=PAGE)
    assert room.sync.get_open_documents() == {PAGE: first}
    await asyncio.gather(room.sync.close(path=PAGE), room.sync.open(path=PAGE))
    third = room.sync.get_open_documents()[PAGE]
    await room.sync.close(path=PAGE)
    assert third is not first
    with pytest.raises(NotFoundError, match="not open here"):
        await room.sync.close(path=PAGE)
    with pytest.raises(NotFoundError, match="not open here"):
        await room.sync.flush(PAGE)


async def test_saved_tells_that_nothing_is_left_to_send(room: RoomClient) -> None:
    document = await room.sync.open(path=PAGE)
    saved = asyncio.Event()
    document.on("saved", saved.set)
    for number in range(20):
        note(document, str(number))
    async with asyncio.timeout(10):
        await saved.wait()
        await room.sync.flush(PAGE)


async def test_edits_that_wait_go_as_one(room: RoomClient, monkeypatch: pytest.MonkeyPatch) -> None:
    document = await room.sync.open(path=PAGE)
    await room.sync.flush(PAGE)
    sent: list[str] = []
    request = room.request

    async def watched(type: str, *args: Any, **options: Any) -> Any:
        sent.append(type)
        return await request(type, *args, **options)

    monkeypatch.setattr(room, "request", watched)
    for number in range(50):
        note(document, str(number))
    await room.sync.flush(PAGE)
    assert sent == ["room.sync"]


async def test_documents_can_be_made_with_content(room: RoomClient) -> None:
    content = {"page": {"notes": [{"note": {"body": "a"}}, {"note": {"body": "b"}}]}}
    await room.sync.create(path=PAGE, json=content)
    assert (await room.sync.open(path=PAGE)).to_json() == content
    await room.sync.create(path="empty.page")
    assert (await room.sync.open(path="empty.page", create=False)).to_json() == {"page": {"notes": []}}
    with pytest.raises(AlreadyExistsError, match=r"document 'a/b.page' exists"):
        await room.sync.create(path=PAGE)
    with pytest.raises(InvalidRequestError, match="x: no property of 'note'"):
        await room.sync.create(path="bad.page", json={"page": {"notes": [{"note": {"x": 1}}]}})


# ---- the wire (room-protocol §13) ---------------------------------------------------------------------------------


async def test_the_answer_to_connect_comes_before_the_state(server: RunningServer, room: RoomClient) -> None:
    other, connection = await server.client(name="other").protocol.connect(), RoomConnection()
    order: list[str] = []
    await other.send(connection.request("room.connect", {"path": PAGE})[1])
    while "room.sync" not in order:
        event = connection.receive(await other.receive())
        if event is not None:
            order.append(event.type if isinstance(event, MessageReceived) else "answer")
    assert order[-2:] == ["answer", "room.sync"]
    assert order.count("answer") == 1
    await other.close()
    queue = await received(room)
    assert await queue.get() == (PAGE, b"AAA=")
    # Again, and the full state comes again.
    answer = await room.send_request("room.connect", {"path": PAGE})
    assert answer == {"schema": SCHEMA}
    assert await queue.get() == (PAGE, b"AAA=")


async def test_updates_go_to_the_others_once_and_echoes_to_nobody(server: RunningServer, room: RoomClient) -> None:
    async with server.client(name="other") as other:
        mine, theirs = await received(room), await received(other)
        assert (await mine.get(), await theirs.get()) == ((PAGE, b"AAA="), (PAGE, b"AAA="))
        update = update_of("one")
        assert "refused" not in await raw_sync(room, update)
        assert await theirs.get() == (PAGE, update)
        await raw_sync(other, update)
        await raw_sync(room, update)
        last = update_of("two")
        await raw_sync(other, last)
        assert await mine.get() == (PAGE, last)
        assert (mine.empty(), theirs.empty()) == (True, True)


async def test_each_participant_hears_of_a_document_by_the_path_it_used(
    server: RunningServer, room: RoomClient
) -> None:
    queue = await received(room, f"/{PAGE}")
    assert await queue.get() == (f"/{PAGE}", b"AAA=")
    async with server.client(name="other") as other:
        document = await other.sync.open(path=PAGE)
        note(document, "x")
        path, payload = await queue.get()
        assert path == f"/{PAGE}"
        assert base64.b64decode(payload)
        await room.send_request("room.disconnect", {"path": f"/{PAGE}"})
        note(document, "y")
        await other.sync.flush(PAGE)
    assert queue.empty()


@pytest.mark.parametrize("payload", [b"", b"not base64!", base64.b64encode(b"garbage"), b"/w=="])
async def test_an_update_that_does_not_apply_is_answered_with_the_truth(room: RoomClient, payload: bytes) -> None:
    queue = await received(room)
    await raw_sync(room, update_of("good"))
    await queue.get()
    refused = (await raw_sync(room, payload))["refused"]
    assert refused["text"].startswith("update: expected")
    assert refused["state_follows"] is True
    _, state = await queue.get()
    truth = MeshDocument(schema=MeshSchema.from_json(SCHEMA), data=base64.b64decode(state))
    assert bodies(truth) == ["good"]


async def test_an_update_of_somebody_who_is_not_connected_is_kept_or_answered(room: RoomClient) -> None:
    assert (await raw_sync(room, update_of("x")))["refused"]["state_follows"] is False
    assert "refused" in await raw_sync(room, update_of("x"), path="../x.page")
    await room.sync.create(path=PAGE)
    # A MeshAgent client may still send what waits when it has disconnected.
    assert "refused" not in await raw_sync(room, update_of("late"))
    assert bodies(await room.sync.open(path=PAGE)) == ["late"]
    await room.sync.sync(path=PAGE, data=update_of("later"))
    await room.send_request("room.disconnect", {"path": "never.page"})


async def test_many_documents_at_once_are_too_many(room: RoomClient) -> None:
    for number in range(handlers.MAX_OPEN):
        await room.sync.open(path=f"{number}.page")
    with pytest.raises(RoomError, match=f"over {handlers.MAX_OPEN} documents are open"):
        await room.sync.open(path="last.page")
    await room.sync.close(path="1.page")
    await room.sync.open(path="last.page")


async def test_a_document_that_gets_too_large_goes_back_to_what_it_was(serve: Any) -> None:
    async with serve(wire=Limits(message_bytes=200_000)) as server, server.client() as room:
        await put_schema(room)
        document = await room.sync.open(path=PAGE)
        note(document, "small")
        await room.sync.flush(PAGE)
        refused = asyncio.Event()
        errors: list[RoomError] = []
        document.on("refused", lambda error: (errors.append(error), refused.set()))
        note(document, "x" * 110_000)
        with pytest.raises(RoomError, match="a document may have at most"):
            await room.sync.flush(PAGE)
        assert bodies(document) == ["small"]
        assert refused.is_set()
        assert "at most" in str(errors[0])
        note(document, "more")
        await room.sync.close(path=PAGE)
        assert bodies(await room.sync.open(path=PAGE)) == ["small", "more"]
        with pytest.raises(RoomError, match="a document may have at most"):
            await room.sync.create(path="large.page", json={"page": {"notes": [{"note": {"body": "x" * 120_000}}]}})


# ---- schemas and grants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x.none", "no schema for 'x.none': put one at '.schemas/none.json'"),
        ("plain", "path: expected an extension"),
        (".page", "path: expected an extension"),
        ("x.", "path: expected an extension"),
        ("../x.page", "path: expected segments"),
        ("x.broken", r".schemas/broken.json: the schema is not JSON"),
        ("x.wrong", r".schemas/wrong.json: the schema is wrong: page: no element of this tag"),
        ("taken.page", "path: a file or folder stands at 'taken.page'"),
    ],
)
async def test_what_keeps_a_document_from_being_opened_is_said(room: RoomClient, path: str, expected: str) -> None:
    await put_schema(room, b"{", "broken")
    await put_schema(room, {"$root_tag_ref": "#/$defs/page", "$defs": {}}, "wrong")
    await room.storage.upload(path="taken.page", data=b"x")
    for doing in (room.sync.open(path=path), room.sync.create(path=path)):
        with pytest.raises(RoomError, match=expected):
            await doing
    assert room.sync.get_open_documents() == {}


async def test_a_missing_document_is_made_only_when_asked(room: RoomClient) -> None:
    with pytest.raises(NotFoundError, match=r"no document 'a/b.page'"):
        await room.sync.open(path=PAGE, create=False)
    await room.sync.open(path=PAGE)


async def test_without_a_grant_nothing_is_opened_and_nothing_taken(server: RunningServer, room: RoomClient) -> None:
    document = await room.sync.open(path=PAGE)
    async with server.client(name="nobody", scope=ApiScope(storage=StorageGrant())) as nobody:
        for doing in (nobody.sync.open(path=PAGE), nobody.sync.create(path="x.page")):
            with pytest.raises(AccessDeniedError, match="permission denied: room"):
                await doing
        assert (await raw_sync(nobody, update_of("x")))["refused"]["code"] == AccessDeniedError.code
        assert (await raw_sync(nobody, b"AAA="))["refused"]["state_follows"] is False
    assert bodies(document) == []


async def test_a_reader_sees_all_and_its_own_edits_are_taken_back(server: RunningServer, room: RoomClient) -> None:
    mine = await room.sync.open(path=PAGE)
    async with server.client(name="reader", scope=READ_ONLY) as reader:
        theirs = await reader.sync.open(path=PAGE)
        note(mine, "one")
        await shows(theirs, "one")
        note(theirs, "forbidden")
        with pytest.raises(AccessDeniedError, match=r"room.sync a/b.page"):
            await reader.sync.flush(PAGE)
        assert bodies(theirs) == ["one"]
        await reader.sync.flush(PAGE)
        first = mine.root.get_children_by_tag_name("note")[0]
        first["body"] = "changed"
        await shows(theirs, "changed")
        assert bodies(mine) == ["changed"]
        # What it echoes is no edit of its own.
        assert "refused" not in await raw_sync(reader, base64.b64encode(mine.get_state()))
        with pytest.raises(AccessDeniedError):
            await reader.sync.create(path=PAGE)


async def test_a_reader_makes_no_document(server: RunningServer, room: RoomClient) -> None:
    async with server.client(name="reader", scope=READ_ONLY) as reader:
        with pytest.raises(AccessDeniedError, match=r"room.create a/b.page"):
            await reader.sync.open(path=PAGE)
        with pytest.raises(NotFoundError):
            await reader.sync.open(path=PAGE, create=False)


# ---- lost connections, crashes, failing disks -------------------------------------------------------------------------


async def test_no_edit_is_lost_by_a_reconnect(server: RunningServer, room: RoomClient) -> None:
    mine = await room.sync.open(path=PAGE)
    async with server.client(name="other") as other:
        theirs = await other.sync.open(path=PAGE)
        again = asyncio.Event()
        room.on("reconnected", again.set)
        note(mine, "before")
        await room.sync.flush(PAGE)
        server.cut(room)
        note(mine, "cut")
        async with asyncio.timeout(10):
            while room.state is not RoomState.RECONNECTING:  # noqa: ASYNC110 - no event tells of it before it is over
                await asyncio.sleep(0)
        note(mine, "away")
        note(theirs, "meanwhile")
        await other.sync.flush(PAGE)
        async with asyncio.timeout(10):
            await again.wait()
            await room.sync.flush(PAGE)
            while sorted(bodies(mine)) != sorted(["before", "cut", "away", "meanwhile"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await shows(theirs, *bodies(mine))
        note(theirs, "after")
        await shows(mine, *bodies(theirs))


async def test_a_connection_that_is_lost_holds_no_document(
    server: RunningServer, room: RoomClient, stack: AsyncExitStack
) -> None:
    other = await stack.enter_async_context(server.client(name="other"))
    await other.sync.open(path=PAGE)
    (live,) = server.server.rooms
    documents = server.server.service(DocumentsService).in_room(live)
    assert len(documents) == 1
    assert repr(documents._open[PAGE]) == "<OpenDocument 'a/b.page' connected=1>"
    await other.close()
    async with asyncio.timeout(10):
        while len(documents):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_leaving_the_room_ends_the_wait_for_edits(
    server: RunningServer, room: RoomClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await room.sync.open(path=PAGE)
    await room.sync.flush(PAGE)

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(room, "request", never)
    note(document, "lost")
    flushing = asyncio.ensure_future(room.sync.flush(PAGE))
    await asyncio.sleep(0)
    await room.close()
    with pytest.raises(ConnectionLostError, match="before the document was saved"):
        await flushing
    with pytest.raises(ConnectionLostError):
        await room.sync.close(path=PAGE)
    assert room.sync.get_open_documents() == {}


SERVER = textwrap.dedent("""
    import asyncio, json, sys
    from pathlib import Path
    from meshhost.testing.server import running_server

    async def main():
        async with running_server(Path(sys.argv[1])) as server:
            print(json.dumps([server.server.room_url("room"), server.token("room")]), flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
""")


async def test_saved_edits_survive_kill_9_of_the_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(data), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url, token = json.loads(await process.stdout.readline())
    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)) as room:
        await put_schema(room)
        document = await room.sync.open(path=PAGE)
        for number in range(30):
            note(document, str(number))
            await room.sync.flush(PAGE)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with running_server(data) as server, server.client() as room:
        assert bodies(await room.sync.open(path=PAGE, create=False)) == [str(number) for number in range(30)]


async def test_long_logs_become_snapshots(server: RunningServer, room: RoomClient) -> None:
    document, edits = await room.sync.open(path=PAGE), open_documents.MAX_LOGGED + 10
    for number in range(edits):
        note(document, str(number))
        await room.sync.flush(PAGE)
    stored = await server.server.engines.documents.load(key_of(server))
    assert stored is not None
    assert len(stored.updates) <= 10
    await room.sync.close(path=PAGE)
    assert bodies(await room.sync.open(path=PAGE)) == [str(number) for number in range(edits)]


async def test_a_compaction_that_fails_loses_nothing(
    server: RunningServer, room: RoomClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(server.server.engines.documents, "compact", failing)
    document = await room.sync.open(path=PAGE)
    long = "kept" * (open_documents.MAX_LOGGED_BYTES // 4)
    note(document, long)
    await room.sync.close(path=PAGE)
    assert "document not compacted" in caplog.text
    assert bodies(await room.sync.open(path=PAGE)) == [long]


async def test_a_disk_that_fails_for_a_while_loses_nothing(
    server: RunningServer, room: RoomClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError("disk full"), TimeoutError(), None, None, None, None])
    append = server.server.engines.documents.append

    async def failing(key: DocumentKey, update: bytes) -> None:
        if failure := next(failures):
            raise failure
        await append(key, update)

    monkeypatch.setattr(server.server.engines.documents, "append", failing)
    document = await room.sync.open(path=PAGE)
    note(document, "stubborn")
    await room.sync.close(path=PAGE)
    assert caplog.text.count("document update not stored") == 2
    assert bodies(await room.sync.open(path=PAGE)) == ["stubborn"]


# ---- documents among files ----------------------------------------------------------------------------------------


async def test_documents_are_seen_among_the_files(room: RoomClient) -> None:
    await room.sync.create(path=PAGE)
    await room.sync.create(path="a/c/d.page")
    await room.storage.upload(path="a/file.txt", data=b"x")
    assert [(each.name, each.is_folder) for each in await room.storage.list(path="a")] == [
        ("b.page", False),
        ("c", True),
        ("file.txt", False),
    ]
    assert [each.name for each in await room.storage.list(path="")] == [".schemas", "a"]
    assert [await room.storage.exists(path=path) for path in (PAGE, "a/c", "a/no")] == [True, True, False]
    stat = await room.storage.stat(path=PAGE)
    assert stat is not None
    assert stat.updated_at is not None
    with pytest.raises(InvalidRequestError, match="is a document"):
        await room.storage.download(path=PAGE)
    assert (await room.storage.download(path="a/file.txt")).data == b"x"
    await room.storage.delete(path="a/file.txt")
    with pytest.raises(InvalidRequestError, match="is a folder"):
        await room.storage.delete(path="a/c")
    with pytest.raises(NotFoundError):
        await room.storage.delete(path="a/no")


async def test_a_grant_for_files_alone_neither_deletes_nor_replaces_a_document(
    server: RunningServer, room: RoomClient
) -> None:
    await room.sync.create(path=PAGE)
    scopes = [ApiScope(storage=StorageGrant()), READ_ONLY]
    for scope in scopes:
        async with server.client(name="files", scope=scope) as files:
            with pytest.raises(AccessDeniedError, match="sync"):
                await files.storage.delete(path=PAGE)
            for overwrite in (True, False):
                with pytest.raises(RoomError):
                    await files.storage.upload(path=PAGE, data=b"x", overwrite=overwrite)
            # A folder of the document's name would hide it.
            with pytest.raises(InvalidRequestError, match="is a document"):
                await files.storage.upload(path=f"{PAGE}/x", data=b"x")
            await files.storage.upload(path="a/plain", data=b"x", overwrite=True)
            await files.storage.delete(path="a/plain")
    assert await room.storage.exists(path=PAGE)
    writer = ApiScope(storage=StorageGrant(), sync=SyncGrant(paths=[SyncPathGrant(path="a/*")]))
    async with server.client(name="both", scope=writer) as both:
        await both.storage.delete(path=PAGE)


async def test_a_file_is_not_written_over_a_document(room: RoomClient) -> None:
    await room.sync.create(path=PAGE)
    for overwrite in (True, False):
        with pytest.raises(RoomError):
            await room.storage.upload(path=PAGE, data=b"x", overwrite=overwrite)
    assert await room.storage.exists(path=PAGE)
    with pytest.raises(InvalidRequestError, match="is a document"):
        await room.storage.download(path=PAGE)


async def test_a_document_that_is_deleted_while_open_takes_no_more_edits(room: RoomClient) -> None:
    document = await room.sync.open(path=PAGE)
    note(document, "old")
    await room.sync.flush(PAGE)
    await room.storage.delete(path=PAGE)
    refused: list[RoomError] = []
    document.on("refused", refused.append)
    note(document, "too late")
    with pytest.raises(NotFoundError, match="no document"):
        await room.sync.close(path=PAGE)
    assert len(refused) == 1
    assert bodies(await room.sync.open(path=PAGE)) == []


async def test_a_document_that_is_made_again_is_a_new_one(server: RunningServer, room: RoomClient) -> None:
    note(await room.sync.open(path=PAGE), "old")
    await room.sync.flush(PAGE)
    await room.storage.delete(path=PAGE)
    async with server.client(name="other") as other:
        assert bodies(await other.sync.open(path=PAGE)) == []


def key_of(server: RunningServer) -> DocumentKey:
    (live,) = server.server.rooms
    assert live.key == RoomKey(TenantId(live.key.tenant), "room")
    return DocumentKey(live.key, PAGE)
