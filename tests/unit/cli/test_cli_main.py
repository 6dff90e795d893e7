import subprocess
import sys

import pytest
from typer.testing import CliRunner

from meshhost import __version__
from meshhost.cli.main import app, run

_HEAVY = {"aiohttp", "openai", "pydantic", "pydantic_settings", "obstore", "websockets", "jwt", "rich", "opentelemetry"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["queue", "send", "--help"], ["room", "serve", "--help"], ["host", "top", "--help"], ["--version"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom meshhost.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )

    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0
    assert done.stdout
    assert _HEAVY.isdisjoint(done.stderr.split())


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("room", "serve list services"),
        ("service", "run"),
        ("host", "ps describe stop kill freeze thaw drain top"),
        ("queue", "send receive list size drain dead replay"),
        ("storage", "ls cat cp rm"),
        ("agents", "list list-toolkits invoke-tool ask"),
        ("messaging", "send broadcast list"),
        ("token", "create"),
    ],
)
def test_every_command_has_help(group: str, commands: str) -> None:
    for command in commands.split():
        result = CliRunner().invoke(app, [group, command, "--help"])

        assert result.exit_code == 0, command
        assert result.output.startswith("Usage: ")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"meshhost {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["queue", "send", "--nonsense"], "--nonsense"),
        (["queue", "send"], "Missing option '--queue'"),
        (["room", "serve", "--port", "x"], "'--port'"),
        (["queue"], "see `meshhost queue --help`"),
        ([], "see `meshhost --help`"),
        (["service", "run"], "FILE"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("meshhost: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_service_run_is_handed_the_program_and_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, object] = {}
    module = type(sys)("meshhost.cli.commands.service")
    module.run = lambda **arguments: got.update(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "meshhost.cli.commands.service", module)

    assert run(["service", "run", "main.py --x", "--room", "demo", "--json"]) == 0
    assert got == {"file": "main.py --x", "room": "demo", "json": True, "reload": False}

    assert run(["service", "run", "main.py", "--room", "demo", "--reload"]) == 0
    assert got["reload"] is True
