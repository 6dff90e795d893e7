"""The unmodified SDK 0.56 in Python, and the one in JavaScript, are at home in our rooms, with 0.6.13 and our own client."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from doubles.generations import PAGE, our_guest, told
from doubles.talking import TalkingPrograms

from meshhost.errors import RoomError
from meshhost.testing.server import RunningServer, running_server

# Making the environments takes a while, once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_every_request_of_the_python_client_is_answered(newer: TalkingPrograms, server: RunningServer) -> None:
    seen = await newer.lines("everything", server)
    assert seen["name"] == "sdk"
    assert (seen["listed"], seen["received"], seen["drained"]) == ({"jobs": 2}, {"n": 1}, None)
    assert seen["files"] == [["b.bin", 1048576], ["empty.txt", 0], ["streamed.bin", 1048576]]
    assert (seen["whole"], seen["empty"]) == ([True, True], [0, "empty.txt", "text/plain"])
    assert (seen["stat"], seen["nowhere"]) == (["b.bin", 1048576, False], None)
    assert seen["refused"] == [1004, "'a/b.bin' exists: overwrite it, or take another path"]
    assert seen["missing"] == [1003, "no file 'nowhere' in this room"]
    assert seen["url"] == "http://"
    assert seen["document"] == {"page": {"notes": [{"note": {"text": "from 0.56"}}]}}
    assert seen["moved"] == ["c/d/moved.bin", False]
    assert seen["in_the_way"][0] == 1004
    assert seen["exists"] == [False, False, False]
    assert seen["described"] == {"page": {"notes": []}}
    assert (seen["log"], seen["logged"]) == ("no error but None", ["info", {"message": "hello", "n": 1}])
    assert seen["nobody"] == [1003, "no toolkit 'none' in this room"]
    assert seen["absent"] == [1003, "this room server has no toolkit 'dataset'"]
    assert seen["called"][0] == 1001


async def test_an_edit_of_the_python_client_is_stored(newer: TalkingPrograms, server: RunningServer) -> None:
    await newer.lines("everything", server)
    async with server.client() as ours:
        document = await ours.sync.open(path="x.page")
        assert document.root.to_json() == {"page": {"notes": [{"note": {"text": "from 0.56"}}]}}


async def test_every_request_of_the_javascript_client_is_answered(
    javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with javascript.run("guest", server) as guest:
        await guest.line()
        assert await told(guest, do="everything") == {"received": {"n": 1}}
        assert await guest.line() == {"same": True}
        assert await guest.line() == {"listed": [["data.bin", 500000]]}
        assert "no file 'nowhere'" in (await guest.line())["missing"]["error"]


async def test_a_text_from_a_queue_reaches_the_javascript_client(
    javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with javascript.run("guest", server) as guest, server.client() as ours:
        await guest.line()
        await ours.queues.send(name="texts", message="hello")
        assert await told(guest, do="receive", name="texts") == {"received": "hello"}


async def test_four_generations_call_each_others_tools(
    newer: TalkingPrograms, older: TalkingPrograms, javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(our_guest(server))
        token = {name: server.token("room", name=name, role="agent") for name in ("newer", "older", "js")}
        new = await stack.enter_async_context(newer.run("guest", server, token=token["newer"]))
        old = await stack.enter_async_context(older.run("toolkit", server, token=token["older"]))
        js = await stack.enter_async_context(javascript.run("guest", server, token=token["js"]))
        for each in (new, old, js):
            await each.line()

        add, multiply = {"a": 2, "b": 3}, {"a": 4, "b": 5}
        assert (await ours.agents.invoke_tool(toolkit="math56", tool="add", arguments=add)).to_json()["json"] == {
            "sum": 5
        }
        product = await ours.agents.invoke_tool(toolkit="mathjs", tool="multiply", arguments=multiply)
        assert product.to_json()["json"] == {"product": 20}

        kits = (await told(new, do="toolkits"))["toolkits"]
        assert {name: kits[name] for name in ("ours", "math", "mathjs", "clock")} == {
            "ours": ["shout"],
            "math": ["add", "fail", "picture", "never"],
            "mathjs": ["multiply"],
            "clock": ["run_clock_task"],
        }
        for guest in (new, js):
            said = await told(guest, do="invoke", toolkit="ours", tool="shout", input={"text": "hi"})
            assert said.get("answer", said.get("result")) == {"said": "HI"}
            if guest is new:
                await guest.line()
        assert (await told(new, do="invoke", toolkit="mathjs", tool="multiply", input=multiply))["answer"] == {
            "product": 20
        }
        await new.line()
        assert (await told(new, do="invoke", toolkit="math", tool="add", input=add))["answer"]["sum"] == 5
        await new.line()
        assert (await told(js, do="invoke", toolkit="math56", tool="add", input=add))["result"] == {"sum": 5}
        failed = await told(js, do="invoke", toolkit="math56", tool="fail", input={})
        assert "it cannot be done" in failed["result"]["error"]


async def test_agents_of_two_generations_ask_each_other(newer: TalkingPrograms, server: RunningServer) -> None:
    async with our_guest(server) as ours, newer.run("guest", server) as guest:
        await guest.line()
        assert await ours.agents.ask(agent="sdk", arguments={"name": "Ada"}) == {"hello": "Ada"}
        with pytest.raises(RoomError, match="name"):
            await ours.agents.ask(agent="sdk", arguments={})
        assert (await told(guest, do="invoke", toolkit="clock", tool="run_clock_task", input={}))["answer"] == {
            "time": "late"
        }


async def test_an_agent_of_the_newer_generation_is_asked_by_its_id(
    newer: TalkingPrograms, server: RunningServer
) -> None:
    async with (
        newer.run("guest", server) as first,
        newer.run("guest", server, token=server.token("room", name="second", role="agent")) as second,
    ):
        greeter = (await first.line())["ready"]
        await second.line()
        asked = {"toolkit": "sdk", "tool": "run_sdk_task", "participant_id": greeter}
        assert (await told(second, do="invoke", input={"name": "Bo"}, **asked))["answer"] == {"hello": "Bo"}


async def test_messages_and_presence_go_both_ways(newer: TalkingPrograms, server: RunningServer) -> None:
    async with our_guest(server) as ours, newer.run("guest", server) as guest:
        await guest.line()
        got: asyncio.Queue[Any] = asyncio.Queue()
        ours.messaging.on("message", lambda **event: got.put_nowait(event["message"]))
        assert await told(guest, do="people") == {"people": ["ours"]}
        assert await told(guest, do="send", to="ours", message={"n": 1}) == {"sent": True}
        async with asyncio.timeout(10):
            assert (await got.get()).message == {"n": 1}
        [theirs] = ours.messaging.get_participants()
        await ours.messaging.send_message(to=theirs, type="reply", message={"n": 2})
        assert await guest.until(message=["reply", {"n": 2}])


async def test_one_document_is_edited_by_all_generations(
    newer: TalkingPrograms, javascript: TalkingPrograms, server: RunningServer
) -> None:
    async with (
        our_guest(server) as ours,
        newer.run("guest", server) as new,
        javascript.run("guest", server, token=server.token("room", name="js", role="agent")) as js,
    ):
        await new.line()
        await js.line()
        await ours.storage.upload(path=".schemas/page.json", data=json.dumps(PAGE).encode())
        document = await ours.sync.open(path="x.page")
        document.root.append_child("note", {"text": "ours"})
        await new.until(updated=".schemas/page.json")
        edited = await told(new, do="edit", path="x.page", text="newer")
        assert [note["note"]["text"] for note in edited["edited"]["page"]["notes"]] == ["ours", "newer"]
        assert await told(js, do="edit", path="x.page", text="js") == {"edited": True}
        async with asyncio.timeout(10):
            while len(document.root.to_json()["page"]["notes"]) < 3:  # noqa: ASYNC110 - the edit comes when it comes
                await asyncio.sleep(0.02)
        assert {note["note"]["text"] for note in document.root.to_json()["page"]["notes"]} == {"ours", "newer", "js"}


@pytest.mark.parametrize("language", ["newer", "javascript"])
async def test_a_wrong_token_ends_the_client(
    language: str, request: pytest.FixtureRequest, server: RunningServer
) -> None:
    programs: TalkingPrograms = request.getfixturevalue(language)
    token = server.token("room", name="sdk")
    async with programs.run("guest", server, token=token[:-4] + "AAAA") as guest, asyncio.timeout(20):
        await guest.ended()


@pytest.mark.parametrize("language", ["newer", "javascript"])
async def test_a_client_comes_back_when_its_server_was_restarted(
    language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    programs: TalkingPrograms = request.getfixturevalue(language)
    home, toolkit = tmp_path / "server", "math56" if language == "newer" else "mathjs"
    async with AsyncExitStack() as stack:
        async with running_server(home) as server:
            guest = await stack.enter_async_context(programs.run("guest", server))
            await guest.line()
            port, key = int(server.url.rpartition(":")[2]), server.key
        async with running_server(home, port=port, key=key) as again, again.client() as ours, asyncio.timeout(30):
            while toolkit not in {kit.name for kit in await ours.agents.list_toolkits()}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)


async def test_clients_of_each_generation_meet_in_one_voice_session(
    newer: TalkingPrograms, older: TalkingPrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-secret-of-thirty-two-characters"
    for name, value in (("URL", "https://voice.example.com"), ("API_KEY", "key"), ("API_SECRET", secret)):
        monkeypatch.setenv(f"LIVEKIT_{name}", value)
    async with running_server(tmp_path / "voice") as server:
        seen = [await programs.lines("voice_session", server) for programs in (newer, older)]
    assert [line["url"] for line in seen] == ["wss://voice.example.com"] * 2
    sessions = {jwt.decode(line["token"], key=secret, algorithms=["HS256"])["video"]["room"] for line in seen}
    assert len(sessions) == 1
