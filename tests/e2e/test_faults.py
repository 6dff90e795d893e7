"""A room server that is killed between two statements of what a client asked for: its restart is all that is needed."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import meshhost
from meshhost.errors import ConnectionLostError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# The command `meshhost`, which kills itself before the commit of a statement, or after it and before anybody is told.
KILLED = """
import os, signal, sys
from doubles.fault_points import count_statements
from meshhost.cli.main import main
from meshhost.stores.sqlite import thread

statement, moment = sys.argv.pop(1), sys.argv.pop(1)
is_seen, deliver = False, thread._deliver

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def before(text):
    global is_seen
    if is_seen and moment == "before" and text == "COMMIT":
        kill()
    is_seen = is_seen or text.startswith(statement)

def delivered(batch):
    if is_seen and moment == "after":
        kill()
    deliver(batch)

count_statements(before)
thread._deliver = delivered
main()
"""


async def test_a_send_and_an_ack_go_through_a_server_that_is_killed_in_the_middle_of_each(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    for name in ("MESHHOST_API_URL", "MESHHOST_API_KEY"):
        monkeypatch.setenv(name, home.environment[name])

    def server(statement: str, moment: str) -> Any:
        return home.running("-c", KILLED, statement, moment, "room", "serve", "--port", str(home.port))

    async def killed(running: Any) -> None:
        assert await running.exit_code() == -signal.SIGKILL

    async with AsyncExitStack() as stack:
        async with server("INSERT INTO contents", "after") as first:
            await first.line("room server ready")
            room = await stack.enter_async_context(meshhost.connect("works"))
            sending = asyncio.ensure_future(room.queues.send(name="jobs", message=1))
            await killed(first)
        async with server("DELETE FROM messages", "before") as second:
            async with asyncio.timeout(60):
                sent = await sending  # the client sent it again, under the same id
            message = await room.queues.lease(name="jobs")
            assert message is not None
            with pytest.raises(ConnectionLostError):
                await message.ack()
            await killed(second)
        async with home.room_server():
            found = await room.queues.get("jobs", sent)
            assert found is not None
            assert found.state == "leased"
            await message.ack()
            assert [record.state async for record in room.queues.find("jobs")] == ["done"]
