"""`meshhost hook` against a real room server, and what it refuses before it asks one."""

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
        code = await asyncio.to_thread(run, ("hook", *arguments))
        return code, *capsys.readouterr()

    return run_command


async def test_a_hook_is_made_listed_tested_and_deleted(server: RunningServer, command: Command) -> None:
    code, out, _ = await command(
        "create", "--queue=jobs", "--verify=github", "--name=repo", "--header=X-GitHub-Hook-ID"
    )
    (_, url), (_, secret) = [line.split() for line in out.splitlines()]
    assert (code, url.startswith(f"{server.url}/hooks/"), len(secret)) == (0, True, 64)
    made = json.loads((await command("create", "--queue=jobs", "--json"))[1])
    assert made["secret"].startswith("whsec_")

    _, out, _ = await command("list")
    assert [line.split("\t")[:3] for line in out.splitlines()] == [
        ["repo", "jobs", "github"],
        ["", "jobs", "standard-webhooks"],
    ]
    assert secret not in out
    assert (await command("test", "repo"))[1] == "1\n"
    assert json.loads((await command("test", made["id"], "--json"))[1]) == {"id": "2"}
    _, out, _ = await command("show", "repo")
    assert "made by: an API key" in out
    assert f"url: {url}" in out
    assert "stored\t1" in out
    assert json.loads((await command("show", "repo", "--json"))[1])["headers"] == ["X-GitHub-Hook-ID"]
    assert json.loads((await command("list", "--json"))[1])[0]["queue"] == "jobs"
    _, out, _ = await command("rotate", "repo")
    assert out.startswith("secret: ")
    assert secret not in out
    assert json.loads((await command("rotate", "repo", "--json"))[1])["secret"] not in out
    assert (await command("delete", "repo"))[1] == "deleted hook repo\n"
    code, _, said = await command("delete", "repo")
    assert (code, "no hook 'repo' in this room" in said) == (1, True)
    assert json.loads((await command("delete", made["id"], "--json"))[1]) == {"deleted": made["id"]}
    assert "no hooks yet" in (await command("list"))[1] or (await command("list"))[1] == ""


async def test_a_secret_comes_from_a_file(server: RunningServer, command: Command, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret of stripe\n")
    file = f"--secret-file={tmp_path / 'secret'}"
    code, out, _ = await command("create", "--queue=jobs", "--verify=stripe", "--name=stripe", file)
    assert (code, len(out.splitlines())) == (0, 1)  # the url; the secret is known
    assert (await command("test", "stripe"))[0] == 0
    assert (await command("rotate", "stripe", file))[1] == "changed the secret of hook stripe\n"
    code, _, said = await command("rotate", "stripe")
    assert (code, "expected the signing secret that stripe shows" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--verify=md5",), "--verify"),
        (("--verify=slack",), "--secret-file"),
        (("--header=a b",), "--header"),
    ],
)
async def test_what_is_wrong_is_named_before_a_server_is_asked(
    command: Command, arguments: tuple[str, ...], says: str
) -> None:
    code, _, said = await command("create", "--queue=jobs", *arguments)
    assert (code, says in said) == (2, True)
