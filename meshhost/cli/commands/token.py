"""`meshhost token`: signs participant tokens with the API key of the project.

A token is made here and is valid wherever the key is known, also when no server can be reached. A mistake in it would show only
when a participant joins, so options are checked strictly, and a server that answers is asked whether the key may sign tokens.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from meshhost.cli.connect import ServerAccess
    from meshhost.identity.grants import ApiScope

__all__ = ["app", "expiration_of"]

app = typer.Typer(help="Create tokens for participants.")

_ROLES = ("user", "agent", "tool")
_SECONDS_TO_ASK = 2.0
_LIFETIME = re.compile("([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.callback()
def _group() -> None:
    # Without a callback, typer would make the only command the group itself.
    pass


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Name of the participant.")],
    room: RoomOption = None,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="Role: user, agent or tool.")] = "user",
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="Lifetime, such as 30m, 12h or 7d; or never.")
    ] = "1d",
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            metavar="FILE",
            help="JSON file with the rights (default: all but administration and secrets); - is standard input.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a token with the API key of the project and print it.

    Anyone who has the token can join the room.
    """
    from meshhost.cli.connect import resolve_room, server_access
    from meshhost.cli.output import print_json, print_line
    from meshhost.identity.signing import AGENT_SCOPE, NO_EXPIRATION, room_token

    if role not in _ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(_ROLES)}", param_hint="--role")
    if not name.strip():
        raise typer.BadParameter("expected a name", param_hint="--name")
    expiration, room_name = expiration_of(lifetime), resolve_room(room)
    rights = AGENT_SCOPE if scope is None else _read_scope(scope).to_json()
    access = server_access()
    _check_key(access)
    jwt = room_token(access.api_key, room_name, name=name, role=role, scope=rights, expiration=expiration)
    if not as_json:
        print_line(jwt)
        return
    expires_at = None if expiration == NO_EXPIRATION else expiration.isoformat(timespec="seconds")
    print_json({"token": jwt, "room": room_name, "name": name, "role": role, "expires_at": expires_at})


def _check_key(access: ServerAccess) -> None:
    """Raise SettingsError when the server says that the key is a viewer's; do nothing when it cannot be asked."""
    from meshhost.cli.connect import get_json
    from meshhost.cli.managing import tenant_path
    from meshhost.errors import MeshhostError, SettingsError
    from meshhost.identity.keys import parse_api_key
    from meshhost.identity.roles import Role

    try:
        known = list(get_json(access, tenant_path(access.project_id, "keys"), timeout=_SECONDS_TO_ASK)["keys"])
    except (MeshhostError, KeyError, TypeError):
        return
    own = parse_api_key(access.api_key).id
    if any(key.get("id") == own and key.get("role") == Role.VIEWER for key in known):
        raise SettingsError(
            "the API key is a viewer's, and a token signed by it opens no room: use a developer's or an admin's key"
        )


def expiration_of(lifetime: str) -> datetime:
    """The time at which what is made now with this lifetime expires. Raises BadParameter."""
    from datetime import UTC

    from meshhost.identity.signing import NO_EXPIRATION

    if lifetime == "never":
        return NO_EXPIRATION
    match = _LIFETIME.fullmatch(lifetime)
    if match is None:
        raise typer.BadParameter("expected a time such as 30m, 12h or 7d, or never", param_hint="--lifetime")
    try:
        return datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise typer.BadParameter("too long: use never", param_hint="--lifetime") from None


def _read_scope(path: str) -> ApiScope:
    from pydantic import ValidationError

    from meshhost.cli.json_input import parse_object, read_text
    from meshhost.identity.grants import ApiScope
    from meshhost.validation import first_problem

    scope = parse_object(read_text(path, source="--scope"), source="--scope")
    # ApiScope ignores unknown sections, but a misspelt one would be a missing right that nobody notices.
    unknown = next((section for section in scope if section not in ApiScope.model_fields), None)
    if unknown is not None:
        sections = ", ".join(ApiScope.model_fields)
        raise typer.BadParameter(f"{unknown!r} is unknown: expected one of {sections}", param_hint="--scope")
    try:
        return ApiScope.model_validate(scope)
    except ValidationError as error:
        where, message = first_problem(error)
        raise typer.BadParameter(f"{where}: {message}", param_hint="--scope") from None
