"""`meshhost`: puts all command groups together and runs the command of `sys.argv`.

Loaded for every command, so everything here counts for `meshhost --help`: see the docstring of the package.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from meshhost import __version__
from meshhost.cli.commands import agents, db, host, key, messaging, queue, room, storage, tenant, token
from meshhost.cli.commands.chat import chat
from meshhost.cli.commands.host.logs import logs
from meshhost.cli.commands.setup import setup
from meshhost.cli.commands.triggers import hook, schedule
from meshhost.cli.errors import USAGE, run_guarded
from meshhost.cli.options import JsonOption, RoomOption
from meshhost.cli.output import note, print_line, use_safe_streams

__all__ = ["app", "main", "run"]

_COMPLETION = "_MESHHOST_COMPLETE"


class _Group(typer.core.TyperGroup):
    """A group whose own `--help` option does not load pydantic.

    Typer 0.29 gives the option no value when it is absent, and then imports pydantic to convert that, before it comes to the
    `--help` of the command itself.
    """

    def get_help_option(self, ctx: Any) -> Any:
        """The option, off by default."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


# Plain help, since rich takes as long to load as everything else. No options for shell completion, since typer converts them
# with pydantic before it shows the help of any command.
app = typer.Typer(
    help="Host AI agents: rooms, queues, tools and services.",
    cls=_Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
service = typer.Typer(help="Run the agents of a program.")

app.command()(setup)
app.add_typer(room.app, name="room", cls=_Group)
app.add_typer(service, name="service", cls=_Group)
app.add_typer(host.app, name="host", cls=_Group)
app.add_typer(queue.app, name="queue", cls=_Group)
app.add_typer(schedule.app, name="schedule", cls=_Group)
app.add_typer(hook.app, name="hook", cls=_Group)
app.add_typer(storage.app, name="storage", cls=_Group)
app.add_typer(agents.app, name="agents", cls=_Group)
app.command()(chat)
app.command()(logs)
app.add_typer(messaging.app, name="messaging", cls=_Group)
app.add_typer(token.app, name="token", cls=_Group)
app.add_typer(tenant.app, name="tenant", cls=_Group)
app.add_typer(key.app, name="key", cls=_Group)
app.add_typer(db.app, name="db", cls=_Group)


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
    elif not arguments:
        arguments = ["--help"]
    command = typer.main.get_command(app)
    return run_guarded(lambda: command.main(args=list(arguments), prog_name="meshhost", standalone_mode=False))


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print_line(f"meshhost {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Must not import anything: it runs before the help of every command.
    pass


@service.callback()
def _service_group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@service.command("run")
def _run_service(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help='The program with its arguments, such as main.py or "main.py --verbose".'),
    ],
    room: RoomOption = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart the program when a Python file in its folder changes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the program in FILE and call the agent of each of its paths into the room."""
    from meshhost.cli.commands.service import run as run_service
    from meshhost.cli.connect import resolve_room

    run_service(file=file, room=resolve_room(room), json=as_json, reload=reload)


if __name__ == "__main__":
    main()
