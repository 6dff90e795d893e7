"""The official client and fastmcp, as their users use them, against a room: nothing here speaks the protocol by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastmcp
import httpx2
import mcp
import pytest
from doubles.mcp_tools import PIXEL, conformance_tools
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.streamable_http import streamable_http_client

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit


class Adder(TaskRunner):
    """Adds two numbers."""

    def __init__(self) -> None:
        number = {"type": "integer"}
        properties = {"a": number, "b": number}
        super().__init__(
            name="adder",
            input_schema={"type": "object", "properties": properties, "required": ["a", "b"]},
            output_schema={"type": "object", "properties": {"sum": number}, "required": ["sum"]},
        )

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return {"sum": arguments["a"] + arguments["b"]}


@pytest.fixture
async def offered(server: RunningServer) -> AsyncIterator[RunningServer]:
    """A server whose room `room` has a toolkit and an agent."""
    agent = Adder()
    async with (
        server.client(name="provider", role="tool") as provider,
        server.client(name="adder", role="agent") as room,
    ):
        await RemoteToolkit(name="kit", tools=conformance_tools()).start(room=provider)
        await agent.start(room=room)
        yield server
        await agent.stop()


@asynccontextmanager
async def official(server: RunningServer, mode: str, bearer: str, **options: Any) -> AsyncIterator[mcp.Client]:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(f"{server.url}/rooms/room/mcp", http_client=http)
        async with mcp.Client(transport, mode=mode, **options) as client:
            yield client


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_official_client_lists_and_calls(offered: RunningServer, mode: str, version: str) -> None:
    async with official(offered, mode, offered.token("room", name="ide")) as client:
        assert client.protocol_version == version
        assert client.server_info is not None
        assert client.server_info.name == "meshhost"
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"kit__test_simple_text", "agents__adder"} <= names
        said = await client.call_tool("kit__test_simple_text", {})
        assert said.content[0].text == "This is a simple text response for testing."  # type: ignore[union-attr]
        picture = await client.call_tool("kit__test_image_content", {})
        assert picture.content[0].type == "image"
        failed = await client.call_tool("kit__test_error_handling", {})
        assert failed.is_error
        assert (await client.call_tool("agents__adder", {"a": 2, "b": 3})).structured_content == {"sum": 5}
        with pytest.raises(mcp.MCPError, match="no tool 'nothing'"):
            await client.call_tool("nothing", {})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_sees_progress(offered: RunningServer, mode: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def report(progress: float, total: float | None, _: str | None) -> None:
        seen.append((progress, total))

    async with official(offered, mode, offered.token("room", name="ide")) as client:
        await client.call_tool("kit__test_tool_with_progress", {}, progress_callback=report)
    assert seen == [(0, 100), (50, 100), (100, 100)]


async def test_the_official_client_repeats_arguments_in_headers(offered: RunningServer) -> None:
    async with official(offered, "auto", offered.token("room", name="ide")) as client:
        await client.list_tools()
        arguments = {"region": "Zürich ", "priority": 3}
        assert not (await client.call_tool("kit__test_x_mcp_header", arguments)).is_error


async def test_the_official_client_learns_of_changes(server: RunningServer) -> None:
    changed = asyncio.Event()

    async def take(message: Any) -> None:
        if isinstance(message, mcp.types.ToolListChangedNotification):
            changed.set()

    token = server.token("room", name="ide")
    async with (
        official(server, "legacy", token, message_handler=take) as old,
        official(server, "auto", token) as new,
        new.listen(tools_list_changed=True) as subscription,
    ):
        assert (await old.list_tools()).tools == []
        await asyncio.sleep(0.5)  # its stream for notifications opens in the background, and nothing says when
        async with server.client(name="provider", role="tool") as room:
            await RemoteToolkit(name="kit", tools=conformance_tools()[:1]).start(room=room)
            async with asyncio.timeout(20):
                await changed.wait()
                async for _ in subscription:
                    break
            assert [tool.name for tool in (await new.list_tools(cache_mode="refresh")).tools] == [
                "kit__test_simple_text"
            ]


@pytest.mark.parametrize("credential", ["token", "key"])
async def test_fastmcp_lists_and_calls(offered: RunningServer, credential: str) -> None:
    bearer = offered.api_key if credential == "key" else offered.token("room", name="ide")
    transport = StreamableHttpTransport(f"{offered.url}/rooms/room/mcp?toolkit=kit", auth=bearer)
    async with fastmcp.Client(transport) as client:
        names = {tool.name for tool in await client.list_tools()}
        assert "test_simple_text" in names
        said = await client.call_tool("test_simple_text", {})
        assert said.content[0].text == "This is a simple text response for testing."
        picture = await client.call_tool("test_image_content", {})
        assert picture.content[0].type == "image"
        with pytest.raises(fastmcp.exceptions.ToolError, match="intentionally"):
            await client.call_tool("test_error_handling", {})
    assert PIXEL


async def test_a_client_with_a_wrong_token_is_told(offered: RunningServer) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group of what its transport raises
        async with official(offered, "auto", "wrong"):
            raise AssertionError("not reached")
    assert not isinstance(caught.value, AssertionError)
