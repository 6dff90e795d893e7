"""MCP servers as toolkits: real programs and real addresses, which crash, change, wait and return too much."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.node_programs import node_programs
from doubles.relay import Relay
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.auth import OAuthToken
from mcp_types import CallToolResult
from yarl import URL

from meshhost.agents.worker import Worker
from meshhost.backoff import Backoff
from meshhost.errors import InvalidRequestError, LimitExceededError, RequestTimeoutError, RoomError, ToolError
from meshhost.identity.keys import ApiKey
from meshhost.mcp import FileTokens, HttpServer, MCPAgent, MCPServerToolkit, MCPTool, MCPToolkit, StdioServer
from meshhost.mcp.oauth import login, token_auth
from meshhost.mcp.tools import response_of
from meshhost.protocol.messages import FileResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.testing.scripted_llm import ScriptedCall, ScriptedLLM
from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext

Until = Callable[[Callable[[], bool]], Awaitable[None]]
PROGRAM = str(Path(__file__).parents[2] / "doubles" / "stdio_server.py")
SOON = Backoff(first_delay=0.01, max_delay=0.05)


def program(*args: str, **options: Any) -> StdioServer:
    return StdioServer(sys.executable, [PROGRAM, *args], **options)


def toolkit(server: Any = None, **options: Any) -> MCPServerToolkit:
    return MCPServerToolkit(**{"name": "test", "server": server or program(), "backoff": SOON} | options)


async def use(kit: Any, tool: str, on_progress: Any = None, /, **arguments: Any) -> Any:
    """What a tool returns."""
    context = ToolContext(room=None, caller=None, on_progress=on_progress)  # type: ignore[arg-type]
    return await kit.execute(context=context, name=tool, arguments=arguments)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# --- A program that we start


async def test_tools_of_a_program_have_names_that_models_accept(caplog: pytest.LogCaptureFixture) -> None:
    async with toolkit() as kit:
        names = [tool.name for tool in kit.tools]
        assert names[0] == "pid"
        weird = [name for name in names if name.startswith("weird")]
        assert len(set(weird)) == 2
        assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in weird)
        assert await use(kit, weird[0]) == TextResponse(text="called weird name!")
        assert await use(kit, "junk") == TextResponse(text="after junk")


async def test_a_program_that_crashes_comes_back_and_only_its_call_fails(until: Until) -> None:
    async with toolkit() as kit:
        first = int((await use(kit, "pid")).text)
        with pytest.raises(ToolError, match=r"lost during 'crash'.*may or may not have been done.*out of paper"):
            await use(kit, "crash")
        second = int((await use(kit, "pid")).text)
        assert second != first
        # Also one that is killed while nobody calls.
        os.kill(second, signal.SIGKILL)
        await until(lambda: not kit.connection.is_connected)
        third = int((await use(kit, "pid")).text)
    assert third not in (first, second)
    await until(lambda: not any(map(is_running, (first, second, third))))


async def test_what_a_program_that_crashed_had_started_ends_too(until: Until) -> None:
    async with toolkit() as kit:
        child = int((await use(kit, "child")).text)
        with pytest.raises(ToolError, match="out of paper"):
            await use(kit, "crash")
        await until(lambda: not is_running(child))
        assert await use(kit, "pid")


async def test_calls_in_progress_fail_together_when_the_program_dies(until: Until) -> None:
    async with toolkit() as kit:
        pid = int((await use(kit, "pid")).text)
        calls = [asyncio.get_running_loop().create_task(use(kit, "wait")) for _ in range(5)]
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ToolError] * 5


async def test_a_program_and_all_that_it_started_end_with_the_toolkit(until: Until) -> None:
    kit = toolkit()
    await kit.start()
    pid, child = int((await use(kit, "pid")).text), int((await use(kit, "child")).text)
    waiting = asyncio.get_running_loop().create_task(use(kit, "wait"))
    await asyncio.sleep(0.1)
    await kit.stop()
    await kit.stop()
    with pytest.raises(RoomError):
        await waiting
    await until(lambda: not is_running(pid) and not is_running(child))
    with pytest.raises(ToolError, match="is not there"):
        await asyncio.wait_for(use(kit, "pid"), 20)


async def test_a_program_that_is_stopped_while_its_agent_is_cancelled_ends_too(until: Until) -> None:
    kit = toolkit()

    async def work() -> None:
        async with kit:
            pids.append(int((await use(kit, "pid")).text))
            await asyncio.Event().wait()

    pids: list[int] = []
    task = asyncio.get_running_loop().create_task(work())
    await until(lambda: bool(pids))
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: not is_running(pids[0]))


async def test_a_program_gets_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    async with toolkit(program(env={"CITY": "Rome"})) as kit:
        result = await use(kit, "env")
    own = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}  # of the shell that starts it, and of Python
    assert set(result.json) <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "CITY"} | own
    assert result.json["CITY"] == "Rome"


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (StdioServer("/no/such/program"), "cannot be started"),
        (StdioServer(sys.executable, ["-c", "import sys; sys.exit('no licence')"]), "no licence"),
        (HttpServer("http://127.0.0.1:9/mcp"), "cannot be used"),
    ],
    ids=["missing", "ends at once", "nobody listens"],
)
async def test_a_server_that_cannot_be_used_is_said_at_the_start(server: Any, why: str) -> None:
    kit = toolkit(server)
    with pytest.raises(ToolError, match=why):
        await kit.start()
    with pytest.raises(ToolError, match=why):  # and again, so it was left as it was before
        await kit.start()


async def test_a_server_that_refuses_the_token_is_said_with_its_status(server: RunningServer) -> None:
    with pytest.raises(ToolError, match="HTTP status 401"):
        await toolkit(HttpServer(f"{server.url}/rooms/room/mcp")).start()


async def test_a_program_that_says_nothing_is_not_waited_for_long() -> None:
    kit = toolkit(StdioServer(sys.executable, ["-c", "import time; time.sleep(600)"]), connect_seconds=0.5)
    with pytest.raises(ToolError, match="cannot be used"):
        await kit.start()


async def test_a_list_that_never_ends_is_not_followed_for_ever() -> None:
    kit = toolkit(program(env={"ENDLESS_LIST": "1"}))
    with pytest.raises(ToolError, match="in more than 200 pages"):
        await kit.start()


async def test_a_toolkit_that_is_stopped_while_it_connects_stops_at_once() -> None:
    kit = toolkit(StdioServer(sys.executable, ["-c", "import time; time.sleep(600)"]), connect_seconds=600)
    starting = asyncio.get_running_loop().create_task(kit.start())
    await asyncio.sleep(0.1)  # whether it has got as far as waiting or not, it must end
    starting.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([starting])
    assert starting.cancelled()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: StdioServer(""),
        lambda: HttpServer("ftp://x"),
        lambda: HttpServer("https://user:password@x/mcp"),
        lambda: toolkit(allowed_tools="pid"),
        lambda: toolkit(timeout=0),
        lambda: toolkit(max_result_bytes=0),
        lambda: FileTokens(Path("x")).of(tenant="", server="s"),
    ],
    ids=["command", "scheme", "password", "allowed", "timeout", "bytes", "tenant"],
)
def test_wrong_settings_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wrong()
    assert "password@" not in str(caught.value)


# --- Calls


async def test_only_allowed_tools_are_offered() -> None:
    async with toolkit(allowed_tools=["pid"]) as kit:
        assert [tool.name for tool in kit.tools] == ["pid"]
    with pytest.raises(InvalidRequestError, match="has no tool 'nothing'"):
        await toolkit(allowed_tools=["pid", "nothing"]).start()


async def test_new_tools_are_there_as_soon_as_the_server_says_so(until: Until) -> None:
    async with toolkit() as kit:
        assert await use(kit, "grow", name="fresh") == TextResponse(text="grown")
        await until(lambda: kit.tools[-1].name == "fresh")
        assert await use(kit, "fresh") == TextResponse(text="called fresh")


async def test_a_call_has_a_time_and_is_cancelled_at_the_server(tmp_path: Path, until: Until) -> None:
    seen = tmp_path / "seen"
    async with toolkit(program(str(seen)), timeout=0.3) as kit:
        with pytest.raises(RequestTimeoutError, match=r"did not answer 'wait' within 0\.3 s"):
            await use(kit, "wait")
        await until(seen.exists)
        seen.unlink()
    async with toolkit(program(str(seen))) as kit:
        call = asyncio.get_running_loop().create_task(use(kit, "wait"))
        await asyncio.sleep(0.2)
        call.cancel()
        await until(seen.exists)
        assert await use(kit, "pid")  # the connection goes on


async def test_results_are_bounded_and_errors_are_errors() -> None:
    async with toolkit(max_result_bytes=100) as kit:
        assert len((await use(kit, "large", size=100)).text) == 100
        with pytest.raises(LimitExceededError, match="has 101 bytes, and at most 100"):
            await use(kit, "large", size=101)
        with pytest.raises(ToolError, match="no such city"):
            await use(kit, "fail")


async def test_progress_of_a_server_reaches_the_caller() -> None:
    seen: list[Any] = []

    async def report(*progress: Any) -> None:
        seen.append(progress)

    async with toolkit() as kit:
        assert await use(kit, "steps", report) == TextResponse(text="done")
    assert seen == [(1, None, None), (2, None, None)]


async def test_a_session_that_a_program_opened_is_a_toolkit_as_in_meshagent() -> None:
    async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=[PROGRAM]))) as client:
        session = client.session
        listed = (await session.list_tools()).tools
        kit = MCPToolkit(name="mine", session=session, tools=listed)
        assert (kit.name, kit.tools[0].name) == ("mine", "pid")
        assert int((await use(kit, "pid")).text) > 0
        assert isinstance(kit.tools[0], MCPTool)
        with pytest.raises(ToolError, match="no such city"):
            await use(kit, "fail")
        with pytest.raises(ToolError):
            await use(kit, "crash")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], TextResponse(text="")),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], TextResponse(text="a\nb")),
        (
            [{"type": "image", "data": "AAE=", "mimeType": "image/png"}],
            FileResponse(data=b"\x00\x01", name="image", mime_type="image/png"),
        ),
        (
            [{"type": "resource_link", "name": "n", "uri": "https://example.com/n"}],
            LinkResponse(name="n", url="https://example.com/n"),
        ),
        (
            [{"type": "resource", "resource": {"uri": "test://a/b.bin", "blob": "AAE="}}],
            FileResponse(data=b"\x00\x01", name="b.bin", mime_type="application/octet-stream"),
        ),
        ([{"type": "resource", "resource": {"uri": "test://a", "text": "t"}}], TextResponse(text="t")),
        (
            [{"type": "text", "text": "a"}, {"type": "image", "data": "AAE=", "mimeType": "image/png"}],
            JsonResponse(
                json=[{"type": "text", "text": "a"}, {"type": "image", "data": "AAE=", "mimeType": "image/png"}]
            ),
        ),
    ],
)
def test_content_becomes_what_a_tool_of_ours_would_return(content: list[Any], expected: Any) -> None:
    assert response_of(CallToolResult.model_validate({"content": content}), "x", 1000) == expected


def test_a_damaged_file_is_refused() -> None:
    content = [{"type": "image", "data": "not base64!", "mimeType": "image/png"}]
    with pytest.raises(RoomError, match="not base64"):
        response_of(CallToolResult.model_validate({"content": content}), "x", 1000)


# --- Well-known servers under a Worker, and in a room


async def _work(server: RunningServer, kit: MCPServerToolkit, step: Callable[[ScriptedCall], Any]) -> Any:
    """What a worker with this toolkit makes of one message, with a model that does one step."""

    class Uses(Worker):
        async def start(self, *, room: Any) -> None:
            await kit.start()
            await super().start(room=room)

        async def stop(self) -> None:
            await super().stop()
            await kit.stop()

        async def process_message(self, *, chat_context: Any, message: Any, toolkits: Any) -> Any:
            return await self._llm_adapter.next(context=chat_context, room=self.room, toolkits=toolkits)  # type: ignore[union-attr]

    worker = Uses(queue="jobs", name="worker", llm_adapter=ScriptedLLM([step]), toolkits=[kit])
    async with server.client(name="worker", role="agent") as room, server.client(name="user") as user:
        await worker.start(room=room)
        try:
            async with asyncio.timeout(60):
                return await user.queues.send(name="jobs", message={"do": "it"}, reply=True)
        finally:
            await worker.stop()


def _node(package: str, *args: str) -> StdioServer:
    command, *given = node_programs().command(package)
    return StdioServer(command, [*given, *args])


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_server_everything_works_under_a_worker(server: RunningServer) -> None:
    kit = MCPServerToolkit(name="everything", server=await asyncio.to_thread(_node, "server-everything", "stdio"))

    async def step(call: ScriptedCall) -> dict[str, Any]:
        (given,) = [each for each in call.toolkits if each.name == "everything"]
        total = await use(given, "get-sum", a=20, b=22)
        structured = await use(given, "get-structured-content", location="New York")
        steps: list[Any] = []

        async def report(*progress: Any) -> None:
            steps.append(progress)

        await use(given, "trigger-long-running-operation", report, duration=0.4, steps=2)
        with pytest.raises(RoomError):
            await use(given, "get-sum", a="no number", b=1)
        return {"sum": total.text, "structured": sorted(structured.json), "steps": len(steps)}

    result = await _work(server, kit, step)
    assert "42" in result["sum"]
    assert "temperature" in result["structured"]
    assert result["steps"] == 2


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_server_filesystem_works_under_a_worker(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("hello from a file")
    target = await asyncio.to_thread(_node, "server-filesystem", str(tmp_path))
    kit = MCPServerToolkit(name="files", server=target, allowed_tools=["read_text_file", "write_file"])

    async def step(call: ScriptedCall) -> str:
        (given,) = [each for each in call.toolkits if each.name == "files"]
        assert {tool.name for tool in given.tools} == {"read_text_file", "write_file"}
        read = await use(given, "read_text_file", path=str(tmp_path / "in.txt"))
        found = read.json["content"] if isinstance(read, JsonResponse) else read.text
        await use(given, "write_file", path=str(tmp_path / "out.txt"), content=found.upper())
        with pytest.raises(RoomError):
            await use(given, "read_text_file", path="/etc/passwd")
        return str(found)

    assert "hello from a file" in await _work(server, kit, step)
    assert "HELLO FROM A FILE" in (tmp_path / "out.txt").read_text()


async def test_an_agent_offers_a_server_in_its_room_also_after_a_change(server: RunningServer, until: Until) -> None:
    agent = MCPAgent(name="bridge", toolkit=toolkit())
    async with server.client(name="bridge", role="agent") as room, server.client(name="user") as user:
        await agent.start(room=room)
        invoke = user.agents.invoke_tool
        first = await invoke(toolkit="test", tool="pid", arguments={})
        assert isinstance(first, TextResponse)
        with pytest.raises(ToolError, match="out of paper"):
            await invoke(toolkit="test", tool="crash", arguments={})
        assert await invoke(toolkit="test", tool="pid", arguments={}) != first
        await invoke(toolkit="test", tool="grow", arguments={"name": "fresh"})
        async with asyncio.timeout(20):
            while True:
                listed = {tool.name for kit in await user.agents.list_toolkits() for tool in kit.tools}
                if "fresh" in listed:
                    break
                await asyncio.sleep(0.05)
        assert await invoke(toolkit="test", tool="fresh", arguments={}) == TextResponse(text="called fresh")
        await agent.stop()
        assert await user.agents.list_toolkits() == []


# --- A server at an address: another room, in the stateless protocol


class Whose(Tool):
    """Says in whose room it is."""

    def __init__(self, whose: str) -> None:
        super().__init__(name="whose", input_schema={"type": "object"})
        self._whose = whose

    async def execute(self, *, context: ToolContext) -> str:
        await asyncio.sleep(0.01)
        return self._whose


@asynccontextmanager
async def _offering(server: RunningServer, *tools: Tool, name: str = "kit") -> AsyncIterator[None]:
    async with server.client(name="provider", role="tool") as room:
        await RemoteToolkit(name=name, tools=tools).start(room=room)
        yield


async def test_a_room_is_a_toolkit_elsewhere_and_its_changes_arrive(server: RunningServer, until: Until) -> None:
    headers = {"Authorization": f"Bearer {server.token('room', name='elsewhere')}"}
    async with toolkit(HttpServer(f"{server.url}/rooms/room/mcp", headers=headers)) as kit:
        assert kit.connection.protocol_version == "2026-07-28"
        assert kit.tools == []
        async with _offering(server, Whose("mine")):
            await until(lambda: [tool.name for tool in kit.tools] == ["kit__whose"])
            assert await use(kit, "kit__whose") == TextResponse(text="mine")
        await until(lambda: kit.tools == [])


async def test_changes_arrive_also_after_their_stream_broke_off(server: RunningServer, until: Until) -> None:
    headers = {"Authorization": f"Bearer {server.token('room', name='elsewhere')}"}
    async with (
        Relay(server.url) as relay,
        toolkit(HttpServer(f"{relay.url}/rooms/room/mcp", headers=headers)) as kit,
    ):
        async with _offering(server, Whose("mine")):
            await until(lambda: [tool.name for tool in kit.tools] == ["kit__whose"])
            relay.cut()
        await until(lambda: kit.tools == [])
        async with _offering(server, Whose("mine"), name="other"):
            await until(lambda: [tool.name for tool in kit.tools] == ["other__whose"])


async def test_one_tenants_token_is_never_used_for_another(
    server: RunningServer, other_key: ApiKey, tmp_path: Path
) -> None:
    other = RunningServer(server.server, other_key)
    url = f"{server.url}/rooms/room/mcp"
    store = FileTokens(tmp_path / "tokens")
    for tenant, token in (("mine", server.token("room")), ("theirs", other.token("room"))):
        await store.of(tenant=tenant, server=url).set_tokens(OAuthToken(access_token=token))

    async def ask(tenant: str) -> list[str]:
        auth = token_auth(url, store.of(tenant=tenant, server=url))
        async with toolkit(HttpServer(url, auth=auth), name=tenant) as kit:
            answers = await asyncio.gather(*(use(kit, "kit__whose") for _ in range(20)))
        return [answer.text for answer in answers]

    async with _offering(server, Whose("mine")), _offering(other, Whose("theirs")):
        found = await asyncio.gather(*(ask(tenant) for tenant in ("mine", "theirs") * 3))
        assert [set(each) for each in found] == [{"mine"}, {"theirs"}] * 3
        with pytest.raises(ToolError, match="meshhost mcp login"):
            await ask("nobody")
        assert await store.of(tenant="theirs", server=url, user="ann").get_tokens() is None
        assert await store.of(tenant="theirs", server=f"{url}/").get_tokens() is None
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tokens").iterdir()} == {0o600}
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700


async def test_a_file_of_tokens_that_was_copied_is_nobodys(tmp_path: Path) -> None:
    store = FileTokens(tmp_path)
    mine, theirs = (store.of(tenant=tenant, server="s") for tenant in ("mine", "theirs"))
    await mine.set_tokens(OAuthToken(access_token="m"))
    (own,) = await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
    await theirs.set_tokens(OAuthToken(access_token="t"))
    (other,) = await asyncio.to_thread(lambda: [path for path in tmp_path.iterdir() if path != own])
    own.write_bytes(other.read_bytes())
    assert await mine.get_tokens() is None
    assert await theirs.get_tokens() == OAuthToken(access_token="t")


async def test_tokens_that_are_damaged_are_none(tmp_path: Path) -> None:
    tokens = FileTokens(tmp_path).of(tenant="t", server="s")
    await tokens.set_tokens(OAuthToken(access_token="secret"))
    assert "secret" not in repr(tokens)
    (file,) = await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
    file.write_text(file.read_text().replace('"access_token"', '"other"'))
    assert await tokens.get_tokens() is None
    file.write_text("{")
    assert await tokens.get_tokens() is None
    assert await tokens.get_client_info() is None


async def test_a_person_logs_in_once_and_the_toolkit_uses_it(
    server: RunningServer, http: aiohttp.ClientSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{server.url}/rooms/room/mcp"
    tokens = FileTokens(tmp_path).of(tenant="t", server=url)

    async def at_the_browser(page: str) -> None:
        async with http.get(page) as response:
            name = re.search(r'name="login" value="([^"]+)"', await response.text())
        code = re.search(r"its code is ([0-9-]+)", capsys.readouterr().err)
        assert name is not None
        assert code is not None
        form = {"login": name[1], "console_code": code[1]}
        async with http.post(f"{server.url}/oauth/authorize", data=form) as response:
            assert "Go on in the terminal" in await response.text()

    await login(url, tokens, show=at_the_browser, seconds=30)
    async with _offering(server, Whose("mine")), toolkit(HttpServer(url, auth=token_auth(url, tokens))) as kit:
        assert await use(kit, "kit__whose") == TextResponse(text="mine")


async def test_a_login_that_nobody_ends_or_that_is_refused_changes_nothing(
    server: RunningServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def nobody(_: str) -> None:
        pass

    async def refuse(page: str) -> None:
        async with http.get(URL(page).query["redirect_uri"], params={"error": "access_denied"}) as response:
            assert "You are not logged in" in await response.text()

    url = f"{server.url}/rooms/room/mcp"
    tokens = FileTokens(tmp_path).of(tenant="t", server=url)
    await tokens.set_tokens(OAuthToken(access_token="before"))
    with pytest.raises(ToolError, match=r"nobody logged in within 0\.5 s"):
        await login(url, tokens, show=nobody, seconds=0.5)
    with pytest.raises(ToolError, match="the page refused: access_denied"):
        await login(url, tokens, show=refuse, seconds=30)
    # Who was logged in before still is.
    assert await tokens.get_tokens() == OAuthToken(access_token="before")
    with pytest.raises(ToolError, match="asks for no login"):
        await login(f"{server.url}/livez", FileTokens(tmp_path).of(tenant="t", server="s"), show=nobody, seconds=5)


async def test_a_server_that_was_restarted_is_dialled_again(serve: Any, unused_tcp_port: int) -> None:
    async with serve(port=unused_tcp_port) as first:
        token = first.token("room")
        kit = toolkit(
            HttpServer(f"{first.url}/rooms/room/mcp", headers={"Authorization": f"Bearer {token}"}), timeout=10
        )
        async with _offering(first, Whose("first")):
            await kit.start()
            assert await use(kit, "kit__whose") == TextResponse(text="first")
            whose = kit.tools[0]
    context = ToolContext(room=None, caller=None)  # type: ignore[arg-type]
    assert isinstance(whose, Tool)
    with pytest.raises(RoomError):
        await whose.execute(context=context)
    async with serve(port=unused_tcp_port) as second, _offering(second, Whose("second")):
        async with asyncio.timeout(20):
            while not kit.connection.is_connected or not kit.tools:  # noqa: ASYNC110 - nobody else says it
                await asyncio.sleep(0.05)
        assert await use(kit, "kit__whose") == TextResponse(text="second")
        await kit.stop()
