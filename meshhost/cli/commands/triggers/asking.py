"""Requests of `meshhost schedule` and `meshhost hook` to the room server, with the API key of the user's project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

__all__ = ["ask", "found", "message_of", "wrong_option"]


def ask(method: str, path: str, body: dict[str, Any] | None = None, **query: str | int) -> Any:
    """Send a request; return the JSON of the answer. Raises ConnectionLostError, RoomRefusedError, SettingsError, RoomError."""
    from meshhost.cli.connect import send_json, server_access
    from meshhost.cli.log_output import log_for_command

    log_for_command()
    access = server_access()
    return send_json(access.api_url, access.api_key, method, path, body, query)


def found(entries: Sequence[dict[str, Any]], given: str, what: str) -> dict[str, Any]:
    """Return the entry with this id or name. Raises NotFoundError, also when several have the name."""
    from meshhost.errors import NotFoundError

    for entry in entries:
        if entry["id"] == given:
            return entry
    named = [entry for entry in entries if entry["name"] == given]
    if len(named) > 1:
        raise NotFoundError(
            f"{len(named)} {what}s have the name {given!r}: give the id that `meshhost {what} list` shows"
        )
    if not named:
        raise NotFoundError(f"no {what} {given!r} in this room: `meshhost {what} list` shows them")
    return named[0]


def message_of(message: str | None, file: str | None) -> Any:
    """Return the message that is given by one of two options. Raises BadParameter."""
    from meshhost.cli.json_input import parse_json, read_text

    if (message is None) == (file is None):
        raise typer.BadParameter("give the message with either --message or --file", param_hint="--message")
    if message is not None:
        return parse_json(message, source="--message")
    return parse_json(read_text(str(file), source="--file"), source="--file")


def wrong_option(error: Exception) -> typer.BadParameter:
    """Return the error for an option whose value was refused with `field: what was expected`."""
    field, _, text = str(error).partition(": ")
    return typer.BadParameter(text, param_hint=" or ".join(f"--{name}" for name in field.split(", ")))
