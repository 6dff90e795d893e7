import importlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from meshhost import __version__
from meshhost.cli.conversion import convert_lazily
from meshhost.cli.main import COMMANDS as LONE_COMMANDS
from meshhost.cli.main import GROUPS, run, whole_app
from meshhost.identity.keys import encode_api_key, new_api_key

_HEAVY = {"aiohttp", "openai", "pydantic", "pydantic_settings", "obstore", "websockets", "jwt", "rich", "opentelemetry"}
# `rich` draws progress bars, `websockets` and `jwt` are what a command in a room needs. `jwt` loads `cryptography` where that
# is installed, which only the extra `oidc` does.
_NEEDED_BY_NONE = {"anyio", "dotenv", "jsonschema", "pycrdt", "pydantic_core", "sqlite3"}
_HEAVY_FOR_COMMANDS = _HEAVY - {"websockets", "jwt"} | _NEEDED_BY_NONE


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


# With a room server or host that is not there: until it fails to connect, a command has loaded all but the printing of tables.
_COMMON = (
    "queue send --queue=q --room=r --json={}",
    "queue list --room=r",
    "queue get --queue=q --room=r 1",
    "storage ls --room=r",
    "storage cat --room=r a.txt",
    "room list",
    "host ps",
    "agents list --room=r",
    "messaging send --room=r --to=x --type=t --message={}",
    "messaging list --room=r",
    "tenant list",
    "key list --tenant=acme",
    "schedule list --room=r",
    "token create --room=r --name=x",
)


@pytest.mark.parametrize("command", _COMMON)
def test_a_common_command_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom meshhost.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(code)\n"
    )
    # Coverage would measure the program too, and load modules of its own for that.
    ours = ("MESHHOST_", "OTEL_", "COV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    nowhere = "http://127.0.0.1:9"
    environment |= {
        "MESHHOST_API_URL": nowhere,
        "MESHHOST_HOST_URL": nowhere,
        "MESHHOST_API_KEY": encode_api_key(new_api_key(str(uuid.UUID(int=1)))),
        "MESHHOST_CONFIG_DIR": str(tmp_path),
    }

    done = subprocess.run(
        [sys.executable, "-c", program, *command.split()], capture_output=True, text=True, timeout=30, env=environment
    )

    assert "cannot reach" in done.stderr or done.returncode == 0, done.stderr
    assert _HEAVY_FOR_COMMANDS.isdisjoint(done.stdout.split())


def _commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups below this one, with the words that name them."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, *path, name)


COMMANDS = list(_commands(typer.main.get_command(whole_app())))


def test_the_commands_are_these() -> None:
    expected = {
        "room": "serve list create get services delete export import",
        "service": "run create update validate list show enable disable delete",
        "chatbot": "join",
        "taskrunner": "join",
        "mailbot": "join",
        "voicebot": "join",
        "call": "agent tool toolkit schema",
        "secret": "create update list delete",
        "webhook": "create update list show delete",
        "host": "ps describe stop kill tenants freeze thaw release drain top",
        "queue": "send receive list size get search peek cancel dead replay configure pause resume purge delete drain",
        "schedule": "add list show pause resume remove run-now preview",
        "hook": "create list show test rotate delete",
        "mailbox": "create update list show delete",
        "trace": "list show",
        "storage": "ls cat cp rm",
        "agents": "list list-toolkits invoke-tool ask",
        "mcp": "url check login",
        "messaging": "send broadcast list",
        "token": "create",
        "tenant": "create list show limit rename suspend resume delete export import",
        "key": "create list revoke",
        "db": "check migrate backup restore copy",
    }
    found = {" ".join(path) for path, command in COMMANDS if not hasattr(command, "commands")}
    assert found == {f"{group} {name}" for group, names in expected.items() for name in names.split()} | {
        "setup",
        "chat",
        "logs",
        "usage",
        "studio",
    }


@pytest.mark.parametrize("name", GROUPS)
def test_the_help_says_of_each_group_what_the_group_says_of_itself(name: str) -> None:
    module, text = GROUPS[name]
    assert importlib.import_module(module).app.info.help == text


@pytest.mark.parametrize("name", LONE_COMMANDS)
def test_the_help_says_of_each_command_what_the_command_says_of_itself(name: str) -> None:
    module, text = LONE_COMMANDS[name]
    assert getattr(importlib.import_module(module), name).__doc__.partition("\n\n")[0] == text


@pytest.mark.parametrize(("arguments", "own"), [(["--help"], set()), (["queue", "list", "--help"], {"queue"})])
def test_a_command_loads_its_own_group_only(arguments: list[str], own: set[str]) -> None:
    program = (
        "import sys\nfrom meshhost.cli.main import GROUPS, run\nrun(sys.argv[1:])\n"
        "print(*[name for name, (module, _) in GROUPS.items() if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30)
    assert set(done.stderr.split()) == own


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_has_help_that_fits_a_terminal(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(whole_app(), [*path, "--help"], terminal_width=80)

    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("command", [command for _, command in COMMANDS], ids=[" ".join(path) for path, _ in COMMANDS])
def test_help_is_written_in_whole_sentences(command: Any) -> None:
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    for text in filter(None, texts):
        assert text[0].isupper(), text
        assert text.rstrip().endswith("."), text
    assert command.help


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
    assert got == {"file": "main.py --x", "room": "demo", "json": True, "reload": False, "port": 0, "link": False}

    assert run(["service", "run", "main.py", "--room", "demo", "--reload"]) == 0
    assert got["reload"] is True


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage: meshhost ")
    assert captured.err == ""


def test_bytes_that_are_not_utf_8_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "send", "--queue=q", '--json="caf\udce9"']) == 2
    assert capsys.readouterr().err == "meshhost: argument 4 is not UTF-8\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"_MESHHOST_COMPLETE": "source_bash"}, "complete -o default -F"),
        ({"_MESHHOST_COMPLETE": "complete_bash", "COMP_WORDS": "meshhost que", "COMP_CWORD": "1"}, "queue"),
        ({"_MESHHOST_COMPLETE": "source_zsh"}, "#compdef meshhost"),
    ],
)
def test_the_shell_completes(variables: dict[str, str], said: str) -> None:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "meshhost.cli.main"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)

    assert said in done.stdout


def test_a_closed_standard_output_is_no_error() -> None:
    done = subprocess.run(f"exec {sys.executable} -m meshhost.cli.main --version >&-", shell=True, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_hint_is_not_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "replay", "--queue=q", "--id=x"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("is not a message id: `meshhost queue dead` shows the ids")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["queue", "peek", "--queue=q", "--limit=x"], "'--limit'"),
        (["queue", "peek", "--queue=q", "--limit=0"], "'--limit'"),
    ],
)
def test_a_number_is_still_checked(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_command_line_library_without_lazy_conversion_is_left_alone() -> None:
    option = SimpleNamespace(opts=["--x"])
    command = SimpleNamespace(params=[option], get_help_option=lambda _: None)

    convert_lazily(command)

    assert vars(option) == {"opts": ["--x"]}
    assert command.get_help_option(None) is None


@pytest.mark.parametrize("arguments", [[], *([group] for group in GROUPS)], ids=lambda words: " ".join(words) or "all")
def test_a_list_of_commands_says_whole_sentences_at_80_columns(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*arguments, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("...") and not line.startswith("Usage:")] == []
    assert max(map(len, lines)) <= 80
