"""`meshhost mcp` against a real room server, and programs that speak MCP."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.mcp_client import McpWire
from doubles.mcp_tools import conformance_tools
from mcp.shared.auth import OAuthToken

from meshhost.cli.main import run
from meshhost.mcp import FileTokens
from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit

PROGRAM = str(Path(__file__).parents[2] / "doubles" / "stdio_server.py")


async def cli(*arguments: str) -> int:
    """Run a command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(run, arguments)


async def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    assert await cli(*arguments, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "names"),
    [((), ["kit__test_simple_text"]), (("--toolkit", "kit"), ["test_simple_text"]), (("--toolkit", "other"), [])],
    ids=["all", "one toolkit", "another toolkit"],
)
async def test_what_url_prints_is_enough_to_use_the_room(
    server: RunningServer, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], names: list[str]
) -> None:
    config = (await printed(capsys, "mcp", "url", *options))["mcpServers"]["meshhost-demo"]
    bearer = config["headers"]["Authorization"].removeprefix("Bearer ")
    async with server.client("demo", name="provider", role="tool") as room, aiohttp.ClientSession() as http:
        await RemoteToolkit(name="kit", tools=conformance_tools()[:1]).start(room=room)
        assert await McpWire(http, config["url"], bearer).names() == names
        # It opens nothing else.
        async with http.get(f"{server.url}/rooms/demo/queues", headers=config["headers"]) as response:
            assert response.status == 403


async def test_url_for_a_client_that_logs_in_by_itself_has_no_secret(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = await printed(capsys, "mcp", "url", "--no-token", "--room", "a-b")
    assert config == {"mcpServers": {"meshhost-a-b": {"type": "http", "url": f"{server.url}/rooms/a-b/mcp"}}}
    assert await cli("mcp", "url") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["mcpServers"]
    assert "configuration" in shown.err


async def test_check_lists_the_tools_of_a_program(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = await asyncio.to_thread(run, ["mcp", "check", "--json", sys.executable, PROGRAM])
    assert listed == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol_version"] == "2025-11-25"
    assert {"pid", "crash"} <= {tool["name"] for tool in found["tools"]}
    assert await cli("mcp", "check", sys.executable, PROGRAM) == 0
    assert "speaks MCP 2025-11-25" in capsys.readouterr().err


async def test_check_uses_headers_and_stored_logins(
    server: RunningServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address, token = f"{server.url}/rooms/demo/mcp", server.token("demo")
    header = f"Authorization: Bearer {token}"
    assert await cli("mcp", "check", "--json", "--header", header, address) == 0
    assert json.loads(capsys.readouterr().out)["protocol_version"] == "2026-07-28"
    await FileTokens(tmp_path / "t").of(tenant="acme", server=address).set_tokens(OAuthToken(access_token=token))
    stored = ("--tokens", str(tmp_path / "t"), "--tenant")
    assert await cli("mcp", "check", *stored, "acme", address) == 0
    capsys.readouterr()
    assert await cli("mcp", "check", *stored, "rival", address) == 1
    assert "meshhost mcp login" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("check", "/no/such/program"), 1, "cannot be started"),
        (("check", "http://127.0.0.1:9/mcp"), 1, "cannot be used"),
        (("check", "http://user:pw@127.0.0.1:9/mcp"), 1, "pass a password as a header"),
        (("check", "--header", "x", "http://127.0.0.1:9/mcp"), 2, "expected NAME:VALUE"),
        (("check", "--header", "a: b", "program"), 2, "is for a server at an address"),
        (("check", "--tenant", "a", "program"), 2, "is for a server at an address"),
        (("check", "http://127.0.0.1:9/mcp", "more"), 2, "expected nothing after the address"),
        (("url", "--lifetime", "soon"), 2, "expected a time"),
        (("url", "--name", " "), 2, "expected a name"),
        (("login", "--tenant", "a", "http://127.0.0.1:9/mcp"), 1, "the login failed"),
    ],
)
async def test_mistakes_are_said_in_one_line(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert await cli("mcp", *arguments) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


async def test_without_the_extra_a_command_says_what_to_install(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mcp" or name.startswith("meshhost.mcp")]:
        environment.delitem(sys.modules, name)
    environment.setitem(sys.modules, "mcp", None)  # type: ignore[arg-type]
    assert run(["mcp", "check", "program"]) == 1
    assert "pip install 'meshhost[mcp]'" in capsys.readouterr().err
