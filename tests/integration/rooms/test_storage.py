"""Files of a room over the wire."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from meshhost.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidRequestError,
    NotFoundError,
    RoomError,
    StorageFullError,
)
from meshhost.identity.grants import ApiScope, MessagingGrant, StorageGrant, StoragePathGrant
from meshhost.protocol.frames import Limits, Message, packets
from meshhost.protocol.messages import pack_message
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.server.http import files as file_routes
from meshhost.server.services.storage import uploads as handlers
from meshhost.server.services.storage.service import StorageService
from meshhost.stores.disk.upload import Upload
from meshhost.stores.queues import QueueStats
from meshhost.testing.server import RunningServer


async def test_what_was_uploaded_can_be_read(server: RunningServer) -> None:
    data = bytes(range(256)) * 20_000  # more than one write, and more than stays in memory
    async with server.client() as a, server.client(name="b") as b:
        await a.storage.upload(path="/x/näme #1?.txt/", data=data)
        file = await b.storage.download(path="x/näme #1?.txt")
        assert (file.data, file.name, file.mime_type) == (data, "näme #1?.txt", "text/plain")
        assert await b.storage.exists(path="x")
        assert not await b.storage.exists(path="y")
        entry = await b.storage.stat(path="x/näme #1?.txt")
        assert entry is not None
        assert (entry.name, entry.is_folder) == ("näme #1?.txt", False)
        assert entry.updated_at is not None
        assert entry.updated_at.tzinfo is not None
        folder = await b.storage.stat(path="x")
        assert folder is not None
        assert folder.is_folder
        assert await b.storage.stat(path="nope") is None
        assert [(e.name, e.is_folder) for e in await b.storage.list(path="")] == [("x", True)]
        assert [e.name for e in await b.storage.list(path="/x/")] == ["näme #1?.txt"]


async def test_an_empty_file_is_a_file(server: RunningServer) -> None:
    async with server.client() as a:
        await a.storage.upload(path="empty", data=b"")
        assert (await a.storage.download(path="empty")).data == b""


async def test_a_large_file_goes_over_the_disk_in_order(server: RunningServer) -> None:
    size = (4 * 1024 * 1024) // 10
    async with server.client() as a:
        handle = await a.storage.open(path="big")
        for number in range(30):
            await a.storage.write(handle=handle, data=bytes([number]) * size)
        await a.storage.close(handle=handle)
        expected = b"".join(bytes([number]) * size for number in range(30))
        assert (await a.storage.download(path="big")).data == expected


async def test_a_missing_folder_is_an_empty_list(server: RunningServer) -> None:
    async with server.client() as a:
        assert await a.storage.list(path=".schemas") == []


async def test_a_file_is_visible_when_it_is_closed_and_not_before(server: RunningServer) -> None:
    async with server.client() as a:
        handle = await a.storage.open(path="f")
        await a.storage.write(handle=handle, data=b"1")
        assert not await a.storage.exists(path="f")
        await a.storage.close(handle=handle)
        assert await a.storage.exists(path="f")
        with pytest.raises(NotFoundError):
            await a.storage.write(handle=handle, data=b"2")


async def test_closing_twice_stores_once(server: RunningServer, heard: Any) -> None:
    async with server.client() as a, server.client(name="b") as b:
        updated = heard(b.storage, "file.updated")
        handle = await a.storage.open(path="f")
        await a.storage.close(handle=handle)
        await a.storage.close(handle=handle)
        await a.storage.upload(path="g", data=b"")
        assert [(await updated.get())["path"], (await updated.get())["path"]] == ["f", "g"]
        with pytest.raises(NotFoundError):
            await b.storage.close(handle=handle)


async def test_the_server_remembers_the_last_files_of_a_participant_only(server: RunningServer) -> None:
    async with server.client() as a:
        first = await a.storage.open(path="first")
        await a.storage.close(handle=first)
        for number in range(handlers.MAX_UPLOADS):
            await a.storage.upload(path=f"f{number}", data=b"")
        with pytest.raises(NotFoundError):
            await a.storage.close(handle=first)


async def test_overwriting_must_be_asked_for(server: RunningServer) -> None:
    async with server.client() as a:
        await a.storage.upload(path="f", data=b"1")
        with pytest.raises(AlreadyExistsError):
            await a.storage.upload(path="f", data=b"2")
        await a.storage.upload(path="f", data=b"3", overwrite=True)
        assert (await a.storage.download(path="f")).data == b"3"


async def test_of_two_who_create_one_file_the_second_fails(server: RunningServer) -> None:
    async with server.client() as a:
        first, second = await a.storage.open(path="f"), await a.storage.open(path="f")
        await a.storage.close(handle=first)
        with pytest.raises(AlreadyExistsError):
            await a.storage.close(handle=second)


async def test_a_file_cannot_be_a_folder(server: RunningServer) -> None:
    async with server.client() as a:
        await a.storage.upload(path="f", data=b"1")
        with pytest.raises(InvalidRequestError):
            await a.storage.upload(path="f/below", data=b"1")
        assert await a.storage.stat(path="f/below") is None
        assert await a.storage.list(path="f/below") == []
        assert await a.storage.list(path="f") == []
        await a.storage.upload(path="d/f", data=b"1")
        for wrong in (
            a.storage.upload(path="d", data=b"1"),
            a.storage.upload(path="", data=b""),
            a.storage.download(path="d"),
            a.storage.delete("d"),
        ):
            with pytest.raises(InvalidRequestError):
                await wrong


async def test_what_is_missing_cannot_be_read_or_deleted(server: RunningServer) -> None:
    async with server.client() as a:
        for wrong in (a.storage.download(path="f"), a.storage.delete("f"), a.storage.download_url(path="f")):
            with pytest.raises(NotFoundError):
                await wrong


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "..", ".", "a//b", "a/./b", "a\0b", "a\nb", "a\\..\\b", "x" * 300]
)
async def test_a_path_stays_in_its_room(server: RunningServer, path: str) -> None:
    async with server.client() as a:
        for request in ("exists", "stat", "list", "open", "download", "download_url", "delete"):
            with pytest.raises(InvalidRequestError):
                await a.send_request(f"storage.{request}", {"path": path})


async def test_rooms_do_not_share_files(server: RunningServer) -> None:
    async with server.client("one") as one, server.client("two") as two:
        await one.storage.upload(path="f", data=b"1")
        assert not await two.storage.exists(path="f")
        assert await two.storage.list(path="") == []


async def test_grants_limit_paths(server: RunningServer) -> None:
    scope = ApiScope(
        storage=StorageGrant(paths=[StoragePathGrant(path="pub", read_only=True), StoragePathGrant(path="own")])
    )
    async with server.client() as a, server.client(name="b", scope=scope) as b:
        await a.storage.upload(path="pub/f", data=b"1")
        await a.storage.upload(path="secret/f", data=b"1")
        await b.storage.upload(path="own/f", data=b"1")
        assert (await b.storage.download(path="pub/f")).data == b"1"
        for refused in (
            b.storage.upload(path="pub/g", data=b""),
            b.storage.delete("pub/f"),
            b.storage.download(path="secret/f"),
            b.storage.exists(path="secret"),
            b.storage.download_url(path="secret/f"),
            b.storage.upload(path="secret/f", data=b"", overwrite=True),
        ):
            with pytest.raises(AccessDeniedError):
                await refused
        assert [entry.name for entry in await b.storage.list(path="")] == ["own", "pub"]
        assert await b.storage.list(path="secret") == []


async def test_a_handle_belongs_to_who_opened_it(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="b") as b:
        handle = await a.storage.open(path="f")
        with pytest.raises(NotFoundError):
            await b.storage.write(handle=handle, data=b"mine now")


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_an_upload_goes_on_after_a_lost_connection(server: RunningServer, heard: Any, size: int) -> None:
    data = os.urandom(size)
    async with server.client(reconnect=ReconnectPolicy(first_delay=0.0)) as a:
        handle = await a.storage.open(path="f")
        await a.storage.write(handle=handle, data=data)
        reconnected = heard(a, "reconnected")
        server.cut(a)
        await reconnected.get()
        await a.storage.write(handle=handle, data=data)
        await a.storage.close(handle=handle)
        assert (await a.storage.download(path="f")).data == data * 2


async def test_pieces_that_are_sent_again_are_in_the_file_once(server: RunningServer) -> None:
    async with server.client() as a:
        handle = (await a.send_request("storage.open", {"path": "f"}))["handle"]

        async def write(offset: int, data: bytes) -> None:
            await a.send_request("storage.write", {"handle": handle, "offset": offset}, data)

        await write(0, b"abcd")
        await write(0, b"abcd")
        await write(2, b"cdef")
        with pytest.raises(InvalidRequestError, match="offset: expected at most 6"):
            await write(7, b"h")
        with pytest.raises(InvalidRequestError, match="offset"):
            await write(-1, b"h")
        await write(6, b"gh")
        await a.send_request("storage.close", {"handle": handle})
        assert (await a.storage.download(path="f")).data == b"abcdefgh"


async def test_a_write_whose_connection_was_lost_is_sent_again_by_the_client(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    take = handlers.Uploads._take_bytes

    async def held(self: handlers.Uploads, *arguments: Any) -> None:
        reached.set()
        await go_on.wait()
        await take(self, *arguments)

    async with server.client(reconnect=ReconnectPolicy(first_delay=0.0)) as a:
        monkeypatch.setattr(handlers.Uploads, "_take_bytes", held)
        upload = asyncio.create_task(a.storage.upload(path="f", data=b"x" * 100_000))
        await reached.wait()
        server.cut(a)
        go_on.set()
        await upload
        assert (await a.storage.download(path="f")).data == b"x" * 100_000


async def test_a_write_that_is_given_up_leaves_the_file_as_it_counts(
    server: RunningServer, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on, add = threading.Event(), threading.Event(), Upload.use

    def slow(self: Upload, work: Any, data: bytes = b"") -> None:
        held.set()
        assert go_on.wait(30)
        add(self, work, data)

    async with server.client() as a:
        handle = await a.storage.open(path="f")
        monkeypatch.setattr(Upload, "use", slow)
        piece = b"x" * 100_000
        writing = asyncio.create_task(a.storage.write(handle=handle, data=piece))
        await until(held.is_set)
        writing.cancel()
        monkeypatch.undo()
        again = asyncio.create_task(a.send_request("storage.write", {"handle": handle.id, "offset": 0}, piece + b"y"))
        go_on.set()
        await again
        [upload] = server.server.service(StorageService).uploads(server.server.rooms[0]).values()
        assert upload.taken == upload.file.size == 100_001
        await a.storage.close(handle=handle)
        assert (await a.storage.download(path="f")).data == piece + b"y"


async def test_an_unfinished_upload_ends_when_its_participant_does_not_come_back(serve: Any, until: Any) -> None:
    async with serve(resume_seconds=0.1) as server, server.client(name="b"):
        a = server.client(reconnect=ReconnectPolicy(first_delay=60.0))
        await a.connect()
        await a.storage.open(path="f")
        uploads = server.server.service(StorageService).uploads(server.server.rooms[0])
        assert len(uploads) == 1
        server.cut(a)
        await until(lambda: not uploads)
        await a.close()


async def test_an_unfinished_upload_ends_at_once_when_its_participant_leaves(server: RunningServer, until: Any) -> None:
    async with server.client(name="b"):
        async with server.client() as a:
            await a.storage.open(path="f")
            uploads = server.server.service(StorageService).uploads(server.server.rooms[0])
            assert len(uploads) == 1
        await until(lambda: not uploads)


async def test_an_unfinished_upload_ends_with_its_room(server: RunningServer, until: Any) -> None:
    async with server.client() as a:
        await a.storage.open(path="f")
        room = server.server.rooms[0]
        uploads = server.server.service(StorageService).uploads(room)
        server.server.parts.directory.end(room)
        await until(lambda: not uploads)


async def test_who_came_back_with_fewer_rights_does_not_finish_its_upload(server: RunningServer) -> None:
    async with server.client() as a:
        handle = await a.storage.open(path="f")
        [member] = server.server.rooms[0].connected()
        member.scope = ApiScope(storage=StorageGrant(paths=[StoragePathGrant(path="f", read_only=True)]))
        for refused in (a.storage.write(handle=handle, data=b"1"), a.storage.close(handle=handle)):
            with pytest.raises(AccessDeniedError):
                await refused


async def test_an_upload_that_is_aborted_is_gone_at_once(server: RunningServer) -> None:
    async with server.client() as a, server.client(name="b") as b:
        uploads = server.server.service(StorageService).uploads(server.server.rooms[0])
        handle = await a.storage.open(path="f")
        await a.storage.write(handle=handle, data=b"half")
        await b.storage.abort(handle=handle)
        assert len(uploads) == 1
        await a.storage.abort(handle=handle)
        await a.storage.abort(handle=handle)
        assert uploads == {}
        with pytest.raises(NotFoundError):
            await a.storage.close(handle=handle)
        assert not await a.storage.exists(path="f")


async def test_an_upload_that_fails_or_is_cancelled_is_aborted(server: RunningServer, until: Any) -> None:
    async with server.client() as a:
        uploads = server.server.service(StorageService).uploads(server.server.rooms[0])
        begun, fails = asyncio.Event(), asyncio.Event()

        async def half(path: str) -> None:
            async with a.storage.writing(path=path) as write:
                await write(b"half")
                begun.set()
                await fails.wait()
                raise ZeroDivisionError

        writing = asyncio.create_task(half("f"))
        await begun.wait()
        assert len(uploads) == 1
        writing.cancel()
        await until(lambda: not uploads)
        fails.set()
        with pytest.raises(ZeroDivisionError):
            await half("g")
        await until(lambda: not uploads)
        assert await a.storage.list(path="") == []


async def test_changes_are_told_to_those_who_may_read(server: RunningServer, heard: Any) -> None:
    blind = ApiScope(messaging=MessagingGrant())
    async with server.client() as a, server.client(name="b") as b, server.client(name="c", scope=blind) as c:
        updated, deleted = heard(b.storage, "file.updated"), heard(b.storage, "file.deleted")
        of_c = heard(c.storage, "file.updated")
        await a.storage.upload(path="x/f", data=b"1")
        await a.storage.delete("x/f")
        expected = {"path": "x/f", "participant_id": a.local_participant.id}
        assert await updated.get() == expected
        assert await deleted.get() == expected
        await c.messaging.enable()
        assert of_c.empty()


async def test_handlers_of_changes_can_be_removed(server: RunningServer, heard: Any) -> None:
    async with server.client() as a:
        calls: list[str] = []

        def handler(path: str, **_: Any) -> None:
            calls.append(path)

        a.storage.on("file.updated", handler)
        await a.storage.upload(path="f", data=b"")
        a.storage.off("file.updated", handler)
        await a.storage.upload(path="g", data=b"")
        assert calls == ["f"]


async def test_a_download_url_needs_nothing_else(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with server.client() as a:
        await a.storage.upload(path="x/se&ite ü.html", data=b"<script>")
        url = await a.storage.download_url(path="x/se&ite ü.html")
        async with http.get(url) as response:
            assert response.status == 200
            assert await response.read() == b"<script>"
            assert response.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''se%26ite%20%C3%BC")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
        await a.storage.delete("x/se&ite ü.html")
        async with http.get(url) as response:
            assert response.status == 404


async def test_a_forged_or_expired_download_url_is_refused(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with server.client() as a:
        await a.storage.upload(path="f", data=b"1")
        good = await a.storage.download_url(path="f")
        server.server.parts.access.file_seconds = -1
        expired = await a.storage.download_url(path="f")
        login = server.server.parts.access.sign_login("11111111-2222-3333-4444-555555555555")
        own_token = a.protocol.token
    for url in (expired, good[:-3] + "abc", f"{server.url}/files/{login}", f"{server.url}/files/{own_token}"):
        async with http.get(url) as response:
            assert response.status == 401


async def test_limits_of_uploads_and_downloads(serve: Any) -> None:
    async with serve(max_upload_bytes=300_000) as server, server.client() as a:
        with pytest.raises(RoomError, match="300000"):
            await a.storage.upload(path="big", data=b"x" * 300_001)
        await a.storage.upload(path="fits", data=b"x" * 300_000)
        for number in range(handlers.MAX_UPLOADS):
            await a.storage.open(path=f"f{number}")
        with pytest.raises(RoomError, match=f"over {handlers.MAX_UPLOADS} files"):
            await a.storage.open(path="c")


async def test_a_file_too_large_for_a_message_is_had_by_url(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(wire=Limits(message_bytes=100_000)) as server, server.client() as a:
        handle = await a.storage.open(path="f")
        for _ in range(5):
            await a.storage.write(handle=handle, data=b"x" * 20_000)
        await a.storage.close(handle=handle)
        with pytest.raises(RoomError, match="download URL"):
            await a.storage.download(path="f")
        async with http.get(await a.storage.download_url(path="f")) as response:
            assert len(await response.read()) == 100_000


async def test_an_upload_ends_before_the_disk_is_full(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as server, server.client() as a:
        handle = await a.storage.open(path="f")
        await a.storage.write(handle=handle, data=bytes(1_000_000))
        disk = os.statvfs(tmp_path)
        # As if others had filled the disk up to two reserves.
        left = {"f_bavail": 2 * 64 * 1024 * 1024 // disk.f_frsize}
        monkeypatch.setattr(
            os, "statvfs", lambda _: SimpleNamespace(f_frsize=disk.f_frsize, f_blocks=disk.f_blocks, **left)
        )
        with pytest.raises(StorageFullError):
            await a.storage.write(handle=handle, data=bytes(1_000_000))
        with pytest.raises(NotFoundError):
            await a.storage.write(handle=handle, data=b"x")
        with pytest.raises(StorageFullError):
            await a.storage.upload(path="small", data=b"x")
        await a.queues.send(name="jobs", message={"n": 1})
        assert not server.server.service(StorageService).uploads(server.server.rooms[0])
        monkeypatch.undo()
        await a.storage.upload(path="small", data=b"x")


async def test_a_long_list_is_whole_and_lets_others_run(server: RunningServer, tmp_path: Path) -> None:
    async with server.client() as a:
        await a.storage.upload(path="many/0", data=b"1")
        (first,) = [found for found in tmp_path.rglob("many/0") if found.is_file()]  # noqa: ASYNC240 - a test's own folder
        for number in range(1, 2000):
            first.with_name(str(number)).touch()
        listing = asyncio.create_task(a.storage.list(path="many"))
        turns = 0
        while not listing.done():
            turns += 1
            await asyncio.sleep(0)
        assert sorted(int(entry.name) for entry in listing.result()) == list(range(2000))
        assert turns > 2 * 2000 // 250
        blind = ApiScope(storage=StorageGrant(paths=[StoragePathGrant(path="elsewhere")]))
        async with server.client(name="b", scope=blind) as b:
            assert await b.storage.list(path="many") == []


async def test_a_folder_is_read_page_by_page(server: RunningServer) -> None:
    async with server.client() as a:
        for name in ("b", "a/x", "a-b", "c", "secret/x"):
            await a.storage.upload(path=f"d/{name}", data=b"1")
        names = [[entry.name for entry in page] async for page in a.storage.pages(path="d", limit=2)]
        assert names == [["a-b", "a"], ["b", "c"], ["secret"]]
        assert [len(page) async for page in a.storage.pages(path="d")] == [5]
        assert [page async for page in a.storage.pages(path="nothing")] == [[]]
        first = await a.storage.list_page(path="d", limit=1, prefix="a")
        second = await a.storage.list_page(path="d", limit=1, prefix="a", after=first.next)
        assert [entry.name for entry in (*first.entries, *second.entries)] == ["a-b", "a"]
        assert second.next is None
        scope = ApiScope(storage=StorageGrant(paths=[StoragePathGrant(path="d/b"), StoragePathGrant(path="d/c")]))
        async with server.client(name="b", scope=scope) as b:
            page = await b.storage.list_page(path="d", limit=1)
            # Neither an entry nor a cursor names what may not be read.
            assert ([entry.name for entry in page.entries], page.next) == (["b"], "b")
            assert (await b.storage.list_page(path="d", limit=1, after="b")).next is None


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"after": "a/b"}, "after"),
        ({"after": "/"}, "after"),
        ({"after": ".."}, "after"),
        ({"prefix": "a/"}, "prefix"),
        ({"prefix": "\n"}, "prefix"),
    ],
    ids=str,
)
async def test_what_is_no_page_is_refused(server: RunningServer, asked: dict[str, Any], field: str) -> None:
    async with server.client() as a:
        with pytest.raises(RoomError, match=field):
            await a.send_request("storage.list", {"path": "", **asked})


async def test_a_client_that_knows_no_pages_gets_the_whole_folder(server: RunningServer) -> None:
    async with server.client() as a:
        await a.storage.upload(path="x", data=b"1")
        answer = await a.send_request("storage.list", {"path": ""})
        assert ([entry["name"] for entry in answer["files"]], set(answer)) == (["x"], {"files"})


async def test_a_reader_that_takes_nothing_of_a_download_is_dropped(
    server: RunningServer, until: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(file_routes, "TAKE_SECONDS", 0.2)
    async with server.client() as a:
        await a.storage.upload(path="large", data=bytes(40_000_000))
        url = urlsplit(await a.storage.download_url(path="large"))
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1)
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    await until(lambda: "its reader took nothing" in caplog.text)
    got = 0
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1_000_000):
            got += len(part)
    assert got < 40_000_000
    writer.close()


async def test_downloads_that_nobody_reads_hold_no_more_than_their_tenant_may(
    server: RunningServer, http: aiohttp.ClientSession, until: Any
) -> None:
    async with server.client() as a:
        await a.storage.upload(path="f", data=bytes(20_000_000))
        async with http.ws_connect(server.server.room_url("room"), headers=_bearer(server)) as silent:
            for number in range(30):
                for packet in packets(Message(number, "storage.download", pack_message({"path": "f"}))):
                    await silent.send_bytes(packet)
            await until(lambda: _in_flight(server) > 19_000_000)
            for _ in range(20):  # a neighbour's requests go on meanwhile
                assert await a.storage.exists(path="f")
                assert _in_flight(server) <= 66 * 1024 * 1024
        await until(lambda: _in_flight(server) == 0)


async def test_an_unfinished_message_is_given_back_with_its_connection(
    server: RunningServer, http: aiohttp.ClientSession, until: Any
) -> None:
    async with http.ws_connect(server.server.room_url("room"), headers=_bearer(server)) as socket:
        *all_but_last, _ = packets(Message(1, "storage.write", bytes(5_000_000)))
        for packet in all_but_last:
            await socket.send_bytes(packet)
        await until(lambda: _in_flight(server) > 4_000_000)
    await until(lambda: _in_flight(server) == 0)


def _bearer(server: RunningServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('room', name='silent')}"}


def _in_flight(server: RunningServer) -> float:
    text = server.server.parts.metrics.render([], [], QueueStats("", 0, 0, 0, 0, None)).decode()
    (line,) = [line for line in text.splitlines() if line.startswith("meshhost_in_flight_bytes ")]
    return float(line.split()[1])


async def test_our_client_moves_files_and_deletes_folders(server: RunningServer) -> None:
    async with server.client() as room:
        await room.storage.upload(path="a/f", data=b"x")
        await room.storage.upload(path="b/g", data=b"y")
        with pytest.raises(AlreadyExistsError):
            await room.storage.move(source_path="a/f", destination_path="b/g")
        await room.storage.move(source_path="a/f", destination_path="b/g", overwrite=True)
        assert (await room.storage.download(path="b/g")).data == b"x"
        await room.storage.delete("b", recursive=True)
        assert not await room.storage.exists(path="b/g")
