"""The suite `@modelcontextprotocol/conformance` against a room: every scenario of what we claim, in both generations.

What is not claimed is not run: prompts, resources, completion, logging, sampling, elicitation, tasks, content of several kinds
in one result. The suite sends no token, so requests pass a proxy that adds it, as a client that is configured would.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from doubles.mcp_tools import conformance_tools
from doubles.node_programs import node_programs

from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOOLS = (
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-error",
    "tools-call-with-progress",
    "json-schema-2020-12",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)
CLAIMED = {
    "2025-06-18": ("server-initialize", "ping", "tools-list", "tools-call-simple-text", "server-session-lifecycle"),
    "2025-11-25": ("server-initialize", "ping", "server-session-lifecycle", *TOOLS),
    "2026-07-28": (
        "server-stateless",
        "http-header-validation",
        "http-custom-header-server-validation",
        "caching",
        *TOOLS,
    ),
}
# Checks of claimed scenarios that are about what we do not offer: no tool of a room needs a capability of the client, and there
# are no prompts and no resources to list.
NOT_OFFERED = {
    "sep-2575-server-rejects-undeclared-capability",
    "sep-2575-missing-capability-http-400",
    "sep-2549-prompts-list-caching-hints",
    "sep-2549-resources-list-caching-hints",
    "sep-2549-resources-templates-list-caching-hints",
}


@asynccontextmanager
async def with_token(server: RunningServer, query: str) -> AsyncIterator[str]:
    """The address of a proxy for MCP of the room `room` that adds a token to each request."""
    url = f"{server.url}/rooms/room/mcp?{query}"
    token = server.token("room", name="suite")

    async def forward(request: web.Request) -> web.StreamResponse:
        kept = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        headers = {**kept, "Authorization": f"Bearer {token}"}
        async with session.request(request.method, url, headers=headers, data=await request.read()) as answer:
            passed = {
                name: answer.headers[name] for name in ("Content-Type", "Mcp-Session-Id") if name in answer.headers
            }
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response

    app = web.Application()
    app.add_routes([web.route("*", "/mcp", forward)])
    runner = web.AppRunner(app, handler_cancellation=True)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
        finally:
            await runner.cleanup()


async def checks_of(url: str, version: str, scenario: str, folder: Path) -> dict[str, str]:
    """What became of each check of a scenario."""
    command = [*node_programs().command("conformance"), "server", "--url", url, "--scenario", scenario]
    options = ["--spec-version", version, "--output-dir", str(folder), "--timeout", "60000"]
    process = await asyncio.create_subprocess_exec(
        *command, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return await asyncio.to_thread(_read, folder, scenario, output)


def _read(folder: Path, scenario: str, output: bytes) -> dict[str, str]:
    found = list(folder.glob(f"server-{scenario}-*/checks.json"))
    assert len(found) == 1, output.decode()
    checks = json.loads(found[0].read_text())
    return {f"{check['id']} {check.get('errorMessage') or ''}": check["status"] for check in checks}


@pytest.mark.parametrize("version", CLAIMED)
async def test_a_room_conforms_to_what_it_claims_of_a_version(
    server: RunningServer, version: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(node_programs)
    async with server.client(name="provider", role="tool") as room:
        await RemoteToolkit(name="conformance", tools=conformance_tools()).start(room=room)
        async with with_token(server, "toolkit=conformance") as url:
            failed: dict[str, list[str]] = {}
            for scenario in CLAIMED[version]:
                checks = await checks_of(url, version, scenario, tmp_path / version)
                assert "SUCCESS" in checks.values(), scenario
                wrong = {name for name, status in checks.items() if status in ("FAILURE", "WARNING")}
                failed[scenario] = sorted(name for name in wrong if name.split(" ")[0] not in NOT_OFFERED)

    assert {scenario: wrong for scenario, wrong in failed.items() if wrong} == {}
