"""Checks what is bound to a path before anybody calls it: is this a class that a host can make agents of?

A host constructs an agent for each call, without arguments or with `call=`, and needs its `start` and `stop`. A mistake in that
would otherwise be a crash with a traceback at each start; here it is one sentence at the decorator. `Route` calls
`check_agent_class`. What cannot be seen without running the program's code is left to the start, where `life` asks
`place_of_call` for the line of the program that is wrong.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshhost.errors import SettingsError

__all__ = ["check_agent_class", "place_of_call"]

_EXPECTED = "expected a class with async methods start(room=…) and stop()"


def check_agent_class(path: str, cls: object) -> None:
    """Raises SettingsError, in one line, for what is no class of agents and no factory of them."""
    where = f"path {path!r}: {_EXPECTED}, not"
    if not isinstance(cls, type):
        if all(callable(getattr(cls, name, None)) for name in ("start", "stop")):
            raise SettingsError(f"{where} an instance of {type(cls).__name__}: the host makes one for each call")
        if inspect.iscoroutinefunction(cls) or inspect.isasyncgenfunction(cls):
            raise SettingsError(f"{where} the function {_name(cls)}")
        if not callable(cls):
            raise SettingsError(f"{where} {_shown(cls)}")
    elif missing := [name for name in ("start", "stop") if not _has_method(cls, name)]:
        raise SettingsError(f"{where} {_name(cls)}: it has no {' and no '.join(missing)}")
    if needed := _needed_arguments(cls):
        made = f"{_name(cls)}({needed[0]}=…)"
        raise SettingsError(
            f"path {path!r}: the host makes {_name(cls)} without arguments, but it needs {', '.join(needed)}: "
            f"pass {'it' if len(needed) == 1 else 'them'} to super().__init__ in a constructor of your own, as in "
            f"super().__init__({needed[0]}=…), or bind a factory: add_path({path!r}, cls=lambda: {made})"
        )


def place_of_call(error: TypeError) -> str | None:
    """Where a constructor called something with wrong arguments, as `main.py, line 12`; None when that is not what happened.

    Such as `super().__init__(name="writer")` of a Worker without its queue. Python raises that in the frame of the caller.
    """
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code.co_name != "__init__" or "argument" not in str(error):
        return None
    return f"{Path(step.tb_frame.f_code.co_filename).name}, line {step.tb_lineno}"


def _has_method(cls: type, name: str) -> bool:
    # A class that makes its attributes up as they are asked for is believed.
    return callable(getattr(cls, name, None)) or hasattr(cls, "__getattr__")


def _needed_arguments(cls: Callable[..., Any]) -> list[str]:
    """The arguments without a default that the host does not give; none when the signature cannot be read."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        one.name
        for one in parameters
        if one.default is inspect.Parameter.empty and one.kind not in optional and one.name != "call"
    ]


def _name(cls: object) -> str:
    return str(getattr(cls, "__name__", cls))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
