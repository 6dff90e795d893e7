"""What a chat bot decides, shows and reads, without a room."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from meshhost.agents.chat import answer as chat_answer
from meshhost.agents.chat.answer import AnswerWriter, shown_toolkits
from meshhost.agents.chat.attachments import append_attachments
from meshhost.agents.chat.history import ends_with, load_history
from meshhost.agents.chat.log import ANSWER, ERROR, NOTICE, ThreadLog, clean_text, new_thread, text_of
from meshhost.agents.chat.policy import (
    DECISION_SCHEMA,
    LEFT_OUT,
    BusyPolicy,
    compact,
    decision_rules,
    judge,
    parse_request,
    size_of,
)
from meshhost.agents.chat.tools import ToolkitBuilder, make_toolkits
from meshhost.agents.context import AgentChatContext
from meshhost.agents.thread_schema import thread_schema
from meshhost.documents.document import MeshDocument
from meshhost.documents.schema import MeshSchema
from meshhost.errors import ConnectionLostError, InvalidRequestError, NotFoundError
from meshhost.protocol.messages import EmptyResponse, JsonResponse
from meshhost.testing.clock import FakeClock
from meshhost.tools.schema import check_value
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit


def make_log() -> ThreadLog:
    return ThreadLog(MeshDocument(schema=thread_schema, json=new_thread(members=["bot", "ann"])))


# Policies


@pytest.mark.parametrize(
    ("policy", "is_busy", "waiting", "verdict"),
    [
        ("queue", False, 0, "queue"),
        ("queue", True, 2, "queue"),
        ("queue", True, 3, "full"),
        ("interrupt", False, 0, "queue"),
        ("interrupt", True, 0, "interrupt"),
        ("interrupt", True, 3, "full"),
        ("reject", False, 0, "queue"),
        ("reject", True, 0, "busy"),
    ],
)
def test_a_message_is_judged(policy: BusyPolicy, is_busy: bool, waiting: int, verdict: str) -> None:
    assert judge(policy, is_busy=is_busy, waiting=waiting, max_waiting=3) == verdict


def test_a_message_is_read_with_all_it_has() -> None:
    message = {
        "path": "a.thread",
        "text": "hi",
        "attachments": [{"path": "f"}],
        "model": "m",
        "tools": [{"name": "t"}],
        "id": "1",
        "more": 1,
    }
    request = parse_request("chat", "p", message)
    assert (request.path, request.text, request.attachments, request.model) == ("a.thread", "hi", ("f",), "m")
    assert (request.tools, request.id, request.raw) == (({"name": "t"},), "1", message)
    assert parse_request("clear", "p", {"path": "a.thread", "text": 7}).text == ""
    assert parse_request("chat", "p", {"path": "a", "attachments": [{"path": "f"}]}).text == ""
    with pytest.raises(InvalidRequestError, match="JSON object"):
        parse_request("chat", "p", [])


def test_the_decision_is_asked_for_in_a_form_that_can_be_checked() -> None:
    check_value({"reasoning": "x", "expecting_assistant_reply": True}, DECISION_SCHEMA)
    assert "ann" in " ".join(decision_rules("bot", "ann", ["bot", "ann"]))


# Compaction


def conversation(*sizes: int, rules: bool = True) -> AgentChatContext:
    context = AgentChatContext()
    if rules:
        context.append_rules(["be kind"])
    for number, size in enumerate(sizes):
        context.append_user_message(f"{number}?" + "u" * size)
        context.messages.append({"type": "function_call", "call_id": str(number)})
        context.messages.append({"type": "function_call_output", "call_id": str(number)})
        context.append_assistant_message(f"{number}!")
    return context


def test_a_short_conversation_is_left_alone() -> None:
    context = conversation(10, 10)
    before = context.copy().messages
    assert compact(context, 100_000) == 0
    assert context.messages == before


def test_the_oldest_turns_go_first_and_the_rules_stay() -> None:
    context = conversation(500, 500, 10)
    assert compact(context, 900) == 2
    assert context.get_system_instructions() == "- be kind"
    assert [message.get("content", "tool") for message in context.conversation] == [
        LEFT_OUT,
        "2?" + "u" * 10,
        "tool",
        "tool",
        "2!",
    ]


def test_the_last_turn_stays_whatever_its_size_and_the_note_is_there_once() -> None:
    context = conversation(50, 5000)
    context.append_user_image("data:x")
    assert compact(context, 100) == 2
    assert context.conversation[0]["content"] == LEFT_OUT
    assert len(context.conversation) == 2
    assert compact(context, 100) == 0
    context.append_user_message("again")
    context.append_assistant_message("yes")
    context.append_user_message("u" * 500)
    assert compact(context, 100) == 1
    assert [message["content"] for message in context.conversation] == [LEFT_OUT, "u" * 500]


def test_what_a_gateway_keeps_is_not_ours_to_compact() -> None:
    context = conversation(50)
    context.track_response("r")
    context.append_user_message("u" * 500)
    assert compact(context, 100) == 0


@given(sizes=st.lists(st.integers(0, 400), max_size=8), limit=st.integers(50, 3000), rules=st.booleans())
def test_a_compacted_conversation_fits_or_is_one_turn_and_tool_calls_keep_their_results(
    sizes: list[int], limit: int, rules: bool
) -> None:
    context = conversation(*sizes, rules=rules)
    compact(context, limit)
    calls = [each["call_id"] for each in context.messages if each.get("type") == "function_call"]
    results = [each["call_id"] for each in context.messages if each.get("type") == "function_call_output"]
    assert calls == results == [str(number) for number in range(len(sizes))][len(sizes) - len(calls) :]
    assert size_of(context.messages) <= limit or len(calls) <= 1
    assert (context.get_system_instructions() is not None) == rules


# The answer in the thread


def make_writer(log: ThreadLog, clock: FakeClock | None = None) -> AnswerWriter:
    return AnswerWriter(log=log, author="bot", writer_id="p", clock=clock or FakeClock())


def delta(text: str, item: str | None = "i") -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": item, "content_index": 0, "delta": text}


async def test_a_growing_text_is_written_twenty_times_a_second_and_a_long_one_less_often() -> None:
    log, clock = make_log(), FakeClock()
    writer = make_writer(log, clock)
    updates: list[str] = []
    log.document.on("updated", lambda element, name: updates.append(text_of(element)))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        for number in range(100):  # one second
            writer.on_event(delta(f"{number} "))
            await clock.advance(0.01)
        assert 18 <= len(updates) <= 22
        writer.on_event(delta("x" * chat_answer.CHARS_PER_SECOND))
        await clock.advance(0.1)
        updates.clear()
        for _ in range(200):
            writer.on_event(delta("y"))
            await clock.advance(0.01)
        assert 1 <= len(updates) <= 3
        running.cancel()
    writer.end()
    assert text_of(log.messages()[0]).startswith("0 1 2 ")
    assert text_of(log.messages()[0]).endswith("y" * 200)
    assert log.messages()[0].get_attribute("author_ref") == ANSWER


async def test_items_are_messages_of_their_own_and_the_last_text_counts() -> None:
    log = make_log()
    writer = make_writer(log)
    writer.on_event(delta("let me", "a"))
    writer.on_event({"type": "response.output_text.done", "item_id": "a", "content_index": 0, "text": "Let me see."})
    assert writer.unsettled_text == "Let me see."
    writer.on_event({"type": "response.completed"})
    assert writer.unsettled_text == ""
    writer.on_event(delta("thr", "b"))
    writer.on_event({"type": "meshhost.turn.retried"})
    writer.on_event(delta("three\ud800", "c"))
    writer.end("(cut)")
    assert [text_of(message) for message in log.messages()] == ["Let me see.", "three\ufffd\n\n(cut)"]


async def test_what_was_deleted_meanwhile_is_let_go() -> None:
    log = make_log()
    writer = make_writer(log)
    writer.on_event(delta("a"))
    log.clear()
    writer.on_event(delta("b"))
    writer.on_event({"type": "meshhost.turn.retried"})
    writer.on_event(delta("c"))
    log.clear()
    writer.end()
    assert log.messages() == []


async def test_a_note_alone_is_an_answer_too() -> None:
    log = make_log()
    make_writer(log).end("(cancelled)")
    assert [text_of(message) for message in log.messages()] == ["(cancelled)"]
    make_writer(log).end()
    assert len(log.messages()) == 1


class Say(Tool):
    def __init__(self, answer: Any) -> None:
        super().__init__(name="say", input_schema={"type": "object", "properties": {}})
        self.answer = answer

    async def execute(self, *, context: ToolContext) -> Any:
        return self.answer


async def use(toolkit: Toolkit) -> Any:
    context: Any = SimpleNamespace()
    return await toolkit.execute(context=context, name="say", arguments={})


async def test_results_of_tools_are_shown_in_short() -> None:
    log = make_log()
    for answer in ({"a": 1}, None):
        await use(shown_toolkits([Toolkit(name="t", tools=[Say(answer)])], log)[0])
    [_, messages] = log.document.root.get_children()
    runs = messages.get_children_by_tag_name("exec")  # type: ignore[union-attr]
    assert [run["result"] for run in runs] == ['{"a": 1}', "empty"]


async def test_a_tool_works_in_a_room_whose_schema_shows_none_and_when_its_element_goes() -> None:
    json = thread_schema.to_json()
    del json["$defs"]["exec"]
    items = json["$defs"]["messages"]["properties"]["messages"]["properties"]["items"]["items"]
    items["anyOf"] = [each for each in items["anyOf"] if not each["$ref"].endswith("exec")]
    log = ThreadLog(MeshDocument(schema=MeshSchema.from_json(json), json=new_thread(members=[])))
    [shown] = shown_toolkits([Toolkit(name="t", tools=[Say({"a": 1})])], log)
    assert await use(shown) == JsonResponse(json={"a": 1})

    log = make_log()

    class Clearing(Say):
        async def execute(self, *, context: ToolContext) -> Any:
            log.clear()

    assert await use(shown_toolkits([Toolkit(name="t", tools=[Clearing(None)])], log)[0]) == EmptyResponse()


# The thread as a text


def test_a_log_of_nothing_is_empty_and_clearing_it_does_nothing() -> None:
    log = ThreadLog(MeshDocument(schema=thread_schema))
    log.clear()
    assert (log.is_ready, log.members(), log.messages(), repr(log)) == (False, [], [], "<ThreadLog messages=0>")
    log.add_members(["ann", "bob", "ann"])
    assert log.members() == ["ann", "bob"]


def test_an_unfinished_answer_is_marked_once() -> None:
    log = make_log()
    log.add("", author="bot", ref="meshhost:answering:gone")
    log.add("of another", author="eve", ref="meshhost:answering:gone")
    assert log.interrupt_unfinished("bot", []) == 1
    assert log.interrupt_unfinished("bot", []) == 0
    assert [text_of(message) for message in log.messages()] == ["(interrupted)", "of another"]


@given(st.text(st.characters(), max_size=20) | st.sampled_from(["\ud800", "\ud83d\ude00", "a\udc00b"]))
def test_any_text_can_be_kept(text: str) -> None:
    log = make_log()
    assert text_of(log.add(text, author="ann")) == clean_text(text)
    clean_text(text).encode()  # raises for a text that is none


def test_history_is_the_end_of_a_long_thread_without_notices() -> None:
    log, chat = make_log(), AgentChatContext()
    log.add("long " * 100, author="ann")
    log.add("hi", author="ann", attachments=["f"])
    log.add("broken", author="bot", ref=ERROR)
    log.add("shortened", author="bot", ref=NOTICE)
    log.add("hello", author="bot")
    load_history(chat, log.document, own="bot", max_chars=100)
    assert [message["content"] for message in chat.messages] == [
        LEFT_OUT,
        "hi",
        "[A file is attached: 'f']",
        "hello",
    ]


def test_heard_is_what_a_user_said_last() -> None:
    chat = AgentChatContext()
    assert not ends_with(chat, "hi")
    chat.append_user_message("hi")
    chat.append_user_message("[A file is attached: 'f']")
    assert ends_with(chat, "hi")
    chat.append_assistant_message("hello")
    assert not ends_with(chat, "hi")


# Attachments


def room_with(files: dict[str, Any]) -> Any:
    async def download(*, path: str) -> Any:
        if isinstance(files[path], Exception):
            raise files[path]
        return SimpleNamespace(data=files[path])

    return SimpleNamespace(storage=SimpleNamespace(download=download))


async def shown(files: dict[str, Any], **limits: int) -> list[Any]:
    chat = AgentChatContext()
    await append_attachments(room_with(files), chat, list(files), **limits)
    return [message["content"] for message in chat.messages]


async def test_texts_are_inlined_up_to_a_limit() -> None:
    first, second = await shown({"a": b"abcdefg", "b": b"xyz"}, max_text_chars=5)
    assert first == "[The attached file 'a':]\nabcde\n[The rest is left out: 7 characters in all.]"
    assert second == "[The attached file 'b':]\n\n[The rest is left out: 3 characters in all.]"


async def test_a_large_image_or_a_binary_file_is_only_named() -> None:
    files = {"a.jpg": b"\xff\xd8\xff123", "b": b"a\x00b", "c": NotFoundError("no file 'c'")}
    assert await shown(files, max_image_bytes=5) == [
        "[A file is attached: 'a.jpg', 6 bytes]",
        "[A file is attached: 'b', 3 bytes]",
        "[The attached file 'c' cannot be read: no file 'c']",
    ]


async def test_a_lost_connection_is_no_property_of_a_file() -> None:
    with pytest.raises(ConnectionLostError):
        await shown({"a": ConnectionLostError()})


# Toolkits by name


class Config(BaseModel):
    name: str
    size: int


async def test_toolkits_are_made_as_the_message_says() -> None:
    builder = ToolkitBuilder(name="t", type=Config)
    with pytest.raises(NotImplementedError):
        await make_toolkits([builder], [{"name": "t", "size": 1}], model="m")
    made = Toolkit(name="made", tools=[])
    builder.make = AsyncMock(return_value=made)  # type: ignore[method-assign]
    assert await make_toolkits([builder], [{"name": "t", "size": 1}], model="m") == [made]
    builder.make.assert_awaited_once_with(model="m", config=Config(name="t", size=1))
    with pytest.raises(InvalidRequestError, match=r"tools\.t\.size: "):
        await make_toolkits([builder], [{"name": "t"}], model="m")
    with pytest.raises(InvalidRequestError, match="there are: none"):
        await make_toolkits([], [{"name": "t"}], model="m")
