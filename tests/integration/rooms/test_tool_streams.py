"""Tools of participants whose contents stream, and streams of messages, on the wire of SDK 0.56."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from doubles.newer_client import Got, NewerClient, newer_client

from meshhost.errors import RoomError
from meshhost.identity.grants import AgentsGrant, ApiScope, MessagingGrant
from meshhost.protocol import contents
from meshhost.protocol.frames import Limits
from meshhost.server.services.agents import tool_streams
from meshhost.server.services.agents.service import AgentsService
from meshhost.testing.server import RunningServer

CLOSE = contents.close()


def text(what: str) -> dict[str, Any]:
    return {"type": "text", "text": what}


@pytest.fixture
async def caller(server: RunningServer) -> AsyncIterator[NewerClient]:
    async with newer_client(server, name="caller") as client:
        yield client


@pytest.fixture
async def provider(server: RunningServer) -> AsyncIterator[NewerClient]:
    async with newer_client(server, name="provider", role="agent") as client:
        await client.offer("kit", "tool")
        yield client


async def request_chunks(provider: NewerClient, count: int, toolkit: str = "kit") -> list[Any]:
    return [(await provider.next(f"room.tool_call_request_chunk.{toolkit}")).header["chunk"] for _ in range(count)]


async def chunks(caller: NewerClient, call: str, count: int) -> list[Any]:
    return [(await caller.next(call)).header["chunk"] for _ in range(count)]


def streams_in(server: RunningServer) -> int:
    agents = server.server.parts.services.find(AgentsService)
    return sum(len(agents.in_room(room).streams) for room in server.server.parts.directory.rooms)


async def test_contents_stream_in_and_out(caller: NewerClient, provider: NewerClient) -> None:
    reply = await caller.opened("kit", "tool", "c")
    await caller.add("c", contents.json_content({"n": 1}))
    await caller.add("c", contents.binary(kind="x"), b"bytes")
    call = await provider.next("room.tool_call.kit")
    assert call.header["arguments"] == contents.OPEN
    assert call.header["tool_call_id"] != "c"  # nobody can guess it
    assert call.header["caller_id"] == caller.id
    assert await request_chunks(provider, 1) == [{"type": "json", "json": {"n": 1}}]
    chunk = await provider.next("room.tool_call_request_chunk.kit")
    assert (chunk.header["chunk"], chunk.payload) == ({"type": "binary", "headers": {"kind": "x"}}, b"bytes")
    assert chunk.header["tool_call_id"] == call.header["tool_call_id"]

    await provider.answer(call, contents.OPEN)
    await provider.answer_more(call, text("a"))
    await provider.answer_more(call, contents.binary(n=1), b"more")
    assert contents.is_open((await caller.next(reply)).header)
    assert await chunks(caller, "c", 1) == [text("a")]
    assert (await caller.next("c")).payload == b"more"
    await caller.add("c", CLOSE)
    assert await request_chunks(provider, 1) == [CLOSE]
    await provider.answer_more(call, CLOSE)
    assert await chunks(caller, "c", 1) == [CLOSE]


async def test_a_stream_of_arguments_has_one_answer(caller: NewerClient, provider: NewerClient) -> None:
    reply = await caller.opened("kit", "tool", "c")
    await caller.add("c", text("a"))
    await caller.add("c", CLOSE)
    call = await provider.next("room.tool_call.kit")
    assert await request_chunks(provider, 2) == [text("a"), CLOSE]
    await provider.answer(call, contents.json_content({"heard": 1}))
    assert (await caller.next(reply)).header["json"] == {"heard": 1}


@pytest.mark.parametrize(
    ("content", "payload"),
    [
        (text("hello"), b""),
        ({"type": "file", "name": "a.bin", "mime_type": "application/x"}, b"\x00\x01"),
        ({"type": "link", "name": "a", "url": "http://example.org"}, b""),
        ({"type": "empty"}, b""),
        (contents.json_content([1, 2]), b""),
        (contents.binary(kind="x"), b"bytes"),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else "",
)
async def test_any_content_goes_there_and_back(
    caller: NewerClient, provider: NewerClient, content: dict[str, Any], payload: bytes
) -> None:
    reply = await caller.invoke("kit", "tool", content, payload=payload, call="c")
    call = await provider.next("room.tool_call.kit")
    assert (call.header["arguments"], call.payload) == (content, payload)
    await provider.answer(call, content, payload)
    got = await caller.next(reply)
    assert ({name: got.header[name] for name in content}, got.payload) == (content, payload)


async def test_chunks_may_come_before_the_tool_is_there(caller: NewerClient, server: RunningServer) -> None:
    reply = await caller.opened("nothing", "tool", "c")
    await caller.add("c", text("a"))
    assert "no toolkit 'nothing'" in (await caller.next(reply)).header["text"]
    assert (await caller.next(await caller.add("c", text("b")))).header["type"] == "empty"
    assert streams_in(server) == 0


async def test_the_providers_end_ends_the_callers_stream(server: RunningServer, caller: NewerClient) -> None:
    async with newer_client(server, name="provider", role="agent") as provider:
        await provider.offer("kit", "tool")
        reply = await caller.opened("kit", "tool", "c")
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await caller.next(reply)
    [end] = await chunks(caller, "c", 1)
    assert (end["status_code"], end["message"]) == (1007, tool_streams.LEFT)
    assert streams_in(server) == 0


async def test_the_providers_end_before_its_answer_is_an_error(server: RunningServer, caller: NewerClient) -> None:
    async with newer_client(server, name="provider", role="agent") as provider:
        await provider.offer("kit", "tool")
        reply = await caller.opened("kit", "tool", "c")
        await provider.next("room.tool_call.kit")
    assert "has left the room" in (await caller.next(reply)).header["text"]


async def test_the_callers_end_closes_what_the_provider_reads(server: RunningServer, provider: NewerClient) -> None:
    async with newer_client(server, name="caller") as caller:
        reply = await caller.opened("kit", "tool", "c")
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await caller.next(reply)
    [end] = await request_chunks(provider, 1)
    assert contents.closes(end)
    await provider.answer_more(call, text("to nobody"))  # which must not hurt
    await provider.offer("other", "tool")
    assert streams_in(server) == 0


async def test_an_answer_that_streams_needs_a_caller_who_takes_it(server: RunningServer, provider: NewerClient) -> None:
    async with server.client(name="ours") as ours:
        asking = asyncio.create_task(ours.agents.invoke_tool(toolkit="kit", tool="tool", arguments={}))
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await provider.answer_more(call, text("a"))
        with pytest.raises(RoomError, match="answers with a stream"):
            await asking


async def test_contents_go_to_clients_that_take_them_only(server: RunningServer, caller: NewerClient) -> None:
    async with newer_client(server, is_javascript=True, name="js", role="agent") as js:
        await js.offer("kit", "tool")
        for arguments in (contents.OPEN, text("x")):
            refused = await caller.answer_of("kit", "tool", arguments, call="c")
            assert (refused.header["code"], refused.header["text"]) == (
                1002,
                "arguments: tool 'tool' of toolkit 'kit' takes a JSON object",
            )
        reply = await caller.invoke("kit", "tool", {"type": "empty"}, call="c")
        call = await js.next("room.tool_call.kit")
        assert call.header["arguments"] == {"type": "json", "json": {}}
        await js.answer(call, text("ok"))
        assert (await caller.next(reply)).header["text"] == "ok"


async def test_a_caller_in_javascript_gets_every_chunk_of_its_answered(
    server: RunningServer, provider: NewerClient
) -> None:
    async with newer_client(server, is_javascript=True, name="js") as js:
        reply = await js.opened("kit", "tool", "17-ab")
        first = await js.add("17-ab", text("a"))
        call = await provider.next("room.tool_call.kit")
        assert (await js.next(first)).header["type"] == "empty"
        await provider.answer(call, contents.OPEN)
        await provider.answer_more(call, text("b"))
        await provider.answer_more(call, CLOSE)
        assert contents.is_open((await js.next(reply)).header)
        assert await chunks(js, "17-ab", 2) == [text("b"), CLOSE]
        assert (await js.next(await js.add("17-ab", CLOSE))).header["type"] == "empty"


async def test_events_of_a_tool_come_before_its_answer(caller: NewerClient, provider: NewerClient) -> None:
    reply = await caller.invoke("kit", "tool", {"type": "empty"}, call="c")
    call = await provider.next("room.tool_call.kit")
    await provider.answer_more(call, {"progress": 1})
    assert await chunks(caller, "c", 1) == [{"progress": 1}]
    await provider.answer(call, text("done"))
    assert (await caller.next(reply)).header["text"] == "done"


async def test_the_id_of_a_call_is_used_once(caller: NewerClient, provider: NewerClient) -> None:
    await caller.opened("kit", "tool", "c")
    await provider.next("room.tool_call.kit")
    refused = await caller.answer_of("kit", "tool", contents.OPEN, call="c")
    assert "tool_call_id" in refused.header["text"]
    await caller.opened("storage", "upload", "u")
    refused = await caller.answer_of("kit", "tool", contents.OPEN, call="u")
    assert "tool_call_id" in refused.header["text"]


async def test_nobody_adds_to_the_streams_of_others(
    server: RunningServer, caller: NewerClient, provider: NewerClient
) -> None:
    async with newer_client(server, name="thief") as thief:
        reply = await caller.opened("kit", "tool", "c")
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await caller.next(reply)
        assert (await thief.next(await thief.add("c", text("forged")))).header["type"] == "empty"
        await thief.answer_more(call, text("forged"))
        await thief.offer("thiefs", "tool")
        await caller.add("c", text("mine"))
        assert await request_chunks(provider, 1) == [text("mine")]
        await provider.answer_more(call, text("yours"))
        assert await chunks(caller, "c", 1) == [text("yours")]


async def test_the_streams_of_a_connection_are_bounded(
    caller: NewerClient, provider: NewerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_streams, "MAX_STREAMS", 1)
    await caller.opened("kit", "tool", "a")
    await provider.next("room.tool_call.kit")
    assert "streams are open" in (await caller.answer_of("kit", "tool", contents.OPEN, call="b")).header["text"]
    reply = await caller.invoke("kit", "tool", {"type": "empty"}, call="c")
    await provider.answer(await provider.next("room.tool_call.kit"), contents.OPEN)
    assert "streams are open" in (await caller.next(reply)).header["text"]


async def test_a_provider_that_sends_nothing_more_ends_its_stream(serve: Any) -> None:
    async with serve(call_seconds=0.2) as server, AsyncExitStack() as stack:
        caller = await stack.enter_async_context(newer_client(server, name="caller"))
        provider = await stack.enter_async_context(newer_client(server, name="provider", role="agent"))
        await provider.offer("kit", "tool")
        reply = await caller.invoke("kit", "tool", {"type": "empty"}, call="c")
        await provider.answer(await provider.next("room.tool_call.kit"), contents.OPEN)
        assert contents.is_open((await caller.next(reply)).header)
        [end] = await chunks(caller, "c", 1)
        assert "idle" in end["message"]


async def test_a_provider_has_time_as_long_as_its_input_comes(serve: Any) -> None:
    async with serve(call_seconds=0.4) as server, AsyncExitStack() as stack:
        caller = await stack.enter_async_context(newer_client(server, name="caller"))
        provider = await stack.enter_async_context(newer_client(server, name="provider", role="agent"))
        await provider.offer("kit", "tool")
        reply = await caller.opened("kit", "tool", "c")
        call = await provider.next("room.tool_call.kit")
        for _ in range(6):
            await asyncio.sleep(0.1)
            await caller.add("c", text("more"))
        await request_chunks(provider, 6)
        await provider.answer(call, text("in time"))
        assert (await caller.next(reply)).header["text"] == "in time"
        reply = await caller.opened("kit", "tool", "d")
        assert (await caller.next(reply)).header["code"] == 1009


async def test_a_chunk_that_cannot_be_read_ends_its_stream(serve: Any) -> None:
    async with serve(wire=Limits(message_bytes=100_000)) as server, AsyncExitStack() as stack:
        caller = await stack.enter_async_context(newer_client(server, name="caller"))
        provider = await stack.enter_async_context(newer_client(server, name="provider", role="agent"))
        await provider.offer("kit", "tool")
        reply = await caller.opened("kit", "tool", "c")
        await provider.answer(await provider.next("room.tool_call.kit"), contents.OPEN)
        await caller.next(reply)
        refused = await caller.next(await caller.add("c", text("a"), b"x" * 200_000))
        assert refused.header["type"] == "error"
        [end] = await chunks(caller, "c", 1)
        assert "a chunk could not be read" in end["message"]
        [told] = await request_chunks(provider, 1)
        assert told["status_code"] == 1007

        reply = await caller.invoke("kit", "tool", {"type": "empty"}, call="d")
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await caller.next(reply)
        await provider.answer_more(call, text("a"), b"x" * 200_000)
        [end] = await chunks(caller, "d", 1)
        assert "a chunk could not be read" in end["message"]


async def test_a_chunk_that_is_no_content_ends_its_stream(caller: NewerClient, provider: NewerClient) -> None:
    for sender in (caller, provider):
        call = f"of {sender.id}"
        reply = await caller.opened("kit", "tool", call)
        asked = await provider.next("room.tool_call.kit")
        await provider.answer(asked, contents.OPEN)
        await caller.next(reply)
        await (caller.add(call, "nonsense") if sender is caller else provider.answer_more(asked, [1]))
        [end] = await chunks(caller, call, 1)
        assert end["message"] == "chunk: expected a content"
        assert contents.closes((await request_chunks(provider, 1))[0])


async def test_a_stream_that_fails_before_its_tool_is_asked_is_answered(
    server: RunningServer, caller: NewerClient
) -> None:
    agents = server.server.parts.services.find(AgentsService)
    coming = True
    agents._is_coming = lambda *_: coming  # as if a configured service were on its way
    reply = await caller.opened("late", "tool", "c")
    await caller.add("c", "nonsense")
    async with newer_client(server, name="late", role="agent") as provider:
        await provider.offer("late", "tool")
        assert (await caller.next(reply)).header["text"] == "chunk: expected a content"
        assert contents.closes((await request_chunks(provider, 1, "late"))[0])


async def test_a_caller_that_takes_nothing_stops_its_provider_and_no_other(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_streams, "STALL_SECONDS", 1.0)
    async with serve(max_waiting_bytes=300_000) as server, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(newer_client(server, name="slow"))
        quick = await stack.enter_async_context(newer_client(server, name="quick"))
        provider = await stack.enter_async_context(newer_client(server, name="provider", role="agent"))
        await provider.offer("kit", "tool")
        reply = await slow.invoke("kit", "tool", {"type": "empty"}, call="c")
        call = await provider.next("room.tool_call.kit")
        await provider.answer(call, contents.OPEN)
        await slow.next(reply)
        transport = slow.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        sending = asyncio.create_task(_send_much(provider, call))
        # The provider's connection is read again when the stream has ended.
        reply = await quick.invoke("kit", "tool", {"type": "empty"}, call="q")
        other = await provider.next("room.tool_call.kit")
        await sending
        await provider.answer(other, text("still here"))
        assert (await quick.next(reply)).header["text"] == "still here"
        transport.resume_reading()
        while not contents.closes(chunk := (await slow.next("c")).header["chunk"]):
            pass
        assert "took no chunk" in chunk["message"]


async def _send_much(provider: NewerClient, call: Got) -> None:
    for _ in range(400):
        await provider.answer_more(call, contents.binary(), bytes(100_000))


# ---- streams of messages ----------------------------------------------------------------------------------------------


def first_to(addressee: str, **more: Any) -> dict[str, Any]:
    message = {"to_participant_id": addressee, "type": "t", "message_json": '{"n": 1}', "attachment_base64": None}
    return contents.json_content(message | more)


async def test_two_participants_stream_messages(caller: NewerClient, provider: NewerClient) -> None:
    reply = await caller.opened("messaging", "stream", "m")
    await caller.add("m", first_to(provider.id))
    call = await provider.next("room.tool_call.messaging")
    assert (call.header["name"], call.header["arguments"], call.header["caller_id"]) == (
        "stream",
        contents.OPEN,
        caller.id,
    )
    [first] = await request_chunks(provider, 1, "messaging")
    assert first["json"]["from_participant_id"] == caller.id
    assert first["json"]["message_json"] == '{"n": 1}'
    await provider.answer(call, contents.OPEN)
    await provider.answer_more(call, contents.json_content({"kind": "message", "type": "r", "message": {}}))
    assert contents.is_open((await caller.next(reply)).header)
    accepted, answer = await chunks(caller, "m", 2)
    assert accepted["json"] == {"kind": "accepted", "stream_id": call.header["tool_call_id"]}
    assert answer["json"]["kind"] == "message"
    await caller.add("m", contents.json_content({"type": "t", "message_json": "{}"}))
    assert len(await request_chunks(provider, 1, "messaging")) == 1
    await caller.add("m", CLOSE)
    assert await request_chunks(provider, 1, "messaging") == [CLOSE]
    assert await chunks(caller, "m", 1) == [CLOSE]


async def test_a_stream_of_messages_may_be_refused(caller: NewerClient, provider: NewerClient) -> None:
    reply = await caller.opened("messaging", "stream", "m")
    await caller.add("m", first_to(provider.id))
    call = await provider.next("room.tool_call.messaging")
    await provider.answer(call, contents.error("not now"))
    assert (await caller.next(reply)).header["text"] == "not now"


async def test_the_addressees_end_is_told(server: RunningServer, caller: NewerClient) -> None:
    async with newer_client(server, name="other") as other:
        reply = await caller.opened("messaging", "stream", "m")
        await caller.add("m", first_to(other.id))
        await other.answer(await other.next("room.tool_call.messaging"), contents.OPEN)
        await caller.next(reply)
        await caller.next("m")
        gone = other.id
    left, closed, end = await chunks(caller, "m", 3)
    assert left["json"] == {"kind": "client_disconnected", "participant_id": gone}
    assert (closed["json"]["kind"], end) == ("closed", CLOSE)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (first_to("nobody"), "no participant 'nobody'"),
        (first_to("nobody", type="messaging.x"), "the room server's own"),
        (first_to("nobody", type=3), "chunk.json.type"),
        (contents.json_content([1]), "chunk.json"),
        (text("hello"), "expected JSON content"),
        (CLOSE, "closed before its first chunk"),
    ],
)
async def test_a_wrong_first_message_is_refused(caller: NewerClient, first: dict[str, Any], why: str) -> None:
    reply = await caller.opened("messaging", "stream", "m")
    await caller.add("m", first)
    assert why in (await caller.next(reply)).header["text"]


async def test_an_addressee_of_another_generation_is_named(server: RunningServer, caller: NewerClient) -> None:
    async with server.client(name="ours") as ours:
        assert ours.local_participant is not None
        reply = await caller.opened("messaging", "stream", "m")
        await caller.add("m", first_to(ours.local_participant.id))
        assert "takes no streams of messages" in (await caller.next(reply)).header["text"]


# ---- who may -----------------------------------------------------------------------------------------------------------


async def test_who_may_only_ask_agents_sees_and_asks_them_only(server: RunningServer, provider: NewerClient) -> None:
    await provider.offer("greeter", "run_greeter_task", public=False)
    only_agents = ApiScope(agents=AgentsGrant(use_tools=False), messaging=MessagingGrant())
    async with newer_client(server, name="asker", scope=only_agents) as asker:
        assert (await asker.ask("room.list_toolkits", {})).header["json"] == {"tools": {}}
        listed = (await asker.ask("room.list_toolkits", {"participant_name": "provider"})).header["json"]["tools"]
        assert {name: card["participant_id"] for name, card in listed.items()} == {"greeter": provider.id}
        reply = await asker.invoke(
            "greeter", "run_greeter_task", contents.json_content({}), call="c", participant_id=provider.id
        )
        await provider.answer(await provider.next("room.tool_call.greeter"), text("hello"))
        assert (await asker.next(reply)).header["text"] == "hello"
        assert (await asker.answer_of("kit", "tool", {})).header["code"] == 1001
        # A toolkit that looks like an agent by its name only.
        assert (await asker.answer_of("kit", "run_kit_task", {})).header["code"] == 1003


async def test_who_may_not_ask_agents_does_not_by_a_tool(server: RunningServer, provider: NewerClient) -> None:
    await provider.offer("greeter", "run_greeter_task", public=False)
    no_agents = ApiScope(agents=AgentsGrant(use_agents=False))
    async with newer_client(server, name="asker", scope=no_agents) as asker:
        refused = await asker.answer_of("greeter", "run_greeter_task", {}, participant_id=provider.id)
        assert refused.header["code"] == 1003
