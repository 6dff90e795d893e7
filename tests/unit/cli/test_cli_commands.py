"""What the commands make of their arguments and of what the room answers. The room is a double; e2e has the real one."""

import json
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
from opentelemetry import trace

from meshhost.app.embedded import ServerOptions
from meshhost.cli import serving
from meshhost.cli.connect import reason_of, resolve_room, server_access
from meshhost.cli.main import run
from meshhost.errors import LeaseLostError, NotFoundError
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.identity.tokens import ParticipantToken
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.room.participants import RemoteParticipant
from meshhost.room.services.agents import AgentDescription, ToolDescription, ToolkitDescription
from meshhost.room.services.queues import DeadMessage, LeasedMessage, Queue
from meshhost.room.services.storage import StorageEntry

_PROJECT = "11111111-2222-3333-4444-555555555555"
_BOB = RemoteParticipant(id="id-1", role="agent", attributes={"name": "bob"})


@pytest.fixture
def key(environment: pytest.MonkeyPatch) -> str:
    text = encode_api_key(new_api_key(_PROJECT))
    environment.setenv("MESHHOST_API_KEY", text)
    return text


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_room_that_nobody_named_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "list"]) == 2
    said = "meshhost: no room is named: give --room, or set MESHHOST_ROOM: see `meshhost queue list --help`"
    assert capsys.readouterr().err.strip() == said


def test_send_takes_the_message_from_its_option_or_a_file(
    client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.queues.send.return_value = "7"
    (tmp_path / "m.json").write_text("[1]")

    assert run(["queue", "send", "--room=r", "--queue=q", "--json", '{"a": 1}']) == 0
    assert run(["queue", "send", "--queue=q", "-q", "-f", str(tmp_path / "m.json")]) == 0

    assert [call.kwargs["message"] for call in client.queues.send.await_args_list] == [{"a": 1}, [1]]
    assert _lines(capsys) == ["7"]


def test_send_is_a_span(client: Any, environment: pytest.MonkeyPatch) -> None:
    tracer = MagicMock()
    client.queues.send.return_value = "7"
    environment.setattr(trace, "get_tracer", lambda _: tracer)

    assert run(["queue", "send", "--queue=q", "--json", "1"]) == 0

    tracer.start_as_current_span.assert_called_once()
    assert tracer.start_as_current_span.call_args.args == ("queue send",)


def test_send_exports_traces_when_an_endpoint_is_set(client: Any, environment: pytest.MonkeyPatch) -> None:
    client.queues.send.return_value = "7"
    configured: list[str] = []
    module = SimpleNamespace(otel_config=lambda *, service_name, flush_seconds: configured.append(service_name))
    environment.setitem(sys.modules, "meshhost.otel", module)
    environment.setenv("OTEL_ENDPOINT", "http://127.0.0.1:4318")

    assert run(["queue", "send", "--queue=q", "--json", "1"]) == 0

    assert configured == ["meshhost-cli"]


def test_a_message_is_acked_after_it_was_printed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []
    leased = LeasedMessage(message={"a": 1}, queue="q", attempt=2)
    client.queues.lease.return_value = leased
    leased_type = type(leased)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leased_type, "ack", AsyncMock(side_effect=lambda: printed.append(capsys.readouterr().out)))
        assert run(["queue", "receive", "--queue=q"]) == 0

    assert printed == ['{"a": 1}\n']
    assert client.queues.lease.await_args.kwargs["wait"] is False


def test_a_lease_that_was_lost_is_an_error(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.lease.return_value = LeasedMessage(message=1, queue="q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeasedMessage, "ack", AsyncMock(side_effect=LeaseLostError("the lease is over")))
        assert run(["queue", "receive", "--queue=q"]) == 1

    assert capsys.readouterr().err == "meshhost: the lease is over\n"


def test_a_waiting_receive_asks_until_there_is_a_message(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.lease.side_effect = [None, None, LeasedMessage(message="x", queue="q", sent_at=1.5)]

    assert run(["queue", "receive", "--queue=q", "--wait", "--json"]) == 0

    expected = {"message": "x", "attempt": 1, "delivery": 1, "headers": {}, "sent_at": 1.5}
    assert [json.loads(line) for line in _lines(capsys)] == [expected]


def test_an_empty_queue_is_exit_code_1(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.lease.return_value = None

    assert run(["queue", "receive", "--queue=q"]) == 1

    assert capsys.readouterr() == ("", "meshhost: no message in queue q: --wait waits for one\n")


def test_queues_are_shown(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.list.return_value = [Queue("a", 2, 1, 0, 1, 3, 90.0, 4, True), Queue("b", 0)]

    assert run(["queue", "list"]) == 0
    assert run(["queue", "size", "--queue", "a"]) == 0
    assert run(["queue", "size", "--queue", "b", "--json"]) == 0
    assert _lines(capsys)[:3] == ["a\t2\t1\t0\t1\t3\t2m\t4\tpaused", "b\t0\t\t\t\t\t\t\t", "2"]
    assert run(["queue", "size", "--queue", "c"]) == 1
    assert "no queue 'c'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "only_looks"),
    [
        ("queue list", True),
        ("queue size --queue q", True),
        ("queue dead --queue q", True),
        ("storage ls x/", True),
        ("queue send --queue q --json 1", False),
        ("agents list", False),
    ],
)
def test_commands_that_only_show_what_is_stored_do_not_wake_the_room(
    client: Any, command: str, only_looks: bool
) -> None:
    client.queues.list.return_value = [Queue("q", 0)]
    client.queues.dead.return_value = []
    client.queues.send.return_value = "1"
    client.storage.pages = _pages()
    client.agents.list_agents.return_value = []
    assert run(command.split()) == 0
    assert client.only_looks is only_looks


def test_dead_messages_are_shown_and_replayed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.list.return_value = [Queue("q", 0)]
    client.queues.dead.return_value = [
        DeadMessage("5", {"a": 1}, {}, 3, "Traceback\nValueError: x", 0.0, 0.0),
        DeadMessage("4", 1, {}, 3, "", 0.0, 0.0),
    ]
    client.queues.replay.return_value = 1

    assert run(["queue", "dead", "--queue", "q"]) == 0
    assert run(["queue", "replay", "--queue", "q", "--id", "5"]) == 0
    assert run(["queue", "replay", "--queue", "q", "--json"]) == 0
    assert run(["queue", "replay", "--queue", "q", "--id", "x"]) == 2

    assert [call.kwargs["ids"] for call in client.queues.replay.await_args_list] == [["5"], None]
    assert _lines(capsys)[:2] == ["5\t3\t1970-01-01 00:00:00Z\tValueError: x", "4\t3\t1970-01-01 00:00:00Z\t"]


def test_drain_does_what_it_did_and_says_that_it_has_another_name(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    client.queues.list.return_value = [Queue("q", 1)]
    assert run(["queue", "drain", "--queue", "q"]) == 0

    client.queues.purge.assert_awaited_once_with("q")
    out, err = capsys.readouterr()
    assert out == "all messages of queue q were deleted\n"
    assert err.startswith("meshhost: queue drain is deprecated: use `meshhost queue purge`")


def _pages(*entries: StorageEntry) -> Mock:
    async def pages() -> AsyncIterator[list[StorageEntry]]:
        yield [*entries]

    return Mock(side_effect=lambda **_: pages())


def test_folders_are_listed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    client.storage.pages = _pages(StorageEntry("a", True), StorageEntry("b", False, updated_at=moment))

    assert run(["storage", "ls", "room:/x/"]) == 0

    client.storage.pages.assert_called_once_with(path="x/", limit=1000, prefix="")
    assert _lines(capsys) == ["a/\t", "b\t2026-01-01 00:00:00Z"]


def test_an_empty_folder_is_no_error(client: Any) -> None:
    client.storage.pages = _pages()
    client.storage.stat.return_value = StorageEntry("x", True)

    assert run(["storage", "ls", "x"]) == 0


def test_files_are_removed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["storage", "rm", "a", "room:b", "--json"]) == 0
    assert json.loads(_lines(capsys)[0]) == {"deleted": ["a", "b"]}


def test_agents_and_toolkits_are_shown(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.agents.list_agents.return_value = [AgentDescription(name="a", title="A")]
    tool = ToolDescription(name="t", description="does it")
    client.agents.list_toolkits.return_value = [ToolkitDescription(name="k", tools=[tool])]

    assert run(["agents", "list"]) == 0
    assert run(["agents", "list", "--json"]) == 0
    assert run(["agents", "list-toolkits"]) == 0

    lines = _lines(capsys)
    assert (lines[0], json.loads(lines[1])[0]["name"], lines[2]) == ("a\tA\t", "a", "k\tt\tdoes it")


@pytest.mark.parametrize(
    ("response", "options", "printed"),
    [
        (JsonResponse(json={"a": 1}), [], '{"a": 1}\n'),
        (TextResponse(text="  one\ntwo\x1b[2J"), [], "  one\ntwo[2J\n"),
        (TextResponse(text="x"), ["--json"], '{"type": "text", "text": "x", "usage": null}\n'),
        (EmptyResponse(), [], ""),
        (FileResponse(data=b"raw", name="f", mime_type="m"), [], "raw"),
    ],
)
def test_what_a_tool_answers_is_printed(
    response: Any, options: list[str], printed: str, client: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    client.agents.invoke_tool.return_value = response

    assert run(["agents", "invoke-tool", "--toolkit", "k", "--tool", "t", "--arguments", '{"x": 1}', *options]) == 0

    assert capfdbinary.readouterr().out.decode() == printed
    assert client.agents.invoke_tool.await_args.kwargs["arguments"] == {"x": 1}


@pytest.mark.parametrize(
    ("response", "options", "member"),
    [
        (FileResponse(data=b"raw", name="f", mime_type="m"), ["--json"], ("data", "cmF3")),
        (LinkResponse(url="http://x", name="x"), [], ("url", "http://x")),
    ],
)
def test_other_answers_of_a_tool_are_json(
    response: Any, options: list[str], member: tuple[str, str], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    client.agents.invoke_tool.return_value = response

    assert run(["agents", "invoke-tool", "--toolkit", "k", "--tool", "t", *options]) == 0

    assert json.loads(capsys.readouterr().out)[member[0]] == member[1]


def test_an_answer_of_an_agent_is_printed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.agents.ask.side_effect = ["a text", {"a": 1}, "quoted"]

    assert run(["agents", "ask", "--agent", "a", "--input", "{}"]) == 0
    assert run(["agents", "ask", "--agent", "a"]) == 0
    assert run(["agents", "ask", "--agent", "a", "--json"]) == 0

    assert _lines(capsys) == ["a text", '{"a": 1}', '"quoted"']


@pytest.mark.parametrize("to", ["bob", "id-1"])
def test_a_message_goes_to_a_name_or_an_id(to: str, client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.messaging.remote_participants = [_BOB]

    assert run(["messaging", "send", "--to", to, "--type", "t", "--message", '{"a": 1}']) == 0

    client.messaging.send_message.assert_awaited_once_with(to=_BOB, type="t", message={"a": 1})
    assert _lines(capsys) == ["sent to bob"]


def test_a_message_goes_to_an_id_that_is_not_listed(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.messaging.remote_participants = []

    assert run(["messaging", "send", "--to", _PROJECT, "--type", "t", "--data", "{}", "--json"]) == 0

    assert json.loads(_lines(capsys)[0]) == {"to": _PROJECT, "type": "t"}


def test_a_name_that_two_have_is_not_enough(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.messaging.remote_participants = [_BOB, RemoteParticipant(id="id-2", attributes={"name": "bob"})]

    assert run(["messaging", "send", "--to", "bob", "--type", "t", "--message", "{}"]) == 1

    assert "id-1, id-2" in capsys.readouterr().err


def test_participants_and_broadcasts(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.messaging.remote_participants = [_BOB]

    assert run(["messaging", "list"]) == 0
    assert run(["messaging", "broadcast", "--type", "t", "--message", "{}"]) == 0
    assert run(["messaging", "broadcast", "--type", "t", "--message", "[]"]) == 2

    assert _lines(capsys) == ["bob\tagent\tid-1", "sent to all participants that receive messages"]


def test_a_token_is_signed_with_the_projects_key(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "create", "--room", "demo", "--name", "bob"]) == 0

    token = ParticipantToken.from_jwt(_lines(capsys)[0])
    scope = token.get_api_grant()
    assert (token.name, token.role, token.project_id, token.grant_scope("room")) == ("bob", "user", _PROJECT, "demo")
    assert scope is not None
    assert scope.admin is None


def test_a_token_may_never_expire(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "create", "--room", "demo", "--name", "bob", "--lifetime", "never", "--json"]) == 0

    made = json.loads(_lines(capsys)[0])
    assert made["expires_at"] is None
    assert ParticipantToken.from_jwt(made["token"]).expires_at is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--role", "king"], "user, agent, tool"),
        (["--lifetime", "soon"], "30m"),
        (["--lifetime", "0s"], "30m"),
        (["--lifetime", "999999999d"], "never"),
        (["--name", " "], "--name"),
        (["--room", "No"], "--room"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(
    options: list[str], said: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "create", "--room", "demo", "--name", "bob", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ('{"queue": {}}', "'queue' is unknown: expected one of"),
        ('{"queues": {"send": 1}}', "queues.send"),
        ("[]", "object"),
    ],
)
def test_a_scope_that_is_not_one_is_refused(
    scope: str, said: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scope.json").write_text(scope)

    assert run(["token", "create", "--room", "r", "--name", "b", "--scope", str(tmp_path / "scope.json")]) == 2
    assert said in capsys.readouterr().err


def test_setup_names_the_file_and_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["setup"]) == 0
    assert run(["setup"]) == 0

    lines = _lines(capsys)
    assert "stored in" in lines[0]
    assert str(tmp_path / "config/project.json") in lines[2]
    assert "meshhost room serve" in lines[1]


def test_the_environment_wins_over_the_stored_project(key: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_API_URL", "wss://rooms.example")
    assert run(["setup"]) == 0
    stored = server_access()
    environment.setenv("MESHHOST_API_URL", "http://other.example")

    assert stored.api_url == "https://rooms.example"
    assert stored.project_id == _PROJECT
    assert key not in repr(stored)
    assert server_access().api_url == "http://other.example"
    environment.delenv("MESHHOST_API_URL")
    assert server_access().api_url == "https://rooms.example"


def test_the_room_is_named_or_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_ROOM", "from-environment")

    assert resolve_room(None) == "from-environment"
    assert resolve_room("named") == "named"


def test_room_serve_reads_options_before_the_environment(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[tuple[ServerOptions, bool, Path | None]] = []

    def serve(options: ServerOptions, *, as_json: bool, config: Path | None) -> None:
        served.append((options, as_json, config))

    environment.setattr(serving, "serve_rooms", serve)
    environment.setenv("MESHHOST_DATABASE_URL", "sqlite:///from-environment")
    (tmp_path / "meshhost.toml").write_text("[server]\nlinger_seconds = 5\n")

    assert run(["room", "serve"]) == 0
    assert (
        run(["room", "serve", "--port", "9", "--data-dir", "x", "--config", str(tmp_path / "meshhost.toml"), "--json"])
        == 0
    )

    (first, _, no_file), (second, as_json, config) = served
    assert (no_file, config) == (None, tmp_path / "meshhost.toml")
    assert (first.host, first.port, first.data_dir) == ("127.0.0.1", 8080, tmp_path / "data")
    assert first.database_url == "sqlite:///from-environment"
    assert (second.port, second.data_dir, second.file.server.linger_seconds) == (9, Path("x"), 5)
    assert as_json


def test_a_wrong_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "meshhost.toml").write_text("[server]\nlingre_seconds = 5\n")

    assert run(["room", "serve", "--config", str(tmp_path / "meshhost.toml")]) == 1
    assert "server.lingre_seconds" in capsys.readouterr().err


def test_setup_as_json_is_all_a_program_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["setup", "--json"]) == 0

    assert set(json.loads(_lines(capsys)[0])) == {"api_url", "project_id", "api_key"}


def test_other_commands_print_json_too(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.list.return_value, client.queues.dead.return_value = [Queue("q", 2)], []
    client.storage.pages = _pages(StorageEntry("a", True))
    client.agents.list_toolkits.return_value = [ToolkitDescription(name="k")]
    client.messaging.remote_participants = [_BOB]

    for arguments in (
        ["queue", "list"],
        ["queue", "drain", "--queue", "q"],
        ["queue", "dead", "--queue", "q"],
        ["storage", "ls"],
        ["agents", "list-toolkits"],
        ["messaging", "list"],
        ["messaging", "broadcast", "--type", "t", "--message", "{}"],
    ):
        assert run([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) is not None


def test_send_takes_one_message(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "send", "--queue=q", "--json", "1", "--file", "x"]) == 2
    assert run(["queue", "send", "--queue=q", "--json", "{a"]) == 2
    assert "line 1, column 2" in capsys.readouterr().err


def test_credentials_in_a_url_are_dropped(key: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_API_URL", "https://user:secret@rooms.example/base")

    assert server_access().api_url == "https://rooms.example/base"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), "connection refused"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "no answer in time"),
        (ssl.SSLCertVerificationError(1, "[SSL] bad"), "TLS"),
        (SimpleNamespace(os_error=OSError(113, "No route to host")), "No route to host"),
        (EOFError(), "EOFError"),
    ],
)
def test_why_a_server_is_out_of_reach_is_said_shortly(cause: Any, reason: str) -> None:
    assert reason in reason_of(cause)


@pytest.mark.parametrize("command", [["size"], ["purge", "--yes"], ["delete", "--yes"], ["dead"], ["replay"]])
@pytest.mark.parametrize(
    ("name", "said"), [("jbos", "did you mean 'jobs'?"), ("xyz", "there are: jobs, mails")], ids=["near", "far"]
)
def test_a_misspelt_queue_is_an_error_that_names_the_others(
    command: list[str], name: str, said: str, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    client.room_name, client.queues.list.return_value = "r", [Queue("jobs", 1), Queue("mails", 0)]

    assert run(["queue", *command, f"--queue={name}"]) == 1

    assert capsys.readouterr().err == f"meshhost: no queue '{name}' in room r; {said}\n"
    assert [call for call in client.queues.method_calls if call[0] != "list"] == []


def test_receiving_from_a_misspelt_queue_makes_none(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.room_name, client.queues.list.return_value = "r", []
    client.queues.lease.side_effect = NotFoundError("no queue")

    assert run(["queue", "receive", "--queue=jbos"]) == 1

    assert client.queues.lease.await_args.kwargs["create"] is False
    assert capsys.readouterr().err == "meshhost: no queue 'jbos' in room r; there are: none\n"


def test_an_id_that_is_not_dead_is_an_error(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.queues.list.return_value, client.queues.replay.return_value = [Queue("q", 0)], 1

    assert run(["queue", "replay", "--queue=q", "--id=5", "--id=999"]) == 1

    captured = capsys.readouterr()
    assert captured.out == "1\n"
    assert "1 of the ids are not dead messages of queue 'q'" in captured.err
