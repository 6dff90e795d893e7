"""Command lines of MeshAgent's documentation, and what meshhost makes of each.

`0.6.txt` and `0.50.txt` have the distinct command lines of those releases, with placeholders for names, files and texts. The
how-to about migrating shows what became of them, and a test holds how many are understood.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from meshhost.cli.main import COMMANDS, GROUPS, HIDDEN_GROUPS, hidden_app, whole_app
from meshhost.cli.meshagent.translating import NotOfferedError, translated

__all__ = ["GENERATIONS", "Understood", "understood"]

GENERATIONS = ("0.6", "0.50")
_KNOWN = (*GROUPS, *COMMANDS, *HIDDEN_GROUPS)


@dataclass(frozen=True, slots=True)
class Understood:
    """A command line, and the one of ours that it runs, what is said to use instead, or why it is not understood."""

    line: str
    ours: str | None = None
    instead: str | None = None
    problem: str | None = None


def understood(generation: str) -> list[Understood]:
    """Read each command line of a generation without running it."""
    app = whole_app()
    for name in HIDDEN_GROUPS:
        app.add_typer(hidden_app(name), name=name)
    command = typer.main.get_command(app)
    text = (Path(__file__).parent / f"{generation}.txt").read_text()
    return [_read(command, line) for line in text.splitlines() if line]


def _read(command: Any, line: str) -> Understood:
    # The project is compared with that of a key, and there is none here.
    given = [word for word in line.split() if not word.startswith("--project-id")]
    try:
        arguments = [word for word in translated(given, _KNOWN) if word != "--help"]
        return Understood(line, ours=_parsed(command, arguments))
    except NotOfferedError as error:
        return Understood(line, instead=str(error))
    except Exception as error:  # noqa: BLE001 - of click, which typer brings its own copy of
        text = str(error)
        is_answer = "meshhost " in text and type(error).__name__ == "BadParameter"
        return (
            Understood(line, instead=text) if is_answer else Understood(line, problem=f"{type(error).__name__}: {text}")
        )


def _parsed(command: Any, arguments: list[str]) -> str:
    """Parse the arguments to the last option; return the name of the command."""
    names: list[str] = []
    parent = None
    while arguments and hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(parent, arguments)
        names.append(name)
        parent = command.context_class(command, info_name=name, parent=parent)
    if not hasattr(command, "commands"):
        command.make_context(names[-1], list(arguments))
    return " ".join(names)
