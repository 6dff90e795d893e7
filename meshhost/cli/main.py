"""`meshhost`: puts the command groups together and runs the command of `sys.argv`.

Loaded for every command, so everything here counts for `meshhost --help`: see the docstring of the package. To load a group and
make its options takes several milliseconds, so a command loads its own group only; of the others `GROUPS` has name and help, as
`COMMANDS` has of the commands without a group.
"""

import gc
import os
import sys
from collections.abc import Container, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from meshhost import __version__
from meshhost.cli.conversion import convert_lazily
from meshhost.cli.errors import USAGE, run_guarded
from meshhost.cli.meshagent.translating import NotOfferedError, translated
from meshhost.cli.output import note, print_line, use_safe_streams
from meshhost.errors import MeshhostError

__all__ = ["COMMANDS", "GROUPS", "main", "run", "whole_app"]

_COMPLETION = "_MESHHOST_COMPLETE"


_COMMANDS = "meshhost.cli.commands"
# By the name of each group, in the order of the help: its module, and what the help says of it.
GROUPS = {
    "room": (f"{_COMMANDS}.room", "Run a room server, list its rooms and their services."),
    "service": ("meshhost.cli.service", "Run the agents of a program, and have a room server call those of others."),
    "chatbot": (f"{_COMMANDS}.joining.chatbot", "Run a chat bot in a room, without a program."),
    "taskrunner": (
        f"{_COMMANDS}.joining.taskrunner",
        "Run an agent that answers prompts in a room, without a program.",
    ),
    "mailbot": (f"{_COMMANDS}.joining.mailbot", "Run an agent that answers mail in a room, without a program."),
    "voicebot": (f"{_COMMANDS}.joining.voicebot", "Run an agent that people talk with in a room, without a program."),
    "call": (f"{_COMMANDS}.joining.call", "Call an agent or a toolkit of a running host into a room."),
    "host": (f"{_COMMANDS}.host", "Inspect and control a service host."),
    "queue": (f"{_COMMANDS}.queue", "Send to, receive from and manage the queues of a room."),
    "schedule": (
        f"{_COMMANDS}.triggers.schedule",
        "Send messages at certain times: cron lines, intervals and single times.",
    ),
    "mailbox": (f"{_COMMANDS}.triggers.mailbox", "Let mail for an address go to a queue."),
    "hook": (f"{_COMMANDS}.triggers.hook", "Let foreign services, such as GitHub or Stripe, send to a queue."),
    "trace": (f"{_COMMANDS}.trace", "Show where the time of messages went: traces of a room."),
    "secret": (f"{_COMMANDS}.configured.secret", "Keep secrets of a tenant for its services and providers."),
    "webhook": (f"{_COMMANDS}.configured.webhook", "Send events of rooms to a URL."),
    "storage": (f"{_COMMANDS}.storage", "Read and write the files of a room."),
    "agents": (f"{_COMMANDS}.agents", "List and use the agents and tools of a room."),
    "mcp": (f"{_COMMANDS}.mcp", "Use a room from an IDE, and try MCP servers."),
    "messaging": (f"{_COMMANDS}.messaging", "List the participants of a room, and send messages."),
    "token": (f"{_COMMANDS}.token", "Create tokens for participants."),
    "tenant": (f"{_COMMANDS}.tenants.tenant", "Manage the tenants of a room server, as its operator."),
    "key": (f"{_COMMANDS}.tenants.key", "Manage the API keys of a tenant."),
    "db": (f"{_COMMANDS}.db", "Check, migrate, back up, restore and copy the databases of a room server."),
}


# Of MeshAgent's command line: run as the others, but not in the help, where each command has one spelling.
HIDDEN_GROUPS = {
    "api-key": f"{_COMMANDS}.configured.api_key",
    "project": f"{_COMMANDS}.configured.project",
    "scheduled-task": f"{_COMMANDS}.triggers.scheduled_task",
}


# The same of the commands without a group; the function in the module has the name of the command.
COMMANDS = {
    "setup": (f"{_COMMANDS}.setup", "Make the local project and its API key, unless they exist."),
    "chat": (f"{_COMMANDS}.chat", "Talk with an agent."),
    "logs": (
        f"{_COMMANDS}.host.logs",
        "Show what a service host and its agents have logged, from the last 2000 records that it keeps.",
    ),
    "usage": (f"{_COMMANDS}.tenants.usage", "Show what was used of models, and what it cost."),
    "studio": (f"{_COMMANDS}.studio", "Print a link that opens Studio in a browser."),
}


def whole_app() -> typer.Typer:
    """All commands, for shell completion, the reference and tests."""
    return _app_of([*GROUPS, *COMMANDS])


def hidden_app(name: str) -> Any:
    """The group of MeshAgent's command line with this name."""
    return import_module(HIDDEN_GROUPS[name]).app


def _app_of(loaded: Container[str]) -> typer.Typer:
    """The commands, of which those groups and commands that are named here can be run; of the others only name and help."""
    # Plain help, since rich takes as long to load as everything else. No options for shell completion, since typer converts
    # them with pydantic before it shows the help of any command.
    app = typer.Typer(
        help="Host AI agents: rooms, queues, tools and services.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    for name, (module, text) in COMMANDS.items():
        if name in loaded:
            app.command(name)(getattr(import_module(module), name))
        else:
            app.command(name, help=text)(_nothing)
    for name, (module, text) in GROUPS.items():
        group = import_module(module).app if name in loaded else typer.Typer(help=text, callback=_nothing)
        app.add_typer(group, name=name)
    for name in HIDDEN_GROUPS:
        if name in loaded:
            app.add_typer(hidden_app(name), name=name, hidden=True)
    return app


def _nothing() -> None:
    """A group or command that is not loaded runs nothing."""


def main() -> None:
    """Run the command of `sys.argv` and end the process with its exit code."""
    use_safe_streams()
    if sys.argv[1:2] != ["service"] and sys.argv[1:3] != ["room", "serve"]:
        # What a short command loads stays until its end: to look for garbage in it meanwhile takes 7 % of the time.
        gc.set_threshold(100_000)
    if sys.argv[1:2] != ["service"]:  # whose program inherits the environment
        # To find its plugins, pydantic reads the metadata of every installed package. No command needs any.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # noqa: TID251 - not read
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0, 1 after an error, 2 for wrong usage, 130 when interrupted.

    Without arguments, the help is printed.
    """
    # The command line is bytes; those that are not UTF-8 arrive as lone surrogates, which nothing can store or print.
    for number, argument in enumerate(arguments, 1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            note(f"meshhost: argument {number} is not UTF-8")
            return USAGE
    if _COMPLETION in os.environ:  # noqa: TID251 - asked for by the shell, not a setting
        # Set by the script that `_MESHHOST_COMPLETE=source_bash meshhost` prints. Loaded only then: it is slow.
        from typer._completion_classes import completion_init

        completion_init()
        app = whole_app()
    else:
        try:
            arguments = translated(arguments or ["--help"], [*GROUPS, *COMMANDS, *HIDDEN_GROUPS])
        except (NotOfferedError, MeshhostError) as error:
            return run_guarded(lambda error=error: _fail(error))  # type: ignore[misc]
        app = _app_of(_named_first(arguments))
    command = typer.main.get_command(app)
    convert_lazily(command)
    _say_whole_sentences(command)
    return run_guarded(lambda: command.main(args=list(arguments), prog_name="meshhost", standalone_mode=False))


def _fail(error: Exception) -> None:
    raise error


def _say_whole_sentences(command: Any) -> None:
    """Let lists of commands wrap what they say of each; of itself click cuts it off at 80 columns."""
    for one in getattr(command, "commands", {}).values():
        if one.short_help is None and one.help:
            sentence, end, _ = " ".join(one.help.partition("\n\n")[0].split()).partition(". ")
            one.short_help = sentence + end.strip()
        _say_whole_sentences(one)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print_line(f"meshhost {__version__}")
        raise typer.Exit


def _named_first(arguments: Sequence[str]) -> Sequence[str]:
    """The first word that is no option, which names the command: the options before it take no values."""
    return [argument for argument in arguments if not argument.startswith("-")][:1]


def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Must not import anything: it runs before the help of every command.
    pass


if __name__ == "__main__":
    main()
