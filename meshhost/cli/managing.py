"""Sends requests that manage tenants and keys: as the operator, else with the user's API key.

The operator's key comes from the environment or from the file that a room server of this user wrote (`meshhost.app.operator`).
Without one the user's API key is shown, which may see and manage the keys of its own tenant only.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["NO_OPERATOR_KEY", "bearer", "confirm", "delete_all_of", "manage", "tenant_path"]

NO_OPERATOR_KEY = "no operator's key: run this as the user who runs `meshhost room serve`, or set MESHHOST_OPERATOR_KEY"


def tenant_path(tenant: str, *more: str) -> str:
    """The path of a tenant, by name or id, and of what belongs to it."""
    return "/".join(["/tenants", *(quote(part, safe="") for part in (tenant, *more))])


def bearer() -> str:
    """Return the operator's key, else the user's API key. Raises SettingsError."""
    from meshhost.app.operator import find_operator_key
    from meshhost.app.project import api_key_of
    from meshhost.client_settings import read_client_settings
    from meshhost.errors import SettingsError

    settings = read_client_settings()
    found = find_operator_key(settings)
    if found is not None:
        return found
    try:
        return api_key_of(settings)
    except SettingsError:
        raise SettingsError(NO_OPERATOR_KEY) from None


def manage(method: str, path: str, body: dict[str, Any] | None = None, **query: str | int) -> Any:
    """Send a request; returns the JSON of the answer.

    Raises ConnectionLostError, RoomRefusedError, SettingsError or RoomError.
    """
    from meshhost.cli.connect import send_json, server_url
    from meshhost.cli.log_output import log_for_command
    from meshhost.errors import RoomRefusedError

    log_for_command()
    try:
        return send_json(server_url(), bearer(), method, path, body, query)
    except RoomRefusedError as error:
        # The server was shown the user's API key, of which this command said nothing.
        if error.status != 403 or "operator's key" not in str(error) or _has_operator_key():
            raise
        raise RoomRefusedError(f"{error}; {NO_OPERATOR_KEY}", status=error.status) from None


def _has_operator_key() -> bool:
    from meshhost.app.operator import find_operator_key
    from meshhost.client_settings import read_client_settings

    return find_operator_key(read_client_settings()) is not None


def confirm(what: str, *, yes: bool) -> None:
    """Ask whether something may be deleted for good. Raises Abort unless the answer is yes."""
    import typer

    if not yes:
        typer.confirm(f"Delete {what} with everything in it, for good?", abort=True, err=True)


def delete_all_of(path: str, what: str) -> dict[str, Any]:
    """Delete a tenant or room, and wait for the end; says on stderr that it goes on. Returns the answer. Raises as `manage`."""
    from meshhost.cli.output import note
    from meshhost.errors import RoomRefusedError

    answer = manage("DELETE", path)
    while not answer["deleted"]:
        note(f"deleting {what}: nobody can use it any more, and its data is being removed")
        try:
            answer = manage("DELETE", path)
        except RoomRefusedError as error:
            if error.status != 404:
                raise
            answer = answer | {"deleted": True}
    return dict(answer)
