"""Spares a command the conversion of values that need none.

Since 0.29, typer converts each value of a command with pydantic, also texts and defaults, which takes a third of the time of a
short command: pydantic must be loaded. `convert_lazily` puts a look in front of typer's conversion (`get_runtime_param`, which
typer calls when it has a value): what is there already, a text where a text is wanted, a default or nothing, is taken as it is.
Everything else, such as the number of `--limit 5`, goes to typer. The option `--help` is made at its first use and has no
value when it is absent; it gets one, which needs no conversion. A typer without that method, older or newer, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["convert_lazily"]


def convert_lazily(command: Any) -> None:
    """Spare this command, and those of the group if it is one, needless conversions."""
    for child in getattr(command, "commands", {}).values():
        convert_lazily(child)
    command.get_help_option = partial(_help_option, command.get_help_option)
    for parameter in command.params:
        by_typer = getattr(parameter, "get_runtime_param", None)
        annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
        if by_typer is not None and annotation is not None:
            first = _First(annotation, by_typer)
            parameter.get_runtime_param = lambda first=first: first


def _help_option(by_typer: Callable[[Any], Any], ctx: Any) -> Any:
    option = by_typer(ctx)
    if option is not None:
        option.default = False
    return option


class _First:
    """What typer asks to convert the values of one parameter."""

    def __init__(self, annotation: Any, by_typer: Callable[[], Any]) -> None:
        self._annotation = annotation
        self._by_typer = by_typer

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command wants it. Raises typer's error of usage."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, list | tuple) and all(isinstance(x, str) for x in value):
            return list(value)
        if isinstance(self._annotation, type) and isinstance(value, self._annotation) and value == param.default:
            return value
        return self._by_typer().coerce(value, param=param, ctx=ctx)
