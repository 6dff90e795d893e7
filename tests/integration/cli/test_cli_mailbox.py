"""`meshhost mailbox` against a real room server."""

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
        code = await asyncio.to_thread(run, ("mailbox", *arguments))
        return code, *capsys.readouterr()

    return run_command


async def test_a_mailbox_is_made_listed_changed_shown_and_deleted(server: RunningServer, command: Command) -> None:
    code, out, _ = await command("create", "Bot@example.com", "--queue=email")
    assert (code, out.startswith("mail for bot@example.com goes to queue email of room ")) == (0, True)
    made = json.loads((await command("create", "other@example.com", "--queue=email", "--room=other", "--json"))[1])
    assert (made["address"], made["room"]) == ("other@example.com", "other")
    code, _, said = await command("create", "bot@example.com", "--queue=email")
    assert (code, "bot@example.com is taken" in said) == (1, True)

    _, out, _ = await command("list")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["bot@example.com", "other@example.com"]
    assert [each["address"] for each in json.loads((await command("list", "--room=other", "--json"))[1])] == [
        "other@example.com"
    ]
    assert (await command("update", "bot@example.com", "--queue=new", "--room=other"))[1] == (
        "mail for bot@example.com goes to queue new of room other\n"
    )
    _, out, _ = await command("show", "bot@example.com")
    assert "queue: new" in out
    shown = json.loads((await command("show", "bot@example.com", "--json"))[1])
    assert (shown["room"], shown["deliveries"]) == ("other", [])
    assert (await command("delete", "bot@example.com"))[1] == "deleted mailbox bot@example.com\n"
    assert json.loads((await command("delete", "other@example.com", "--json"))[1]) == {"deleted": "other@example.com"}
    code, _, said = await command("show", "bot@example.com")
    assert (code, "no mailbox 'bot@example.com'" in said) == (1, True)
