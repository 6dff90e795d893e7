"""What the commands of this package have in common: requests about the user's project, finding by name, specs from files.

A path here is below the project of the key that is used, so that no command can ask about another project by mistake.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["ask_project", "found", "quoted", "say", "spec_of"]

_MOST_BYTES = 1024 * 1024


def ask_project(method: str, path: str, body: dict[str, Any] | None = None, **query: str | int) -> Any:
    """Send a request about the project of the key; return the JSON of the answer.

    Raises ConnectionLostError, RoomRefusedError, SettingsError or RoomError.
    """
    from meshhost.cli.connect import send_json, server_access
    from meshhost.cli.log_output import log_for_command

    log_for_command()
    access = server_access()
    whole = f"/accounts/projects/{access.project_id}/{path}"
    return send_json(access.api_url, access.api_key, method, whole, body, query)


def found(path: str, member: str, given: str) -> dict[str, Any]:
    """Return what the list at a path has with this id or name. Raises NotFoundError."""
    from meshhost.errors import NotFoundError

    entries: list[dict[str, Any]] = ask_project("GET", path)[member]
    for entry in entries:
        if given in (entry.get("id"), entry.get("name"), entry.get("metadata", {}).get("name")):
            return entry
    what = member.removesuffix("s")
    raise NotFoundError(f"no {what} {given!r}: `meshhost {what} list` shows them")


def quoted(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="")


def spec_of(path: str) -> dict[str, Any]:
    """Return the object in a YAML or JSON file; - is standard input. Raises BadParameter, or SettingsError for a library."""
    import json

    import typer

    from meshhost.cli.json_input import read_text
    from meshhost.errors import SettingsError

    text = read_text(path, source="--file")
    if len(text) > _MOST_BYTES:
        raise typer.BadParameter(f"{path}: expected at most {_MOST_BYTES} bytes", param_hint="--file")
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError):
        try:
            import yaml
        except ImportError:
            raise SettingsError(
                "YAML files need a library more: pip install 'meshhost[yaml]'; JSON needs none"
            ) from None
        try:
            spec = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise typer.BadParameter(f"{path} is neither JSON nor YAML: {error}", param_hint="--file") from None
    if not isinstance(spec, dict):
        raise typer.BadParameter(f"{path}: expected an object with version, kind, metadata", param_hint="--file")
    return spec


def say(answer: Any, text: str, *, as_json: bool) -> None:
    """Print the answer as JSON, or the text."""
    from meshhost.cli.output import print_json, print_text

    if as_json:
        print_json(answer)
    else:
        print_text(text)
