"""`meshhost trace` against a real room server."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from meshhost.cli.main import run
from meshhost.testing.server import RunningServer

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Command:
    async def run_command(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, arguments)
        return code, *capsys.readouterr()

    return run_command


async def test_traces_are_listed_and_one_is_shown_as_a_waterfall(server: RunningServer, command: Command) -> None:
    async with server.client("demo", name="ann") as room:
        sent = await room.queues.send(name="jobs", message=1)
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        await leased.nack(reason="failed", error="Traceback\nValueError: \x1b[31mno")
        await room.queues.send(name="mail", message=1)
    code, out, said = await command("trace", "list", "--queue=jobs")
    assert (code, said, len(out.splitlines())) == (0, "", 1)
    trace, _, _, state, name, messages, _, spans = out.rstrip("\n").split("\t")
    assert (state, name, messages, spans) == ("failed", "send jobs", str(sent), "3")

    code, out, _ = await command("trace", "list", "--failed", "--json")
    assert [each["trace"] for each in json.loads(out)] == [trace]
    assert len(json.loads((await command("trace", "list", "--limit=1", "--json"))[1])) == 1
    assert (await command("trace", "list", "--longer=1000"))[1:] == (
        "",
        "no such traces: of many messages only some are recorded, and those that fail\n",
    )

    code, out, _ = await command("trace", "show", trace)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("send jobs, ")
    assert lines[1:3] == ["queues: jobs", f"messages: {sent}"]
    assert [line.strip("├└ ").split()[0] for line in lines[4:]] == ["send", "wait", "lease", "!"]
    assert lines[-1] == "  ! ValueError: [31mno"
    assert all(len(line) <= 80 for line in lines)
    shown = json.loads((await command("trace", "show", trace, "--json"))[1])
    assert [span["name"] for span in shown["spans"]] == ["send jobs", "wait jobs", "lease jobs"]


async def test_a_trace_that_is_not_there_is_told_in_a_line(server: RunningServer, command: Command) -> None:
    code, out, said = await command("trace", "show", "f" * 32)
    assert (code, out) == (1, "")
    assert "no such trace: it was not recorded, or it is too old" in said
    assert (await command("trace", "list", "--room=.."))[0] == 2
