"""`meshhost schedule` against a real room server, and what it refuses before it asks one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from meshhost.cli.main import run
from meshhost.testing.server import RunningServer

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Command:
    async def run_command(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ("schedule", *arguments))
        return code, *capsys.readouterr()

    return run_command


DAILY = ("--queue=jobs", "--cron=0 8 * * 1-5", "--timezone=Europe/Berlin", "--name=daily", '--message={"a": 1}')


async def test_a_schedule_is_made_listed_paused_run_and_removed(server: RunningServer, command: Command) -> None:
    code, out, _ = await command("add", *DAILY, "--no-overlap", "--missed=skip", "--json")
    made = json.loads(out)
    assert (code, made["overlap"], made["missed"], made["timezone"]) == (0, False, "skip", "Europe/Berlin")
    assert (await command("add", "--queue=jobs", "--every=90m", "--message=1", "--paused"))[0] == 0

    _, out, _ = await command("list")
    daily, other = [line.split("\t") for line in out.splitlines()]
    assert daily[:4] == ["daily", "demo", "jobs", "0 8 * * 1-5 Europe/Berlin"]
    assert other[3:] == ["every 90m", "paused", "0"]
    _, out, _ = await command("list", "--room", "empty")
    assert "no schedules yet" in out or out == ""

    assert (await command("pause", "daily"))[1] == "paused schedule daily\n"
    assert "resumed schedule" in (await command("resume", made["id"]))[1]
    assert json.loads((await command("pause", "daily", "--json"))[1])["paused"]
    assert (await command("run-now", "daily"))[1] == "1\n"
    assert json.loads((await command("run-now", "daily", "--json"))[1]) == {"id": "2"}
    _, out, _ = await command("show", "daily")
    assert "an API key" in out
    assert "run-now\t2" in out
    assert len(json.loads((await command("show", "daily", "--json"))[1])["runs"]) == 2
    assert (await command("remove", "daily"))[1] == "removed schedule daily\n"
    code, _, said = await command("remove", "daily")
    assert (code, "no schedule 'daily' in this room" in said) == (1, True)
    assert json.loads((await command("remove", other[0], "--json"))[1]) == {"deleted": other[0]}


async def test_a_name_that_several_have_is_not_guessed(server: RunningServer, command: Command) -> None:
    for _ in range(2):
        await command("add", *DAILY)
    code, _, said = await command("pause", "daily")
    assert (code, "2 schedules have the name 'daily'" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cron=61 * * * *",), "--cron: minute: expected 0-59, got '61'"),
        (("--cron=0 8 * *",), "--cron: expected five fields"),
        (("--cron=0 8 * * *", "--timezone=Berlin"), "--timezone: expected the name of a time zone"),
        (("--every=soon",), "--every: expected a duration such as 90s, 10m, 2h or 1d, got 'soon'"),
        (("--every=1s",), "--every: expected from 10 seconds"),
        (("--at=tomorrow",), "--at: expected seconds since 1970"),
        ((), "--cron or --every or --at: expected one of these three"),
    ],
)
async def test_what_is_wrong_is_named_before_a_server_is_asked(
    command: Command, arguments: tuple[str, ...], says: str
) -> None:
    for words in (("preview",), ("add", "--queue=jobs", "--message=1")):
        code, _, said = await command(*words, *arguments)
        assert code == 2
        assert says.partition(": ")[2] in said
        assert says.partition(": ")[0] in said


async def test_a_message_and_a_missed_policy_are_checked(command: Command) -> None:
    assert (await command("add", "--queue=jobs", "--every=60"))[0] == 2
    code, _, said = await command("add", "--queue=jobs", "--every=60", "--message={")
    assert (code, "not JSON" in said) == (2, True)
    code, _, said = await command("add", "--queue=jobs", "--every=60", "--message=1", "--missed=x")
    assert (code, "--missed" in said) == (2, True)


async def test_a_message_comes_from_a_file(server: RunningServer, command: Command, tmp_path: Path) -> None:
    (tmp_path / "message.json").write_text('{"from": "file"}')
    _, out, _ = await command("add", "--queue=jobs", "--every=1d", f"--file={tmp_path / 'message.json'}", "--json")
    assert json.loads(out)["message"] == {"from": "file"}
    assert "every 1d" in (await command("list"))[1]


async def test_a_preview_shows_the_next_times(command: Command) -> None:
    code, out, _ = await command("preview", "--cron=0 8 * * *", "--timezone=Europe/Berlin", "--count=3")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()] == ["08:00"] * 3
    assert len(json.loads((await command("preview", "--every=2h", "--json"))[1])) == 5
    assert (await command("preview", "--at=2001-01-01T00:00"))[0] == 2
