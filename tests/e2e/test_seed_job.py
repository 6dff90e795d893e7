"""The main job as a user does it, with real processes: nothing accepted is lost, whoever is killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

POEM = "Silicon dreams in rows of light."


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Each engine."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_server").new_database()


@pytest.fixture
async def upstream(home: Any) -> AsyncIterator[ScriptedUpstream]:
    """A provider that the room server's gateway uses."""
    async with ScriptedUpstream() as provider:
        home.environment |= {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "key-of-the-gateway"}
        yield provider


def answer(upstream: ScriptedUpstream, *, path: str = "poem.txt", hold: asyncio.Event | None = None) -> None:
    """Script one whole job: a tool call that writes the file, then the last word."""
    if hold is not None:
        # The model begins, and goes on when it is let go.
        upstream.say("I think about it", hold=hold)
        return
    upstream.call_tool("write_file", {"path": path, "text": POEM, "overwrite": True}).say("done")


async def test_the_published_job_runs_word_by_word(home: Any, upstream: ScriptedUpstream) -> None:
    answer(upstream)
    answer(upstream, path="pushed.txt")
    async with home.service("main.py") as service:
        assert any("started one in this process" in line for line in service.lines)
        await home.send()
        await home.until_settled()
        assert await home.file("poem.txt") == POEM

        await home.run("push_queue.py")
        await home.until_settled()
        assert await home.file("pushed.txt") == POEM
    assert upstream.requests[0].authorization == "Bearer key-of-the-gateway"


async def test_a_sent_message_survives_a_kill_of_the_room_server(home: Any) -> None:
    async with home.room_server() as server:
        await home.send()
        server.signal(signal.SIGKILL)
        await server.exit_code()

    async with home.room_server():
        assert (await home.depth())["ready"] == 1


async def test_a_message_in_work_survives_a_kill_of_its_host(home: Any, upstream: ScriptedUpstream) -> None:
    async with home.room_server():
        hold = asyncio.Event()
        answer(upstream, hold=hold)
        async with home.service() as service:
            await home.send()
            await upstream.wait_for_request()
            # The host runs below `service run`: both are killed, as when the machine's memory runs out.
            for child in children_of(service.process.pid):
                os.kill(child, signal.SIGKILL)
            service.signal(signal.SIGKILL)
            await service.exit_code()
        hold.set()

        answer(upstream)
        async with home.service():
            await home.until_settled()
            assert await home.file("poem.txt") == POEM


async def test_an_idle_worker_survives_a_restart_of_the_room_server(home: Any, upstream: ScriptedUpstream) -> None:
    answer(upstream)
    home.environment["MESHHOST_LOG_LEVEL"] = "INFO"
    async with home.room_server() as first, home.service() as service:
        first.signal(signal.SIGKILL)
        await first.exit_code()
        await service.line("room connection lost")
        async with home.room_server():
            await home.send()
            await home.until_settled()
            assert await home.file("poem.txt") == POEM


async def test_sigterm_ends_an_idle_service_with_exit_code_0(home: Any) -> None:
    async with home.room_server(), home.service() as service:
        service.signal(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert (await home.cli("room", "list", "--json")).count("storage-worker") == 0


async def test_sigterm_lets_a_message_in_work_be_finished(home: Any, upstream: ScriptedUpstream) -> None:
    hold = asyncio.Event()
    answer(upstream, hold=hold)
    home.environment["MESHHOST_LOG_LEVEL"] = "INFO"
    async with home.room_server(), home.service() as service:
        await home.send()
        await upstream.wait_for_request()
        await home.send("one more, which nobody begins")
        service.signal(signal.SIGTERM)
        await service.line("state=draining")
        assert service.process.returncode is None
        hold.set()
        assert await service.exit_code() == 0
        depth = await home.depth()
        assert (depth["ready"], depth["leased"], depth["dead"]) == (1, 0, 0)
    assert len(upstream.requests) == 1


async def test_room_server_and_service_leave_no_process_behind(home: Any) -> None:
    async with home.service() as service:
        before = children_of(service.process.pid)
        assert before
        service.signal(signal.SIGINT)
        assert await service.exit_code() == 0
    assert not [child for child in before if is_alive(child)]


async def test_a_program_that_fails_ends_the_service_with_its_exit_code(home: Any) -> None:
    (home.directory / "broken.py").write_text("raise SystemExit(3)")
    async with home.room_server(), home.meshhost("service", "run", "broken.py", "--room=queue-test") as service:
        assert await service.exit_code() == 3
        assert "exit code 3" in await service.line("ended")


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - proc, not a document
        return [int(child) for child in file.read().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
