"""The examples a person starts from, as they would run them: real processes, offline."""

import asyncio
import json
import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles.model_services import VOICES, ModelService

from meshhost.errors import SettingsError
from meshhost.gateway.local.provider import find_model
from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "agents"


@pytest.fixture
def examples(home: Any) -> Any:
    """A home with the examples in it."""
    for name in ("task_runner", "toolkit", "call_tool", "mcp_toolkit", "any_model"):
        shutil.copytree(EXAMPLES / name, home.directory / name)
    return home


@pytest.fixture
async def upstream(examples: Any) -> AsyncIterator[ScriptedUpstream]:
    """A provider that the room server's gateway uses."""
    async with ScriptedUpstream() as provider:
        examples.environment |= {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "key-of-the-gateway"}
        yield provider


async def failed(home: Any, *command: str) -> str:
    process = await home.spawn(*command)
    _, errors = await process.communicate()
    assert process.returncode == 1
    return str(errors.decode()).strip().splitlines()[-1]


async def test_a_program_calls_a_tool_of_the_hosted_toolkit(examples: Any) -> None:
    async with examples.service("toolkit/main.py"):
        answer = json.loads(await examples.run("call_tool/call.py", "queue-test", "tool", "A rose is a rose."))
        assert answer == {"words": 5, "top": [["a", 2], ["rose", 2], ["is", 1]]}
        listed = json.loads(await examples.cli("agents", "list-toolkits", "--room=queue-test", "--json"))
        assert [toolkit["name"] for toolkit in listed] == ["text"]
        assert "no agent 'sorter' in this room" in await failed(
            examples, "call_tool/call.py", "queue-test", "ask", "hello"
        )


async def test_the_tools_of_an_mcp_server_are_used_in_a_room(examples: Any) -> None:
    async with examples.service("mcp_toolkit/main.py"):
        async with asyncio.timeout(60):  # the agent is in the room before it has started its server
            while "notes" not in await examples.cli("agents", "list-toolkits", "--room=queue-test"):
                pass
        invoke = ("agents", "invoke-tool", "--room=queue-test", "--toolkit=notes")
        kept = await examples.cli(*invoke, "--tool=add_note", '--arguments={"text": "buy milk"}')
        assert "kept note 1" in kept
        assert "buy milk" in await examples.cli(*invoke, "--tool=list_notes")
        config = json.loads(await examples.cli("mcp", "url", "--room=queue-test", "--json"))
        entry = config["mcpServers"]["meshhost-queue-test"]
        header = f"Authorization: {entry['headers']['Authorization']}"
        listed = json.loads(await examples.cli("mcp", "check", "--json", "--header", header, entry["url"]))
        assert [tool["name"] for tool in listed["tools"]] == ["notes__add_note", "notes__list_notes"]


async def test_a_program_asks_the_hosted_agent(examples: Any, upstream: ScriptedUpstream) -> None:
    upstream.say('{"topic": "billing", "urgent": true}').say("no JSON at all").say("nor now").say("nor ever")
    async with examples.service("task_runner/main.py"):
        answer = await examples.run("call_tool/call.py", "queue-test", "ask", "You charged me twice!")
        assert json.loads(answer) == {"topic": "billing", "urgent": True}
        sent = upstream.requests[0].body
        assert sent["text"]["format"]["schema"]["required"] == ["topic", "urgent"]
        assert "only sort it" in json.dumps(sent)
        # A model that breaks the shape is the agent's failure.
        assert "ask failed: agent 'sorter' failed; its log says why" in await failed(
            examples, "call_tool/call.py", "queue-test", "ask", "x"
        )


@pytest.mark.parametrize(("spoken", "served"), [("responses", "chat"), ("chat", "messages"), ("messages", "responses")])
async def test_one_program_runs_on_every_api_without_a_setting(examples: Any, spoken: str, served: str) -> None:
    async with AsyncExitStack() as running:
        service = await running.enter_async_context(ModelService(VOICES[served]))
        service.say(("call", "total", {"prices": [12, 3], "discount": 10})).say(("text", "It costs 13.50 francs."))
        kind = "anthropic" if served == "messages" else "openai"
        config = examples.directory / "server.toml"
        config.write_text(f'[[providers]]\nkind = "{kind}"\nbase_url = "{service.base_url}"\n')
        examples.environment |= {"MODEL_API": spoken}
        serve = ("room", "serve", "--port", str(examples.port), "--config", str(config))
        server = await running.enter_async_context(examples.meshhost(*serve))
        await server.line("room server ready")
        await running.enter_async_context(examples.service("any_model/main.py"))
        send = ("queue", "send", "--room=queue-test", "--queue=orders", "--wait", "--json")
        answer = await examples.cli(*send, '{"prompt": "a book for 12 and a pen for 3, minus 10 %"}')
        assert "13.50" in answer
        assert "13.5" in json.dumps(service.asked[1].body)  # what the tool worked out


async def test_the_hosted_agent_answers_in_its_shape_with_the_local_model(examples: Any) -> None:
    try:
        find_model(None)
    except SettingsError as error:
        pytest.skip(str(error))
    async with examples.service("task_runner/main.py"):
        answer = json.loads(await examples.run("call_tool/call.py", "queue-test", "ask", "The page is blank."))
    # A small model may sort badly; the shape is certain.
    assert answer["topic"] in ("billing", "bug", "question", "other")
    assert isinstance(answer["urgent"], bool)


@pytest.mark.parametrize(
    ("manifest", "program"),
    [
        ("sorter", "task_runner"),
        ("text-toolkit", "toolkit"),
        ("mcp-toolkit", "mcp_toolkit"),
        ("orders", "any_model"),
        ("storage-worker", "storage_worker"),
        ("mail-worker", "mail_worker"),
        ("voice-bot", "voice_bot"),
    ],
)
def test_each_manifest_is_that_of_its_program(manifest: str, program: str) -> None:
    spec = json.loads((REPOSITORY / "config" / "services" / f"{manifest}.json").read_text())
    source = (EXAMPLES / program / "main.py").read_text()
    [endpoint] = spec["ports"][0]["endpoints"]
    identity = endpoint["meshagent"]["identity"]
    assert f'@host.path("{endpoint["path"]}", identity="{identity}")' in source
    assert spec["container"]["command"] == f"python agents/{program}/main.py"
    assert spec["metadata"]["name"] == identity == manifest


async def test_the_mail_worker_answers_a_mail_that_comes_by_smtp(examples: Any, upstream: ScriptedUpstream) -> None:
    """As docs/how-to/mail.md says: SMTP in, a mailbox, the agent, and the room server's submission port out."""
    shutil.copytree(EXAMPLES / "mail_worker", examples.directory / "mail_worker")
    examples.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key-of-the-gateway"}
    upstream.say("The sea is wide.")
    process = await examples.spawn("mail_worker/demo.py")
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    shown = out.decode()
    assert "Subject: RE: Poem please" in shown
    assert "The sea is wide." in shown
    assert "the notice: not answered, since it is automatic" in shown
    assert "Could you write two lines about the sea?" in json.dumps(upstream.requests[0].body)


async def test_the_voice_bot_answers_a_question_that_is_spoken(examples: Any, upstream: ScriptedUpstream) -> None:
    """As docs/how-to/voice.md says: a call, a question by eSpeak NG, and both sides in a recording."""
    shutil.copytree(EXAMPLES / "voice_bot", examples.directory / "voice_bot")
    upstream.say("It was Neil Armstrong.")
    process = await examples.spawn("voice_bot/demo.py", "--output", "call.wav")
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    shown = out.decode()
    assert "The agent: Hello! How can I help you?" in shown
    assert "The agent: It was Neil Armstrong." in shown
    asked = json.dumps(upstream.requests[0].body)
    assert "first man on the moon" in asked
    assert "You are heard, not read" in asked
    with wave.open(str(examples.directory / "call.wav")) as recording:
        assert recording.getnchannels() == 2
        samples = np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2").reshape(-1, 2)
    spoken = (np.abs(samples) > 1000).sum(axis=0)
    assert (spoken > recording.getframerate() / 4).all(), "one side is silent"
