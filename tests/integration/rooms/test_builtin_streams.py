"""Files, documents and the log as streams of SDK 0.56: what goes wrong ends the stream, names its cause and lets go of all."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from doubles.newer_client import NewerClient, newer_client

from meshhost.identity.grants import ApiScope, DeveloperGrant, StorageGrant, StoragePathGrant, SyncGrant, SyncPathGrant
from meshhost.protocol import contents
from meshhost.protocol.frames import Limits
from meshhost.server.services.developer import DeveloperService
from meshhost.server.services.documents.service import DocumentsService
from meshhost.server.services.storage.service import StorageService
from meshhost.stores.files import RoomFiles
from meshhost.testing.server import RunningServer

CLOSE = contents.close()


def _element(tag: str, members: dict[str, Any]) -> dict[str, Any]:
    own = {"type": "object", "additionalProperties": False, "required": list(members), "properties": members}
    return {"type": "object", "additionalProperties": False, "required": [tag], "properties": {tag: own}}


NOTES = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/note"}]}}
DEFS = {"page": _element("page", {"notes": NOTES}), "note": _element("note", {"text": {"type": "string"}})}
SCHEMA = {"$root_tag_ref": "#/$defs/page", "$defs": DEFS}


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[NewerClient]:
    async with newer_client(server, name="newer") as newer:
        yield newer


async def opened(client: NewerClient, toolkit: str, tool: str, call: str, *chunks: Any, payload: bytes = b"") -> None:
    """Open a stream and send its first chunks."""
    reply = await client.next(await client.opened(toolkit, tool, call))
    assert contents.is_open(reply.header), reply.header
    for chunk in chunks:
        await client.add(call, chunk, payload)


async def failed(client: NewerClient, call: str) -> tuple[int | None, str]:
    """The error with which a stream ends."""
    error = (await client.next(call)).header["chunk"]
    end = (await client.next(call)).header["chunk"]
    assert (error["type"], end["method"], end["status_code"]) == ("error", "close", 1007)
    assert end["message"] == error["text"]
    return error.get("code"), error["text"]


def start(**headers: Any) -> dict[str, Any]:
    return contents.binary(kind="start", **headers)


def document(path: str = "x.page", **headers: Any) -> dict[str, Any]:
    return start(path=path, **({"create": True, "schema": SCHEMA} | headers))


def page(text: str) -> dict[str, Any]:
    return {"page": {"notes": [{"note": {"text": text}}]}}


# ---- wrong types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"toolkit": ["queues"], "tool": "list"}, "toolkit"),
        ({"toolkit": {"a": 1}, "tool": "list"}, "toolkit"),
        ({"toolkit": None, "tool": "list"}, "toolkit"),
        ({"toolkit": "queues", "tool": ["list"]}, "tool"),
        ({"toolkit": "queues", "tool": "list", "arguments": [1]}, "arguments"),
        ({"toolkit": "mine", "tool": "x", "arguments": 3}, "arguments"),
        ({"toolkit": "mine", "tool": "x", "tool_call_id": 3}, "stream"),
        ({"toolkit": "mine", "tool": "x", "tool_call_id": {}, "arguments": contents.OPEN}, "stream"),
        ({"toolkit": "messaging", "tool": "stream", "tool_call_id": [1], "arguments": contents.OPEN}, "stream"),
        ({"toolkit": "storage", "tool": "upload", "tool_call_id": 1, "arguments": contents.OPEN}, "tool_call_id"),
        ({"toolkit": "mine", "tool": "x", "participant_id": 3}, "participant_id"),
    ],
)
async def test_a_call_with_wrong_types_is_refused_by_field(
    client: NewerClient, header: dict[str, Any], field: str
) -> None:
    reply = await client.ask("room.invoke_tool", header)
    assert (reply.header["type"], reply.header["code"]) == ("error", 1002)
    assert reply.header["text"].startswith(field)
    assert (await client.answer_of("queues", "list", {})).header["type"] == "json"  # and the connection lives


@pytest.mark.parametrize(
    ("toolkit", "tool", "arguments", "field"),
    [
        ("messaging", "send", {"to_participant_id": "p", "type": "t", "message_json": 3}, "message_json"),
        ("messaging", "send", {"to_participant_id": "p", "type": "t", "message_json": "[1]"}, "message_json"),
        ("messaging", "broadcast", {"type": "t", "message_json": "NaN"}, "message_json"),
        ("messaging", "broadcast", {"type": "t", "message_json": '{"a": NaN}'}, "message_json"),
        ("messaging", "broadcast", {"type": "t", "message_json": "{}", "attachment_base64": 3}, "attachment_base64"),
        ("messaging", "broadcast", {"type": "t", "message_json": "{}", "attachment_base64": "é"}, "attachment_base64"),
        ("developer", "info", {"message": 3}, "message"),
        ("developer", "info", {"message": "m", "extra": []}, "extra"),
        ("sync", "create", {"path": 3}, "path"),
        ("sync", "create", {"path": "x.page", "schema": 3}, "schema"),
        ("sync", "create", {"path": "x.page", "json": []}, "json"),
        ("sync", "create", {"path": "x.page", "schema_path": "elsewhere.json"}, "schema_path"),
        ("storage", "move", {"source_path": 3, "destination_path": "a"}, "source_path"),
        ("storage", "move", {"source_path": "a", "destination_path": "../a"}, "destination_path"),
        ("storage", "move", {"source_path": "a", "destination_path": "a"}, "destination_path"),
        ("storage", "delete", {"path": "a", "recursive": "perhaps"}, "recursive"),
    ],
)
async def test_wrong_arguments_are_refused_by_field(
    client: NewerClient, toolkit: str, tool: str, arguments: dict[str, Any], field: str
) -> None:
    reply = await client.answer_of(toolkit, tool, arguments)
    assert (reply.header["type"], reply.header["code"]) == ("error", 1002)
    assert reply.header["text"].startswith(field)


async def test_a_message_of_millions_of_parts_is_not_parsed(client: NewerClient) -> None:
    text = '{"a": [' + ",".join(["[]"] * 300_000) + "]}"
    reply = await client.answer_of("messaging", "broadcast", {"type": "t", "message_json": text})
    assert reply.header["text"].startswith("message_json: expected a JSON object of at most")


@pytest.mark.parametrize(
    ("tool", "chunk", "field"),
    [
        (("storage", "upload"), contents.json_content({}), "chunk"),
        (("storage", "upload"), {"type": "binary", "headers": [1]}, "chunk"),
        (("storage", "upload"), contents.binary(kind="data"), "chunk.headers.kind"),
        (("storage", "upload"), contents.binary(kind=["start"], path="a"), "chunk.headers.kind"),
        (("storage", "upload"), start(path=3), "chunk.headers.path"),
        (("storage", "upload"), start(path="a", size="many"), "chunk.headers.size"),
        (("storage", "upload"), start(path="a", size=-1), "chunk.headers.size"),
        (("storage", "upload"), start(path="a", overwrite="x"), "chunk.headers.overwrite"),
        (("storage", "download"), start(path={"a": 1}), "chunk.headers.path"),
        (("storage", "download"), start(path="a", chunk_size=0), "chunk.headers.chunk_size"),
        (("sync", "open"), start(path=None), "chunk.headers.path"),
        (("sync", "open"), start(path="./"), "path"),
        (("sync", "open"), document(create="x"), "chunk.headers.create"),
        (("sync", "open"), document(schema=[]), "chunk.headers.schema"),
        (("sync", "open"), document(schema={"$defs": 3}), "schema"),
        (("sync", "open"), document(initial_json="x"), "chunk.headers.initial_json"),
        (("sync", "open"), document(schema_path="other.json"), "schema_path"),
    ],
)
async def test_a_wrong_chunk_ends_its_stream_and_is_named(
    client: NewerClient, tool: tuple[str, str], chunk: dict[str, Any], field: str
) -> None:
    await opened(client, *tool, "c", chunk)
    code, text = await failed(client, "c")
    assert (code, text.partition(":")[0]) == (1002, field)
    assert (await client.next(await client.add("c", chunk))).header["type"] == "empty"


@pytest.mark.parametrize(
    "tool", [("storage", "upload"), ("storage", "download"), ("sync", "open"), ("developer", "logs")]
)
async def test_a_chunk_that_is_no_content_ends_its_stream(client: NewerClient, tool: tuple[str, str]) -> None:
    await opened(client, *tool, "c", "nonsense")
    assert await failed(client, "c") == (1002, "chunk: expected a content")


@pytest.mark.parametrize(
    ("toolkit", "tool", "text"),
    [
        ("livekit", "leave", "toolkit 'livekit' of this room server has no tool 'leave'"),
        ("sqlite", "query", "this room server has no toolkit 'sqlite'"),
    ],
)
async def test_what_the_server_does_not_offer_is_named(client: NewerClient, toolkit: str, tool: str, text: str) -> None:
    refused = await client.answer_of(toolkit, tool, {})
    assert refused.header["text"] == text


async def test_a_chunk_that_is_none_is_answered(client: NewerClient) -> None:
    for header in ({"tool_call_id": "c", "chunk": "x"}, {"tool_call_id": 3, "chunk": {}}, {"chunk": {}}):
        reply = await client.ask("room.tool_call_request_chunk", header)
        assert reply.header["type"] in ("empty", "error")


# ---- errors of other kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("the disk failed"), ValueError("a bug")])
async def test_any_error_ends_a_stream(
    client: NewerClient, monkeypatch: pytest.MonkeyPatch, server: RunningServer, error: Exception
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    await opened(client, "storage", "upload", "u", start(path="f"))
    assert (await client.next("u")).header["chunk"]["headers"]["kind"] == "pull"
    monkeypatch.setattr(RoomFiles, "write", fail)
    await client.add("u", CLOSE)
    _, text = await failed(client, "u")
    assert "log says why" in text
    [room] = server.server.parts.directory.rooms
    assert server.server.parts.services.find(StorageService).uploads(room) == {}


async def test_an_upload_that_is_shorter_than_announced_is_not_stored(client: NewerClient) -> None:
    await opened(client, "storage", "upload", "u", start(path="f", size=10))
    await client.next("u")
    await client.add("u", contents.binary(kind="data"), b"12345")
    await client.next("u")
    await client.add("u", CLOSE)
    assert "5 bytes came of an upload that announced 10" in (await failed(client, "u"))[1]
    assert (await client.answer_of("storage", "exists", {"path": "f"})).header["json"] == {"exists": False}


async def test_a_chunk_that_cannot_be_read_ends_the_streams_that_send(serve: Any) -> None:
    async with serve(wire=Limits(message_bytes=100_000)) as server, newer_client(server) as client:
        await opened(client, "storage", "upload", "u", start(path="f"))
        await client.next("u")
        reply = await client.next(await client.add("u", contents.binary(kind="data"), bytes(200_000)))
        assert reply.header["type"] == "error"
        assert "a chunk could not be read" in (await failed(client, "u"))[1]
        await opened(client, "sync", "open", "d", document())
        await client.next("d")
        await client.add("d", contents.binary(kind="sync"), bytes(200_000))
        assert "a chunk could not be read" in (await failed(client, "d"))[1]
        await client.next(await client.add("d", CLOSE))  # as the client does then
        [room] = server.server.parts.directory.rooms
        assert server.server.parts.services.find(StorageService).uploads(room) == {}
        assert open_documents(server) == 0


# ---- documents ---------------------------------------------------------------------------------------------------------


def open_documents(server: RunningServer) -> int:
    [room] = server.server.parts.directory.rooms
    return len(server.server.parts.services.find(DocumentsService).in_room(room))


async def test_two_clients_open_a_new_document_at_once(server: RunningServer) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(newer_client(server, name=f"c{n}")) for n in range(6)]
        await asyncio.gather(
            *(opened(each, "sync", "open", "d", document(initial_json=page("first"))) for each in clients)
        )
        states = [(await each.next("d")).header["chunk"] for each in clients]
        assert [state.get("headers", state) for state in states] == [
            {"kind": "state", "path": "x.page", "schema": SCHEMA}
        ] * len(clients)


async def test_a_document_is_let_go_of_when_its_stream_fails(
    client: NewerClient, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(client, "sync", "open", "d", document())
    assert (await client.next("d")).header["chunk"]["headers"]["kind"] == "state"
    await client.add("d", contents.binary(kind="nonsense"))
    await failed(client, "d")
    assert open_documents(server) == 0
    await opened(client, "sync", "open", "e", document())  # and may be opened again
    assert (await client.next("e")).header["chunk"]["headers"]["kind"] == "state"
    await client.add("e", CLOSE)
    assert (await client.next("e")).header["chunk"] == CLOSE
    assert open_documents(server) == 0


async def test_a_document_is_opened_by_one_stream_at_a_time(client: NewerClient, server: RunningServer) -> None:
    await opened(client, "sync", "open", "d", document())
    await client.next("d")
    await opened(client, "sync", "open", "e", document("/x.page"))
    assert "open in another stream" in (await failed(client, "e"))[1]
    assert open_documents(server) == 1  # the first one keeps it
    async with server.client(name="ours") as ours:
        theirs = await ours.sync.open(path="x.page")
        theirs.root.append_child("note", {"text": "still told"})
        chunk = await client.next("d")
        assert (chunk.header["chunk"]["headers"], base64.b64decode(chunk.payload) != b"") == (
            {"kind": "sync", "path": "x.page"},
            True,
        )


async def test_who_may_only_read_opens_a_document_with_a_schema_and_content(
    client: NewerClient, server: RunningServer
) -> None:
    await client.answer_of("sync", "create", {"path": "x.page", "schema": SCHEMA, "json": page("a")})
    reads = ApiScope(sync=SyncGrant(paths=[SyncPathGrant(path="x.page", read_only=True)]))
    async with newer_client(server, name="reader", scope=reads) as reader:
        await opened(reader, "sync", "open", "d", document(initial_json=page("b")))
        assert (await reader.next("d")).header["chunk"]["headers"]["kind"] == "state"
        described = await reader.answer_of("sync", "describe", {"path": "x.page"})
        assert described.header["json"] == {"path": "x.page", "schema": SCHEMA, "json": page("a")}


async def test_a_schema_is_stored_for_a_path_with_an_extension_only(client: NewerClient) -> None:
    await opened(client, "sync", "open", "d", document("a.b/c"))
    assert "extension" in (await failed(client, "d"))[1]
    listed = (await client.answer_of("storage", "list", {"path": ""})).header["json"]["files"]
    assert listed == []


# ---- the log -----------------------------------------------------------------------------------------------------------


async def test_the_log_is_read_by_several_streams_of_a_connection(client: NewerClient) -> None:
    await opened(client, "developer", "logs", "one")
    await opened(client, "developer", "logs", "two")
    await client.answer_of("developer", "info", {"message": "hello", "extra": {"a": 1}})
    for call in ("one", "two"):
        got = await client.next(call)
        assert (got.header["chunk"]["headers"], json.loads(got.payload)) == (
            {"type": "info"},
            {"message": "hello", "a": 1},
        )
    await client.add("one", CLOSE)
    assert (await client.next("one")).header["chunk"] == CLOSE
    await client.answer_of("developer", "log", {"type": "t", "data": {}})
    assert (await client.next("two")).header["chunk"]["headers"] == {"type": "t"}
    await client.add("two", CLOSE)
    await client.next("two")
    await client.answer_of("developer", "log", {"type": "t", "data": {}})
    assert not client.has("one")
    assert not client.has("two")
    assert not client.has("developer.log")


async def test_who_may_not_watch_the_log_is_told(server: RunningServer) -> None:
    async with newer_client(server, scope=ApiScope(developer=DeveloperGrant(logs=False))) as client:
        for _ in range(2):  # a refused stream leaves nothing behind: its id is free
            assert (await client.next(await client.opened("developer", "logs", "l"))).header["code"] == 1001
        [room] = server.server.parts.directory.rooms
        assert not server.server.parts.services.find(DeveloperService)._watching.of(room)


# ---- moves -------------------------------------------------------------------------------------------------------------


async def test_a_file_is_moved_and_each_generation_is_told(server: RunningServer, client: NewerClient) -> None:
    async with server.client(name="ours") as ours:
        told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        await ours.storage.upload(path="a/f.txt", data=b"content")
        ours.storage.on("file.updated", lambda path, participant_id: told.put_nowait(("updated", path)))
        ours.storage.on("file.deleted", lambda path, participant_id: told.put_nowait(("deleted", path)))
        moved = {"source_path": "a/f.txt", "destination_path": "b/c/g.txt", "overwrite": False}
        assert (await client.answer_of("storage", "move", moved)).header["type"] == "empty"
        event = (await client.next("storage.file.moved")).header
        assert {name: event[name] for name in ("source_path", "destination_path")} == {
            "source_path": "a/f.txt",
            "destination_path": "b/c/g.txt",
        }
        async with asyncio.timeout(5):
            assert {await told.get(), await told.get()} == {("deleted", "a/f.txt"), ("updated", "b/c/g.txt")}
        assert (await ours.storage.download(path="b/c/g.txt")).data == b"content"
        assert not await ours.storage.exists(path="a/f.txt")


async def test_a_move_is_refused_by_what_is_in_its_way(server: RunningServer, client: NewerClient) -> None:
    async with server.client(name="ours") as ours:
        for path in ("a", "b", "d/e"):
            await ours.storage.upload(path=path, data=b"x")
    await client.answer_of("sync", "create", {"path": "x.page", "schema": SCHEMA})

    async def move(source: str, destination: str, **more: Any) -> tuple[int, str]:
        header = (
            await client.answer_of("storage", "move", {"source_path": source, "destination_path": destination, **more})
        ).header
        return header.get("code", 0), header.get("text", "")

    assert (await move("a", "b"))[0] == 1004
    assert (await move("nothing", "c"))[0] == 1003
    assert "a folder" in (await move("d", "c"))[1]
    assert "a folder" in (await move("a", "d"))[1]
    assert "a document" in (await move("x.page", "c"))[1]
    assert "a document" in (await move("a", "x.page"))[1]
    assert "is a document" in (await move("a", "x.page/c"))[1]
    assert (await move("a", "b/c"))[0] == 1002
    assert await move("a", "b", overwrite=True) == (0, "")


async def test_a_move_takes_the_rights_to_both_paths(server: RunningServer) -> None:
    async with server.client(name="ours") as ours:
        await ours.storage.upload(path="secret/f", data=b"x")
    for read_only in (True, False):
        paths = [StoragePathGrant(path="mine"), StoragePathGrant(path="secret", read_only=True)]
        scope = ApiScope(storage=StorageGrant(paths=paths if read_only else paths[:1]))
        async with newer_client(server, scope=scope) as client:
            moved = {"source_path": "secret/f", "destination_path": "mine/f"}
            assert (await client.answer_of("storage", "move", moved)).header["code"] == 1001


async def test_a_folder_is_deleted_with_what_it_holds(server: RunningServer, client: NewerClient) -> None:
    async with server.client(name="ours") as ours:
        for path in ("d/a", "d/e/b", "keep"):
            await ours.storage.upload(path=path, data=b"x")
    await client.answer_of("sync", "create", {"path": "d/x.page", "schema": SCHEMA})
    assert (await client.answer_of("storage", "delete", {"path": "d", "recursive": None})).header["code"] == 1002
    assert (await client.answer_of("storage", "delete", {"path": "d", "recursive": True})).header["type"] == "empty"
    listed = (await client.answer_of("storage", "list", {"path": ""})).header["json"]["files"]
    assert sorted(each["name"] for each in listed) == [".schemas", "keep"]


async def test_a_folder_is_not_deleted_in_part(server: RunningServer, client: NewerClient) -> None:
    await client.answer_of("sync", "create", {"path": "d/x.page", "schema": SCHEMA})
    async with server.client(name="ours") as ours:
        await ours.storage.upload(path="d/a", data=b"x")
    async with newer_client(server, name="files only", scope=ApiScope(storage=StorageGrant())) as files_only:
        refused = await files_only.answer_of("storage", "delete", {"path": "d", "recursive": True})
        assert refused.header["code"] == 1001
    assert (await client.answer_of("storage", "exists", {"path": "d/a"})).header["json"] == {"exists": True}
