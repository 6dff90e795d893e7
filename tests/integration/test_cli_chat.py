"""`meshhost chat` in a real room, with agents of ours and others that behave less well."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshhost.agents.chat import ChatBot
from meshhost.agents.chat.log import ThreadLog, text_of
from meshhost.agents.thread_schema import ensure_thread_schema
from meshhost.cli.commands import chat_session
from meshhost.cli.commands.chat_session import ChatTimes, ask_once, new_path, talk
from meshhost.cli.main import run
from meshhost.errors import InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.room.services.messaging import RoomMessage
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import RunningServer, running_server

PATH = "a.thread"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client("room", name="cli") as room:
        yield room


@contextlib.asynccontextmanager
async def bot(server: RunningServer, *script: Any, llm: ScriptedLLM | None = None) -> AsyncIterator[ChatBot]:
    async with server.client("room", name="bot", role="agent") as room:
        made = ChatBot(name="bot", llm_adapter=llm or ScriptedLLM(script))
        await made.start(room=room)
        yield made
        await made.stop()


Behaviour = Callable[[RoomClient, RemoteParticipant, RoomMessage], Awaitable[None]]


@contextlib.asynccontextmanager
async def other_agent(server: RunningServer, behave: Behaviour) -> AsyncIterator[RoomClient]:
    """An agent of another make, which does this with each chat message."""
    async with server.client("room", name="bot", role="agent") as room:

        async def on_message(message: RoomMessage) -> None:
            sender = room.messaging.get_participant(message.from_participant_id)
            assert sender is not None
            await behave(room, sender, message)

        await ensure_thread_schema(room)
        room.messaging.on("message", on_message)
        await room.messaging.enable()
        yield room


def feed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> int:
    """The standard input holds this and stays open; returns what to close."""
    reading, writing = os.pipe()
    os.write(writing, text)
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    return writing


class Stumbling(ScriptedLLM):
    """Streams, takes it back, and says something else."""

    async def next(self, **given: Any) -> Any:
        show = given["event_handler"]
        show({"type": "response.output_text.delta", "item_id": "a", "delta": "wr\x1b[31mong"})
        await asyncio.sleep(0.2)  # that it is seen
        show({"type": "meshhost.turn.retried"})
        show({"type": "response.output_text.done", "item_id": "b", "text": "right\nand\tgood"})
        return "right"


async def test_an_answer_is_printed_as_it_comes(
    server: RunningServer, user: RoomClient, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bot(server, llm=Stumbling()):
        answer = await ask_once(user, agent="bot", path=PATH, text="hi", quiet=False)
    assert answer == {"thread": PATH, "agent": "bot", "text": "right\nand\tgood"}
    assert capsys.readouterr().out == "wr[31mong\nright\nand\tgood\n"


async def test_nothing_is_printed_when_the_answer_is_wanted_as_json(
    server: RunningServer, user: RoomClient, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bot(server, "one", "two") as made:
        path = new_path()
        assert (await ask_once(user, agent="bot", path=path, text="hi", quiet=True))["text"] == "one"
        assert (await ask_once(user, agent="bot", path=path, text="ho", quiet=True))["text"] == "two"
        llm: Any = made._llm_adapter
    assert [message["content"] for message in llm.calls[1].context.messages] == ["hi", "one", "ho"]
    assert capsys.readouterr().out == ""


async def test_who_is_not_there_cannot_be_talked_with(server: RunningServer, user: RoomClient) -> None:
    with pytest.raises(NotFoundError, match=r"no agent 'bot' receives messages in room 'room'"):
        await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)
    async with bot(server):
        with pytest.raises(NotFoundError, match="no schema"):
            await ask_once(user, agent="bot", path="a.unknown", text="hi", quiet=True)


async def test_what_goes_wrong_is_an_error(server: RunningServer, user: RoomClient) -> None:
    async with bot(server, RoomError("no such thing")) as made:
        with pytest.raises(InvalidRequestError, match="bot: no such thing"):
            await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)
        await made.drain()
        with pytest.raises(InvalidRequestError, match="about to leave"):
            await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)


async def test_an_agent_that_leaves_is_not_waited_for(server: RunningServer, user: RoomClient) -> None:
    leaving: list[asyncio.Task[None]] = []

    async def leave(room: RoomClient, sender: RemoteParticipant, message: RoomMessage) -> None:
        leaving.append(asyncio.get_running_loop().create_task(room.close()))

    async with other_agent(server, leave):
        with pytest.raises(NotFoundError, match="left the room"):
            await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)
        await asyncio.gather(*leaving)


async def test_leaving_the_room_ends_the_wait(server: RunningServer) -> None:
    async def close(room: RoomClient, sender: RemoteParticipant, message: RoomMessage) -> None:
        closed.set()

    closed = asyncio.Event()
    async with other_agent(server, close), server.client("room", name="cli") as user:

        async def leave() -> None:
            await closed.wait()
            await user.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(leave())
            with pytest.raises(RoomError, match="the connection to the room ended"):
                await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)


async def test_who_gives_no_sign_is_no_chat_bot(server: RunningServer, user: RoomClient) -> None:
    async def ignore(room: RoomClient, sender: RemoteParticipant, message: RoomMessage) -> None:
        await room.messaging.send_message(to=sender, type="chat", message={"path": "another.thread"})

    async with other_agent(server, ignore):
        with pytest.raises(RequestTimeoutError, match="is it a chat bot"):
            await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True, times=ChatTimes(sign=0.2))


async def test_words_that_come_after_the_end_are_waited_for_but_not_for_ever(
    server: RunningServer, user: RoomClient
) -> None:
    times = ChatTimes(quiet=0.1, late=0.5)
    texts = ["late", ""]

    async def say_late(room: RoomClient, sender: RemoteParticipant, message: RoomMessage) -> None:
        for value in (True, False):
            await room.messaging.send_message(to=sender, type="thinking", message={"thinking": value, "path": PATH})
        await room.messaging.send_message(to=sender, type="other", message={"path": PATH})
        document = await room.sync.open(path=PATH)
        place = document.root.get_children_by_tag_name("messages")[0]
        if text := texts.pop(0):
            place.append_child("message", {"text": text, "author_name": "bot"})
        await room.sync.close(path=PATH)

    async with other_agent(server, say_late):
        assert (await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True, times=times))["text"] == "late"
        assert (await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True, times=times))["text"] == ""


async def test_an_end_that_was_said_while_the_connection_was_lost_is_seen_in_the_thread(server: RunningServer) -> None:
    pause = wait_until(asyncio.Event(), then="all of it")
    async with bot(server, pause) as made, server.client("room", name="cli") as user:

        async def lose() -> None:
            await pause.reached.wait()
            made.tell = lost  # type: ignore[method-assign]
            again = asyncio.Event()
            user.on("reconnected", again.set)
            server.cut(user)
            await again.wait()
            pause.event.set()

        async def lost(*_: Any, **__: Any) -> None:
            pass

        async with asyncio.TaskGroup() as group:
            group.create_task(lose())
            answer = await ask_once(user, agent="bot", path=PATH, text="hi", quiet=True)
        assert answer["text"] == "all of it"


async def test_a_talk_goes_on_line_by_line_until_the_input_ends(
    server: RunningServer, user: RoomClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writing = feed(monkeypatch, b"hi\n\nwhat?\nlast \xff")
    os.close(writing)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    async with bot(server, "one", RoomError("broken"), "three"):
        await talk(user, agent="bot", path=PATH, as_json=False)
        document = await user.sync.open(path=PATH)
        said = [text_of(message) for message in ThreadLog(document).messages()]
        await user.sync.close(path=PATH)
    output = capsys.readouterr()
    assert output.out == "> one\n> > broken\n> three\n> "
    assert output.err == f"thread {PATH}; end with Ctrl-D\nbot: broken\n"
    assert said == ["hi", "one", "what?", "broken", "last \ufffd", "three"]
    sys.stdin.close()


async def test_a_talk_in_json(
    server: RunningServer, user: RoomClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.close(feed(monkeypatch, b"hi\n"))
    async with bot(server, "one"):
        await talk(user, agent="bot", path=PATH, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"thread": PATH, "agent": "bot", "text": "one"}
    sys.stdin.close()


async def test_ctrl_c_stops_an_answer_and_not_the_talk(
    server: RunningServer, user: RoomClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.close(feed(monkeypatch, b"hi\nand?\n"))
    never = wait_until(asyncio.Event())
    async with bot(server, never, "two"), asyncio.TaskGroup() as group:
        talking = group.create_task(talk(user, agent="bot", path=PATH, as_json=False))
        await asyncio.wait_for(never.reached.wait(), 10)
        os.kill(os.getpid(), signal.SIGINT)
        await talking
    assert capsys.readouterr().out == "(cancelled)\ntwo\n"
    sys.stdin.close()


def test_wrong_usage_is_said_before_anything_is_joined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["chat", "--room", "r", "--agent", "a", "--message", " "]) == 2
    assert "expected a text" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"], ["--message", "hi"], ["--message", "hi", "--json"]])
def test_the_command_does_what_its_options_say(
    more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    async def record(client: Any, **given: Any) -> dict[str, Any]:
        calls.append(given)
        return {"text": "hello"}

    def in_room(room: str, use: Callable[[Any], Any]) -> Any:
        assert room == "r"
        return asyncio.run(use(None))

    monkeypatch.setattr("meshhost.cli.connect.run_in_room", in_room)
    monkeypatch.setattr(chat_session, "ask_once", record)
    monkeypatch.setattr(chat_session, "talk", record)
    assert run(["chat", "--room", "r", "--agent", "a", "--thread", "t.thread", *more]) == 0
    as_json = "--json" in more
    how = {"text": "hi", "quiet": as_json} if "--message" in more else {"as_json": as_json}
    assert calls == [{"agent": "a", "path": "t.thread", **how}]
    assert capsys.readouterr().out == ('{"text": "hello"}\n' if len(more) == 3 else "")
