"""A chat bot in a real room: what people who talk with it see in the thread and are told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from doubles.ports import free_port
from pydantic import BaseModel

from meshhost.agents.chat import ChatBot, ChatThreadContext
from meshhost.agents.chat.log import ANSWER, ANSWERING, ERROR, NOTICE, ThreadLog, new_thread, text_of
from meshhost.agents.chat.policy import LEFT_OUT, REFUSED
from meshhost.agents.chat.thread import ChatThread
from meshhost.agents.chat.tools import ToolkitBuilder
from meshhost.agents.context import AgentChatContext
from meshhost.agents.thread_schema import SCHEMA_PATH, ensure_thread_schema, thread_schema
from meshhost.app.config_file import ServerFile
from meshhost.documents.document import MeshDocument
from meshhost.errors import AccessDeniedError, AlreadyExistsError, LLMError, LLMRefusalError, RoomError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope, SyncGrant, SyncPathGrant
from meshhost.openai.tools import OpenAIResponsesAdapter
from meshhost.room.client import RoomClient
from meshhost.room.participants import Participant
from meshhost.testing.scripted_llm import ScriptedCall, ScriptedLLM, wait_until
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

PATH = "talks/a.thread"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


class Person:
    """Somebody who talks in threads."""

    def __init__(self, room: RoomClient) -> None:
        self.room = room
        self.name = str(room.local_participant.get_attribute("name"))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()
        room.messaging.on("message", self._on_message)
        room.messaging.on("participant_added", self.on_change)

    def _on_message(self, message: Any) -> None:
        self.told.append((message.type, message.message))
        self._news.set()

    def on_change(self, *_: Any, **__: Any) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """What `condition` gives as soon as it is true, looked at with every message and every change of a thread."""
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                self._news.clear()
                await self._news.wait()
        return found

    async def thread(self, path: str = PATH, members: tuple[str, ...] = ("bot", "ann")) -> ThreadLog:
        """The thread, made if it is not there."""
        if not await self.room.storage.exists(path=SCHEMA_PATH):
            await ensure_thread_schema(self.room)
        with suppress(AlreadyExistsError):
            await self.room.sync.create(path=path, json=new_thread(members=members))
        return ThreadLog(await self.watch(path))

    async def watch(self, path: str) -> MeshDocument:
        document = await self.room.sync.open(path=path, create=False)
        for event in ("inserted", "updated", "deleted"):
            document.on(event, self.on_change)
        return document

    def bot(self, name: str = "bot") -> Participant:
        return next(each for each in self.room.messaging.remote_participants if each.get_attribute("name") == name)

    async def tell(self, type: str, to: str = "bot", **message: Any) -> None:
        await self.room.messaging.send_message(to=self.bot(to), type=type, message=message)

    async def say(self, log: ThreadLog, text: str, path: str = PATH, **more: Any) -> None:
        """Write into the thread and tell the bot, as clients do."""
        log.add(text, author=self.name)
        await self.room.sync.flush(path)
        await self.tell("chat", path=path, text=text, **more)

    async def answered(self, path: str = PATH, times: int = 1) -> None:
        """The bot has ended so many answers."""
        await self.until(lambda: len([1 for each in self.told if is_end(each, path)]) >= times)

    async def ask(self, log: ThreadLog, text: str, path: str = PATH, **more: Any) -> str:
        """Say something; the text of the message that comes last."""
        before = len([1 for each in self.told if is_end(each, path)])
        await self.say(log, text, path, **more)
        await self.answered(path, before + 1)
        return texts(log)[-1]

    async def refused(self) -> str:
        """What the bot says cannot be done."""
        return str(
            await self.until(lambda: next((m["text"] for t, m in self.told if t == "chat" and m.get("error")), None))
        )


async def reached(condition: Callable[[], bool]) -> None:
    """Return when the bot has come so far."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


def is_end(told: tuple[str, dict[str, Any]], path: str) -> bool:
    return told[0] == "thinking" and not told[1]["thinking"] and told[1]["path"] == path


def texts(log: ThreadLog) -> list[str]:
    return [text_of(message) for message in log.messages()]


def refs(log: ThreadLog) -> list[str | None]:
    return [message.get_attribute("author_ref") for message in log.messages()]


def tags(log: ThreadLog) -> list[str]:
    [_, messages] = log.document.to_json()["thread"]["properties"]
    return [tag for item in messages["messages"]["items"] for tag in item]


def heard(call: Any) -> list[Any]:
    """The conversation of a call, without roles and rules."""
    return [message["content"] for message in call.context.conversation]


@asynccontextmanager
async def chatting(
    server: RunningServer, *bots: ChatBot, people: tuple[str, ...] = ("ann",), scope: ApiScope | None = None
) -> AsyncIterator[Any]:
    """These bots at work; gives the people, or the one."""
    async with AsyncExitStack() as stack:
        for bot in bots:
            room = await stack.enter_async_context(server.client("room", name=bot.name, role="agent", scope=scope))
            await bot.start(room=room)
            stack.push_async_callback(bot.stop)
        present = []
        for name in people:
            room = await stack.enter_async_context(server.client("room", name=name))
            await room.messaging.enable()
            present.append(Person(room))
        yield present[0] if len(present) == 1 else present


def make_bot(*script: Any, cls: type[ChatBot] = ChatBot, **options: Any) -> ChatBot:
    return cls(**{"name": "bot", "llm_adapter": ScriptedLLM(script), "echo_seconds": 0.2} | options)


def llm_of(bot: ChatBot) -> Any:
    return bot._llm_adapter


class Add(Tool):
    """Adds."""

    def __init__(self) -> None:
        super().__init__(
            name="add",
            rules=["Never add by heart."],
            input_schema={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        )

    async def execute(self, *, context: ToolContext, a: int, b: int) -> str:
        return f"{a + b} for {context.on_behalf_of.get_attribute('name')}"


# The model through the gateway


@asynccontextmanager
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[RunningServer, ScriptedUpstream]]:
    async with ScriptedUpstream() as upstream:
        provider = OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="key")
        async with running_server(tmp_path / "data", providers=ProviderTable({"*": provider})) as server:
            yield server, upstream


async def test_an_answer_grows_in_the_thread_for_everybody_who_looks(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (server, upstream):
        hold = asyncio.Event()
        upstream.say("many words in a row", hold=hold)
        bot = make_bot(llm_adapter=OpenAIResponsesAdapter())
        async with chatting(server, bot, people=("ann", "bob")) as (ann, bob):
            log = await ann.thread()
            seen = ThreadLog(await bob.watch(PATH))
            await ann.say(log, "hi")
            await bob.until(lambda: texts(seen)[1:] == ["many"])
            assert refs(seen)[1] == f"{ANSWERING}{bot.room.local_participant.id}"
            hold.set()
            await ann.answered()
            await bob.until(lambda: texts(seen) == ["hi", "many words in a row"] and refs(seen)[1] == ANSWER)
            statuses = [(kind, message[kind]) for kind, message in ann.told]
            assert statuses == [("listening", True), ("listening", False), ("thinking", True), ("thinking", False)]


async def test_a_tool_call_is_shown_and_its_result_goes_on_to_the_model(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (server, upstream):
        upstream.call_tool("add", {"a": 1, "b": 2}).say("It is three.")
        toolkits = [Toolkit(name="sums", tools=[Add()])]
        bot = make_bot(llm_adapter=OpenAIResponsesAdapter(), toolkits=toolkits, rules=["Be kind."])
        async with chatting(server, bot) as ann:
            log = await ann.thread()
            assert await ann.ask(log, "1 + 2?") == "It is three."
            assert tags(log) == ["message", "exec", "message"]
            [_, messages] = log.document.to_json()["thread"]["properties"]
            run = messages["messages"]["items"][1]["exec"]
            assert (run["command"], run["result"]) == ('add({"a": 1, "b": 2})', "3 for ann")
            assert upstream.requests[0].body["instructions"] == "- Be kind.\n- Never add by heart."
            assert any(item.get("output") == "3 for ann" for item in upstream.requests[1].body["input"])


async def test_a_cancelled_stream_stays_as_far_as_it_came_and_the_model_knows(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (server, upstream):
        upstream.say("one two three", hold=asyncio.Event()).say("better")
        async with chatting(server, make_bot(llm_adapter=OpenAIResponsesAdapter())) as ann:
            log = await ann.thread()
            await ann.say(log, "count")
            await ann.until(lambda: texts(log)[1:] == ["one"])
            await ann.tell("cancel", path=PATH)
            await ann.answered()
            assert texts(log) == ["count", "one\n\n(cancelled)"]
            assert await ann.ask(log, "shorter") == "better"
            said = [item["content"] for item in upstream.requests[1].body["input"]]
            assert said == ["count", "one\n\n(cancelled)", "shorter"]


async def test_what_a_broken_stream_has_shown_is_taken_back(tmp_path: Path) -> None:
    async with scripted(tmp_path) as (server, upstream):
        upstream.cut_after(2000, "wrong").say("right")
        async with chatting(server, make_bot(llm_adapter=OpenAIResponsesAdapter())) as ann:
            log = await ann.thread()
            assert await ann.ask(log, "hi") == "right"
            assert len(texts(log)) == 2


# Conversations


async def test_a_conversation_goes_on_and_is_known_after_a_restart(server: RunningServer) -> None:
    bot = make_bot("hello ann", "you said hi", rules=["Be kind."])
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        assert await ann.ask(log, "what did I say?") == "you said hi"
    assert heard(llm_of(bot).calls[1]) == ["hi", "hello ann", "what did I say?"]
    again = make_bot("still")
    async with chatting(server, again) as ann:
        log = await ann.thread()
        assert await ann.ask(log, "and now?", attachments=[{"path": "gone.txt"}]) == "still"
    told = heard(llm_of(again).calls[0])
    assert told[:5] == ["hi", "hello ann", "what did I say?", "you said hi", "and now?"]
    assert "'gone.txt' cannot be read" in told[5]


async def test_an_answer_that_a_dead_process_left_is_shown_as_interrupted(server: RunningServer) -> None:
    async with chatting(server, make_bot("yes")) as ann:
        log = await ann.thread()
        log.add("half an ans", author="bot", ref=f"{ANSWERING}somebody-who-left")
        log.add("from another that still writes", author="bot", ref=f"{ANSWERING}{ann.room.local_participant.id}")
        await ann.ask(log, "go on")
        assert texts(log)[0] == "half an ans\n\n(interrupted)"
        assert refs(log)[:2] == [ANSWER, f"{ANSWERING}{ann.room.local_participant.id}"]


async def test_two_threads_are_two_conversations_side_by_side(server: RunningServer) -> None:
    both = [wait_until(asyncio.Event(), then="one"), wait_until(asyncio.Event(), then="two")]
    bot = make_bot(*both)
    async with chatting(server, bot) as ann:
        first, second = await ann.thread("a.thread"), await ann.thread("b.thread")
        await ann.say(first, "to a", "a.thread")
        await asyncio.wait_for(both[0].reached.wait(), 10)
        await ann.say(second, "to b", "b.thread")
        await asyncio.wait_for(both[1].reached.wait(), 10)
        both[1].event.set()
        await ann.answered("b.thread")
        both[0].event.set()
        await ann.answered("a.thread")
        assert texts(first) == ["to a", "one"]
        assert texts(second) == ["to b", "two"]
    assert [heard(call) for call in llm_of(bot).calls] == [["to a"], ["to b"]]


async def test_who_only_sends_messages_is_written_down_and_needs_no_messaging(server: RunningServer) -> None:
    bot = make_bot("hello", "hello again")
    async with chatting(server, bot) as ann, server.client("room", name="quiet") as quiet:
        log = await ann.thread(members=("bot",))
        silent = Person(quiet)
        for number, text in enumerate(("hi", "hi"), 1):
            message = {"path": PATH, "text": text, "id": f"m{number}"}
            await quiet.messaging.send_message(to=ann.bot(), type="chat", message=message)
            await silent.answered(times=number)
        await ann.until(lambda: texts(log) == ["hi", "hello", "hi", "hello again"])
        assert log.messages()[0].get_attribute("author_name") == "somebody"
        assert log.find("m2") is log.messages()[2]


async def test_a_thread_without_a_place_for_messages_gets_one(server: RunningServer) -> None:
    async with chatting(server, make_bot("hello")) as ann:
        await ensure_thread_schema(ann.room)
        log = ThreadLog(await ann.room.sync.open(path=PATH))
        log.document.on("updated", ann.on_change)
        await ann.tell("chat", path=PATH, text="hi")
        await ann.answered()
        assert texts(log) == ["hi", "hello"]


async def test_an_empty_thread_is_greeted_once(server: RunningServer) -> None:
    bot = make_bot("fine", auto_greet_message="Welcome!", empty_state_title="Ask me")
    async with chatting(server, bot) as ann:
        assert ann.bot().get_attribute("empty_state_title") == "Ask me"
        log = await ann.thread()
        await ann.tell("opened", path=PATH)
        await ann.tell("opened", path=PATH)
        await ann.until(lambda: ("chat", {"path": PATH, "text": "Welcome!"}) in ann.told)
        await ann.ask(log, "how are you?")
        assert texts(log) == ["Welcome!", "how are you?", "fine"]
    assert heard(llm_of(bot).calls[0]) == ["Welcome!", "how are you?"]


async def test_nobody_is_greeted_by_a_bot_without_a_greeting(server: RunningServer) -> None:
    async with chatting(server, make_bot("fine")) as ann:
        log = await ann.thread()
        await ann.tell("opened", path=PATH)
        await ann.ask(log, "hi")
        assert texts(log) == ["hi", "fine"]


async def test_clear_ends_the_answer_and_forgets_all(server: RunningServer) -> None:
    never = wait_until(asyncio.Event())
    bot = make_bot(never, "fresh")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "first")
        await asyncio.wait_for(never.reached.wait(), 10)
        await ann.say(log, "waits")
        await ann.tell("clear", path=PATH)
        await ann.until(lambda: not log.messages())
        await ann.ask(log, "hello?")
        assert texts(log) == ["hello?", "fresh"]
    assert heard(llm_of(bot).calls[1]) == ["hello?"]


async def test_attachments_reach_the_model_as_what_they_are(server: RunningServer) -> None:
    bot = make_bot("seen")
    picture = b"\x89PNG\r\n\x1a\nrest"
    files = {"a.txt": b"some text", "b.png": picture, "c.bin": b"\xff\x00\x80", "d.webp": b"RIFF0000WEBP" + b"x" * 9}
    async with chatting(server, bot) as ann:
        for path, data in files.items():
            await ann.room.storage.upload(path=path, data=data)
        log = await ann.thread()
        await ann.ask(log, "look", attachments=[{"path": path} for path in (*files, "none.txt")])
    _, text, named, image, other, webp_named, webp, missing = heard(llm_of(bot).calls[0])
    assert text == "[The attached file 'a.txt':]\nsome text"
    assert "b.png" in named
    assert image[0]["image_url"] == f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    assert other == "[A file is attached: 'c.bin', 3 bytes]"
    assert "d.webp" in webp_named
    assert webp[0]["image_url"].startswith("data:image/webp;")
    assert "'none.txt' cannot be read" in missing


async def test_a_long_conversation_loses_its_beginning_and_says_so(server: RunningServer) -> None:
    bot = make_bot("a" * 200, "b" * 200, "c", max_context_chars=500)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        for text in ("one", "two", "three"):
            await ann.ask(log, text)
        assert refs(log).count(NOTICE) == 1
    assert heard(llm_of(bot).calls[2]) == [LEFT_OUT, "two", "b" * 200, "three"]


# What comes while the bot is busy


async def test_by_default_messages_wait_for_their_turn(server: RunningServer) -> None:
    first = wait_until(asyncio.Event(), then="one")
    bot = make_bot(first, "two", max_waiting=1)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "a")
        await asyncio.wait_for(first.reached.wait(), 10)
        await ann.say(log, "b")
        await ann.tell("opened", path=PATH)
        await ann.say(log, "c")
        assert "1 messages of this thread wait already" in await ann.refused()
        first.event.set()
        await ann.answered(times=2)
        assert [text for text, ref in zip(texts(log), refs(log), strict=True) if ref] == ["one", "two"]


async def test_a_message_may_interrupt_the_answer_to_the_one_before(server: RunningServer) -> None:
    first = wait_until(asyncio.Event())
    bot = make_bot(first, "two", on_busy="interrupt")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "a")
        await asyncio.wait_for(first.reached.wait(), 10)
        assert await ann.ask(log, "b") == "(interrupted)"
        await ann.answered(times=2)
        assert [text for text, ref in zip(texts(log), refs(log), strict=True) if ref] == ["(interrupted)", "two"]


async def test_a_message_may_be_rejected_while_another_is_answered(server: RunningServer) -> None:
    first = wait_until(asyncio.Event(), then="one")
    async with chatting(server, make_bot(first, on_busy="reject")) as ann:
        log = await ann.thread()
        await ann.say(log, "a")
        await asyncio.wait_for(first.reached.wait(), 10)
        await ann.say(log, "b")
        assert "still being answered" in await ann.refused()
        first.event.set()
        await ann.answered()
        assert texts(log) == ["a", "b", "one"]


# What goes wrong


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"text": "hi"}, "path: "),
        ({"path": "", "text": "hi"}, "path: "),
        ({"path": PATH}, "text: "),
        ({"path": PATH, "text": 7}, "text: "),
        ({"path": PATH, "text": "x" * 1_000_001}, "text: expected at most"),
        ({"path": PATH, "text": "hi", "attachments": ["a"]}, "attachments: "),
        ({"path": PATH, "text": "hi", "attachments": "a"}, "attachments: "),
        ({"path": PATH, "text": "hi", "model": 7}, "model: "),
        ({"path": PATH, "text": "hi", "tools": [{}]}, "tools: "),
        ({"path": "none.thread", "text": "hi"}, "none.thread"),
        ({"path": "../up.thread", "text": "hi"}, ""),
        ({"path": "a.unknown", "text": "hi"}, "no schema for 'a.unknown'"),
        ({"path": "plain", "text": "hi"}, "extension"),
    ],
)
async def test_what_cannot_be_done_is_told_and_the_bot_lives(
    server: RunningServer, message: dict[str, Any], reason: str
) -> None:
    async with chatting(server, make_bot("still here")) as ann:
        log = await ann.thread()
        await ann.tell("chat", **message)
        assert reason in await ann.refused()
        assert await ann.ask(log, "hi") == "still here"


async def test_a_thread_of_another_shape_is_refused(server: RunningServer) -> None:
    async with chatting(server, make_bot()) as ann:
        other = json.dumps(thread_schema.to_json()).replace("messages", "sayings").encode()
        await ann.room.storage.upload(path=".schemas/other.json", data=other)
        await ann.room.sync.create(path="x.other")
        await ann.tell("chat", path="x.other", text="hi")
        assert "messages" in await ann.refused()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LLMError("the gateway is away", status=503), "The model did not answer: the gateway is away"),
        (RoomError("no such thing"), "no such thing"),
        (ValueError("a secret"), "Something went wrong; the log of 'bot' says what."),
    ],
)
async def test_a_failure_is_a_short_message_and_the_conversation_goes_on(
    server: RunningServer, error: Exception, text: str
) -> None:
    bot = make_bot(error, "better now")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        assert await ann.ask(log, "hi") == text
        assert refs(log)[-1] == ERROR
        assert await ann.ask(log, "and now?") == "better now"
    again = make_bot("x")
    async with chatting(server, again) as ann:
        await ann.ask(await ann.thread(), "go on")
    assert text not in heard(llm_of(again).calls[0])


async def test_a_failure_after_some_words_leaves_them_marked(server: RunningServer) -> None:
    def stumble(call: ScriptedCall) -> str:
        raise LLMError("broke off")

    class Talker(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            given["event_handler"]({"type": "response.output_text.delta", "item_id": "i", "delta": "well"})
            given["event_handler"]("no dict")
            given["event_handler"]({"type": "response.reasoning_summary_text.delta", "item_id": "r", "delta": "hm"})
            given["event_handler"]({"type": "response.reasoning_summary_text.done", "item_id": "r", "text": "hmm"})
            return await super().next(**given)

    async with chatting(server, make_bot(llm_adapter=Talker([stumble]))) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        assert texts(log)[1:] == ["well\n\n(interrupted)", "The model did not answer: broke off"]
        assert tags(log) == ["message", "message", "reasoning", "message"]


async def test_a_refusal_of_the_model_is_its_answer(server: RunningServer) -> None:
    async with chatting(server, make_bot(LLMRefusalError("I would rather not."))) as ann:
        log = await ann.thread()
        assert await ann.ask(log, "hi") == "I would rather not."
        assert refs(log)[-1] == ANSWER


async def test_an_adapter_without_events_is_heard_all_the_same(server: RunningServer) -> None:
    class Mute(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            return await super().next(**given | {"event_handler": None})

    async with chatting(server, make_bot(llm_adapter=Mute(["in one piece", {"a": 1}]))) as ann:
        log = await ann.thread()
        assert await ann.ask(log, "hi") == "in one piece"
        await ann.ask(log, "and?")
        assert texts(log) == ["hi", "in one piece", "and?"]


async def test_a_message_that_somebody_deletes_meanwhile_harms_nobody(server: RunningServer) -> None:
    class Talker(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            given["event_handler"]({"type": "response.output_text.delta", "item_id": "i", "delta": "well"})
            return await super().next(**given)

    pause = wait_until(asyncio.Event(), then="the end")
    async with chatting(server, make_bot(llm_adapter=Talker([pause]))) as ann:
        log = await ann.thread()
        await ann.say(log, "hi")
        await ann.until(lambda: texts(log)[1:] == ["well"])
        log.messages()[1].delete()
        await ann.room.sync.flush(PATH)
        await ann.tell("typing", path=PATH)  # passed over, but behind the deletion
        pause.event.set()
        await ann.answered()
        assert texts(log) == ["hi", "the end"]


async def test_a_hook_that_raises_is_told_to_who_asked(server: RunningServer) -> None:
    class Broken(ChatBot):
        async def init_chat_context(self) -> AgentChatContext:
            raise ValueError("a bug")

    async with chatting(server, make_bot(cls=Broken)) as ann:
        await ann.thread()
        await ann.tell("opened", path=PATH)
        assert "log of 'bot'" in await ann.refused()

    class Later(ChatBot):
        async def get_online_participants(self, **given: Any) -> Any:
            [thread] = self._threads
            if thread.context is not None and thread._current is not None:
                raise ValueError("a bug")
            return await super().get_online_participants(**given)

    async with chatting(server, make_bot(cls=Later)) as ann:
        await ann.tell("opened", path=PATH)
        assert "log of 'bot'" in await ann.refused()


@pytest.mark.parametrize("error", [SystemExit(2), BaseException("a panic"), asyncio.CancelledError()])
async def test_a_hook_that_raises_no_exception_fails_its_message_only(
    server: RunningServer, error: BaseException
) -> None:
    raised = [error]

    class Broken(ChatBot):
        async def answer(self, **given: Any) -> Any:
            for each in raised:
                raise each
            return await super().answer(**given)

        async def get_online_participants(self, **given: Any) -> Any:
            for each in raised:
                raise each
            return await super().get_online_participants(**given)

        async def get_thread_toolkit_builders(self, **given: Any) -> Any:
            raise error

        async def close_thread(self, *, path: str) -> None:
            await super().close_thread(path=path)
            raise error

    async with chatting(server, make_bot("fine", cls=Broken)) as ann:
        log = await ann.thread()
        await ann.tell("opened", path=PATH)
        assert "log of 'bot'" in await ann.refused()
        await ann.tell("get_thread_toolkit_builders", path=PATH)
        raised.clear()
        assert await ann.ask(log, "hi") == "fine"


@pytest.mark.parametrize("error", [SystemExit(2), BaseException("a panic"), asyncio.CancelledError()])
async def test_an_answer_that_raises_no_exception_is_a_short_message(
    server: RunningServer, error: BaseException
) -> None:
    class Broken(ChatBot):
        async def answer(self, **_: Any) -> Any:
            raise error

    async with chatting(server, make_bot(cls=Broken)) as ann:
        assert await ann.ask(await ann.thread(), "hi") == "Something went wrong; the log of 'bot' says what."


async def test_a_bot_that_may_not_write_says_that_nothing_is_saved(server: RunningServer) -> None:
    read_only = SyncGrant(paths=[SyncPathGrant(path="talks/*", read_only=True)])
    reading = ApiScope.full().model_copy(update={"sync": read_only})
    async with chatting(server, people=("ann",)) as ann:
        await ensure_thread_schema(ann.room)
        await ann.thread()
        async with server.client("room", name="bot", role="agent", scope=reading) as room:
            bot = make_bot("unheard")
            await bot.start(room=room)
            await ann.until(lambda: ann.room.messaging.remote_participants, 5)
            await ann.tell("chat", path=PATH, text="hi")
            assert "the thread was not saved" in await ann.refused()
            await bot.stop()


async def test_a_bot_that_may_not_store_the_schema_needs_one(server: RunningServer) -> None:
    scope = ApiScope.full().model_copy(update={"storage": None})
    async with server.client("room", name="bot", role="agent", scope=scope) as room:
        with pytest.raises(AccessDeniedError):
            await make_bot().start(room=room)


async def test_two_bots_that_start_at_once_store_one_schema(server: RunningServer) -> None:
    async with server.client("room", name="a") as one, server.client("room", name="b") as two:
        bots = make_bot(name="a"), make_bot(name="b")
        async with asyncio.timeout(10):
            await asyncio.gather(bots[0].start(room=one), bots[1].start(room=two))
        assert json.loads((await one.storage.download(path=SCHEMA_PATH)).data) == thread_schema.to_json()
        for bot in bots:
            await bot.stop()


async def test_a_bot_whose_start_fails_takes_no_messages(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.client("room", name="bot") as room:

        async def fail() -> None:
            raise RoomError("no messaging")

        bot = make_bot()
        monkeypatch.setattr(room.messaging, "enable", fail)
        with pytest.raises(RoomError, match="no messaging"):
            await bot.start(room=room)
        with pytest.raises(RoomError, match="not started"):
            _ = bot.room


# Several people


async def test_among_several_the_model_decides_whether_it_is_meant(server: RunningServer) -> None:
    yes = {"reasoning": "", "expecting_assistant_reply": True}
    bot = make_bot(
        yes | {"expecting_assistant_reply": False}, yes, "here", LLMError("no schema"), "again", decision_model="d"
    )
    async with chatting(server, bot, people=("ann", "bob")) as (ann, bob):
        log = await ann.thread(members=("bot", "ann", "bob"))
        await ann.ask(log, "bob, lunch?")
        assert texts(log) == ["bob, lunch?"]
        seen = ThreadLog(await bob.watch(PATH))
        assert await bob.ask(seen, "bot, what do you say?") == "here"
        assert await bob.ask(seen, "and?") == "again"
        await ann.until(lambda: ("thinking", {"thinking": True, "path": PATH}) in ann.told)
    calls = llm_of(bot).calls
    assert calls[1].model == "d"
    assert calls[1].output_schema is not None
    assert heard(calls[2]) == ["ann: bob, lunch?", "bob: bot, what do you say?"]
    assert calls[2].on_behalf_of.get_attribute("name") == "bob"
    again = make_bot(yes, "hello")
    async with chatting(server, again) as ann:
        await ann.ask(await ann.thread(), "still there?")
    assert heard(llm_of(again).calls[1])[:2] == ["ann: bob, lunch?", "bob: bot, what do you say?"]


async def test_what_was_said_before_the_bot_came_is_not_said_twice(server: RunningServer) -> None:
    bot = make_bot("now I know")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        log.add("a question", author="ann", attachments=["f.txt"])
        await ann.ask(log, "another")
    assert heard(llm_of(bot).calls[0]) == ["a question", "[A file is attached: 'f.txt']", "another"]


# Hooks and toolkits


class Greeting(BaseModel):
    name: str
    word: str


class GreetingBuilder(ToolkitBuilder):
    def __init__(self) -> None:
        super().__init__(name="greeting", type=Greeting)

    async def make(self, *, model: str, config: Greeting) -> Toolkit:
        return Toolkit(name="greeting", tools=[Add()], rules=[f"Say {config.word} with {model}."])


async def test_a_message_names_its_model_and_toolkits_and_hooks_are_asked(server: RunningServer) -> None:
    class Hooked(ChatBot):
        async def get_thread_toolkit_builders(self, **given: Any) -> Any:
            return [GreetingBuilder()]

        async def prepare_llm_context(self, *, thread_context: ChatThreadContext) -> None:
            thread_context.chat.append_user_message(f"in {thread_context.path}: {thread_context!r}")

    bot = make_bot("a", "b", cls=Hooked, rules=["Be kind."], client_rules={"tv": ["Be short."]})
    async with chatting(server, bot) as ann:
        await ann.room.local_participant.set_attribute("client", "tv")
        log = await ann.thread()
        await ann.ask(log, "hi", model="m2", tools=[{"name": "greeting", "word": "ahoy"}])
        await ann.tell("get_thread_toolkit_builders", path=PATH)
        await ann.tell("get_thread_toolkit_builders", path="none")
        await ann.until(lambda: [m for t, m in ann.told if t == "set_thread_tool_providers"])
        assert ann.told[-1][1] == {"path": PATH, "tool_providers": [{"name": "greeting"}]}
        assert (
            await ann.ask(log, "hi", tools=[{"name": "else"}]) == "tools: there is no 'else' here; there are: greeting"
        )
        assert "tools.greeting.word: " in await ann.ask(log, "hi", tools=[{"name": "greeting"}])
        assert await ann.ask(log, "hi", model="m3") == "b"
    first, second = llm_of(bot).calls
    rules = first.context.get_system_instructions()
    assert rules == "- Be kind.\n- Be short.\n- Say ahoy with m2.\n- Never add by heart."
    assert (first.model, [toolkit.name for toolkit in first.toolkits]) == ("m2", ["greeting"])
    assert second.context.get_system_instructions() == "- Be kind.\n- Be short."


async def test_a_failing_or_long_tool_call_is_shown_too(server: RunningServer) -> None:
    async def use(call: ScriptedCall) -> str:
        context = ToolContext(room=call.room, caller=call.room.local_participant, on_behalf_of=call.on_behalf_of)
        with pytest.raises(TypeError):
            await call.toolkits[0].execute(context=context, name="add", arguments={"a": 1})
        await call.toolkits[0].execute(context=context, name="add", arguments={"a": 10**3000, "b": 0})
        return "used"

    async with chatting(server, make_bot(use, toolkits=[Toolkit(name="sums", tools=[Add()])])) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        [_, messages] = log.document.to_json()["thread"]["properties"]
        runs = [item["exec"] for item in messages["messages"]["items"] if "exec" in item]
        assert runs[0]["result"].startswith("error: ")
        assert len(runs[1]["command"]) == len(runs[1]["result"]) == 2001


# The life of a bot


async def test_an_idle_thread_is_closed_and_opened_again(server: RunningServer) -> None:
    opened: list[str] = []

    class Watched(ChatBot):
        async def open_thread(self, *, path: str) -> MeshDocument:
            opened.append(path)
            return await super().open_thread(path=path)

        async def close_thread(self, *, path: str) -> None:
            await super().close_thread(path=path)
            closed.set()

    closed = asyncio.Event()
    bot = make_bot("a", "b", cls=Watched, idle_seconds=0.05)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "one")
        await asyncio.wait_for(closed.wait(), 10)
        assert bot.room.sync.get_open_documents() == {}
        await ann.ask(log, "two")
    assert opened == [PATH, PATH]
    assert heard(llm_of(bot).calls[1]) == ["one", "a", "two"]


async def test_only_so_many_threads_are_open_and_an_idle_one_makes_room(server: RunningServer) -> None:
    busy = wait_until(asyncio.Event(), then="at last")
    bot = make_bot("a", busy, max_threads=1)
    async with chatting(server, bot) as ann:
        first, second = await ann.thread("a.thread"), await ann.thread("b.thread")
        await ann.ask(first, "one", "a.thread")
        await reached(lambda: bot.open_threads.find("a.thread").is_idle)
        await ann.say(second, "two", "b.thread")
        await asyncio.wait_for(busy.reached.wait(), 10)
        assert [thread.path for thread in bot.open_threads] == ["b.thread"]
        await ann.say(first, "three", "a.thread")
        assert "1 threads of 'bot' are busy" in await ann.refused()
        busy.event.set()
        await ann.answered("b.thread")


async def test_draining_finishes_the_answer_and_sends_the_others_away(server: RunningServer) -> None:
    first = wait_until(asyncio.Event(), then="finished")
    bot = make_bot(first)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "a")
        await asyncio.wait_for(first.reached.wait(), 10)
        await ann.say(log, "b")
        await reached(lambda: "waiting=1" in repr(bot.open_threads.find(PATH)))
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(bot.drain())
            assert "about to leave" in await ann.refused()
            ann.told.clear()
            await ann.tell("chat", path=PATH, text="c")
            assert "about to leave" in await ann.refused()
            assert not draining.done()
            first.event.set()
        assert "finished" in texts(log)
        assert bot.room.sync.get_open_documents() == {}


async def test_stopping_shows_the_answer_as_interrupted(server: RunningServer) -> None:
    never = wait_until(asyncio.Event())
    bot = make_bot(never)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "a")
        await asyncio.wait_for(never.reached.wait(), 10)
        await bot.stop()
        await bot.stop()
        await ann.until(lambda: texts(log) == ["a", "(interrupted)"] and refs(log)[1] == ANSWER)


async def test_a_cancel_that_comes_before_the_answer_begins_counts(server: RunningServer) -> None:
    class Slow(ChatBot):
        async def open_thread(self, *, path: str) -> MeshDocument:
            opening.set()
            await release.wait()
            return await super().open_thread(path=path)

    opening, release = asyncio.Event(), asyncio.Event()
    async with chatting(server, make_bot("unsaid", cls=Slow)) as ann:
        log = await ann.thread()
        await ann.tell("opened", path=PATH)
        await asyncio.wait_for(opening.wait(), 10)
        await ann.say(log, "hi")
        await ann.tell("cancel", path=PATH)
        release.set()
        await ann.answered()
        assert texts(log) == ["hi", "(cancelled)"]
        assert await ann.ask(log, "and?") == "unsaid"


async def test_an_opened_thread_is_not_busy(server: RunningServer) -> None:
    async with chatting(server, make_bot("hello", on_busy="reject", auto_greet_message="Welcome!")) as ann:
        log = await ann.thread()
        await ann.tell("opened", path=PATH)
        assert await ann.ask(log, "hi") == "hello"


async def test_slashes_around_a_path_make_no_other_thread(server: RunningServer) -> None:
    bot = make_bot("one", "two")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "a")
        log.add("b", author="ann")
        await ann.room.sync.flush(PATH)
        await ann.tell("chat", path=f"/{PATH}", text="b")
        await ann.answered(f"/{PATH}")
        assert [thread.path for thread in bot.open_threads] == [PATH]
        assert texts(log) == ["a", "one", "b", "two"]


async def test_an_answer_survives_a_lost_connection(server: RunningServer) -> None:
    pause = wait_until(asyncio.Event(), then="all of it")
    bot = make_bot(pause, "more")
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.say(log, "hi")
        await asyncio.wait_for(pause.reached.wait(), 10)
        again = asyncio.Event()
        bot.room.on("reconnected", again.set)
        server.cut(bot.room)
        pause.event.set()
        await asyncio.wait_for(again.wait(), 10)
        await ann.answered()
        assert texts(log) == ["hi", "all of it"]
        assert await ann.ask(log, "go on") == "more"


async def test_what_hooks_raise_at_the_edges_harms_nobody(server: RunningServer) -> None:
    class Edgy(ChatBot):
        async def close_thread(self, *, path: str) -> None:
            await super().close_thread(path=path)
            raise ValueError("a bug")

        async def get_thread_toolkit_builders(self, **given: Any) -> Any:
            raise ValueError("a bug")

    bot = make_bot("a", "b", cls=Edgy)
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        await ann.tell("get_thread_toolkit_builders", path=PATH)
        assert await ann.ask(log, "ho") == "b"
        await bot.drain()


async def test_a_cancel_without_an_answer_and_words_for_others_are_passed_over(server: RunningServer) -> None:
    async with chatting(server, make_bot("a")) as ann:
        log = await ann.thread()
        await ann.tell("cancel", path=PATH)
        await ann.ask(log, "hi")
        await ann.tell("cancel", path=PATH)
        await ann.tell("typing", path=PATH)
        await ann.tell("something", else_=1)
        assert texts(log) == ["hi", "a"]


async def test_a_host_brings_the_bot_into_the_room(tmp_path: Path) -> None:
    port = free_port()
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-more-than-32-characters")
    host = ServiceHost(
        host="127.0.0.1",
        port=0,
        webhook_secret=secret.read_text(),
        allowed_room_urls=[f"http://127.0.0.1:{port}"],
    )

    @host.path("/chat", identity="bot")
    class Hosted(ChatBot):
        def __init__(self) -> None:
            super().__init__(name="bot", llm_adapter=ScriptedLLM(default="hosted"))

    await host.start()
    url = f"http://127.0.0.1:{host.port}/chat"
    file = ServerFile.model_validate({"server": {"call_urls": [url]}, "webhooks": {"secret_file": str(secret)}})
    try:
        async with (
            running_server(tmp_path / "data", port=port, file=file) as server,
            server.client("room", name="ann") as room,
        ):
            await room.messaging.enable()
            ann = Person(room)
            await room.agents.make_call(name="bot", url=url, arguments={})
            await ann.until(lambda: room.messaging.remote_participants)
            assert await ann.ask(await ann.thread(), "hi") == "hosted"
    finally:
        await host.stop()


def test_a_thread_bot_and_its_parts_show_what_they_are() -> None:
    bot = make_bot()
    assert "idle" not in repr(bot)
    assert repr(ChatThread(bot, "a.thread")) == "<ChatThread 'a.thread' waiting=0 busy=False>"
    with pytest.raises(RoomError, match="not open"):
        ChatThread(bot, "a.thread")._opened()


async def test_a_turn_that_the_provider_refuses_leaves_the_conversation(server: RunningServer) -> None:
    class Refused(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            if "use it" in str(given["context"].messages):
                given["context"].messages.append({"type": "function_call_output", "call_id": "c", "output": "odd"})
                raise LLMError("status 400", status=400)
            return await super().next(**given)

    bot = make_bot(llm_adapter=Refused(["hello", "still here"]), rules=["Be kind."])
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        told = await ann.ask(log, "use it")
        assert "status 400" in told
        assert "left out" in told
        assert refs(log)[-1] == ERROR
        assert await ann.ask(log, "and now?") == "still here"
    assert heard(llm_of(bot).calls[-1]) == ["hi", "hello", REFUSED, "and now?"]


async def test_a_thread_whose_history_is_refused_is_begun_anew(server: RunningServer) -> None:
    async with chatting(server, make_bot("noted")) as ann:
        await ann.ask(await ann.thread(), "poison")

    class Refused(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            if "poison" in str(given["context"].messages):
                raise LLMError("status 413", status=413)
            return await super().next(**given)

    bot = make_bot(llm_adapter=Refused(["a fresh start"]))
    async with chatting(server, bot) as ann:
        log = await ann.thread()
        await ann.ask(log, "one")
        assert "send your message again" in await ann.ask(log, "two")
        assert await ann.ask(log, "three") == "a fresh start"
    assert heard(llm_of(bot).calls[-1]) == [LEFT_OUT, "three"]


async def test_a_text_that_no_event_brought_is_shown_after_one_that_events_did(server: RunningServer) -> None:
    class Half(ScriptedLLM):
        async def next(self, **given: Any) -> Any:
            given["event_handler"]({"type": "response.output_text.delta", "item_id": "i", "delta": "let me see"})
            return await super().next(**given | {"event_handler": None})

    async with chatting(server, make_bot(llm_adapter=Half(["done"]))) as ann:
        log = await ann.thread()
        await ann.ask(log, "hi")
        assert texts(log) == ["hi", "let me see", "done"]
