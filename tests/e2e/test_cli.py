"""The command line as users run it: real processes, a real room server, a real signal."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meshhost.identity.tokens import ParticipantToken

pytestmark = pytest.mark.slow

_PREFIXES = ("MESHHOST_", "MESHAGENT_", "OPENAI_", "OTEL_")
_SECONDS = 30


@dataclass
class Cli:
    """Runs commands in a home of their own."""

    home: Path
    url: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
        ours = {"MESHHOST_CONFIG_DIR": str(self.home / "config"), "MESHHOST_DATA_DIR": str(self.home / "data")}
        url = {} if self.url is None else {"MESHHOST_API_URL": self.url}
        return inherited | ours | url | self.extra

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "meshhost.cli.main", *arguments]
        return subprocess.Popen(command, env=self.environment, cwd=self.home, text=True, **options)

    def run(self, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "meshhost.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.home, input=input, capture_output=True, timeout=_SECONDS
        )

    def out(self, *arguments: str, input: bytes = b"") -> str:
        """What a command that must succeed prints."""
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))

    def error(self, *arguments: str, code: int = 1) -> str:
        """The one line with which a command must fail."""
        done = self.run(*arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        text = done.stderr.decode()
        assert text.startswith("meshhost: ")
        assert text.count("\n") == 1, text
        return text.strip()


@contextmanager
def serving(cli: Cli, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    with (cli.home / "server.log").open("w") as log:
        process = cli.popen("room", "serve", "--port", "0", "--json", *options, stdout=subprocess.PIPE, stderr=log)
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (cli.home / "server.log").read_text()
            yield process, json.loads(line)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    home = tmp_path_factory.mktemp("cli")
    own = Cli(home)
    own.json("setup")
    with serving(own) as (_, ready):
        own.url = ready["url"]
        yield own


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    return name.rstrip("-")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens; it stays bound, so that no other process can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_setup_makes_one_project_and_keeps_it(tmp_path: Path) -> None:
    cli = Cli(tmp_path)

    first, second = cli.json("setup"), cli.json("setup")

    assert first == second
    assert set(first) == {"api_url", "project_id", "api_key"}
    assert (tmp_path / "config/project.json").stat().st_mode & 0o077 == 0


def test_a_message_travels_through_a_queue(cli: Cli, room: str) -> None:
    message = {"instructions": "save a poem about ai to poem.txt", "é": [1, None]}
    first = cli.out("queue", "send", f"--room={room}", "--queue=test", "--json", json.dumps(message))
    cli.out("queue", "send", f"--room={room}", "--queue=test", "--file", "-", "--quiet", input=b"[2]")

    assert first.strip().isdecimal()
    assert cli.out("queue", "size", f"--room={room}", "--queue=test") == "2\n"
    assert cli.json("queue", "list", f"--room={room}")[0]["ready"] == 2
    assert json.loads(cli.out("queue", "receive", f"--room={room}", "--queue=test")) == message
    second = cli.json("queue", "receive", f"--room={room}", "--queue=test", "--wait")
    assert (second["message"], second["attempt"]) == ([2], 1)
    assert "no message in queue test" in cli.error("queue", "receive", f"--room={room}", "--queue=test")


def test_a_purged_queue_is_empty(cli: Cli, room: str) -> None:
    cli.out("queue", "send", "--room", room, "--queue", "q", "--json", '"x"')

    assert "--yes" in cli.error("queue", "purge", "--room", room, "--queue", "q", code=2)
    assert cli.json("queue", "purge", "--room", room, "--queue", "q", "--yes")["purged"] == 1

    assert cli.out("queue", "list", "--room", room).split("\t")[:2] == ["q", "0"]


def test_a_file_that_was_sent_in_part_when_the_command_was_killed_is_completed(cli: Cli, room: str) -> None:
    count = 100_000
    (cli.home / "jobs.jsonl").write_text("".join(f'{{"job": {number}}}\n' for number in range(count)))
    command = ("queue", "send", "--room", room, "--queue", "q", "--file", "jobs.jsonl")

    def size() -> int:
        queues = cli.json("queue", "list", "--room", room)
        return int(queues[0]["size"]) if queues else 0

    with cli.popen(*command, stdout=subprocess.PIPE) as sending:
        _until(lambda: size() > 0 or sending.poll() is not None)
        sending.kill()
    stored = size()
    assert sending.returncode == -signal.SIGKILL
    assert 0 < stored < count

    said = re.fullmatch(r"(\d+) messages sent to queue q; (\d+) were sent before\n", cli.out(*command))
    assert said is not None
    assert int(said[1]) + int(said[2]) == count == size()
    assert int(said[2]) >= stored  # a batch may have been on its way


def test_lines_that_are_piped_in_are_sent(cli: Cli, room: str) -> None:
    assert cli.out("queue", "send", "--room", room, "--queue", "q", "-f", "-", input=b"1\n2\n").startswith("2 messages")


def test_ctrl_c_ends_a_send_that_waits_for_standard_input(cli: Cli, room: str) -> None:
    command = ("queue", "send", "--room", room, "--queue", "q", "-f", "-", "--id-prefix", "x")
    with cli.popen(*command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        try:
            _until(lambda: any(entry["is_open"] and entry["name"] == room for entry in cli.json("room", "list")))
            reading.send_signal(signal.SIGINT)
            assert reading.wait(timeout=_SECONDS) == 130
        finally:
            reading.kill()


def test_a_message_that_could_not_be_printed_stays(cli: Cli, room: str) -> None:
    cli.out("queue", "send", "--room", room, "--queue", "q", "--json", '"kept"')
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        process = cli.popen("queue", "receive", "--room", room, "--queue", "q", stdout=closed, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=_SECONDS)

    assert (process.returncode, error) == (1, "")
    assert cli.out("queue", "receive", "--room", room, "--queue", "q", "--timeout", "10") == '"kept"\n'


def test_a_waiting_receive_ends_with_its_timeout_and_with_ctrl_c(cli: Cli, room: str) -> None:
    assert "no message" in cli.error("queue", "receive", "--room", room, "--queue", "q", "--timeout", "0.1")

    waiting = cli.popen("queue", "receive", "--room", room, "--queue", "q", "--wait", stderr=subprocess.PIPE)
    _until(lambda: any(entry["is_open"] and entry["name"] == room for entry in cli.json("room", "list")))
    waiting.send_signal(signal.SIGINT)
    _, error = waiting.communicate(timeout=_SECONDS)

    assert (waiting.returncode, error) == (130, "")


def test_files_go_into_the_room_and_come_back(cli: Cli, room: str) -> None:
    data = os.urandom(3 * 1024 * 1024 + 1)
    (cli.home / "big.bin").write_bytes(data)

    copied = cli.json("storage", "cp", "--room", room, "big.bin", "room:folder/")
    cli.out("storage", "cp", "--room", room, "room://folder/big.bin", "copy.bin")

    assert copied == {"source": "big.bin", "target": "room:folder/big.bin", "bytes": len(data)}
    assert (cli.home / "copy.bin").read_bytes() == data
    assert not list(cli.home.glob(".*part"))
    assert cli.run("storage", "cat", "--room", room, "folder/big.bin").stdout == data
    assert [entry["name"] for entry in cli.json("storage", "ls", "--room", room)] == ["folder"]
    cli.out("storage", "rm", "--room", room, "room:folder/big.bin")
    assert "no file 'folder/big.bin'" in cli.error("storage", "cat", "--room", room, "folder/big.bin")


def test_participants_are_listed_and_written_to(cli: Cli, room: str) -> None:
    assert cli.json("messaging", "list", "--room", room) == []
    assert "no participant 'bob'" in cli.error(
        "messaging", "send", "--room", room, "--to", "bob", "--type", "t", "--message", "{}"
    )


def test_agents_and_toolkits_are_listed(cli: Cli, room: str) -> None:
    assert cli.json("agents", "list", "--room", room) == []
    assert "no toolkit 'x'" in cli.error("agents", "invoke-tool", "--room", room, "--toolkit", "x", "--tool", "y")


def test_a_created_token_is_accepted_for_its_room(cli: Cli, room: str, tmp_path: Path) -> None:
    (tmp_path / "scope.json").write_text('{"queues": {"receive": []}}')
    made = cli.json(
        "token", "create", "--room", room, "--name", "bob", "--role", "agent", "--lifetime", "5m",
        "--scope", str(tmp_path / "scope.json"),
    )  # fmt: skip

    token = ParticipantToken.from_jwt(made["token"], validate=False)
    scope = token.get_api_grant()
    assert (token.name, token.role, token.grant_scope("room")) == ("bob", "agent", room)
    assert scope is not None
    assert scope.queues is not None
    assert not scope.queues.can_receive("any")
    joined = _join(cli, room, made["token"])
    assert joined == "joined"


def test_open_rooms_are_listed_with_their_participants(cli: Cli, room: str) -> None:
    with cli.popen("queue", "receive", "--room", room, "--queue", "q", "--wait", stderr=subprocess.PIPE) as waiting:
        try:
            _until(lambda: _participants(cli, room) == [{"name": "cli", "role": "user"}])
            assert f"{room}\topen\tcli (user)" in cli.out("room", "list")
        finally:
            waiting.kill()


def test_wrong_usage_is_one_line_and_exit_code_2(cli: Cli) -> None:
    send = ("queue", "send", "--room", "demo", "--queue", "q")
    assert "line 1, column 2" in cli.error(*send, "--json", "{instructions}", code=2)
    assert "one of --json, --text and --file" in cli.error(*send, code=2)
    assert "MESHHOST_ROOM" in cli.error("queue", "list", code=2)
    assert "room:PATH" in cli.error("storage", "cp", "--room", "demo", "a", "b", code=2)


def test_without_a_project_the_way_to_one_is_said(tmp_path: Path) -> None:
    assert "run `meshhost setup`" in Cli(tmp_path).error("queue", "list", "--room", "demo")


def test_a_server_that_is_down_is_named(tmp_path: Path, closed_port: int) -> None:
    cli = Cli(tmp_path, url=f"http://127.0.0.1:{closed_port}")
    cli.json("setup")
    where = f"cannot reach the room server at http://127.0.0.1:{closed_port}: start one with `meshhost room serve`"

    assert where in cli.error("queue", "list", "--room", "demo")


def test_the_stored_project_says_where_the_server_is(cli: Cli, tmp_path: Path) -> None:
    project = json.loads((cli.home / "config/project.json").read_text()) | {"api_url": cli.url}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/project.json").write_text(json.dumps(project))

    assert Cli(tmp_path).json("queue", "list", "--room", "stored") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    cli = Cli(tmp_path)
    with serving(cli) as (process, ready):
        assert set(ready) == {"url", "data_dir", "pid"}
        assert (ready["pid"], ready["data_dir"]) == (process.pid, str(tmp_path / "data"))
        process.send_signal(number)

        assert process.wait(timeout=_SECONDS) == 0
    log = (tmp_path / "server.log").read_text()
    assert "run `meshhost setup`" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_one_line(cli: Cli) -> None:
    assert cli.url is not None
    port = cli.url.rpartition(":")[2]

    done = cli.run("room", "serve", "--port", port, "--data-dir", str(cli.home / "other"))

    assert done.returncode == 1
    assert done.stdout == b""
    assert f"cannot listen on 127.0.0.1:{port}".encode() in done.stderr.splitlines()[-1]
    assert b"Traceback" not in done.stderr


def _join(cli: Cli, room: str, token: str) -> str:
    program = (
        "import asyncio, sys\n"
        "from meshhost.room.client import RoomClient\n"
        "from meshhost.transport.websocket_client import WebSocketClientProtocol\n"
        "async def main():\n"
        "    async with RoomClient(protocol=WebSocketClientProtocol(url=sys.argv[1], token=sys.argv[2])):\n"
        "        print('joined')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{cli.url}/rooms/{room}", token],
        capture_output=True, text=True, timeout=_SECONDS,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


def _participants(cli: Cli, room: str) -> list[dict[str, str]]:
    found = [entry["participants"] for entry in cli.json("room", "list") if entry["name"] == room]
    return found[0] if found else []


def _until(condition: Callable[[], bool]) -> None:
    """Ask again and again; every try takes as long as a command. The test's timeout bounds it."""
    while not condition():
        pass
