"""Sending to queues over REST: with keys and tokens, many messages at once, again, and into rooms that sleep."""

import asyncio
import io
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.edge.listener import EdgeLimits
from meshhost.errors import RoomError
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.frames import Limits
from meshhost.stores.queues import QueueKey, QueueLimits
from meshhost.testing.server import RunningServer

PATH = "/rooms/room/queues/jobs/messages"


class Sender:
    """Sends to a running server, and looks at what is stored there."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer) -> None:
        self.http = http
        self.server = server

    async def __call__(
        self, json: Any = None, *, path: str = PATH, bearer: str | None = None, data: Any = None, **headers: str
    ) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {bearer or self.server.api_key}"
        url = self.server.url + path
        async with self.http.post(url, json=json if data is None else None, data=data, headers=named) as response:
            return response.status, await response.json()

    async def stored(self) -> list[str]:
        jobs = QueueKey(RoomKey(TenantId(self.server.key.project_id), "room"), "jobs")
        found = await self.server.server.engines.queues.store.stored(jobs, after=0, limit=1000, max_bytes=10**9)
        return [message.body for message in found]


@pytest.fixture
async def send(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Sender:
    return Sender(http, await stack.enter_async_context(serve()))


async def test_a_message_is_stored_and_wakes_its_room(send: Sender) -> None:
    assert await send({"a": 1}) == (200, {"id": "1"})
    assert await send.stored() == ['{"a": 1}']
    directory = send.server.server.parts.directory
    async with send.server.client("room") as room:
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        assert leased.message == {"a": 1}
        await leased.ack()
        opened = directory.find(RoomKey(TenantId(send.server.key.project_id), "room"))
        assert opened is not None
        assert opened.is_awake


async def test_many_messages_are_stored_in_order(send: Sender) -> None:
    assert await send([1, 2]) == (200, {"ids": ["1", "2"]})
    assert await send(data=b"3\n4\n", Content_Type="application/x-ndjson") == (200, {"ids": ["3", "4"]})
    assert await send([5]) == (200, {"ids": ["5"]})
    assert await send.stored() == ["1", "2", "3", "4", "5"]


async def test_a_repeated_request_stores_each_message_once(send: Sender) -> None:
    for _ in range(2):
        assert await send([1, 2, 3], Idempotency_Key="k") == (200, {"ids": ["1", "2", "3"]})
        assert await send("x", Idempotency_Key="other") == (200, {"id": "4"})
    event = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "order", "data": 1}
    first = await send(event, Content_Type="application/cloudevents+json")
    binary = {f"ce-{name}": event[name] for name in ("specversion", "id", "source", "type")}
    assert await send(1, **binary) == first  # type: ignore[arg-type]
    assert len(await send.stored()) == 5


async def test_options_are_in_the_query(send: Sender) -> None:
    assert (await send(1, path=f"{PATH}?priority=1&token=unused"))[0] == 200
    assert (await send([2, 3], path=f"{PATH}?priority=5"))[0] == 200
    assert (await send(4, path=f"{PATH}?delay=3600"))[0] == 200
    status, answer = await send(5, path=f"{PATH}?delay=soon")
    assert (status, answer["error"].startswith("delay: ")) == (400, True)
    async with send.server.client("room") as room:
        found = [await room.queues.receive(name="jobs", wait=False) for _ in range(4)]
    assert found == [2, 3, 1, None]


async def test_of_many_messages_all_are_stored_or_none(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    limits = QueueLimits(max_message_bytes=100, max_depth=4)
    send = Sender(http, await stack.enter_async_context(serve(limits=limits, wire=Limits(message_bytes=5000))))
    status, answer = await send(["a", "b" * 200, "c"], Idempotency_Key="k")
    assert (status, "message of 204 bytes" in answer["error"]) == (413, True)
    status, answer = await send(["a", "b", "c"], Idempotency_Key="k")  # corrected, under the same key
    assert status == 200
    assert await send.stored() == ['"a"', '"b"', '"c"']
    status, answer = await send([4, 5])
    assert (status, "queue 'jobs' is full" in answer["error"]) == (429, True)
    assert await send.stored() == ['"a"', '"b"', '"c"']
    assert (await send(4))[0] == 200
    status, answer = await send(5)
    assert (status, "queue 'jobs' is full" in answer["error"]) == (429, True)
    status, answer = await send([0] * 1001)
    assert (status, answer["error"]) == (413, "1001 messages in one request, at most 1000 are taken")
    status, answer = await send("x" * 6000)
    assert (status, answer["error"]) == (413, "the body is too large: at most 5000 bytes are taken")

    async def chunks() -> Any:
        for _ in range(10):
            yield b"x" * 1000

    assert (await send(data=chunks()))[0] == 413


async def test_a_token_sends_where_its_grant_allows(send: Sender) -> None:
    mine = send.server.token("room", scope=ApiScope(queues=QueuesGrant(send=["jobs"])))
    assert (await send(1, bearer=mine))[0] == 200
    assert (await send(1, bearer=mine, path="/rooms/room/queues/mail/messages"))[0] == 403
    assert (await send(1, bearer=mine, path="/rooms/other/queues/jobs/messages"))[0] == 403
    assert (await send(1, bearer=send.server.token("room", scope=ApiScope())))[0] == 403
    assert (await send(1, bearer="ma-x"))[0] == 401


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", b"[" + b"[]," * 2_000_000 + b"0]"),
        ("application/cloudevents+json", b'{"data": [' + b"1," * 2_000_000 + b"0]}"),
        ("application/cloudevents-batch+json", b"[" + b'"",' * 2_000_000 + b"0]"),
        ("application/x-ndjson", b"1\n" * 2_000_000),
    ],
)
async def test_a_body_that_is_much_more_when_it_is_read_is_refused_unread(
    send: Sender, monkeypatch: pytest.MonkeyPatch, media: str, body: bytes
) -> None:
    monkeypatch.setattr("meshhost.server.http.triggers.messages.messages_in", None)
    status, answer = await send(data=io.BytesIO(body), Content_Type=media)
    assert (status, "too many parts" in answer["error"]) == (413, True)


async def test_a_long_text_and_many_messages_of_usual_form_are_taken(send: Sender) -> None:
    messages = [{f"field-{n}": n for n in range(100)} | {"text": "a, [b]: {c}" * 500}] * 500
    body = io.BytesIO(json.dumps(messages).encode())
    assert (await send(data=body, Content_Type="application/json"))[0] == 200


async def test_wrong_names_are_told(send: Sender) -> None:
    for path in ("/rooms/Room/queues/jobs/messages", f"/rooms/room/queues/{'x' * 201}/messages"):
        assert (await send(1, path=path))[0] == 400
    assert (await send(1, path="/rooms/room/queues/a%00b/messages"))[0] == 400
    assert (await send(data=b"{"))[0] == 400


async def test_a_body_that_does_not_arrive_is_given_up_and_one_without_room_waits(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    wire, edge = Limits(message_bytes=400_000), EdgeLimits(bytes_per_second=10_000_000)
    server = serve(wire=wire, edge=edge, message_seconds=1.0, max_in_flight_bytes=300_000, limits=QueueLimits())
    send = Sender(http, await stack.enter_async_context(server))

    reader, writer = await asyncio.open_connection("127.0.0.1", send.server.server.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {send.server.api_key}\r\nContent-Length: 200000\r\n\r\n"
    writer.write(head.encode() + b"x" * 100_000)
    await writer.drain()
    answer, second = await asyncio.gather(reader.readuntil(b"\r\n\r\n"), send(["y" * 300_000]))
    writer.write(b"x" * 100_000)  # it comes too late, and is read and dropped
    await writer.drain()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert second[0] == 200
    assert (await send(["z" * 390_000]))[0] == 413  # many are in memory, and more than may ever be in flight


async def test_one_large_message_goes_to_the_disk_as_it_comes_and_comes_back_whole(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    # Less may be in memory than the message has.
    server = await stack.enter_async_context(
        serve(max_in_flight_bytes=600_000, limits=QueueLimits(max_message_bytes=3_000_000))
    )
    send = Sender(http, server)
    text = b' {"a": "' + b"x" * 2_000_000 + b'"}'
    for _ in range(2):
        sent = await send(data=io.BytesIO(text), Content_Type="application/json", Idempotency_Key="k")
        assert sent == (200, {"id": "1"})
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with http.get(f"{server.url}{PATH}/1", headers=headers) as response:
        shown = await response.json()
    assert shown["message"] is None
    assert (shown["body"]["size"], len(shown["body"]["beginning"])) == (len(text), 500)
    async with http.get(f"{server.url}{PATH}/1/body", headers=headers) as response:
        assert response.content_length == len(text)
        assert await response.read() == text
    async with http.get(f"{server.url}{PATH}/1/result", headers=headers) as response:
        assert response.status == 404
    small = await send([1])
    async with http.get(f"{server.url}{PATH}/{small[1]['ids'][0]}/body", headers=headers) as response:
        assert await response.read() == b"1"


async def test_a_large_message_whose_end_cannot_be_read_breaks_its_answer_off_and_is_logged(
    send: Sender, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await send("x" * 400_000)
    bodies = send.server.server.engines.queues.bodies
    stream = bodies.stream

    async def broken(*args: Any) -> Any:
        async for piece in stream(*args):
            yield piece[:1000]
            raise RoomError("the disk is gone")

    monkeypatch.setattr(bodies, "stream", broken)
    headers = {"Authorization": f"Bearer {send.server.api_key}"}
    async with http.get(f"{send.server.url}{PATH}/1/body", headers=headers) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.getMessage(), record.room) == ("an answer was broken off", "room")  # type: ignore[attr-defined]


async def test_a_large_message_that_cannot_be_taken_is_refused_by_its_length(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession
) -> None:
    server = await stack.enter_async_context(serve(limits=QueueLimits(max_message_bytes=400_000)))
    send = Sender(http, server)
    status, answer = await send(data=b'"' + b"x" * 500_000 + b'"', Content_Type="application/json")
    assert (status, answer["error"]) == (413, "message of 500002 bytes, a queue takes at most 400000")
    status, answer = await send(data=b'"' + b"x" * 300_000, Content_Type="application/json")
    assert (status, answer["error"]) == (400, "message: expected JSON")
    # Many small ones may be larger together.
    assert await send(["x" * 200_000] * 3) == (200, {"ids": ["1", "2", "3"]})
    assert await send.stored() == [f'"{"x" * 200_000}"'] * 3
