"""`meshhost service`, `secret`, `webhook` and MeshAgent's other groups against a real room server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from meshhost.cli.main import run
from meshhost.testing.server import RunningServer

Command = Callable[..., Awaitable[tuple[int, str, str]]]
SPEC = """
version: v1
kind: Service
metadata: {name: mine}
external: {url: "http://127.0.0.1:9"}
ports: [{num: "*", endpoints: [{path: /agent, meshagent: {identity: agent}}]}]
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Command:
    async def run_command(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, arguments)
        return code, *capsys.readouterr()

    return run_command


async def test_a_service_is_made_shown_changed_and_deleted(
    server: RunningServer, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(SPEC)
    assert (await command("service", "validate", "--file", str(file)))[1] == "the spec of mine can be used\n"
    code, out, _ = await command("service", "create", "--file", str(file))
    assert (code, out.startswith("made service mine (")) == (0, True)
    code, _, said = await command("service", "create", "--file", str(file))
    assert (code, "there is a service 'mine' already" in said) == (1, True)

    _, out, _ = await command("service", "list")
    service_id, name, url, agents = out.rstrip("\n").split("\t")
    assert (name, url, agents) == ("mine", "http://127.0.0.1:9", "agent")
    assert json.loads((await command("service", "show", "mine"))[1])["id"] == service_id
    assert (await command("service", "disable", "mine"))[1] == "disabled service mine\n"
    assert json.loads((await command("service", "show", service_id, "--json"))[1])["enabled"] is False
    assert (await command("service", "enable", "mine"))[1] == "enabled service mine\n"
    assert (await command("service", "update", "--file", str(file)))[1] == "replaced service mine\n"
    assert (await command("service", "delete", "mine"))[1] == "deleted service mine\n"

    code, _, said = await command("service", "update", "--file", str(file))
    assert (code, "no service 'mine'" in said) == (1, True)
    assert (await command("service", "update", "--file", str(file), "--create", "--room", "r"))[0] == 0
    assert (await command("room", "service", "list", "--room", "r"))[1].split("\t")[1] == "mine"


async def test_a_service_is_made_of_flags(server: RunningServer, command: Command) -> None:
    given = ("--url", "http://127.0.0.1:9", "--name", "two", "--path", "/a=one", "--path", "/b=other", "--secret", "s")
    assert (await command("service", "create", *given))[0] == 0
    shown = json.loads((await command("service", "show", "two", "--json"))[1])
    assert [each["meshagent"]["identity"] for each in shown["ports"][0]["endpoints"]] == ["one", "other"]
    assert shown["metadata"]["annotations"] == {"meshhost.secret": "s"}


async def test_what_is_wrong_with_a_spec_is_said_in_one_line(
    server: RunningServer, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "service.yaml"
    for text, expected in (
        ("{", "neither JSON nor YAML"),
        ("[]", "expected an object with version, kind, metadata"),
        (f"{SPEC}\ncontainer: {{image: x}}", "container.image: meshhost runs no containers"),
        (f"{SPEC}\nid: x", "id: a new service has none"),
    ):
        file.write_text(text)
        code, _, said = await command("service", "create", "--file", str(file))
        assert code in (1, 2)
        assert expected in said
        assert len(said.splitlines()) == 1
    code, _, said = await command("service", "validate", "--file", str(file.with_name("none")))
    assert (code, "No such file" in said) == (1, True)
    assert (await command("service", "create"))[0] == 2
    assert "runs no containers" in (await command("service", "create", "--image", "x"))[2]
    assert "expected PATH=NAME" in (await command("service", "create", "--url", "u", "--name", "n", "--path", "x"))[2]


async def test_a_secret_is_made_listed_replaced_and_deleted(
    server: RunningServer, command: Command, tmp_path: Path
) -> None:
    assert (await command("secret", "keys", "create", "--name", "weather", "--data", "KEY=sk-1", "URL=u"))[0] == 0
    _, out, _ = await command("secret", "list")
    assert out.split("\t")[1:3] == ["weather", "keys"]
    file = tmp_path / "secret.json"
    file.write_text('{"KEY": "sk-2"}')
    assert (await command("secret", "update", "--secret", "weather", "--file", str(file)))[0] == 0
    secrets = server.server.engines.secrets
    assert await secrets.value(server.key.project_id, "weather", "KEY") == "sk-2"  # type: ignore[arg-type]
    assert (await command("secret", "create", "github", "--type", "token", "--value", "t"))[0] == 0
    assert set(json.loads((await command("secret", "list", "--json"))[1])[0]) == {
        "id", "name", "type", "created_at", "changed_at",
    }  # fmt: skip
    assert (await command("secret", "delete", "weather"))[1] == "deleted secret weather\n"
    code, _, said = await command("secret", "delete", "weather")
    assert (code, "no secret 'weather'" in said) == (1, True)
    for arguments in (("--name", "x"), ("--name", "x", "--data", "y"), ("--data", "a=b")):
        assert (await command("secret", "create", *arguments))[0] == 2


async def test_a_webhook_is_made_changed_shown_and_deleted(server: RunningServer, command: Command) -> None:
    code, out, _ = await command(
        "webhook", "create", "--name", "w", "--url", "http://127.0.0.1:9/x", "-e", "room.ended"
    )
    assert (code, "secret: whsec_" in out) == (0, True)
    assert (await command("webhook", "update", "w", "--description", "d", "--payload", '{"a": 1}'))[0] == 0
    shown = json.loads((await command("webhook", "show", "w", "--json"))[1])
    assert (shown["description"], shown["payload"], shown["events"]) == ("d", {"a": 1}, ["room.ended"])
    assert shown["deliveries"] == []
    assert (await command("webhook", "show", "w"))[0] == 0
    assert (await command("webhook", "list"))[1].split("\t")[1:3] == ["w", "room.ended"]
    assert (await command("webhook", "delete", "w"))[1] == "deleted webhook w\n"


async def test_meshagents_groups_do_their_work(server: RunningServer, command: Command, tmp_path: Path) -> None:
    environment = tmp_path / "config" / "project.json"
    code, made, _ = await command("api-key", "create", "my-key", "--activate")
    assert (code, json.loads(environment.read_text())["api_key"]) == (0, made.strip())
    _, out, _ = await command("api-key", "list")
    assert out.split("\t")[1] == "my-key"
    assert (await command("api-key", "delete", out.split("\t")[0]))[0] == 0
    assert (await command("api-key", "get"))[1].strip() == server.api_key
    assert server.key.project_id in (await command("project", "list"))[1]

    task = tmp_path / "task.yaml"
    task.write_text(
        "version: v1\nkind: ScheduledTask\nmetadata: {}\nschedule: 1 hour\nqueue: {name: q, payload: {a: 1}}\n"
    )
    code, out, _ = await command("scheduled-task", "add", "--room", "r", "--file", str(task), "--json")
    task_id = json.loads(out)["task_id"]
    assert (await command("scheduled-task", "list"))[1].startswith(f"{task_id}\tr\tq\t")
    assert (await command("scheduled-task", "update", task_id, "--file", str(task)))[0] == 0
    assert (await command("scheduled-task", "runs", task_id))[2] == "no runs yet\n"
    assert (await command("scheduled-task", "delete", task_id))[0] == 0

    assert (await command("rooms", "create", "made", "--if-not-exists"))[1] == "made room made\n"
    assert (await command("room", "get", "--name", "made", "--output", "json"))[1].startswith('{"id"')


async def test_a_command_for_another_project_is_not_done(server: RunningServer, command: Command) -> None:
    assert (await command("service", "list", "--project-id", server.key.project_id))[0] == 0
    code, _, said = await command("service", "list", "--project-id=other")
    assert (code, "the API key is of another project" in said) == (2, True)


async def test_an_agent_that_is_not_there_is_not_called(server: RunningServer, command: Command) -> None:
    code, _, said = await command("call", "agent", "--url", "http://127.0.0.1:9/x", "--participant-name", "n")
    assert (code, "cannot be reached" in said) == (1, True)
    code, _, said = await command("call", "tool", "--url", "http://example.com/x", "--participant-name", "n")
    assert (code, "not among the URLs this room server may call" in said) == (1, True)
