"""Turns a command line of MeshAgent into ours, before it is parsed. See `spellings.py`.

Three options are read as MeshAgent's everywhere: `--project-id ID`, which must be the project of the key that is used, since a
command for another project must not be done here; `--output json` (or `-o json`), which is our `--json`; and `--output table`.
"""

from collections.abc import Mapping, Sequence

from meshhost.cli.meshagent.spellings import INSTEAD, OPTIONS, SAME

__all__ = ["NotOfferedError", "translated"]

_MOST_WORDS = 3
_OUTPUT = ("-o", "--output")


class NotOfferedError(Exception):
    """A command of MeshAgent that meshhost does not have; `format_message` is what run_guarded shows."""

    exit_code = 2

    def format_message(self) -> str:
        """What to use instead."""
        return str(self)


def translated(arguments: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Return the arguments of our command. `known` are our commands and groups.

    Raises NotOfferedError for what is not here, and SettingsError for `--project-id` without a key.
    """
    begin = _longest(SAME, arguments)
    # What is not here goes before another name, where its entry is longer.
    if len(_longest(INSTEAD, arguments)) <= len(begin):
        arguments = [*SAME.get(begin, begin), *arguments[len(begin) :]]
    _refuse_what_is_not_here(arguments, known)
    return _with_our_options(arguments, OPTIONS.get(tuple(_words(arguments)[:2]), {}))


def _refuse_what_is_not_here(arguments: Sequence[str], known: Sequence[str]) -> None:
    begin = _longest(INSTEAD, arguments)
    # `token create` is ours, and `token --input FILE` is MeshAgent's.
    is_ours = len(begin) == 1 and begin[0] in known
    if not begin or (is_ours and (len(_words(arguments)) > 1 or len(arguments) == 1 or "--help" in arguments)):
        return
    raise NotOfferedError(f"{' '.join(begin)}: meshhost {INSTEAD[begin]}")


def _longest(table: Mapping[tuple[str, ...], object], arguments: Sequence[str]) -> tuple[str, ...]:
    """The longest entry that the arguments begin with; empty when there is none."""
    words = _words(arguments)
    for count in range(min(len(words), _MOST_WORDS), 0, -1):
        if tuple(words[:count]) in table:
            return tuple(words[:count])
    return ()


def _words(arguments: Sequence[str]) -> list[str]:
    """The words at the beginning, which name the command."""
    found: list[str] = []
    for argument in arguments:
        if argument.startswith("-"):
            break
        found.append(argument)
    return found


def _with_our_options(arguments: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*found, argument, *left]
        name, equals, value = argument.partition("=")
        if name == "--project-id" or (name in _OUTPUT and (value or (left[0] if left else "")) in ("json", "table")):
            if not equals:
                value = left.pop(0) if left else ""
            if name == "--project-id":
                _check_project(value)
            elif value == "json":
                found.append("--json")
            continue
        found += _ours(name, f"{equals}{value}", renamed)
    return found


def _ours(name: str, value: str, renamed: Mapping[str, str]) -> list[str]:
    """An option under our name; the value begins with "=" if it has one."""
    ours = renamed.get(name, name)
    if ours.startswith("!"):
        raise NotOfferedError(f"{name}: meshhost {ours[1:]}")
    if ours == "" and name:  # an argument here
        return [value.removeprefix("=")] if value else []
    return [f"{ours}{value}"]


def _check_project(project_id: str) -> None:
    from meshhost.cli.connect import server_access

    if server_access().project_id != project_id:
        raise NotOfferedError(
            f"--project-id {project_id}: the API key is of another project: set MESHHOST_API_KEY to one of that project"
        )
