"""What the code of a worker logs is found in the log of the room by its message, from a task and from a process."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.identity.webhooks import webhook_body
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer, running_server

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="isolation 'process' needs Linux")
ISOLATIONS = ["task", pytest.param("process", marks=[pytest.mark.slow, needs_linux])]
PROGRAM = Path(__file__).parents[1] / "isolation_programs" / "logging_worker.py"
SAID = ["begins with hello", "in a thread", "in a task"]

Json = dict[str, Any]


def _class() -> Any:
    spec = importlib.util.spec_from_file_location("logging_worker", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LoggingWorker


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@asynccontextmanager
async def at_work(server: RunningServer, isolation: str = "task", **scope: Any) -> AsyncIterator[RoomClient]:
    """A host with the worker, called into the room."""
    options = ProcessOptions(size=0, program=Program(str(PROGRAM), is_module=False), look_seconds=0.1)
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url], process_pool=options)
    host.add_path("/LoggingWorker", cls=_class(), isolation=isolation)
    await host.start()
    token = server.token("room", name="worker", role="agent", **scope)
    url = server.server.room_url("room")
    body = webhook_body("room.call", {"room_name": "room", "room_url": url, "token": token, "arguments": {}})
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"http://127.0.0.1:{host.port}/LoggingWorker", data=body) as response,
            server.client("room") as user,
        ):
            assert response.status == 200
            yield user
    finally:
        await host.stop()


async def lines_of(server: RunningServer, enough: Callable[[list[Json]], bool], **query: str) -> list[Json]:
    """The lines of the room that fit, as soon as they are enough."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with asyncio.timeout(15), aiohttp.ClientSession(headers=headers) as http:
        while True:
            async with http.get(f"{server.url}/rooms/room/log", params=query) as answer:
                lines: list[Json] = (await answer.json())["lines"]
            if enough(lines):
                return lines
            await asyncio.sleep(0.05)  # lines are reported by and by, and nobody is told


def texts(lines: list[Json]) -> list[str]:
    return [line["text"] for line in lines]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_what_the_code_logs_is_found_by_its_message(server: RunningServer, isolation: str) -> None:
    async with at_work(server, isolation) as user:
        first = str(await user.queues.send(name="jobs", message="hello"))
        other = str(await user.queues.send(name="jobs", message="fail"))
        lines = await lines_of(server, lambda found: len(found) >= 3, queue="jobs", message=first)
        assert texts(lines) == SAID
        line = lines[0]
        assert (line["level"], line["agent"]) == ("WARNING", "worker")
        expected = {"logger": "my_program", "queue": "jobs", "message_id": first, "attempt": 1, "city": "Oslo"}
        assert line["fields"] == expected

        failed = await lines_of(server, lambda found: "processing failed" in texts(found), message=other)
        [why] = [line for line in failed if line["text"] == "processing failed" and line["fields"]["attempt"] == 1]
        assert why["fields"]["error"] == "ValueError: as told"
        assert why["fields"]["traceback"].endswith("ValueError: as told\n")
        # In the log of the whole room each is once, although this process has both sides.
        whole = await lines_of(server, lambda found: texts(found).count("processing failed") >= 1)
        attempts = [line["fields"].get("attempt") for line in whole if line["text"] == "processing failed"]
        assert len(attempts) == len(set(attempts))
        assert await lines_of(server, lambda found: found == [], queue="others") == []


async def test_an_agent_that_may_not_write_the_log_reports_nothing(server: RunningServer) -> None:
    scope = ApiScope.agent_default().model_copy(update={"developer": None})
    async with at_work(server, scope=scope) as user:
        sent = str(await user.queues.send(name="jobs", message="hello"))
        ended = await user.queues.wait("jobs", sent, timeout=15)
        assert (ended is not None, ended and ended.state) == (True, "done")
    assert await lines_of(server, lambda found: True, message=sent) == []


async def test_a_line_that_is_none_is_refused_with_the_member_named(server: RunningServer) -> None:
    line = {
        "at": 5.0,
        "level": "INFO",
        "logger": "a",
        "text": "t",
        "queue": "jobs",
        "message_id": "7",
        "attempt": 1,
        "fields": {},
    }
    async with server.client("room") as ann:
        assert await ann.send_request("developer.report", {"lines": [line]}) == {"kept": 1}
        for wrong in ({"level": "LOUD"}, {"at": "now"}, {"text": "x" * 2001}, {"fields": {"a": []}}, {"attempt": -1}):
            [name] = wrong
            with pytest.raises(Exception, match=name):
                await ann.send_request("developer.report", {"lines": [line | wrong]})
        for number in (0, 101):
            with pytest.raises(Exception, match="lines"):
                await ann.send_request("developer.report", {"lines": [line] * number})
    [kept] = await lines_of(server, bool, message="7")
    assert (kept["at"], kept["text"]) == (5.0, "t")
