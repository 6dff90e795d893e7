"""Documents of a client whose server is late, lost, or says odd things."""

import asyncio
import base64
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import ChildProperty, ElementType, MeshSchema, ValueProperty
from meshhost.errors import (
    AccessDeniedError,
    ConnectionLostError,
    InvalidRequestError,
    NotFoundError,
    RequestTimeoutError,
    RoomError,
)
from meshhost.protocol.connection import MessageReceived
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.services import sync
from meshhost.testing.clock import FakeClock

SCHEMA = MeshSchema(
    root_tag_name="page",
    elements=[
        ElementType(tag_name="page", properties=[ChildProperty(name="notes", child_tag_names=["note"])]),
        ElementType(tag_name="note", properties=[ValueProperty(name="body", type="string")]),
    ],
)
PATH = "x.page"
EMPTY = b"AAA="
Joined = Callable[..., AbstractAsyncContextManager[RoomClient]]


def bodies(document: MeshDocument) -> list[str]:
    return [note["body"] for note in document.root.get_children_by_tag_name("note")]


def note(document: MeshDocument, body: str) -> None:
    document.root.append_child("note", {"body": body})


def merged(*messages: MessageReceived) -> list[str]:
    """What a server shows that got these."""
    document = MeshDocument(schema=SCHEMA)
    for message in messages:
        document.apply_update(base64.b64decode(message.payload))
    return bodies(document)


class Server:
    """Plays the server's side of documents."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake

    async def connect(self, *, state: bytes | None = EMPTY) -> MessageReceived:
        message: MessageReceived = await self.fake.answer(
            JsonResponse(json={"schema": SCHEMA.to_json()}), "room.connect"
        )
        if state is not None:
            await self.state(state)
        return message

    async def state(self, state: bytes, **extra: Any) -> None:
        await self.fake.tell("room.sync", {"path": PATH, **extra}, state)

    async def refuse(self, error: RoomError, *, follows: bool) -> MessageReceived:
        message: MessageReceived = await self.fake.next()
        assert message.type == "room.sync"
        refused = {"text": str(error), "code": error.code, "state_follows": follows}
        await self.fake.far.send(self.fake.protocol.reply(message.id, EmptyResponse(), {"refused": refused}))
        return message

    async def take(self) -> MessageReceived:
        message: MessageReceived = await self.fake.answer(type="room.sync")
        return message

    async def lose(self) -> None:
        """Break the connection; returns when the client has dialled again."""
        before = self.fake.far
        await before.close(1006)
        async with asyncio.timeout(5):
            while self.fake.far is before:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)


@pytest.fixture
def server(fake: Any) -> Server:
    return Server(fake)


async def opened(room: RoomClient, server: Server) -> MeshDocument:
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(room.sync.open(path=PATH))
        await server.connect()
    return opening.result()


async def test_a_state_that_comes_before_its_answer_is_looked_at_is_kept(joined: Joined, server: Server) -> None:
    async with joined() as room, asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(room.sync.open(path=PATH))
        request = await server.fake.next()
        await server.state(EMPTY)
        packets = server.fake.protocol.reply(request.id, JsonResponse(json={"schema": SCHEMA.to_json()}))
        await server.fake.far.send(packets)
        assert bodies(await opening) == []


async def test_a_server_that_sends_no_state_in_time_is_an_error(joined: Joined, server: Server) -> None:
    async with joined(request_timeout=0.5) as room:
        opening = asyncio.create_task(room.sync.open(path=PATH))
        await server.connect(state=None)
        with pytest.raises(RequestTimeoutError, match=r"no content of 'x.page'"):
            await opening
        assert room.sync.get_open_documents() == {}


async def test_a_schema_that_cannot_be_read_is_an_error(joined: Joined, server: Server) -> None:
    async with joined() as room:
        opening = asyncio.create_task(room.sync.open(path=PATH))
        await server.fake.answer(JsonResponse(json={"schema": {}}), "room.connect")
        with pytest.raises(InvalidRequestError, match="root_tag_ref"):
            await opening
        assert room.sync.get_open_documents() == {}
        # It can be tried again.
        await opened(room, server)


async def test_what_cannot_be_read_is_passed_over(
    joined: Joined, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined() as room:
        document = await opened(room, server)
        await server.state(b"no base64!")
        await server.state(base64.b64encode(b"no update"))
        await server.fake.tell("room.sync", {}, EMPTY)
        await server.fake.tell("room.sync", {"path": "closed.page"}, EMPTY)
        other = MeshDocument(schema=SCHEMA, json={"page": {"notes": [{"note": {"body": "good"}}]}})
        shown = asyncio.Event()
        document.on("inserted", lambda _: shown.set())
        await server.state(base64.b64encode(other.get_state()))
        await shown.wait()
        assert bodies(document) == ["good"]
        assert "unreadable document update" in caplog.text
        assert "document update does not apply" in caplog.text


async def test_edits_go_one_request_at_a_time_and_in_order(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        saved: list[bool] = []
        document.on("saved", lambda: saved.append(True))
        note(document, "a")
        note(document, "b")
        first = await server.fake.next()
        note(document, "c")
        note(document, "d")
        assert merged(first) == ["a", "b"]
        flushing = asyncio.create_task(room.sync.flush(PATH))
        await server.fake.far.send(server.fake.protocol.reply(first.id, EmptyResponse()))
        second = await server.fake.next()
        assert merged(first, second) == ["a", "b", "c", "d"]
        assert (saved, flushing.done()) == ([], False)
        note(document, "e")
        await server.fake.far.send(server.fake.protocol.reply(second.id, EmptyResponse()))
        await flushing  # it does not wait for what was edited later
        await server.take()
        await room.sync.flush(PATH)
        assert saved == [True]


async def test_after_a_reconnect_all_is_sent_again(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        note(document, "saved")
        await server.take()
        note(document, "on its way")
        await server.fake.next()
        await server.lose()
        note(document, "made meanwhile")
        await server.connect()
        whole = await server.take()
        assert merged(whole) == ["saved", "on its way", "made meanwhile"]
        await room.sync.flush(PATH)


async def test_a_request_that_times_out_is_sent_again(joined: Joined, server: Server) -> None:
    async with joined(request_timeout=0.05) as room:
        document = await opened(room, server)
        note(document, "slow")
        await server.fake.next()
        again = await server.take()
        assert merged(again) == ["slow"]
        await room.sync.flush(PATH)


async def test_a_server_that_failed_is_asked_again(joined: Joined, server: Server, until: Any) -> None:
    async with joined(clock=(clock := FakeClock())) as room:
        document = await opened(room, server)
        note(document, "stubborn")
        await server.refuse(RoomError("the store failed"), follows=False)
        await until(lambda: clock.sleepers)
        await clock.advance(sync.RETRY_DELAY)
        assert merged(await server.take()) == ["stubborn"]
        await room.sync.flush(PATH)


async def test_a_refused_edit_goes_back_to_the_servers_state(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        refused: list[RoomError] = []
        document.on("refused", refused.append)
        note(document, "forbidden")
        await server.refuse(AccessDeniedError("room.sync", PATH), follows=True)
        await server.state(EMPTY, replaces=True)
        with pytest.raises(AccessDeniedError, match=r"room.sync x.page"):
            await room.sync.flush(PATH)
        assert bodies(document) == []
        assert len(refused) == 1
        await room.sync.flush(PATH)


async def test_edits_made_on_the_corrected_document_are_sent(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        document.on("deleted", lambda _: note(document, "again"))
        note(document, "forbidden")
        await server.refuse(AccessDeniedError("room.sync", PATH), follows=True)
        await server.state(EMPTY, replaces=True)
        assert merged(await server.take()) == ["again"]
        with pytest.raises(AccessDeniedError):
            await room.sync.flush(PATH)


@pytest.mark.parametrize("follows", [True, False])
async def test_a_refusal_without_a_state_is_told_all_the_same(joined: Joined, server: Server, follows: bool) -> None:
    async with joined(request_timeout=0.5) as room:
        document = await opened(room, server)
        note(document, "x")
        await server.refuse(NotFoundError("no document"), follows=follows)
        with pytest.raises(NotFoundError):
            await room.sync.flush(PATH)


async def test_an_error_of_another_server_is_a_refusal(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        note(document, "x")
        await server.fake.answer(ErrorResponse(text="no", code=InvalidRequestError.code), "room.sync")
        with pytest.raises(InvalidRequestError, match="no"):
            await room.sync.flush(PATH)
        closing = asyncio.create_task(room.sync.close(path=PATH))
        await server.fake.answer(ErrorResponse(text="what?"), "room.disconnect")
        await closing


async def test_a_document_that_cannot_be_connected_again_refuses_its_edits(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        refused = asyncio.Event()
        document.on("refused", lambda _: refused.set())
        note(document, "lost")
        await server.fake.next()
        await server.lose()
        await server.fake.answer(ErrorResponse(text="gone", code=NotFoundError.code), "room.connect")
        await refused.wait()
        with pytest.raises(NotFoundError, match="gone"):
            await room.sync.flush(PATH)


async def test_a_server_that_fails_to_connect_is_asked_again(joined: Joined, server: Server, until: Any) -> None:
    async with joined(clock=(clock := FakeClock())) as room:
        document = await opened(room, server)
        await server.lose()
        await server.fake.answer(ErrorResponse(text="the store failed"), "room.connect")
        await until(lambda: clock.sleepers)
        await clock.advance(sync.RETRY_DELAY)
        await server.connect()
        await server.take()
        note(document, "x")
        assert merged(await server.take()) == ["x"]


async def test_a_closed_document_is_not_connected_again(joined: Joined, server: Server, until: Any) -> None:
    async with joined(clock=(clock := FakeClock())) as room:
        await opened(room, server)
        await server.lose()
        await server.fake.answer(ErrorResponse(text="the store failed"), "room.connect")
        await until(lambda: clock.sleepers)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(room.sync.close(path=PATH))
            await server.fake.answer(type="room.disconnect")
        await clock.advance(sync.RETRY_DELAY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(room.storage.exists(path="x"))
            await server.fake.answer(JsonResponse(json={"exists": False}), "storage.exists")


async def test_a_connection_lost_while_connecting_again_is_tried_once_more(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        await server.lose()
        assert (await server.fake.next()).type == "room.connect"
        await server.lose()
        await server.connect()
        await server.take()
        note(document, "x")
        assert merged(await server.take())[-1:] == ["x"]


async def test_a_room_that_ended_ends_the_wait(joined: Joined, server: Server) -> None:
    async with joined() as room:
        document = await opened(room, server)
        note(document, "lost")
        flushing = asyncio.create_task(room.sync.flush(PATH))
        await server.fake.next()
        await server.fake.far.close(4004)
        with pytest.raises(ConnectionLostError, match="before the document was saved"):
            await flushing
        with pytest.raises(ConnectionLostError):
            await room.sync.close(path=PATH)
