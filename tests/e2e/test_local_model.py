"""The small local model for real: weights, llama.cpp's HTTP server, the routes, the official client."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

import meshhost.tools
from meshhost.anthropic import AnthropicMessagesAdapter
from meshhost.errors import SettingsError
from meshhost.gateway.local.process import runner_command
from meshhost.gateway.local.provider import LocalProvider, find_model
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import Caller, ProviderTable
from meshhost.gateway.routes import add_gateway_routes
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.openai import OpenAICompletionsAdapter, OpenAIResponsesAdapter
from meshhost.stores.memory.usage import MemoryUsageStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PATH = {"type": "string", "description": "where the file is in the room, for example reports/july.md"}
OVERWRITE = {"type": "boolean", "description": "true to replace a file that is there already"}
MODEL = "smollm2-135m"


def tool(name: str, description: str, **properties: Any) -> Any:
    schema = {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": True}


TOOLS = [
    tool("read_file", "Returns the content of a text file in the room", path=PATH),
    tool("list_files_in_room", "Lists the files and folders in one folder of the room", path=PATH),
    tool("save_file_from_url", "Downloads a file from a public web address and saves it", url=PATH, path=PATH),
    tool("write_file", "Saves a text as a file in the room", path=PATH, text={"type": "string"}, overwrite=OVERWRITE),
    tool("delete_file", "Deletes a file from the room for good", path=PATH),
]


@pytest.fixture
async def provider() -> AsyncIterator[LocalProvider]:
    try:
        find_model(None)
    except SettingsError as error:
        pytest.skip(str(error))
    provider = LocalProvider(threads=2)
    yield provider
    await provider.stop()


@pytest.fixture
def meter() -> Meter:
    return Meter(MemoryUsageStore())


@pytest.fixture
async def client(provider: LocalProvider, meter: Meter) -> AsyncIterator[AsyncOpenAI]:
    async def authenticate(request: web.Request) -> Caller:
        return Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "poet")

    table, app = ProviderTable({"*": provider}), web.Application()
    add_gateway_routes(app, providers=table, authenticate=authenticate, meter=meter)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/rooms/lobby/v1"
    async with AsyncOpenAI(api_key="token", base_url=base_url, max_retries=0) as client:
        yield client
    await runner.cleanup()
    await table.stop()


async def test_the_model_saves_its_own_poem_and_reports(client: AsyncOpenAI, meter: Meter) -> None:
    instructions = "save a poem about ai to poem.txt"
    async with client.responses.stream(model=MODEL, instructions=instructions, input="go ahead", tools=TOOLS) as stream:
        deltas = [event.delta async for event in stream if event.type == "response.function_call_arguments.delta"]
        response = await stream.get_final_response()

    [call] = response.output
    assert call.type == "function_call"
    arguments = json.loads(call.arguments)
    assert (call.name, arguments["path"]) == ("write_file", "poem.txt")
    assert len(arguments["text"].split()) > 20
    assert isinstance(arguments["overwrite"], bool)
    assert "".join(deltas) == call.arguments
    assert len(deltas) > 10  # the poem streamed while it was written
    assert response.usage is not None
    assert response.usage.output_tokens > 30

    conversation: Any = [
        {"role": "user", "content": "go ahead"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "the file was saved at poem.txt"},
    ]
    report = await client.responses.create(model=MODEL, instructions=instructions, input=conversation, tools=TOOLS)
    assert [item.type for item in report.output] == ["message"]
    assert report.output_text
    assert report.usage is not None
    assert report.usage.output_tokens <= 41

    [counts] = meter.pending().values()
    assert counts.requests == 2
    assert counts.output_tokens == response.usage.output_tokens + report.usage.output_tokens


async def test_answers_repeat_and_a_killed_child_is_replaced(client: AsyncOpenAI, provider: LocalProvider) -> None:
    first = await client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=20)
    pid = provider.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    second = await client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=20)

    assert second.output_text == first.output_text
    assert provider.pid not in {None, pid}


async def test_chat_and_models_pass_plainly(client: AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=5)
    assert chat.choices[0].message.content
    assert [model.id for model in (await client.models.list()).data] == [MODEL]


async def test_what_the_model_cannot_do_is_refused(client: AsyncOpenAI) -> None:
    # It stores no responses, so none is its tenant's.
    with pytest.raises(openai.NotFoundError, match="no stored response 'resp_1'"):
        await client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model=MODEL, input="hi")


async def test_a_generation_that_dies_fails_the_response(client: AsyncOpenAI, provider: LocalProvider) -> None:
    types = []
    async with asyncio.timeout(60):
        stream = await client.responses.create(model=MODEL, input="Tell a long story.", stream=True)
        async for event in stream:
            types.append(event.type)
            if event.type == "response.output_text.delta" and (pid := provider.pid) is not None:
                os.kill(pid, signal.SIGKILL)
    assert types[-1] == "response.failed"


async def test_the_child_says_one_line_wants_its_key_and_ends_with_its_stdin(provider: LocalProvider) -> None:
    command = runner_command(find_model(None), name="m", threads=1)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:  # noqa: ASYNC220 - nothing else runs in this loop
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"the-key\n")
        child.stdin.flush()
        address = json.loads(child.stdout.readline())["address"]
        async with AsyncOpenAI(api_key="another", base_url=f"{address}/v1", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        rest, errors = child.communicate(timeout=10)

    assert (child.returncode, rest, errors) == (0, b"", b"")


@pytest.mark.parametrize("adapter", [OpenAIResponsesAdapter, OpenAICompletionsAdapter, AnthropicMessagesAdapter])
async def test_one_agent_program_runs_through_each_api(client: AsyncOpenAI, adapter: Any) -> None:
    saved: dict[str, str] = {}

    @meshhost.tools.tool
    def write_file(path: str, text: str) -> str:
        """Saves a text as a file in the room

        Args:
            path: where the file is in the room, for example reports/july.md
        """
        saved[path] = text
        return f"the file was saved at {path}"

    room: Any = SimpleNamespace(
        room_url=str(client.base_url).replace("http", "ws", 1).removesuffix("/v1/"),
        protocol=SimpleNamespace(token="token"),
        local_participant="me",
        developer=SimpleNamespace(log_nowait=lambda **_: None),
    )
    model = adapter(model=MODEL)
    context = model.create_chat_context()
    context.append_rules(["save a poem about ai to poem.txt"])
    context.append_user_message("go ahead")
    events: list[Any] = []
    toolkits = [meshhost.tools.Toolkit(name="files", tools=[write_file])]
    await model.next(context=context, room=room, toolkits=toolkits, event_handler=events.append)
    assert list(saved) == ["poem.txt"]
    assert len(saved["poem.txt"].split()) > 20
    assert context.usage["output_tokens"] > 30
    assert events[-1]["type"] == "response.completed"

    schema = {
        "type": "object",
        "properties": {"color": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["color"],
        "additionalProperties": False,
    }
    asked = model.create_chat_context()
    asked.append_user_message("What color is the sky?")
    answer = await model.next(context=asked, room=room, toolkits=[], output_schema=schema)
    assert answer["color"] in ("red", "blue")
