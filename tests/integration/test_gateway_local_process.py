"""LocalProvider and its child, with children that are small scripts instead of llama.cpp."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from meshhost.errors import LLMError
from meshhost.gateway.local.process import LlamaProcess
from meshhost.gateway.local.provider import LocalProvider
from meshhost.gateway.provider import Caller
from meshhost.identity.tenant import RoomKey, TenantId

LISTEN = (
    "import json,socket,sys\n"
    "sys.stdin.buffer.readline()\n"
    "s=socket.create_server(('127.0.0.1',0))\n"
    "print(json.dumps({'address':'http://127.0.0.1:%d'%s.getsockname()[1]}),flush=True)\n"
    "sys.stdin.read()\n"
)
# A server that answers every request with the lines in {answer!r}, or never when there are none.
ANSWER = (
    "import json,socket,sys,threading\n"
    "sys.stdin.buffer.readline()\n"
    "s=socket.create_server(('127.0.0.1',0))\n"
    "def run():\n"
    "  kept=[]\n"
    "  while True:\n"
    "    c,_=s.accept()\n"
    "    kept.append(c)\n"
    "    if {answer!r} and c.recv(65536):\n"
    "      c.sendall({answer!r}); c.close()\n"
    "threading.Thread(target=run,daemon=True).start()\n"
    "print(json.dumps({{'address':'http://127.0.0.1:%d'%s.getsockname()[1]}}),flush=True)\n"
    "sys.stdin.read()\n"
)
FAIL = "raise SystemExit(3)"
SILENT = "import sys; sys.stdin.read()"


class StandingClock:
    """Stands still until moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def script(text: str) -> Sequence[str]:
    return [sys.executable, "-c", text]


async def test_a_child_that_died_is_started_again_by_the_next_request() -> None:
    process = LlamaProcess(lambda: script(LISTEN))
    try:
        first = await process.address()
        assert await process.address() is first
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        while process.pid is not None:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)

        second = await process.address()

        assert second.key != first.key
        assert process.pid is not None
    finally:
        await process.stop()
    assert process.pid is None


async def test_a_child_that_keeps_failing_is_not_started_at_every_request() -> None:
    clock, starts = StandingClock(), []

    def command() -> Sequence[str]:
        starts.append(clock.now)
        return script(FAIL)

    process = LlamaProcess(command, clock=clock)
    for _ in range(5):
        with pytest.raises(LLMError) as caught:
            await process.address()
        assert caught.value.status == 503
    assert len(starts) == 2

    clock.now += 1.0
    with pytest.raises(LLMError):
        await process.address()
    assert len(starts) == 3


async def test_a_child_that_is_never_ready_is_ended() -> None:
    process = LlamaProcess(lambda: script(SILENT), start_timeout=0.2)
    with pytest.raises(LLMError, match="was not ready"):
        await process.address()
    assert process.pid is None


async def test_a_program_that_is_not_there_is_an_llm_error() -> None:
    with pytest.raises(LLMError, match="could not be started"):
        await LlamaProcess(lambda: ["/nowhere/python"]).address()


@asynccontextmanager
async def served(program: str, tmp_path: Path) -> AsyncIterator[tuple[str, LlamaProcess, asyncio.Event]]:
    """A LocalProvider over a child that runs `program`: its address, its process, and an event set when
    a request was handled."""
    (tmp_path / "m.gguf").touch()
    process = LlamaProcess(lambda: script(program), clock=StandingClock())
    provider = LocalProvider(model_path=tmp_path / "m.gguf", threads=1, process=process)
    handled = asyncio.Event()
    who = Caller(TenantId("acme"), RoomKey(TenantId("acme"), "lobby"), "bob")

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await provider.handle(request, request.match_info["path"], who)
        finally:
            handled.set()

    app = web.Application()
    app.router.add_route("*", "/v1/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await provider.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", process, handled
    finally:
        await runner.cleanup()
        await provider.stop()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "refused a generation"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ndata: {"error": {}}\n\n', "failed during a generation"),
        (b"nonsense\r\n\r\n", "ended before its answer did"),
    ],
)
async def test_a_failing_generation_is_a_502_that_says_so(answer: bytes, message: str, tmp_path: Path) -> None:
    async with (
        served(ANSWER.format(answer=answer), tmp_path) as (url, _, _),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/responses", json={"input": "hi"}) as response,
    ):
        assert response.status == 502
        assert message in (await response.json())["error"]["message"]


async def test_a_child_that_does_not_start_is_a_503_with_retry_after(tmp_path: Path) -> None:
    async with (
        served(FAIL, tmp_path) as (url, _, _),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/responses", json={"input": "hi"}) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json())["error"]["type"] == "provider_not_ready"


async def test_bad_requests_and_unknown_operations_are_refused(tmp_path: Path) -> None:
    async with served(LISTEN, tmp_path) as (url, _, _), aiohttp.ClientSession() as session:
        async with session.post(f"{url}/responses", data=b"[") as response:
            assert response.status == 400
        async with session.post(f"{url}/files", data=b"") as response:
            assert response.status == 404
        async with session.get(f"{url}/models") as response:
            assert (await response.json())["data"][0]["id"] == "smollm2-135m"


async def test_chat_passes_to_the_present_child(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with served(ANSWER.format(answer=answer), tmp_path) as (url, process, _), aiohttp.ClientSession() as session:
        for _ in range(2):
            for _ in range(2):
                async with session.post(f"{url}/chat/completions", json={}) as response:
                    assert (response.status, await response.text()) == (200, "{}")
            await process.stop()


async def test_a_caller_that_leaves_ends_the_generation(tmp_path: Path) -> None:
    async with (
        served(ANSWER.format(answer=b""), tmp_path) as (url, process, handled),
        aiohttp.ClientSession() as session,
    ):
        await process.address()
        with pytest.raises(TimeoutError):
            await session.post(f"{url}/responses", json={"input": "hi"}, timeout=aiohttp.ClientTimeout(total=0.2))
        async with asyncio.timeout(10):
            await handled.wait()


async def test_a_child_that_does_not_listen_to_its_stdin_is_killed() -> None:
    deaf = LISTEN.replace("sys.stdin.read()", "import time; time.sleep(60)")
    process = LlamaProcess(lambda: script(deaf), stop_timeout=0.1)
    await process.address()
    await process.stop()
    assert process.pid is None
