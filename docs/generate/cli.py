"""The reference of the command line, from the command tree that `meshhost` itself runs."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from docs.generate.markdown import code, page, table
from meshhost.cli.main import whole_app

__all__ = ["commands", "pages"]

_INTRO = """
`meshhost --version` prints the version. Every command has `--help`. With `--json` a command prints JSON for programs on
stdout; messages for people go to stderr. The exit code is 0 only on success: 1 after an error, which is reported in one line
that says what to do, 2 for wrong usage, 130 when interrupted.
"""


def commands() -> dict[str, Any]:
    """Every command by its words, such as `queue send`, in the order of `--help`."""
    return dict(_walk(typer.main.get_command(whole_app()), ()))


def pages() -> dict[str, str]:
    """The page."""
    found = commands()
    sections = [part for name, command in found.items() for part in _section(name, command)]
    overview = table(("Command", "What it does"), [_overview(name, command) for name, command in found.items()])
    return {"reference/cli.md": page("The `meshhost` command", _INTRO, overview, *sections)}


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if child.hidden:  # MeshAgent's spelling
            continue
        if hasattr(child, "commands"):
            yield from _walk(child, (*words, name))
        else:
            yield " ".join((*words, name)), child


def _overview(name: str, command: Any) -> tuple[str, str]:
    return f"[`meshhost {name}`](#{_anchor(name)})", inspect.cleandoc(command.help).partition("\n\n")[0]


def _anchor(name: str) -> str:
    return f"meshhost-{name.replace(' ', '-')}"


def _section(name: str, command: Any) -> Iterator[str]:
    params = [one for one in command.params if not one.hidden]
    arguments = [one for one in params if one.param_type_name == "argument"]
    options = [one for one in params if one.param_type_name == "option" and "--help" not in one.opts]
    words = [_argument(one) if one.required else f"[{_argument(one)}]" for one in arguments]
    yield f"## `meshhost {name}`"
    yield f"```text\n{' '.join(['meshhost', name, *(['[OPTIONS]'] if options else []), *words])}\n```"
    yield inspect.cleandoc(command.help)
    rows = [(code(_argument(one)), one.help or "", "") for one in arguments]
    rows += [(_option(one), one.help or "", _default(one)) for one in options]
    if rows:
        yield table(("Argument or option", "What it does", "Default"), rows)


def _option(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    names = [*option.opts, *option.secondary_opts]
    return ", ".join(code(f"{name}{value}") for name in names)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    # Typer may keep an object that stands for "not set".
    return code(option.default) if isinstance(option.default, str | int | float) and not option.is_flag else ""


def _argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())
